"""Recipes from a YAML file and dotted overrides; one refusal names all faults of single keys.

Faults between keys follow once each key is sound. The keys are in ``ursa_core.recipe.fields``.
"""

import contextlib
import difflib
import itertools
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ursa_core.batches.run import leaves
from ursa_core.errors import RecipeError, unreadable
from ursa_core.places import regular_file
from ursa_core.recipe.fields import DISAGREE, GeneratorRecipe, Recipe, RewardRecipe, TokenizerRecipe

KINDS: dict[str, type[Recipe]] = {
    "tokenizer": TokenizerRecipe, "generator": GeneratorRecipe, "reward": RewardRecipe,
}  # fmt: skip
_KIND_NAMES = "tokenizer, generator or reward"

# What may change between two parts of one run.
_OF_TRAIN = (
    "steps max_hours distributed recompute track on_fault spike log_every sample_every"
    " validate_every validation_passes checkpoint_every keep_checkpoints keep_every keep_best"
)
BOOKKEEPING = {
    "licence",
    "on_failure",
    "samples.prompts",
    "data.validation_shards",
    "data.workers",
} | {f"train.{key}" for key in _OF_TRAIN.split()}
_CHANGEABLE = (
    "data.", "loss.", "objective.", "optimizer.", "prior.num ", "prior.share ", "rewards[",
    "sampling.", "text_tokenizer", "train.", "watch.",
)  # fmt: skip
_OF_ROLLOUTS = ("objective.states ", "train.accumulate ", "train.batch_size ")


