"""Finding media and their captions, and naming what is wrong with caption tables."""

import json
from pathlib import Path

import pytest

from ursa_core.data.captions import read_caption_file, read_metadata
from ursa_core.data.sources import find_sources
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


def test_same_names_missing_inputs_and_empty_folders_are_refused(tmp_path: Path) -> None:
    files = [touch(tmp_path / side / "v" / "a.mp4") for side in "ab"]
    with pytest.raises(DataError, match=r"both be called v/a\.mp4"):
        find_sources(files)
    assert len(find_sources([tmp_path])) == 2
    with pytest.raises(DataError, match="doesn't exist"):
        find_sources([tmp_path / "absent.mp4"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video or image"):
        find_sources([tmp_path / "empty"])


def test_jsonl_keeps_line_separators_and_adds_rows_of_one_file(tmp_path: Path) -> None:
    rows = [{"file": "a.mp4", "caption": "a\u2028b"}, {"file": "a.mp4", "text": "c"}]
    touch(tmp_path / "metadata.jsonl", "\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    assert read_metadata(tmp_path) == {tmp_path / "a.mp4": ("a\u2028b", "c")}
    assert read_metadata(tmp_path.parent) == {}


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
    with pytest.raises(DataError) as fault:
        read_metadata(tmp_path)
    message = fault.value.message
    for part in ("line 2: not JSON", "line 3: no file name", "line 4: not a JSON object"):
        assert part in message
    assert "line 6: caption of 'c.mp4' is neither" in message
    assert "line 7: '../d.mp4' lies outside" in message
    assert "line 1:" not in message
    assert "and 1 more" in message


def test_faulty_csv_names_lines(tmp_path: Path) -> None:
    touch(tmp_path / "metadata.csv", "file,caption\na.mp4,one, two\nb.mp4\n,x\nc.mp4,fine\n")
    with pytest.raises(DataError) as fault:
        read_metadata(tmp_path)
    for part in ("line 2: more fields", "line 3: fewer fields", "line 4: no file name"):
        assert part in fault.value.message
    assert "line 5" not in fault.value.message


def test_two_tables_and_other_encodings_are_refused(tmp_path: Path) -> None:
    table = touch(tmp_path / "metadata.csv", "file,caption\n")
    touch(tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match="has both"):
        read_metadata(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    table.write_bytes("file,caption\na.mp4,é\n".encode("latin-1"))
    with pytest.raises(DataError, match="can't be read"):
        read_metadata(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.txt can't be read"):
        read_caption_file(tmp_path / "a.mp4")
