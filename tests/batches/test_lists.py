"""Reading lists of items: what lines give, and faults by their line."""

import json
from pathlib import Path

import pytest

from ursa_core.batches.lists import ItemList, Line, read_list, refuse
from ursa_core.errors import DataError, UrsaError, UsageError

COLUMNS = {"prompt": str, "seed": int, "steps": int, "guidance": float, "name": str}


def read(content: bytes | str, folder: Path, suffix: str = ".jsonl") -> ItemList:
    file = folder / f"list{suffix}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_list(str(file), COLUMNS, lambda: b"")


def lines_of(found: ItemList) -> list[Line]:
    return [line for line in found if isinstance(line, Line)]


def test_text_is_a_prompt_a_line(tmp_path: Path) -> None:
    found = read("\ufeffa red circle\r\n\n  \n  grün, 3 \n{not json}", tmp_path, ".txt")
    assert found.faults == []
    assert lines_of(found) == [
        Line(1, 0, {"prompt": "a red circle"}),
        Line(4, 1, {"prompt": "grün, 3"}),
        Line(5, 2, {"prompt": "{not json}"}),
    ]


def test_json_lines_give_options_in_their_types(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "seed": 2**62, "guidance": 3, "steps": None},
        {"prompt": "b\u2028c", "steps": "4", "guidance": "0.5"},
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    first, second = lines_of(read(text, tmp_path))
    assert first.given == {"prompt": "a", "seed": 2**62, "guidance": 3.0}
    assert type(first.given["guidance"]) is float
    assert second.given == {"prompt": "b\u2028c", "steps": 4, "guidance": 0.5}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_lines_end_where_editors_end_them(suffix: str, separator: str, tmp_path: Path) -> None:
    texts = [f"a red{separator}boat", "a ship", "x"]
    rows = [json.dumps({"prompt": text}, ensure_ascii=False) for text in texts]
    header = ["prompt"] if suffix == ".csv" else []
    lines = [*header, *(rows if suffix == ".jsonl" else texts)]
    ends = ["\r\n", "\r", "\n", "\n"][: len(lines)]
    content = "".join(line + end for line, end in zip(lines, ends, strict=True))
    found = read(content, tmp_path, suffix)
    assert [line.given["prompt"] for line in lines_of(found)] == texts
    assert [line.number for line in lines_of(found)] == [k + len(header) for k in (1, 2, 3)]


@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_a_nul_is_called_one(suffix: str, tmp_path: Path) -> None:
    found = read("prompt\na\0 long enough prompt\nb\n", tmp_path, suffix)
    assert [(f.number, f.reason, f.hint) for f in found.faults] == [
        (2, "prompt holds a NUL character", "delete that character")
    ]
    assert lines_of(found)[-1].given == {"prompt": "b"}


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_spreadsheets_separators_are_read(sign: str, tmp_path: Path) -> None:
    found = read(f"prompt{sign}steps\na, b{sign}3\n", tmp_path, ".csv")
    assert [line.given for line in lines_of(found)] == [{"prompt": "a, b", "steps": 3}]
    assert not found.faults


def test_csv_names_its_columns_and_may_span_lines(tmp_path: Path) -> None:
    found = read('prompt, steps\n"a, b\nc",3\nd,\n', tmp_path, ".csv")
    assert lines_of(found) == [
        Line(2, 0, {"prompt": "a, b\nc", "steps": 3}),
        Line(4, 1, {"prompt": "d"}),
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"a red circle\nb\n", ".txt"), (b'\n{"prompt": "a red circle"}\n{"prompt": "b"}', ".jsonl")],
)
def test_standard_input_is_prompts_or_json_lines(content: bytes, kind: str) -> None:
    found = read_list("-", COLUMNS, lambda: content)
    assert [line.given["prompt"] for line in lines_of(found)] == ["a red circle", "b"], kind
    assert found.source == "standard input"


@pytest.mark.parametrize(
    ("line", "reason", "hint"),
    [
        ('{"prompt": "a", "stpes": 4}', "unknown option 'stpes'", "did you mean steps?"),
        ('{"prompt": "a", "colour": 4}', "unknown option 'colour'", "known are prompt, seed"),
        ('{"prompt": "a"', "not JSON", "one object a line"),
        ('["a"]', "not a JSON object", "one object a line"),
        ('{"prompt": 3}', "prompt can't be 3", "give a text"),
        ('{"prompt": "a\\u0000"}', "prompt holds a NUL", "delete that character"),
        (
            '{"prompt": "\\ud800"}',
            "not JSON: a text in it holds U+D800, half a character",
            "write one",
        ),
        ('{"steps": 2.5}', "steps can't be 2.5", "give a whole number"),
        ('{"steps": true}', "steps can't be True", "give a whole number"),
        ('{"steps": "many"}', "steps can't be 'many'", "give a whole number"),
        ('{"guidance": NaN}', "not JSON: the number NaN isn't finite", "write one object a line"),
        ('{"guidance": "nan"}', "guidance can't be 'nan'", "give a number"),
        (
            '{"guidance": 1' + 400 * "0" + "}",
            "not JSON: the number 10000000000000000000… has more than 300 digits",
            "write one object a line",
        ),
        (b'{"prompt": "\xff"}', "not UTF-8 text", "save it as UTF-8"),
    ],
)
def test_a_bad_line_is_told_by_number_reason_and_hint(
    line: str | bytes, reason: str, hint: str, tmp_path: Path
) -> None:
    bad = line if isinstance(line, bytes) else line.encode()
    found = read(b'{"prompt": "good"}\n\n' + bad + b'\n{"prompt": "good"}', tmp_path)
    (fault,) = found.faults
    assert (fault.number, [line.index for line in lines_of(found)]) == (3, [0, 2])
    assert fault.reason.startswith(reason)
    assert hint in fault.hint
    error = refuse(found.source, found.faults)
    assert error.message.startswith(f"{tmp_path / 'list.jsonl'}, line 3: {reason}")
    assert error.hint.endswith("--skip-bad")


def test_rows_of_a_csv_need_all_columns(tmp_path: Path) -> None:
    found = read('prompt,steps\na\nb,2,3\nc,4\n"d', tmp_path, ".csv")
    assert [fault.number for fault in found.faults] == [2, 3, 5]
    assert [line.given for line in lines_of(found)] == [{"prompt": "c", "steps": 4}]


@pytest.mark.parametrize(
    ("content", "suffix", "message", "hint"),
    [
        (b"", ".txt", "holds no items", "one a line"),
        (b"\n \n", ".jsonl", "holds no items", "one a line"),
        (b"prompt,seed\n", ".csv", "holds no items", "one a line"),
        ("a red circle".encode("utf-16"), ".txt", "is not UTF-8 text", "save it"),
        ("a red circle".encode("utf-16-le"), ".txt", "is not UTF-8 text", "save it"),
        (b"prompt,sede\na,1\n", ".csv", "line 1: unknown column 'sede'", "did you mean seed?"),
        (b"a red circle\n", ".csv", "line 1: unknown column", "first line names the columns"),
        (b"prompt,prompt\na,1\n", ".csv", "column prompt is there twice", "keep one"),
    ],
)
def test_wrong_files_are_refused(
    content: bytes, suffix: str, message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        read(content, tmp_path, suffix)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_missing_files_and_other_kinds_are_refused(tmp_path: Path) -> None:
    for name, kind in (("no.txt", DataError), ("a.yaml", UsageError), ("list", UsageError)):
        with pytest.raises(UrsaError) as caught:
            read_list(str(tmp_path / name), COLUMNS, lambda: b"")
        assert type(caught.value) is kind
