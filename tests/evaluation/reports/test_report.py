"""Reports: written, read back, shown as a page that needs nothing else, and compared."""

import base64
import html.parser
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ursa_cli.main import main
from ursa_core.errors import DataError, UsageError
from ursa_core.evaluation.reports.page import chosen, write_page
from ursa_core.evaluation.reports.report import (
    Report,
    Sample,
    Score,
    Table,
    compare,
    read_report,
    write_report,
)
from ursa_core.media import write_media

Captured = pytest.CaptureFixture[str]


def report(right: list[bool], values: list[float], suite: str = "shapes", seed: int = 0) -> Report:
    samples = [
        Sample(f"{k:02d}.mp4", f"a <b>{k}</b> & more", {"colour": good, "error": value}, value)
        for k, (good, value) in enumerate(zip(right, values, strict=True))
    ]
    scores = [
        Score("colour", sum(right) / len(right), 0.1, 0.9, "share", len(right), 0.125),
        Score("error", float(np.mean(values)), unit="dB"),
        Score("lost", None, unit="share"),
    ]
    table = Table("Beside", ("MODEL", "X"), [("<ours>", 1.5), ("none", None)], "a note")
    settings = {"model": "nano", "seed": seed}
    return Report(suite, settings, False, scores, [table], samples, ("judge: 0.4 % wrong",))


