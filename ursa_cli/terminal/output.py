"""The only printer: data goes to stdout, everything said about it to stderr.

Names of files and what they tell of themselves may hold anything, also what sets a terminal's title
or turns the direction of text. So characters that control a terminal are printed as escapes.
"""

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is told where there is no terminal."""

# C0 and C1 controls, line and paragraph separators, marks of direction, and lone surrogates.
_CONTROLS = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass
class _Mode:
    as_json: bool = False
    quiet: bool = False
    beside_bar: Callable[[], AbstractContextManager[None]] = nullcontext
    """Takes a bar off the terminal while something is printed."""


_mode = _Mode()


def configure(*, as_json: bool = False, quiet: bool = False) -> None:
    """Choose what the rest of this run prints.

    Args:
        as_json: ``data`` prints one JSON object.
        quiet: ``data`` prints paths only; no notes, no progress.
    """
    _mode.as_json, _mode.quiet = as_json, quiet


def data(
    payload: Mapping[str, Any],
    *,
    lines: Iterable[str] | None = None,
    paths: Iterable[object] = (),
) -> None:
    """Print a command's result to stdout in the form asked for.

    Args:
        payload: The object for ``--json``; its keys are part of the interface.
        lines: Text for people; the paths where None.
        paths: What was written, all that ``--quiet`` prints.
    """
    if _mode.as_json:
        shown: Iterable[object] = [_json(payload)]
    elif _mode.quiet or lines is None:
        shown = paths
    else:
        shown = lines
    with _mode.beside_bar():
        for line in shown:
            print(printable(str(line)))  # noqa: T201
        sys.stdout.flush()


def printable(text: str) -> str:
    """A text in one line, whose control characters are escapes, as in Python."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _json(payload: Mapping[str, Any]) -> str:
    """An object in one line; escapes are those of JSON, also for what stdout can't encode."""
    text = json.dumps(payload, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8", "surrogatepass")
    except UnicodeEncodeError:
        return json.dumps(payload, default=str).replace("\x7f", "\\u007f")
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table with aligned columns; columns of numbers are flush right."""
    rows = list(rows)
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in [list(header), *cells]) for k in range(len(header))]
    numeric = [
        bool(rows) and all(isinstance(row[k], int | float) for row in rows)
        for k in range(len(header))
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [list(header), *cells]
    ]


def fitting_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table with as many of its columns as a terminal is wide; elsewhere all of them."""
    rows = list(rows)
    lines = table(header, rows)
    if not _is_terminal(sys.stdout):
        return lines
    width, num = shutil.get_terminal_size().columns, len(header)
    while num > 1 and max(map(len, lines)) > width:
        num -= 1
        lines = table(header[:num], [row[:num] for row in rows])
    left_out = len(header) - num
    return [*lines, f"({left_out} more columns don't fit the terminal)"] if left_out else lines


def wrapped(text: str) -> list[str]:
    """Lines of a long text that fit a terminal, the later ones indented; elsewhere one line."""
    text = printable(text)
    if not _is_terminal(sys.stdout):
        return [text]
    from rich.console import Console
    from rich.text import Text

    width = shutil.get_terminal_size().columns - 2
    first, *rest = Text(text).wrap(Console(width=width), width)  # emoji are two columns wide
    return [first.plain.rstrip(), *(f"  {line.plain.rstrip()}" for line in rest)]


def size(num_bytes: float) -> str:
    """Bytes as people read them, as ``15.9 MB``."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def note(text: str) -> None:
    """Say something on stderr, unless ``--quiet``."""
    if not _mode.quiet:
        _say("", text)


def warn(text: str) -> None:
    """Warn on stderr; the run goes on."""
    _say("warning", text, "33")


def hint(text: str) -> None:
    """Tell on stderr what the user can do."""
    _say("hint", text, "36")


def error(text: str) -> None:
    """Say on stderr what went wrong; exit codes are the error boundary's."""
    _say("error", text, "31")


def cause(error: BaseException) -> None:
    """Show on stderr where an error was raised."""
    for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
        _say("", line)


@contextmanager
def progress(total: int, label: str, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A function that advances a progress display on stderr: ``advance(1, "loss 0.5")``.

    Steps that were done before, by an interrupted run, come as ``advance(n, earlier=True)``.
    A bar on a terminal; elsewhere one line every ten seconds and one at the end, if it took that
    long; nothing with ``--quiet``.

    Args:
        total: Steps in all.
        label: What is being done.
        in_bytes: Steps are bytes, and shown as such.
    """
    if _mode.quiet:
        yield lambda *_, **__: None
    elif _is_terminal(sys.stderr):
        from tqdm import tqdm

        unit = "B" if in_bytes else "it"
        with tqdm(
            total=total,
            desc=printable(label),
            file=sys.stderr,
            leave=False,
            unit=unit,
            unit_scale=in_bytes,
        ) as bar:

            def advance_bar(steps: int = 1, text: str = "", *, earlier: bool = False) -> None:
                if text:
                    bar.set_postfix_str(printable(text), refresh=False)
                if earlier:
                    bar.initial = bar.n + steps
                bar.update(steps)

            _mode.beside_bar = tqdm.external_write_mode
            try:
                yield advance_bar
            finally:
                _mode.beside_bar = nullcontext
    else:
        yield _lines(total, label, in_bytes)


def _lines(total: int, label: str, in_bytes: bool) -> Callable[..., None]:
    begun = start = last = said = time.monotonic()
    done = first = 0

    def advance(steps: int = 1, text: str = "", *, earlier: bool = False) -> None:
        nonlocal done, first, last, said, start
        now = time.monotonic()
        done += steps
        if earlier:
            first += steps
        elif first < done - steps and start == begun:
            # The first step had a model to load, and tells little of those to come.
            start, first = last, done - steps
        last = now
        is_end = done >= total and said > begun
        if is_end or now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = (now - start) / max(done - first, 1) * max(total - done, 0)
            so_far = f"{size(done)} of {size(total)}" if in_bytes else f"{done}/{total}"
            _say("", f"{label}: {so_far}, {left:.0f} s left{', ' if text else ''}{text}")

    return advance


def _say(kind: str, text: str, colour: str = "") -> None:
    prefix = f"{kind}: " if kind else ""
    if prefix and _is_colourful(sys.stderr):
        prefix = f"\x1b[{colour};1m{kind}:\x1b[0m "
    with _mode.beside_bar():
        print(f"{prefix}{printable(text)}", file=sys.stderr, flush=True)  # noqa: T201


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_colourful(stream: TextIO) -> bool:
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")