def load_recipe(path: Path, overrides: list[str]) -> Recipe:
    """The recipe in a YAML file, whose ``kind`` chooses its type; a RecipeError names its faults.

    Each of ``overrides`` is ``dotted.key=value``, with the value in YAML; later ones win.
    """
    raw, faults = _read(path)
    for override in overrides:
        faults += _override_(raw, override)
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _refusal(path, [*faults, _kind_fault(kind)])
    try:
        recipe = KINDS[kind].model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            faults += _describe(KINDS[kind], detail)
        raise _refusal(path, faults) from None
    if faults:
        raise _refusal(path, faults)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """YAML with every default spelled out; ``load_recipe`` reads it back to an equal recipe."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def differing_keys(recipe: Recipe, earlier: dict[str, Any]) -> list[str]:
    """Keys not in ``BOOKKEEPING`` that keep a recipe from continuing a run, with both values.

    Keys that ``earlier``, the run's recipe as JSON, lacks count as their defaults.
    """
    with contextlib.suppress(ValidationError):
        earlier = type(recipe).model_validate(earlier).model_dump(mode="json")
    now, then = leaves(recipe.model_dump(mode="json")), leaves(earlier)
    return [
        re.sub(r"\.(\d+)", r"[\1]", key) + f" is {now.get(key)}, was {then.get(key)}"
        for key in [*now, *(then.keys() - now.keys())]
        if now.get(key) != then.get(key) and key not in BOOKKEEPING
    ]


def may_change(difference: str, recipe: Recipe) -> bool:
    """Whether a run may go on with a difference of ``differing_keys``, if its user says so."""
    has_clips = isinstance(recipe, RewardRecipe) and recipe.rollout.updates > 1  # in checkpoints
    fixed = ("optimizer.kind ", *(_OF_ROLLOUTS if has_clips else ()))
    return difference.startswith(_CHANGEABLE) and not difference.startswith(fixed)


_MAX_BYTES = 1 << 16
_MAX_NODES = 10_000
_MAX_DIGITS = 100
_MAX_DEPTH = 50
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class _Loader(yaml.SafeLoader):
    """Safe loader that collects duplicate keys and reads 3e-4 as a number, as YAML 1.2 does.

    It counts values before it builds them, and refuses tags some of which crash the safe loader.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []
        self._sizes: dict[int, int] = {}

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        # Each open bracket makes every later token slower.
        if self.flow_level == _MAX_DEPTH:
            raise yaml.YAMLError(f"brackets are nested more than {_MAX_DEPTH} deep")
        super().fetch_flow_collection_start(TokenClass)

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            self._size(node)
        return node

    def _size(self, node: yaml.Node, depth: int = 0) -> int:
        """Number of values in a node with its aliases written out, inside so many others."""
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in _KINDS:
            raise _fault(node, f"a value of the kind {kind} (put a text in quotes)")
        if kind in ("int", "float") and len(node.value) > _MAX_DIGITS:
            raise _fault(node, f"a number of more than {_MAX_DIGITS} characters")
        if depth == _MAX_DEPTH:  # or a node that contains itself
            raise _fault(node, f"groups and lists are nested more than {_MAX_DEPTH} deep")
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = itertools.chain(*inside) if isinstance(node, yaml.MappingNode) else inside
        size = 1 + sum(self._size(part, depth + 1) for part in parts)
        if size > _MAX_NODES:
            raise _fault(node, f"with its aliases it has more than {_MAX_NODES} values")
        self._sizes[id(node)] = size
        return size

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        scalars = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key in scalars:
            if key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                self.duplicates.append(f"{key.value}: given twice, again on line {line}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str) -> tuple[Any, list[str]]:
    """A YAML document, and its duplicate keys; a ValueError says what is wrong with it."""
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.duplicates
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason, mark = str(error).splitlines()[0], getattr(error, "problem_mark", None)
        if isinstance(error, yaml.MarkedYAMLError) and mark is not None:
            reason = f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(reason) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # Scalars that don't fit their tag, as `!!bool maybe`, raise many kinds of errors.
        raise ValueError(f"a value doesn't fit its tag ({error})") from error


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    def refused(fault: str, hint: str) -> RecipeError:
        return RecipeError(f"recipe {path} {fault}", hint)

    try:
        text = regular_file(path).read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(path, error, "give the path of a YAML file", RecipeError) from error
    except UnicodeDecodeError as error:
        raise refused("is not UTF-8 text", "give a YAML file") from error
    if len(text) > _MAX_BYTES:
        raise refused(f"has {len(text)} characters, the most is {_MAX_BYTES}", "shorten it")
    try:
        raw, faults = _load_yaml(text)
    except ValueError as error:
        raise refused(f"is not valid YAML: {error}", "correct its syntax there") from error
    if not isinstance(raw, dict):
        raise refused("holds no keys", f"start it with `kind:` and one of {_KIND_NAMES}")
    return raw, faults


def _override_(raw: dict[str, Any], override: str) -> list[str]:
    """Set one value in ``raw``, and return the faults of the override itself."""
    place, equals, text = override.partition("=")
    keys = place.split(".")
    if not equals or not all(keys):
        return [f"{override}: an override is a dotted key, an equals sign and a value"]
    try:
        value, faults = _load_yaml(text)
    except ValueError as error:
        return [f"{place}: the value {text!r} is not valid YAML: {error}"]
    section = raw
    for depth, key in enumerate(keys[:-1], 1):
        if section.get(key) is None:
            section[key] = {}
        if key == "data" and isinstance(section[key], list):
            section[key] = {"sets": section[key]}
        if not isinstance(section[key], dict):
            return [f"{place}: {'.'.join(keys[:depth])} is a value, so it has no keys"]
        section = section[key]
    section[keys[-1]] = value
    return faults


def _kind_fault(kind: object) -> str:
    if kind is None:
        return f"kind: is required, {_KIND_NAMES}"
    near = difflib.get_close_matches(str(kind), KINDS, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"kind: should be {_KIND_NAMES}, not {kind!r}{meant}"


def _refusal(path: Path, faults: list[str]) -> RecipeError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = "".join(f"\n  {fault}" for fault in faults)
    hint = "correct the file, or the overrides given with it"
    return RecipeError(f"recipe {path} has {count}:{lines}", hint)


def _describe(recipe_type: type[BaseModel], detail: Any) -> list[str]:
    """Lines for an error of pydantic's, with the key as in overrides, or ``levels[2]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    place = "".join(parts).removeprefix(".")
    if detail["type"] == DISAGREE:
        return detail["msg"].split("\n")
    if detail["type"] == "extra_forbidden":
        return [f"{place}: unknown key{_suggestion(recipe_type, place)}"]
    if detail["type"] == "missing":
        return [f"{place}: is required"]
    if detail["type"] == "model_type":
        return [f"{place}: should be a group of keys, not {detail['input']!r}"]
    if detail["type"] == "too_short" and not detail["input"]:
        return [f"{place}: is empty"]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return [f"{place}: {message}, not {detail['input']!r}"]


def _suggestion(recipe_type: type[BaseModel], place: str) -> str:
    section, _, key = place.rpartition(".")
    known = [name.rpartition(".") for name in _keys(recipe_type)]
    elsewhere = {own: f"{above}{dot}{own}" for above, dot, own in known}
    siblings = {own: f"{above}{dot}{own}" for above, dot, own in known if above == section}
    for names, cutoff in ((siblings, 0.5), (elsewhere, 0.75)):
        if near := difflib.get_close_matches(key, names, 1, cutoff=cutoff):
            return f", did you mean {names[near[0]]}?"
    return f"; known here: {', '.join(siblings)}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in section.model_fields.items():
        yield prefix + name
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
