"""The figures of a run over its steps: ``metrics.jsonl``, a JSON object a line."""

import contextlib
import json
from pathlib import Path

from ursa_core import files
from ursa_core.files import parse_json
from ursa_core.training.learner import Progress

METRICS = "metrics.jsonl"


def log_figures(
    run: Path, step: int, seconds: float, figures: dict[str, float], now: Progress | None = None
) -> None:
    """Add a line.

    Args:
        run: folder of the run.
        step: after which.
        seconds: of training until then.
        figures: by name.
        now: rates, and why the step was left out, if it was.
    """
    line: dict[str, float | str] = {"step": step, "seconds": round(seconds, 2), **figures}
    if now is not None:
        line["items_per_second"] = round(now.items_per_second, 2)
        if now.tokens_per_second is not None:
            line["tokens_per_second"] = round(now.tokens_per_second, 1)
        if now.data_wait is not None:
            line["data_wait"] = round(now.data_wait, 5)
        if now.rate_share is not None:
            line["matrix_rate_share"] = round(now.rate_share, 4)
        if now.fault is not None:
            line["skipped"] = now.fault
    with (run / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def cut_figures(run: Path, steps: int) -> None:
    """Leave out what a killed run wrote after its last checkpoint: these steps come again."""
    file = run / METRICS
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(ValueError):  # the last one may be cut short
            kept += [line + "\n"] if parse_json(line, finite=False)["step"] <= steps else []
    files.write(file, "".join(kept))
