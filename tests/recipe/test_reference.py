"""docs/recipes.md and the JSON schema: made from the models, complete, and named by recipes."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from ursa_core.recipe.loading import KINDS, _keys

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def made():
    """The module that makes the files; docs is no package."""
    spec = importlib.util.spec_from_file_location("make_recipes", ROOT / "docs/make_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_schema_are_those_of_the_models(made):
    for file, text in made.files().items():
        assert file.read_text(encoding="utf-8") == text, "run: python docs/make_recipes.py"


def test_every_key_is_on_the_page_with_a_meaning():
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    for kind, part in zip(KINDS, page.split("\n## `kind: ")[1:], strict=True):
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if "| `" in line[:3]]
        found = {row[0].strip("`"): row[1:] for row in rows}
        wanted = set(_keys(KINDS[kind])) - {"kind"}
        assert wanted <= found.keys()
        # Keys of groups that may be absent, or are lists, are no keys of an override.
        groups = {key.split(".")[0].removesuffix("[]") for key in found.keys() - wanted}
        assert groups <= KINDS[kind].model_fields.keys()
        assert all(len(row) == 3 and len(row[-1]) > 8 for row in found.values())


def check(value, entry, defs, place):
    """Refuse keys that a schema doesn't know, and missing ones."""
    options = [entry, *entry.get("anyOf", [])]
    if isinstance(value, dict):
        (group,) = [defs[each["$ref"].split("/")[-1]] for each in options if "$ref" in each]
        assert group["additionalProperties"] is False
        assert set(group.get("required", [])) <= value.keys(), place
        for key, inside in value.items():
            assert key in group["properties"], f"{place}{key}"
            check(inside, group["properties"][key], defs, f"{place}{key}.")
    elif isinstance(value, list):
        assert any(each.get("type") == "array" for each in options), place
    elif value is not None:
        names = {str: "string", bool: "boolean", int: "integer", float: "number"}
        kinds = {each.get("type") for each in options}
        kinds |= {names[type(each)] for one in options for each in one.get("enum", [])}
        kinds |= {names[type(one["const"])] for one in options if "const" in one}
        assert {names[type(value)], "number" if isinstance(value, int) else ""} & kinds, place


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.stem)
def test_the_schema_takes_every_recipe_and_each_names_it(file):
    text = file.read_text()
    first = text.split("\n")[0].removeprefix("# yaml-language-server: $schema=")
    schema = json.loads((file.parent / first).read_text())
    raw = yaml.safe_load(text)
    names = {kind: model.__name__ for kind, model in KINDS.items()}
    refs = [each["$ref"].split("/")[-1] for each in schema["oneOf"]]
    assert refs == list(names.values())
    check(raw, {"$ref": names[raw["kind"]]}, schema["$defs"], "")
    wrong = {**raw, "train": {**raw["train"], "stpes": 3}}
    with pytest.raises(AssertionError, match=r"train\.stpes"):
        check(wrong, {"$ref": names[raw["kind"]]}, schema["$defs"], "")
