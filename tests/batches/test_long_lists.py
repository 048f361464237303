"""Lists that are planned and checked while their items are made."""

from pathlib import Path

import pytest
from notes_task import Notes, make_notes, notes

from ursa_cli.terminal import output
from ursa_core.errors import DataError

FIVE = "a\nb\nc\nd\ne\n"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    output.configure()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


class Seen(Notes):
    """Notes in the order in which they are settled and made."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def settle(self, given, path):
        self.events.append(f"settle {given['prompt']}")
        return super().settle(given, path)

    def make(self, items, on_step):
        self.events += [f"make {item.options['prompt']}" for item in items]
        yield from super().make(items, on_step)


@pytest.fixture
def long_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa_core.batches.lists.MAX_CHECKED_FIRST", 3)


@pytest.mark.usefixtures("long_lists")
def test_a_long_list_is_planned_while_its_items_are_made(tmp_path: Path, capsys) -> None:
    task = Seen()
    make_notes(tmp_path / "out", FIVE, task)
    assert task.events[:4] == ["settle a", "make a", "settle b", "make b"]
    assert capsys.readouterr().err.splitlines()[-1].endswith("5 made, 0 kept, 0 failed, 0 left")
    again = Seen()
    make_notes(tmp_path / "out", FIVE, again)
    assert again.packs == []
    assert capsys.readouterr().err.splitlines()[-1].endswith("0 made, 5 kept, 0 failed, 0 left")
    short = Seen()
    make_notes(tmp_path / "short", "a\nb\nc\n", short)
    assert short.events[:4] == ["settle a", "settle b", "settle c", "make a"]


@pytest.mark.usefixtures("long_lists")
def test_a_shard_of_a_long_list_plans_its_own(tmp_path: Path) -> None:
    task = Seen()
    make_notes(tmp_path / "out", FIVE, task, shard="2/2")
    assert task.events == ["settle b", "make b", "settle d", "make d"]
    make_notes(tmp_path / "out", FIVE, shard="1/2")
    make_notes(tmp_path / "whole", FIVE)
    assert notes(tmp_path / "out") == notes(tmp_path / "whole")


@pytest.mark.usefixtures("long_lists")
@pytest.mark.parametrize(
    ("fourth", "message"),
    [
        ('{"prompt": 3}', "line 4: prompt can't be 3"),
        ('{"prompt": "d", "size": 100}', "line 4: size can't be 100"),
        ('{"prompt": "d", "name": "00000-A.png"}', "line 4: it would be written to 00000-A.png"),
    ],
)
def test_a_fault_late_in_a_long_list_keeps_what_is_made(
    fourth: str, message: str, tmp_path: Path, capsys
) -> None:
    rows = ['{"prompt": "a"}', '{"prompt": "b"}', '{"prompt": "c"}', fourth, '{"prompt": "e"}']
    lines = "\n".join(rows)
    with pytest.raises(DataError, match=message) as caught:
        make_notes(tmp_path / "out", lines, suffix=".jsonl")
    assert caught.value.exit_code == 1
    assert list(notes(tmp_path / "out")) == ["00000-a.png", "00001-b.png", "00002-c.png"]
    capsys.readouterr()
    make_notes(tmp_path / "out", lines, suffix=".jsonl", skip_bad=True)
    told = capsys.readouterr().err
    assert message in told
    assert told.splitlines()[-1].endswith("1 made, 3 kept, 0 failed, 0 left")


def test_a_name_of_another_shard_is_met_in_a_long_list(tmp_path: Path, long_lists) -> None:
    lines = "".join(f'{{"prompt": "{each}"}}\n' for each in "abca")
    with pytest.raises(DataError, match=r"line 4: it would be written to a\.png, as line 1"):
        make_notes(
            tmp_path / "out", lines, suffix=".jsonl", shard="2/2", template="{slug}.png"
        )  # fmt: skip
