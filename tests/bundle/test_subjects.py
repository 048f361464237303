"""Subjects by name, synonym and emoji character."""

import json

import pytest

from ursa_core.bundle.subjects import (
    SUBJECTS_FILE,
    Subject,
    load_subjects,
    name_emoji,
    named_subjects,
    nearest_subjects,
    save_subjects,
    synonyms,
)
from ursa_core.errors import CheckpointError

CAT = "\N{CAT}"
FOX = Subject("fox", ("animal", "vixen"), "animals", "\N{FOX FACE}")
BLACK_CAT = Subject(
    "black cat",
    ("animal", "unlucky"),
    "animals",
    f"{CAT}\N{ZERO WIDTH JOINER}\N{BLACK LARGE SQUARE}",
)
PLAIN_CAT = Subject("cat", ("animal", "pussycat", "fox"), "animals", CAT)
HEART = Subject("red heart", ("love", "8:00"), "smileys", "\N{HEAVY BLACK HEART}\ufe0f")
ALL = (FOX, BLACK_CAT, PLAIN_CAT, HEART)


def test_synonyms_name_one_subject_only():
    assert synonyms(ALL) == {
        "fox": ("vixen",),
        "black cat": ("unlucky",),
        "cat": ("pussycat",),
        "red heart": ("love",),
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("\N{FOX FACE}", "fox"),
        (BLACK_CAT.emoji, "black cat"),
        (f"a {CAT} on a red background", "a cat on a red background"),
        ("\N{HEAVY BLACK HEART}", "red heart"),
        ("\N{HEAVY BLACK HEART}\ufe0f\N{FOX FACE}!", "red heart fox !"),
        ("a fox", "a fox"),
        ("un renard à côté", "un renard à côté"),
        ("\N{ROCKET}", "\N{ROCKET}"),
        ("", ""),
    ],
)
def test_emoji_become_names(text, named):
    assert name_emoji(text, ALL) == named


def test_nearest_subjects_go_by_name_tag_and_spelling():
    assert nearest_subjects("unlucky", ALL) == ["black cat"]
    assert nearest_subjects("foxes", ALL) == ["fox", "cat"]
    assert nearest_subjects("Hart", ALL) == ["red heart"]
    assert nearest_subjects("animal", ALL, 2) == ["fox", "black cat"]
    assert nearest_subjects("cats", ALL)[0] == "cat"
    assert nearest_subjects("\N{CAT FACE}", ALL) == ["cat", "black cat"]
    assert nearest_subjects("\N{GREEN HEART}", ALL) == ["red heart"]
    for other in ("xylophone", "blank", "a", "ca", "and", "\N{ROCKET}", "\ue000"):
        assert nearest_subjects(other, ALL) == []
    assert nearest_subjects("fox", ()) == []


def test_named_subjects_are_whole_names_and_synonyms():
    assert named_subjects("A Fox and a black cat, unlucky!", ALL) == ["fox", "black cat"]
    assert named_subjects("a cat and a vixen", ALL) == ["cat"]
    assert named_subjects("a vixen", ALL) == ["fox"]
    assert named_subjects("foxes and catfish", ALL) == []
    assert named_subjects("fox", ()) == []


def test_a_folder_keeps_them(tmp_path):
    assert load_subjects(tmp_path) == ()
    save_subjects(tmp_path, ALL)
    assert load_subjects(tmp_path) == ALL
    for content in ({}, {"subjects": [{"name": "fox"}]}, {"subjects": 3}, {"subjects": [3]}):
        (tmp_path / SUBJECTS_FILE).write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match="lists no subjects"):
            load_subjects(tmp_path)
    broken = {"subjects": [{"name": "", "tags": [], "group": "a", "emoji": "b"}]}
    (tmp_path / SUBJECTS_FILE).write_text(json.dumps(broken))
    with pytest.raises(CheckpointError, match="empty name"):
        load_subjects(tmp_path)
