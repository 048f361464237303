"""Sizes and times as people say them."""


def size(num_bytes: float | None) -> str:
    """Bytes for people, as ``15.9 MB``; None is unknown."""
    if num_bytes is None:
        return "unknown"
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Time for people, as ``1.5 s``, ``25 minutes``, ``3.5 hours`` or ``12 days``."""
    units = ((172_800, 86_400, "days"), (5_400, 3_600, "hours"), (90, 60, "minutes"), (0, 1, "s"))
    factor, unit = next((factor, unit) for least, factor, unit in units if seconds >= least)
    number = seconds / factor
    return f"{number:.{2 if 0 < number < 1 else 1 if 0 < number < 10 else 0}f} {unit}"
