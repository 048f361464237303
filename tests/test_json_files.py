"""JSON from outside: what no reader can take is refused, with one kind of error."""

import json

import pytest

from ursa_core.batches.part_files import rows_of
from ursa_core.bundle.folder import read_json
from ursa_core.errors import DataError
from ursa_core.evaluation.reports.report import read_report
from ursa_core.files import MAX_DEPTH, parse_json, parse_object
from ursa_core.media import read_media, write_media

DEEP = "[" * 100_000
HOSTILE = {
    "deep": (DEEP, "nested more than"),
    "a little too deep": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than"),
    "400 digits": ("1" * 400, "more than 300 digits"),
    "beyond Python's digits": ("1" * 5000, "more than 300 digits"),
    "NaN": ("[NaN]", "NaN isn't finite"),
    "infinity": ("[-Infinity]", "isn't finite"),
    "beyond floats": ("[1e400]", "1e400 isn't finite"),
    "half a character": (r'["\ud83d"]', r"U\+D83D"),
    "not JSON": ("{", "Expecting"),
    "not UTF-8": (b'"\xff"', "utf-8"),
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_what_no_reader_can_take_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_the_rest_is_read_as_it_is():
    value = {"a": [1, -2.5, True, None, "é🦊"], "b": {"c": 10**30}, "d": 2**64}
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_json("[NaN, 1e400]", finite=False)[1] == float("inf")
    with pytest.raises(ValueError, match="no JSON object"):
        parse_object("[]")


@pytest.mark.parametrize("text", [t for t, _ in HOSTILE.values()], ids=HOSTILE)
def test_every_reader_names_the_file(tmp_path, text):
    file = tmp_path / "report.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for reader in (read_json, read_report):
        with pytest.raises((DataError, Exception), match=r"report\.json") as caught:
            reader(file)
        assert hasattr(caught.value, "hint")
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(DataError, match="line 1"):
        list(rows_of(file))


def test_a_picture_with_a_hostile_comment_is_still_a_picture(tmp_path):
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    file, pixels = tmp_path / "a.png", np.full((1, 8, 8, 3), 70, np.uint8)
    write_media(file, pixels, 1, {"prompt": "a"})
    for text, _ in HOSTILE.values():
        info = PngInfo()
        info.add_text("comment", text if isinstance(text, str) else text.decode("latin1"))
        Image.fromarray(pixels[0]).save(file, pnginfo=info)
        found = read_media(file)
        assert np.array_equal(found.frames, pixels)
        assert "prompt" not in found.metadata
