"""The only printer: data goes to stdout, all messages to stderr.

Names and metadata of files may hold anything, even what sets a terminal's title or turns the
direction of text. So characters that control a terminal are printed as escapes.
"""

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

from ursa_core.amounts import duration, size
from ursa_core.places import addressed

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is reported without a terminal."""
_UNBOUNDED = 1 << 16

# C0 and C1 controls, line and paragraph separators, marks of direction, and lone surrogates.
_CONTROLS = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass
class _Mode:
    as_json: bool = False
    quiet: bool = False
    without_bar: Callable[[], AbstractContextManager[None]] = nullcontext
    """Clears a progress bar while something is printed."""


_mode = _Mode()


def configure(*, as_json: bool = False, quiet: bool = False) -> None:
    """Choose what this run prints: one JSON object, or paths only without notes and progress."""
    _mode.as_json, _mode.quiet = as_json, quiet


def data(
    payload: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    *,
    lines: Iterable[str] | None = None,
    paths: Iterable[object] = (),
) -> None:
    """Print a command's result to stdout in the chosen form.

    Args:
        payload: Object for ``--json``, or what makes it; its keys are part of the interface.
        lines: Text for people; None prints the paths.
        paths: Files written, all that ``--quiet`` prints.
    """
    if _mode.as_json:
        shown: Iterable[object] = [_json(payload() if callable(payload) else payload)]
    elif _mode.quiet or lines is None:
        shown = paths
    else:
        shown = lines
    with _mode.without_bar():
        for line in shown:
            print(printable(str(line)))  # noqa: T201
        sys.stdout.flush()


def printable(text: str) -> str:
    """A text in one line, control characters as Python's escapes, mirrors as their addresses."""
    shown = addressed(text)
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)


def _json(payload: Mapping[str, Any]) -> str:
    """An object in one line, with JSON's escapes for what stdout can't encode."""
    import json

    text = json.dumps(payload, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8", "surrogatepass")
    except UnicodeEncodeError:
        return json.dumps(payload, default=str).replace("\x7f", "\\u007f")
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table with aligned columns; columns of numbers are flush right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for k in range(len(header)):
        numeric = bool(rows) and all(isinstance(row[k], int | float) for row in rows)
        grid.add_column(justify="right" if numeric else "left", no_wrap=True)
    for row in (header, *rows):
        grid.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console(width=_UNBOUNDED, color_system=None, force_terminal=False)
    with console.capture() as shown:
        console.print(grid)
    return [line.rstrip() for line in shown.get().splitlines()]


def fitting_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table with as many of its columns as fit the terminal; elsewhere all of them."""
    rows, num = list(rows), len(header)
    lines = table(header, rows)
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else _UNBOUNDED
    while num > 1 and max(map(len, lines)) > width:
        num -= 1
        lines = table(header[:num], [row[:num] for row in rows])
    left_out = len(header) - num
    return [*lines, f"({left_out} more columns don't fit the terminal)"] if left_out else lines


def wrapped(text: str) -> list[str]:
    """Lines of a long text that fit the terminal, the later ones indented; elsewhere one line."""
    text = printable(text)
    if not is_terminal(sys.stdout):
        return [text]
    from rich.console import Console
    from rich.text import Text

    width = shutil.get_terminal_size().columns - 2
    first, *rest = Text(text).wrap(Console(width=width), width)  # emoji are two columns wide
    return [first.plain.rstrip(), *(f"  {line.plain.rstrip()}" for line in rest)]


def note(*texts: str) -> None:
    """Print notes on stderr, unless ``--quiet``."""
    for text in () if _mode.quiet else texts:
        _say("", text)


def warn(*texts: str) -> None:
    """Warn on stderr; the run goes on."""
    for text in texts:
        _say("warning", text, "33")


def hint(text: str) -> None:
    """Print on stderr what the user can do."""
    _say("hint", text, "36")


def error(text: str, *faults: str) -> None:
    """Print on stderr what went wrong, and further lines of it."""
    _say("error", text, "31")
    for line in faults:
        _say("", line)


def cause(error: BaseException) -> None:
    """Print the traceback of an error on stderr."""
    for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
        _say("", line)


@contextmanager
def progress(total: int, label: str, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A function that advances a progress display on stderr: ``advance(1, "loss 0.5")``.

    ``total`` counts steps, or bytes, that are shown as such. Those of an earlier, interrupted run
    come as ``advance(n, earlier=True)``, from which on time counts if nothing came before. The
    display is a bar on a terminal; elsewhere a line every ten seconds and at the end of longer
    work; with ``--quiet`` nothing.
    """
    if _mode.quiet:
        yield lambda *_, **__: None
    elif is_terminal(sys.stderr):
        from tqdm import tqdm

        shown: dict[str, Any] = {"unit": "B" if in_bytes else "it", "unit_scale": in_bytes}
        with tqdm(total=total, desc=printable(label), file=sys.stderr, leave=False, **shown) as bar:

            def advance_bar(steps: int = 1, text: str = "", *, earlier: bool = False) -> None:
                if text:
                    bar.set_postfix_str(printable(text), refresh=False)
                if earlier:
                    if bar.initial == bar.n:
                        bar.unpause()
                    bar.initial = bar.n + steps
                bar.update(steps)

            _mode.without_bar = tqdm.external_write_mode
            try:
                yield advance_bar
            finally:
                _mode.without_bar = nullcontext
    else:
        yield _lines(total, label, in_bytes)


def _lines(total: int, label: str, in_bytes: bool) -> Callable[..., None]:
    begun = start = last = said = time.monotonic()
    done = first = 0

    def advance(steps: int = 1, text: str = "", *, earlier: bool = False) -> None:
        nonlocal done, first, last, said, start, begun
        now = time.monotonic()
        done += steps
        if earlier:
            first += steps
            if first == done:
                begun = start = now
        elif first < done - steps and start == begun:
            # The first step had a model to load, and predicts little of those to come.
            start, first = last, done - steps
        last = now
        is_end = done >= total and said > begun
        if is_end or now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = (now - start) / max(done - first, 1) * max(total - done, 0)
            so_far = f"{size(done)} of {size(total)}" if in_bytes else f"{done}/{total}"
            _say("", f"{label}: {so_far}, {duration(left)} left{', ' if text else ''}{text}")

    return advance


def _say(kind: str, text: str, colour: str = "") -> None:
    prefix = f"{kind}: " if kind else ""
    if prefix and is_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
        prefix = f"\x1b[{colour};1m{kind}:\x1b[0m "
    with _mode.without_bar():
        print(f"{prefix}{printable(text)}", file=sys.stderr, flush=True)  # noqa: T201


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands more than text."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"
