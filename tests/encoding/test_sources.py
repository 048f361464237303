"""Finding media and their captions, and naming what is wrong with caption tables."""

import json
import os
from pathlib import Path

import pytest

from ursa_core.encoding.captions import Metadata, read_caption_file, read_metadata
from ursa_core.encoding.sources import find_sources
from ursa_core.errors import DataError


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_folders_are_searched_in_a_stable_order_with_captions(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    touch(root / "b.MP4")
    touch(root / "b.txt", "\ufeffa boat\n\n a ship \na boat\n")
    touch(root / "a" / "z.png")
    touch(root / "a" / "notes.md")
    touch(root / ".cache" / "x.mp4")
    touch(root / ".x.mp4")
    found = find_sources([root])
    assert [source.name for source in found] == ["clips/a/z.png", "clips/b.MP4"]
    assert [source.captions for source in found] == [(), ("a boat", "a ship")]
    assert find_sources([root / "b.MP4", root, root / "b.MP4"]) == [found[1], found[0]]


def test_named_files_take_their_folders_metadata_and_any_suffix(tmp_path: Path) -> None:
    clip = touch(tmp_path / "v" / "clip.xyz")
    touch(tmp_path / "v" / "metadata.csv", 'file_name,text\nclip.xyz,"a boat, at sea"\n')
    (source,) = find_sources([clip])
    assert source.name == "v/clip.xyz"
    assert source.captions == ("a boat, at sea",)


def test_metadata_above_covers_folders_below_and_lists_missing_files(tmp_path: Path) -> None:
    rows = [{"path": "s/a.mp4", "captions": ["one", "two"]}, {"path": "gone.mp4", "prompt": "x"}]
    touch(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    touch(tmp_path / "s" / "a.mp4")
    touch(tmp_path / "s" / "a.txt", "three")
    found = find_sources([tmp_path])
    assert [(s.path.name, s.captions) for s in found] == [
        ("gone.mp4", ("x",)),
        ("a.mp4", ("one", "two")),
    ]


def test_files_of_one_name_from_two_folders_both_count(tmp_path: Path) -> None:
    files = [touch(tmp_path / side / "v" / "a.mp4") for side in "ab"]
    found = find_sources(files)
    assert [(source.name, source.path) for source in found] == [("v/a.mp4", f) for f in files]


def test_missing_inputs_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="doesn't exist"):
        find_sources([tmp_path / "absent.mp4"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video or image"):
        find_sources([tmp_path / "empty"])


def test_linked_folders_are_read_once_and_the_rest_is_told(tmp_path: Path) -> None:
    root, beside = tmp_path / "clips", tmp_path / "more"
    for path in (root / "z" / "a.m2ts", root / "d.MTS", root / "e.jfif", beside / "b.mp4"):
        touch(path)
    touch(beside / "b.txt", "a boat")
    for name in ("c.heic", "d.txt", "list.csv", ".hidden"):
        touch(root / name)
    (root / "metadata.csv").write_text("file,text\nx.odd,x\n")
    touch(root / "x.odd")
    for link, target in (("l", beside), ("m", beside), ("a", root / "z"), ("up", tmp_path)):
        (root / link).symlink_to(target)
    (beside / "back").symlink_to(root)
    left_out: list[Path] = []
    found = find_sources([root], on_left_out=left_out.append)
    names = ["d.MTS", "e.jfif", "l/b.mp4", "x.odd", "z/a.m2ts"]
    assert [source.name for source in found] == [f"clips/{name}" for name in names]
    assert found[2].captions == ("a boat",)
    assert sorted(left_out) == [root / "c.heic", root / "up"]
    again: list[Path] = []
    assert find_sources([root, beside / "b.mp4"], again.append) == found
    assert again == [beside / "b.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_unreadable_folders_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (tmp_path / "locked").mkdir(mode=0)
    left_out: list[Path] = []
    assert len(find_sources([tmp_path], on_left_out=left_out.append)) == 1
    assert left_out == [tmp_path / "locked"]


def test_jsonl_keeps_line_separators_and_adds_rows_of_one_file(tmp_path: Path) -> None:
    rows = [{"file": "a.mp4", "caption": "a\u2028b"}, {"file": "a.mp4", "text": "c"}]
    touch(tmp_path / "metadata.jsonl", "\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    assert read_metadata(tmp_path).captions == {tmp_path / "a.mp4": ("a\u2028b", "c")}
    assert read_metadata(tmp_path.parent) == Metadata()


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c"])
def test_lines_end_where_editors_end_them(separator: str, tmp_path: Path) -> None:
    caption = f"a red{separator}boat"
    touch(tmp_path / "a.txt", f"{caption}\r\na ship\rx\n")
    assert read_caption_file(tmp_path / "a.mp4") == (caption, "a ship", "x")
    touch(tmp_path / "metadata.csv", f'file,caption\r\na.mp4,{caption}\r\nb.mp4,"x\ny"\r\nc\r\n')
    found = read_metadata(tmp_path)
    assert found.captions == {tmp_path / "a.mp4": (caption,), tmp_path / "b.mp4": ("x\ny",)}
    assert [path.name for path in found.faults] == ["metadata.csv:5"]


def test_null_is_absent(tmp_path: Path) -> None:
    rows = [
        {"file": None, "path": "a.mp4", "short_caption": None, "long_caption": "a ramp"},
        {"file": "b.mp4", "captions": [None, "x"]},
        {"file": "c.mp4", "text": None},
        {"file": None, "text": "x"},
    ]
    touch(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    found = read_metadata(tmp_path)
    captions = {path.name: captions for path, captions in found.captions.items()}
    assert captions == {"a.mp4": ("a ramp",), "b.mp4": ("x",), "c.mp4": ()}
    assert [fault.message for fault in found.faults.values()] == [
        f"{tmp_path / 'metadata.jsonl'}:4: no file name"
    ]


def test_texts_that_no_file_can_hold_cost_their_row(tmp_path: Path) -> None:
    rows = [
        '{"file": "a\\u0000.mp4", "text": "x"}',
        '{"file": "\\ud800.mp4", "text": "x"}',
        '{"file": "b.mp4", "text": "\\ud800"}',
        '{"file": "c.mp4", "text": ' + "[" * 100_000,
        '{"file": "d.mp4", "text": "fine"}',
    ]
    touch(tmp_path / "metadata.jsonl", "\n".join(rows))
    found = read_metadata(tmp_path)
    assert found.captions == {tmp_path / "d.mp4": ("fine",)}
    assert len(found.faults) == 4


def test_names_of_caption_files_have_any_case(tmp_path: Path) -> None:
    row = json.dumps({"file": "a.mp4", "caption": "a boat"})
    (source,) = find_sources([touch(tmp_path / "LIST.JSONL", row)])
    assert source.captions == ("a boat",)
    touch(tmp_path / "METADATA.JSONL", row)
    assert read_metadata(tmp_path).captions == {tmp_path / "a.mp4": ("a boat",)}
    touch(tmp_path / "b.TXT", "a ship")
    assert read_caption_file(tmp_path / "b.MP4") == ("a ship",)


def test_faulty_jsonl_names_every_line(tmp_path: Path) -> None:
    lines = [
        '{"file": "a.mp4", "caption": "fine"}',
        '{"file": "b.mp4"',
        '{"caption": "no file"}',
        "[1]",
        "",
        '{"file": "c.mp4", "caption": 3}',
        '{"file": "../d.mp4", "caption": "x"}',
        '{"file": "e.mp4", "name": "x"}',
    ]
    touch(tmp_path / "metadata.jsonl", "\n".join(lines))
    found = read_metadata(tmp_path)
    faults = {path.name: fault for path, fault in found.faults.items()}
    for name, complaint in {
        "metadata.jsonl:2": "metadata.jsonl:2: not JSON",
        "metadata.jsonl:3": "no file name",
        "metadata.jsonl:4": "not a JSON object",
        "c.mp4": "metadata.jsonl:6: caption is neither",
        "metadata.jsonl:7": "'../d.mp4' lies outside",
        "e.mp4": "metadata.jsonl:8: no caption",
    }.items():
        assert complaint in faults.pop(name).message
    assert not faults
    assert found.captions == {tmp_path / "a.mp4": ("fine",)}
    assert "one object a line" in found.faults[tmp_path / "metadata.jsonl:2"].hint
    assert "columns" in found.faults[tmp_path / "metadata.jsonl:3"].hint

    touch(tmp_path / "a.mp4")
    touch(tmp_path / "x.mp4")
    sources = {source.path.name: source for source in find_sources([tmp_path])}
    assert sources["a.mp4"].fault is None
    assert "x.mp4 has no caption, and" in str(sources["x.mp4"].fault)
    touch(tmp_path / "metadata.jsonl", "[]\n" * 6)
    with pytest.raises(DataError, match="no row"):
        read_metadata(tmp_path)


def test_faulty_csv_names_lines(tmp_path: Path) -> None:
    touch(tmp_path / "metadata.csv", "file,caption\na.mp4,one, two\nb.mp4\n,x\nc.mp4,fine\n")
    found = read_metadata(tmp_path)
    messages = [fault.message for fault in found.faults.values()]
    parts = ("csv:2: another number", "csv:3: another number", "csv:4: no file name")
    for message, part in zip(messages, parts, strict=True):
        assert part in message
    assert found.captions == {tmp_path / "c.mp4": ("fine",)}


def test_a_manifest_lists_files_anywhere_in_its_own_order(tmp_path: Path) -> None:
    root = tmp_path / "set"
    inside, outside = touch(root / "s" / "b.mp4"), touch(tmp_path / "far" / "a.mp4")
    rows = [
        {"file": str(outside), "short_caption": "a boat", "long_caption": "a boat on a lake"},
        {"file": "s/b.mp4", "captions": ["one", "two"]},
        {"file": "gone.mp4"},
    ]
    manifest = touch(root / "list.jsonl", "\n".join(map(json.dumps, rows)))
    touch(root / "s" / "unlisted.mp4")
    found = find_sources([manifest])
    assert [(s.name, s.captions) for s in found] == [
        (outside.as_posix(), ("a boat", "a boat on a lake")),
        ("set/s/b.mp4", ("one", "two")),
        ("set/gone.mp4", ()),
    ]
    assert "list.jsonl:3: no caption" in str(found[2].fault)
    repeats: list[Path] = []
    assert len(find_sources([manifest, inside], repeats.append)) == 3
    assert repeats == [inside]
    table = touch(root / "list.csv", "path,text\n../far/a.mp4,x\n")
    assert [(s.path.resolve(), s.captions) for s in find_sources([table])] == [(outside, ("x",))]
    with pytest.raises(DataError, match="lists no file"):
        find_sources([touch(root / "empty.csv", "path,text\n")])


def test_two_tables_and_other_encodings_are_refused(tmp_path: Path) -> None:
    table = touch(tmp_path / "metadata.csv", "file,caption\n")
    touch(tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match="has both"):
        read_metadata(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    table.write_bytes("file,caption\na.mp4,é\n".encode("latin-1"))
    assert "csv:2: not UTF-8" in read_metadata(tmp_path).faults[tmp_path / "metadata.csv:2"].message
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8"):
        read_caption_file(tmp_path / "a.mp4")


def test_paths_stay_as_given_and_repeats_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "v" / "a.mp4")
    monkeypatch.chdir(tmp_path)
    repeats: list[Path] = []
    (source,) = find_sources([Path("v"), tmp_path / "v" / "a.mp4"], repeats.append)
    assert (source.path, source.name) == (Path("v/a.mp4"), "v/a.mp4")
    assert repeats == [tmp_path / "v" / "a.mp4"]
