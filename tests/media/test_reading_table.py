"""Each row of the table in docs/reading.md names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
TABLE = (TESTS.parent / "docs" / "reading.md").read_text(encoding="utf-8")


def test_each_row_is_held_by_a_test() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    file = ""
    for row in rows:
        cell = row.rstrip("| ").rpartition("|")[2]
        named = re.findall(r"`([^`:]+)::(\w+)`", cell)
        assert named, row
        for place, test in named:
            file = file if place == "…" else place
            assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8"), row
