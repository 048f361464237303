"""Names of outputs: what templates make, and what is refused."""

import pytest

from ursa_core.batches.names import (
    DEFAULT_TEMPLATE,
    check_name,
    check_template,
    made_name,
    same_file,
    slug,
)
from ursa_core.errors import UsageError
from ursa_core.parts import Part, launched_part, parse_part


def test_default_names_sort_by_index_and_tell_the_prompt() -> None:
    check_template(DEFAULT_TEMPLATE)
    assert made_name(DEFAULT_TEMPLATE, 7, "A Red circle, moving!", 3) == (
        "00007-a-red-circle-moving.mp4"
    )
    assert made_name("{seed}_{slug}.gif", 7, "", 3) == "3_untitled.gif"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("-rf *", "rf"),
        ("熊在森林里", "熊在森林里"),
        ("…", "untitled"),
        ("\N{FOX FACE}", "fox-face"),
        ("a \N{CAT} on teal", "a-cat-on-teal"),
        ("_a_", "a"),
    ],
)
def test_slugs_are_safe(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_slugs_are_short_whatever_the_script() -> None:
    for character in ("a", "é", "熊", "𠀋"):
        made = slug(500 * character)
        assert set(made) == {character}
        assert 40 < len(made.encode()) <= 48


@pytest.mark.parametrize(
    ("template", "message", "hint"),
    [
        ("{indx}.mp4", "unknown field {indx}", "did you mean index?"),
        ("{}.mp4", "unknown field {}", "{slug}"),
        ("{index.__class__}.mp4", "unknown field {index.__class__}", "{slug}"),
        ("{index!r}.mp4", "can't format {index} so", "{slug}"),
        ("{index:9999}.mp4", "can't format {index} so", "{slug}"),
        ("{index:{seed}}.mp4", "can't format {index} so", "{slug}"),
        ("{slug:d}.mp4", "can't be filled", "{slug}"),
        ("{index.mp4", "is no template", "{slug}"),
        ("../{index}.mp4", "inside the folder", "plain file name"),
        ("a/{index}.mp4", "inside the folder", "plain file name"),
        ("/{index}.mp4", "inside the folder", "plain file name"),
        (".{index}.mp4", "can't begin", "plain file name"),
        ("-{index}.mp4", "can't begin", "plain file name"),
        ("", "inside the folder", "plain file name"),
    ],
)
def test_impossible_templates_are_refused(template: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_template(template)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b.mp4", "..\\b.mp4", ".a.mp4", " a.mp4", "a.mp4 ", "a\nb.mp4", "~a.mp4",
     "a\u202egpj.mp4", 201 * "a", 70 * "熊", "-a.mp4"],
)  # fmt: skip
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_plain_names_pass_and_are_told_apart() -> None:
    for name in ("a.mp4", "Ein Bär (2).gif", "熊.mp4", 200 * "a"):
        check_name(name)
    assert same_file("A\u0308.mp4") == same_file("ä.MP4")
    assert same_file("a.mp4") != same_file("b.mp4")


def test_shards_share_out_all_items_once() -> None:
    shards = [parse_part(f"{k}/3") for k in (1, 2, 3)]
    owners = [[shard.number for shard in shards if shard.owns(index)] for index in range(7)]
    assert owners == [[1], [2], [3], [1], [2], [3], [1]]
    assert Part().owns(5)
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError, match="2/4"):
            parse_part(text)


def test_ranks_of_a_launcher_are_shards() -> None:
    assert launched_part({}) is None
    assert launched_part({"RANK": "1", "WORLD_SIZE": "4"}) == Part(2, 4)
    with pytest.raises(UsageError, match="RANK=4"):
        launched_part({"RANK": "4", "WORLD_SIZE": "4"})
