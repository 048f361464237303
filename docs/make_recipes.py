"""Writes docs/recipes.md and the JSON schema of recipes, from the models in `recipe/fields.py`.

    python docs/make_recipes.py

The meaning of a key is its comment there. A test compares the files with what this makes.
"""

import ast
import inspect
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from ursa_core.recipe import fields
from ursa_core.recipe.loading import KINDS

ROOT = Path(__file__).parents[1]
PAGE, SCHEMA = ROOT / "docs" / "recipes.md", ROOT / "ursa_core" / "recipe" / "recipe.schema.json"
INTRODUCTION = """\
# Keys of recipes

<!-- made by docs/make_recipes.py from ursa_core/recipe/fields.py; change that, and run it -->

A recipe is a YAML file for `ursa train`, see [training.md](training.md).
`ursa train --new mine.yaml --data data/mine --init nano` writes one that fits your clips. Any key
can be replaced behind the recipe's name, as `train.steps=200`. Editors complete and check recipes
whose first line names the
[JSON schema](../ursa_core/recipe/recipe.schema.json), as all in [recipes](../recipes) do:

```yaml
# yaml-language-server: $schema=../ursa_core/recipe/recipe.schema.json
```

A default of — means that the key has to be given; null that it isn't given.
"""
BOUNDS = {
    "minimum": "from {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "to {:g}",
    "exclusiveMaximum": "below {:g}",
    "multipleOf": "a multiple of {:g}",
}


def comments() -> dict[str, dict[str, str]]:
    """The comment of each key, above it or at its end, by the name of its class."""
    source = inspect.getsource(fields)
    lines = source.splitlines()
    found: dict[str, dict[str, str]] = {}
    for section in ast.parse(source).body:
        if not isinstance(section, ast.ClassDef):
            continue
        found[section.name] = {}
        for node in section.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            text = [lines[node.end_lineno - 1].partition("  # ")[2]] if node.end_lineno else []
            above = node.lineno - 2
            while not text[0] and lines[above].startswith("    # "):
                text.insert(1, lines[above].removeprefix("    # "))
                above -= 1
            found[section.name][node.target.id] = " ".join(filter(None, text)).rstrip(".")
    return found


def meaning(model: type[BaseModel], key: str) -> str:
    """The comment of a key, of the class that declares it; a group's docstring without one."""
    every = comments()
    for kind in model.__mro__:
        if text := every.get(kind.__name__, {}).get(key):
            return text
    if key == "kind":
        return "What is trained"
    (group,) = groups(model.model_fields[key])
    return (inspect.getdoc(group) or "").split("\n")[0].rstrip(".")


def groups(info: FieldInfo) -> list[type[BaseModel]]:
    """Classes of keys that a key's value may be, or a list of."""
    left, found = [info.annotation], []
    while left:
        kind = left.pop()
        if inspect.isclass(kind) and not isinstance(kind, types.GenericAlias):
            if issubclass(kind, BaseModel):
                found.append(kind)
        else:
            left += get_args(kind)
    return found


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Dotted name, class and name in it of every key; ``[]`` is each of a list."""
    for name, info in model.model_fields.items():
        inside = groups(info)
        if name == "kind" and not prefix:
            continue
        yield prefix + name, model, name
        for group in inside:
            each = "[]" if "list" in str(info.annotation) else ""
            yield from keys(group, f"{prefix}{name}{each}.")


def described(schema: dict[str, Any]) -> str:
    """A type in words, from its JSON schema."""
    if "$ref" in schema:
        return "group"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(described, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "value")
    if kind == "array":
        if "prefixItems" in schema:
            return f"two of: {described(schema['prefixItems'][0])}"
        return f"list of: {described(schema['items'])}"
    name = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
    }
    bounds = [words.format(schema[key]) for key, words in BOUNDS.items() if key in schema]
    return " ".join([name.get(kind, kind), *bounds])


def default(info: FieldInfo) -> str:
    """The default of a key as YAML has it."""
    if info.is_required():
        return "—"
    value = info.default
    if isinstance(value, BaseModel):
        return "the keys' own"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def schema() -> dict[str, Any]:
    """The JSON schema of all kinds of recipe, with each key's meaning."""
    kinds = [(kind, "validation") for kind in KINDS.values()]
    _, whole = models_json_schema(kinds, title="Recipe of ursa train")
    classes = {name: kind for name, kind in vars(fields).items() if inspect.isclass(kind)}
    for name, one in whole["$defs"].items():
        for key, entry in one["properties"].items():
            entry.pop("title", None)
            entry["description"] = meaning(classes[name], key)
    data = whole["$defs"]["GeneratorRecipe"]["properties"]["data"]
    ref = data.pop("$ref")
    sets = whole["$defs"]["GeneratorData"]["properties"]["sets"]["anyOf"][0]
    data["anyOf"] = [{"$ref": ref}, sets]
    for one in whole["$defs"].values():  # one name needs no brackets
        for key, entry in one["properties"].items():
            if key in ("shards", "validation_shards", "prompts", "files", "command"):
                lists = entry.get("anyOf", [entry])
                if any(each.get("minItems") == 1 for each in lists):
                    text = {"type": "string", "minLength": 1}
                    about = {k: entry.pop(k) for k in list(entry)}
                    entry["anyOf"] = [*about.pop("anyOf", [plain(about)]), text]
                    entry.update({k: about[k] for k in ("default", "description") if k in about})
    refs = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in KINDS.values()]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "oneOf": refs}


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """A schema without what says something about its key."""
    return {k: v for k, v in entry.items() if k not in ("default", "description")}


def page() -> str:
    """The page of all keys."""
    defs = schema()["$defs"]
    parts = [INTRODUCTION]
    for kind, model in KINDS.items():
        about = (inspect.getdoc(model) or "").split("\n")[0]
        parts.append(f"\n## `kind: {kind}`\n\n{about}\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|")
        for dotted, owner, key in keys(model):
            entry = defs[owner.__name__]["properties"][key]
            kinds = described(entry).replace(" or null", "")
            text = meaning(owner, key).replace("|", "\\|").replace("``", "`")
            text = text[0].upper() + text[1:] if text[0].islower() else text
            parts.append(f"| `{dotted}` | {kinds} | {default(owner.model_fields[key])} | {text} |")
    return "\n".join(parts) + "\n"


def files() -> dict[Path, str]:
    """The text of each file that is made."""
    return {PAGE: page(), SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"}


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text, encoding="utf-8")
