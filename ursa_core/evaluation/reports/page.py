"""A report as one HTML page with its pictures inside."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ursa_core import files
from ursa_core.errors import UrsaError
from ursa_core.evaluation.reports.plots import histograms, scores_plot
from ursa_core.evaluation.reports.report import PAGE, Report, Sample, Score, Table
from ursa_core.media import contact_sheet, read_media

NUM_SHOWN = 6  # samples of each kind on the sample grid: best, median and worst
_FRAMES_SHOWN, _MAX_HEIGHT_PX = 5, 128
_STYLE = Path(__file__).with_name("page.css")


def write_page(
    folder: Path, report: Report, samples_in: Path, plots: Mapping[str, bytes] | None = None
) -> Path:
    """Write ``report.html``, with sampled files of ``samples_in`` and ``plots``, PNG by title."""
    title, settings = escape(f"ursa eval {report.suite}"), report.settings
    origin = [f"{name} {settings[name]}" for name in ("model", "seed", "ursa") if name in settings]
    style = _STYLE.read_text(encoding="utf-8")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>\n{style}</style></head><body>',
        f"<h1>{title}</h1>",
        f'<p class="quiet">{escape(", ".join([*origin, f"{len(report.samples)} samples"]))}</p>',
    ]
    if not report.complete:
        parts.append('<p class="incomplete">Incomplete: this is no result of the whole.</p>')
    parts += [f"<p>{escape(note)}</p>" for note in report.notes]
    header = ("SCORE", "VALUE", "95 % INTERVAL", "SAMPLES", "CHANCE")
    rows = [(s.name, s.text, s.interval_text, s.num, s.chance_text) for s in report.scores]
    parts += ["<h2>Scores</h2>", _table(Table("", header, rows))]
    parts += [_picture("Scores", scores_plot(group)) for group in _of_one_unit(report.scores)]
    parts += [_picture(name, png) for name, png in (plots or {}).items()]
    spread = histograms(report.samples, report.scores)
    if spread is not None:
        parts += ["<h2>Spread over samples</h2>", _picture("Spread over samples", spread)]
    parts += [_table(table) for table in report.tables]
    for name, group in chosen(report.samples).items():
        shown = [_figure(sample, samples_in / sample.name) for sample in group]
        parts.append(f'<h2>{name}</h2><div class="sheet">{"".join(shown)}</div>')
    values = [(name, _shown(value)) for name, value in settings.items()]
    parts += ["<h2>Settings</h2>", _table(Table("", ("OPTION", "VALUE"), values)), "</body></html>"]
    path = folder / PAGE
    files.write(path, "\n".join(parts) + "\n")
    return path


def _of_one_unit(scores: Sequence[Score]) -> list[list[Score]]:
    """Scores that can share an axis; single ones need no plot."""
    units: dict[str, list[Score]] = {}
    for score in scores:
        if score.value is not None:
            units.setdefault(score.unit, []).append(score)
    return [group for group in units.values() if len(group) > 1]


def _table(table: Table) -> str:
    def cell(value: object) -> str:
        kind = ' class="number"' if isinstance(value, int | float) else ""
        return f"<td{kind}>{escape('' if value is None else str(value))}</td>"

    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    title = f"<h2>{escape(table.title)}</h2>" if table.title else ""
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    return f"{title}<table><tr>{head}</tr>{rows}</table>{note}"


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def chosen(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Best, median and worst (the worst first) ranked samples, ``NUM_SHOWN`` of each at most."""
    ranked = [sample for sample in samples if sample.rank is not None]
    ranked.sort(key=lambda sample: (-(sample.rank or 0), sample.name))
    if len(ranked) < 3:
        return {"Samples": ranked} if ranked else {}
    each = min(NUM_SHOWN, len(ranked) // 3)
    middle = (len(ranked) - each) // 2
    median = ranked[middle : middle + each]
    return {"Best": ranked[:each], "Median": median, "Worst": ranked[: -each - 1 : -1]}


def _figure(sample: Sample, file: Path) -> str:
    try:
        shown = _picture(sample.name, _strip(file))
    except UrsaError as error:
        shown = f'<p class="wrong">{escape(error.message)}</p>'
    wrong = ' class="wrong"' if any(value is False for value in sample.values.values()) else ""
    verdict = f"<br><span{wrong}>{escape(sample.verdict)}</span>" if sample.verdict else ""
    return f"<figure>{shown}<figcaption>{escape(sample.caption)}{verdict}</figcaption></figure>"


def _strip(file: Path) -> bytes:
    """Some frames of a file side by side, first and last among them, as PNG."""
    frames = read_media(file).frames
    image = Image.fromarray(contact_sheet([frames], columns=1, num_shown=_FRAMES_SHOWN))
    if image.height > _MAX_HEIGHT_PX and len(frames) > 1:
        scale = _MAX_HEIGHT_PX / image.height
        image = image.resize((max(1, round(image.width * scale)), _MAX_HEIGHT_PX))
    encoded = io.BytesIO()
    image.save(encoded, "png", optimize=True)
    return encoded.getvalue()


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
