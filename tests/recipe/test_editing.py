"""A recipe's path is changed in place and nothing else."""

from pathlib import Path

import pytest
import yaml

from ursa_core.errors import RecipeError
from ursa_core.recipe.editing import write_path

AROUND = "# a comment\nname: x  # another\n{}seed: 1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "path: {kind: metric, alpha: 1.0, c: 3}  # old\n",
            "path: {kind: metric, alpha: 0.9123, c: 4.5}  # old\n",
        ),
        ("path: {kind: linear}\n", "path: {kind: metric, alpha: 0.9123, c: 4.5}\n"),
        ("path: {}\n", "path: {kind: metric, alpha: 0.9123, c: 4.5}\n"),
        (
            "path:\n  kind: metric\n  c: 3  # why\n",
            "path:\n  alpha: 0.9123\n  kind: metric\n  c: 4.5  # why\n",
        ),
    ],
)
def test_values_change_and_comments_stay(before: str, after: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(AROUND.format(before))
    write_path(file, {"kind": "metric", "alpha": 0.91234, "c": 4.5})
    assert file.read_text() == AROUND.format(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("path: {kind: metric, alpha: 1.0, c: 3}\n", "path: {kind: linear}\n"),
        ("path:\n  c: 3  # why\n  alpha: 1\n", "path:\n  kind: linear\n"),
        ("path:\n  kind: metric  # what\n  c: 3\n", "path:\n  kind: linear  # what\n"),
    ],
)
def test_keys_go_that_the_new_kind_has_not(before: str, after: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(AROUND.format(before))
    write_path(file, {"kind": "linear", "alpha": None, "c": None})
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(AROUND.format(after))
    if "# what" in before:
        assert file.read_text() == AROUND.format(after)


def test_a_recipe_without_a_path_gets_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: x")
    write_path(file, {"kind": "linear"})
    assert yaml.safe_load(file.read_text()) == {"name": "x", "path": {"kind": "linear"}}


@pytest.mark.parametrize("text", ["- a list\n", "a: [", None])
def test_what_is_no_recipe_is_left_alone(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RecipeError):
        write_path(file, {"alpha": 1.0})
    assert not file.exists() or file.read_text() == text
