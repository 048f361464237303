"""`ursa eval compare`: what differs between two reports, and how surely."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ursa_cli.options import shared as options
from ursa_cli.terminal import output
from ursa_core import files
from ursa_core.errors import UsageError

if TYPE_CHECKING:
    from ursa_core.evaluation.reports.comparison import Comparison, Difference

_NUM_SHOWN = 5

ReportOption = Annotated[
    Path, options.argument(None, "Folder of an evaluation, or its report.json.")
]


def compare(
    a: ReportOption,
    b: ReportOption,
    plot: Annotated[
        Path | None, options.option("PNG", "Draw the differences, too.", parser=options.new_path)
    ] = None,
    as_json: options.Json = False,
    force: options.Force = False,
) -> None:
    """Show what differs between two reports of one suite: B minus A, with 95 % intervals.

    Over the samples that both have: Newcombe's interval and McNemar's exact
    test where samples are right or wrong, else the paired bootstrap. Names
    samples that changed.

    Examples:
      ursa eval compare shapes-before shapes-after
      ursa eval compare a b --plot differences.png --json
    """
    output.configure(as_json=as_json)
    from ursa_core.evaluation.reports.comparison import compare as compared
    from ursa_core.evaluation.reports.report import read_report

    if plot is not None:
        from ursa_core.media import check_output

        if plot.suffix.lower() != ".png":
            raise UsageError(f"the plot is a PNG, and {plot} is named otherwise", "give NAME.png")
        check_output(plot, force)
    found = compared(read_report(a), read_report(b))
    if plot is not None:
        from ursa_core.evaluation.reports.plots import differences_plot

        named = [(each.name, each.interval) for each in found.differences if each.interval]
        units = {each.unit for each in found.differences if each.interval}
        files.write(plot, differences_plot(named, units.pop() if len(units) == 1 else ""))
    output.data(asdict(found), lines=_lines(found))


def _lines(found: "Comparison") -> list[str]:
    rows = [_row(each) for each in found.differences]
    header = ("SCORE", "A", "B", "B - A", "95 % INTERVAL", "P", "GAINED", "LOST", "SAMPLES")
    lines = output.table(header, rows)
    for each in found.differences:
        for what, names in (("gained", each.gained), ("lost", each.lost)):
            if names:
                shown = ", ".join(names[:_NUM_SHOWN]) + (", …" if len(names) > _NUM_SHOWN else "")
                lines.append(f"{each.name}, {what}: {shown}")
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            lines.append(f"{len(only)} samples are in {name} alone and aren't compared")
    settings = [
        f"{key}: {first} and {second}" for key, (first, second) in found.other_settings.items()
    ]
    return [*lines, *(["other settings: " + "; ".join(settings)] if settings else [])]


def _row(each: "Difference") -> tuple[str, ...]:
    from ursa_core.evaluation.reports.report import number

    def text(value: float | None) -> str:
        return "missing" if value is None else number(value, each.unit)

    change = interval = ""
    if each.interval is not None:
        mark = "" if each.interval.low <= 0 <= each.interval.high else " *"
        change = text(each.interval.value) + mark
        interval = f"{text(each.interval.low)} – {text(each.interval.high)}"
    p = "" if each.p is None else f"{each.p:.3g}"
    counts = (str(len(each.gained)), str(len(each.lost)), str(each.num)) if each.num else ("",) * 3
    return (each.name, text(each.a), text(each.b), change, interval, p, *counts)
