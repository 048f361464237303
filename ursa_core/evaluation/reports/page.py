"""A report as one HTML page with its pictures inside."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ursa_core import files
from ursa_core.errors import UrsaError
from ursa_core.evaluation.reports.plots import histograms, scores_plot
from ursa_core.evaluation.reports.report import PAGE, Report, Sample, Score, Table
from ursa_core.media import contact_sheet, read_media

NUM_SHOWN = 6
"""Samples of each kind on the sample grid: best, median and worst."""

_FRAMES_SHOWN = 5
_MAX_HEIGHT_PX = 128
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto; }
th { font-size: .8rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; border-bottom: 1px solid #8884; }
td.number { text-align: right; }
img { max-width: 100%; background: #fff; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .82rem; overflow-wrap: anywhere; }
.wrong { color: #b3372f; } .incomplete { border-left: 4px solid #b3372f; padding-left: .8rem; }
.quiet { opacity: .75; }
"""


def write_page(
    folder: Path, report: Report, samples_in: Path, plots: Mapping[str, bytes] | None = None
) -> Path:
    """Write ``report.html`` into a folder.

    Args:
        folder: Folder to write to.
        report: Report to show.
        samples_in: Folder of the sampled files.
        plots: Further pictures, PNG by title.

    Raises:
        DataError: It can't be written.
    """
    path = folder / PAGE
    files.write(path, page(report, samples_in, plots or {}))
    return path


def page(report: Report, samples_in: Path, plots: Mapping[str, bytes]) -> str:
    """The page's HTML."""
    title = f"ursa eval {report.suite}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="quiet">{html.escape(_origin(report))}</p>',
    ]
    if not report.complete:
        parts.append('<p class="incomplete">Incomplete: this is no result of the whole.</p>')
    parts += [f"<p>{html.escape(note)}</p>" for note in report.notes]
    parts += ["<h2>Scores</h2>", _scores_table(report.scores)]
    parts += [_picture("Scores", scores_plot(group)) for group in _of_one_unit(report.scores)]
    parts += [_picture(name, png) for name, png in plots.items()]
    spread = histograms(report.samples, report.scores)
    if spread is not None:
        parts += ["<h2>Spread over samples</h2>", _picture("Spread over samples", spread)]
    parts += [_table(table) for table in report.tables]
    parts += _sheet(report.samples, samples_in)
    parts += ["<h2>Settings</h2>", _settings(report.settings), "</body></html>"]
    return "\n".join(parts) + "\n"


def _origin(report: Report) -> str:
    settings = report.settings
    shown = [f"{name} {settings[name]}" for name in ("model", "seed", "ursa") if name in settings]
    return ", ".join([*shown, f"{len(report.samples)} samples"])


def _of_one_unit(scores: Sequence[Score]) -> list[list[Score]]:
    """Scores that can share an axis; single ones need no plot."""
    units: dict[str, list[Score]] = {}
    for score in scores:
        if score.value is not None:
            units.setdefault(score.unit, []).append(score)
    return [group for group in units.values() if len(group) > 1]


def _scores_table(scores: Sequence[Score]) -> str:
    header = ("SCORE", "VALUE", "95 % INTERVAL", "SAMPLES", "CHANCE")
    rows = [
        (score.name, score.text, score.interval_text, score.num, score.chance_text)
        for score in scores
    ]
    return _table(Table("", header, rows))


def _table(table: Table) -> str:
    def cell(value: object) -> str:
        kind = ' class="number"' if isinstance(value, int | float) else ""
        return f"<td{kind}>{html.escape('' if value is None else str(value))}</td>"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in table.rows)
    title = f"<h2>{html.escape(table.title)}</h2>" if table.title else ""
    note = f'<p class="quiet">{html.escape(table.note)}</p>' if table.note else ""
    return f"{title}<table><tr>{head}</tr>{rows}</table>{note}"


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(name, quote=True)}" src="data:image/png;base64,{data}">'


def chosen(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Best, median and worst (the worst first) ranked samples, ``NUM_SHOWN`` of each at most."""
    ranked = sorted(
        (sample for sample in samples if sample.rank is not None),
        key=lambda sample: (-(sample.rank or 0), sample.name),
    )
    each = max(1, min(NUM_SHOWN, len(ranked) // 3))
    middle = (len(ranked) - each) // 2
    if len(ranked) < 3:
        return {"Samples": ranked} if ranked else {}
    return {
        "Best": ranked[:each],
        "Median": ranked[middle : middle + each],
        "Worst": ranked[: -each - 1 : -1],
    }


def _sheet(samples: Sequence[Sample], samples_in: Path) -> list[str]:
    parts = []
    for title, group in chosen(samples).items():
        shown = [_figure(sample, samples_in / sample.name) for sample in group]
        parts.append(f'<h2>{title}</h2><div class="sheet">{"".join(shown)}</div>')
    return parts


def _figure(sample: Sample, file: Path) -> str:
    try:
        shown = _picture(sample.name, strip(file))
    except UrsaError as error:
        shown = f'<p class="wrong">{html.escape(error.message)}</p>'
    is_wrong = any(value is False for value in sample.values.values())
    wrong = ' class="wrong"' if is_wrong else ""
    verdict = f"<br><span{wrong}>{html.escape(sample.verdict)}</span>" if sample.verdict else ""
    return (
        f"<figure>{shown}<figcaption>{html.escape(sample.caption)}{verdict}</figcaption></figure>"
    )


def strip(file: Path) -> bytes:
    """Some frames of a file side by side, first and last among them, as PNG.

    Raises:
        DataError: It can't be read.
    """
    frames = read_media(file).frames
    image = Image.fromarray(contact_sheet([frames], columns=1, num_shown=_FRAMES_SHOWN))
    if image.height > _MAX_HEIGHT_PX and len(frames) > 1:
        scale = _MAX_HEIGHT_PX / image.height
        image = image.resize((max(1, round(image.width * scale)), _MAX_HEIGHT_PX))
    encoded = io.BytesIO()
    image.save(encoded, "png", optimize=True)
    return encoded.getvalue()


def _settings(settings: Mapping[str, object]) -> str:
    rows = [(name, _shown(value)) for name, value in settings.items()]
    return _table(Table("", ("OPTION", "VALUE"), rows))


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