class Page(html.parser.HTMLParser):
    """What a browser would see: texts, pictures, and anything that it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.pictures: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.pictures.append(found["src"] or "")
        elif tag in ("script", "link", "iframe", "object"):
            self.loaded.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = report([True, False, True], [1.0, 2.5, 3.0])
    write_report(tmp_path, made)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    found = read_report(tmp_path)
    assert json.dumps(found.to_json()) == json.dumps(made.to_json())
    assert found.scores[0] == made.scores[0]
    assert found == read_report(tmp_path / "report.json")


DAMAGED = (
    '{"format": 1, "suite": "a", "settings": {}, "complete": true, "tables": [], "notes": [],'
    ' "scores": [{"name": "a", "value": %s}],'
    ' "samples": [{"name": "b", "caption": "", "values": %s}]}'
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no report"),
        ("{", "can't be read"),
        ("[1]", "is no report of ursa eval"),
        ('{"scores": []}', "is no report of ursa eval"),
        ('{"format": 2}', "has format 2, this version reads 1"),
        ('{"format": 1, "suite": "a"}', "is damaged"),
        (DAMAGED % ('"many"', "{}"), "damaged: scores.0.value: Input should be a valid number"),
        (DAMAGED % ("NaN", "{}"), "isn't finite"),
        (DAMAGED % ("1", '{"a": "x"}'), "damaged: samples.0.values.a"),
        (DAMAGED % ("1", "3"), "damaged: samples.0.values"),
    ],
)
def test_other_files_are_no_reports(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        read_report(tmp_path)
    assert caught.value.hint


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """The page of ten samples, the first of which is missing, with a plot of its own."""
    made = report([True, False] * 5, [float(k) for k in range(10)])
    rng = np.random.default_rng(0)
    samples = tmp_path / "samples"
    samples.mkdir()
    for sample in made.samples[1:]:
        write_media(samples / sample.name, rng.integers(0, 255, (9, 32, 48, 3), np.uint8), 8.0)
    plot = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plot, "png")
    page = Page()
    page.feed(write_page(tmp_path, made, samples, {"extra": plot.getvalue()}).read_text())
    return page


def test_the_page_needs_nothing_else_and_shows_pictures(page: Page) -> None:
    assert not page.loaded
    sizes = []
    for source in page.pictures:
        assert source.startswith("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            image.load()
            sizes.append(image.size)
    assert (4, 4) in sizes
    assert sizes.count((48 * 5 + 8, 32 + 8)) == 8  # strips of best, median, worst; one is missing


def test_the_page_shows_what_a_reader_must_know(page: Page) -> None:
    text = " ".join(page.texts)
    for words in ("12.5 %", "missing", "<ours>", "a <b>0</b> & more", "Incomplete", "judge: 0.4 %"):
        assert words in text
    assert "00.mp4 doesn't exist" in text


def test_best_median_and_worst_samples_are_chosen() -> None:
    made = report([True, False] * 5, [float(k) for k in range(10)])
    names = {title: [s.name for s in group] for title, group in chosen(made.samples).items()}
    assert names["Best"] == ["09.mp4", "08.mp4", "07.mp4"]
    assert names["Worst"] == ["00.mp4", "01.mp4", "02.mp4"]
    assert len({name for group in names.values() for name in group}) == 9


@dataclass(frozen=True)
class Pair:
    """Two reports: 60 samples, of which some become right, and all gain 0.3 of the error."""

    before: np.ndarray
    after: np.ndarray
    a: Report
    b: Report


@pytest.fixture(scope="module")
def pair() -> Pair:
    rng = np.random.default_rng(1)
    before = rng.random(60) < 0.4
    after = before | (rng.random(60) < 0.6)
    values = rng.normal(0, 1, 60)
    a = report(before.tolist(), values.tolist())
    return Pair(before, after, a, report(after.tolist(), (values + 0.3).tolist(), seed=4))


@pytest.fixture
def written(pair: Pair, tmp_path: Path) -> list[str]:
    """The command that compares them."""
    for name, each in (("a", pair.a), ("b", pair.b)):
        write_report(tmp_path / name, each)
    return ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")]


def test_shares_are_compared_pair_by_pair(pair: Pair) -> None:
    colour = compare(pair.a, pair.b).differences[0]
    assert colour.interval is not None
    assert colour.interval.low > 0.1
    assert colour.interval.value == pytest.approx(pair.after.mean() - pair.before.mean())
    assert colour.p is not None
    assert colour.p < 1e-4
    changed = np.flatnonzero(pair.after & ~pair.before)
    assert colour.gained == tuple(f"{k:02d}.mp4" for k in changed)
    assert colour.lost == ()


def test_means_are_compared_pair_by_pair(pair: Pair) -> None:
    _, error, lost = compare(pair.a, pair.b).differences
    assert len(error.gained) == 60
    assert error.interval is not None
    assert error.interval.value == pytest.approx(0.3)
    assert error.p is None
    assert (lost.a, lost.interval) == (None, None)


def test_a_report_does_not_differ_from_itself(pair: Pair) -> None:
    same = compare(pair.a, pair.a).differences[0]
    assert same.interval is not None
    assert same.interval.low <= 0 <= same.interval.high
    assert same.p == 1.0


def test_the_command_prints_and_draws_differences(
    pair: Pair, written: list[str], tmp_path: Path, capsys: Captured
) -> None:
    plot = tmp_path / "plot.png"
    assert main([*written, "--plot", str(plot)]) == 0
    shown = capsys.readouterr().out
    assert " *" in shown
    assert "colour, gained: " in shown
    assert f"error, gained: {compare(pair.a, pair.b).differences[1].gained[0]}, " in shown
    assert "seed: 0 and 4" in shown
    with Image.open(plot) as image:
        assert image.width > 300
    assert main([*written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"][0]["num"] == 60


def test_the_command_replaces_no_plot_and_needs_reports(
    written: list[str], tmp_path: Path, capsys: Captured
) -> None:
    plot = tmp_path / "plot.png"
    plot.touch()
    assert main([*written, "--plot", str(plot)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*written[:3], str(tmp_path)]) == 1
    assert "there is no report" in capsys.readouterr().err


def test_reports_of_two_suites_or_other_samples(tmp_path: Path) -> None:
    a, b = report([True] * 4, [1.0] * 4), report([True] * 6, [1.0] * 6)
    assert compare(a, b).only_b == ("04.mp4", "05.mp4")
    assert compare(a, b).differences[0].num == 4
    with pytest.raises(UsageError, match="shapes can't be compared with one of vbench"):
        compare(a, report([True], [1.0], "vbench"))
