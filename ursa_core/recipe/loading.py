"""Recipes: what a training run does, from one YAML file and dotted overrides.

A recipe with faults is refused with all of them at once. The keys are in ``recipe_fields``.
"""

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ursa_core.errors import RecipeError, ShapeError, regular_file, unreadable
from ursa_core.grids import PixelShape, Strides
from ursa_core.recipe.fields import GeneratorRecipe, Recipe, TokenizerRecipe

__all__ = [
    "GeneratorRecipe",
    "Recipe",
    "TokenizerRecipe",
    "differing_keys",
    "load_recipe",
    "to_yaml",
]

KINDS: dict[str, type[TokenizerRecipe] | type[GeneratorRecipe]] = {
    "tokenizer": TokenizerRecipe,
    "generator": GeneratorRecipe,
}

# What may change between two parts of one run.
BOOKKEEPING = {
    "samples.prompts",
    "data.validation_shards",
    "data.workers",
    *(
        f"train.{key}"
        for key in (
            "steps",
            "max_hours",
            "distributed",
            "recompute",
            "track",
            "on_fault",
            "spike",
            "log_every",
            "sample_every",
            "validate_every",
            "validation_passes",
            "checkpoint_every",
            "keep_checkpoints",
            "keep_every",
        )
    ),
}


def load_recipe(path: Path, overrides: list[str]) -> Recipe:
    """The recipe in a YAML file, with single values replaced.

    Args:
        path: of the file; its ``kind`` chooses the type.
        overrides: each ``dotted.key=value`` with the value in YAML, later ones winning.

    Raises:
        RecipeError: the file can't be read, or the recipe has faults; names all of them.
    """
    raw, faults = _read(path)
    for override in overrides:
        faults += _override_(raw, override)
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        faults.append(_kind_fault(kind))
        raise _refusal(path, faults)
    recipe_type = KINDS[kind]
    recipe: Recipe | None = None
    faulty: set[str] = set()
    try:
        recipe = recipe_type.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            faulty.add(_dotted(detail["loc"]).partition("[")[0])
            faults.append(_describe(recipe_type, detail))
    faults += _cross_faults(dict(_sound_values(recipe_type, raw, faulty)))
    if faults or recipe is None:
        raise _refusal(path, faults)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """YAML with every default spelled out; ``load_recipe`` reads it back to an equal recipe."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def differing_keys(recipe: Recipe, earlier: dict[str, Any]) -> list[str]:
    """What keeps a recipe from continuing a run: each key with its value now and then.

    Left out are the length of the run, the sample prompts, how ranks share the work, and how often
    it logs, samples and saves: these may change from one part of a run to the next.

    Args:
        recipe: to continue with.
        earlier: values of the run's recipe, as ``model_dump`` gave them; keys that there weren't
            yet count as their defaults.
    """
    with contextlib.suppress(ValidationError):
        earlier = type(recipe).model_validate(earlier).model_dump(mode="json")
    now, then = dict(_leaves(recipe.model_dump(mode="json"))), dict(_leaves(earlier))
    return [
        f"{key} is {now.get(key)}, was {then.get(key)}"
        for key in [*now, *(then.keys() - now.keys())]
        if now.get(key) != then.get(key) and key not in BOOKKEEPING
    ]


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


_MAX_BYTES = 1 << 16
_MAX_NODES = 10_000
_MAX_DIGITS = 100
_MAX_DEPTH = 50
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class _Loader(yaml.SafeLoader):
    """Safe loader that notes duplicate keys and reads 3e-4 as a number, as YAML 1.2 does.

    What aliases repeat is counted before it is built, and tags of no use in a recipe are refused:
    some of them stop the safe loader itself.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

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

    def _size(self, node: yaml.Node) -> int:
        """Values in a node with its aliases written out."""
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in _KINDS:
            raise _fault(node, f"a value of the kind {kind} (put a text in quotes)")
        if kind in ("int", "float") and len(node.value) > _MAX_DIGITS:
            raise _fault(node, f"a number of more than {_MAX_DIGITS} characters")
        if id(node) in self._open:
            raise _fault(node, "it contains itself")
        if len(self._open) == _MAX_DEPTH:
            raise _fault(node, f"groups and lists are nested more than {_MAX_DEPTH} deep")
        self._open.add(id(node))
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = itertools.chain(*inside) if isinstance(node, yaml.MappingNode) else inside
        size = 1 + sum(map(self._size, parts))
        if size > _MAX_NODES:
            raise _fault(node, f"with its aliases it has more than {_MAX_NODES} values")
        self._open.discard(id(node))
        self._sizes[id(node)] = size
        return size

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
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
    """A YAML document, and its duplicate keys."""
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.duplicates
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # Scalars that their own tag doesn't fit, as `!!bool maybe`, stop the loader in many ways.
        raise yaml.YAMLError(f"a value doesn't fit its tag ({error})") from error
    finally:
        loader.dispose()


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = regular_file(path).read_text(encoding="utf-8")
    except OSError as error:
        raise unreadable(path, error, "give the path of a YAML file", RecipeError) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not UTF-8 text", "give a YAML file") from error
    if len(text) > _MAX_BYTES:
        raise RecipeError(
            f"recipe {path} has {len(text)} characters, the most is {_MAX_BYTES}", "shorten it"
        )
    try:
        raw, faults = _load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"recipe {path} is not valid YAML: {_yaml_reason(error)}", "correct its syntax there"
        ) from error
    if not isinstance(raw, dict):
        raise RecipeError(
            f"recipe {path} holds no keys", "start it with `kind: tokenizer` or `kind: generator`"
        )
    return raw, faults


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return str(error).splitlines()[0]


def _override_(raw: dict[str, Any], override: str) -> list[str]:
    """Set one value in ``raw``; faults of the override itself."""
    place, equals, text = override.partition("=")
    keys = place.split(".")
    if not equals or not all(keys):
        return [f"{override}: an override is a dotted key, an equals sign and a value"]
    try:
        value, faults = _load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return [f"{place}: the value {text!r} is not valid YAML: {_yaml_reason(error)}"]
    section = raw
    for depth, key in enumerate(keys[:-1], 1):
        if section.get(key) is None:
            section[key] = {}
        if not isinstance(section[key], dict):
            return [f"{place}: {'.'.join(keys[:depth])} is a value, so it has no keys"]
        section = section[key]
    section[keys[-1]] = value
    return faults


def _kind_fault(kind: object) -> str:
    if kind is None:
        return "kind: is required, tokenizer or generator"
    near = difflib.get_close_matches(str(kind), KINDS, 1)
    return f"kind: should be tokenizer or generator, not {kind!r}" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def _refusal(path: Path, faults: list[str]) -> RecipeError:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = "".join(f"\n  {fault}" for fault in faults)
    return RecipeError(
        f"recipe {path} has {count}:{lines}", "correct the file, or the overrides given with it"
    )


def _dotted(location: tuple[int | str, ...]) -> str:
    """Place as written in overrides; items of lists as ``levels[2]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _describe(recipe_type: type[BaseModel], detail: Any) -> str:
    """One line on a fault that pydantic found."""
    place = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key{_suggestion(recipe_type, place)}"
    if detail["type"] == "missing":
        return f"{place}: is required"
    if detail["type"] == "model_type":
        return f"{place}: should be a group of keys, not {detail['input']!r}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}: {message}, not {detail['input']!r}"


def _suggestion(recipe_type: type[BaseModel], place: str) -> str:
    section, _, key = place.rpartition(".")
    known = dict(_keys(recipe_type))
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    near = difflib.get_close_matches(key, beside, 1, cutoff=0.5)
    if near:
        return f", did you mean {beside[near[0]]}?"
    elsewhere = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, elsewhere, 1, cutoff=0.75)
    if near:
        return f", did you mean {elsewhere[near[0]]}?"
    return f"; known here: {', '.join(beside)}"


def _keys(
    section: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Every dotted key of a recipe type, with the section's type where it names one."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        nested = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        yield prefix + name, nested
        if nested is not None:
            yield from _keys(nested, f"{prefix}{name}.")


def _sound_values(
    section: type[BaseModel], raw: dict[str, Any], faulty: set[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Values without a fault of their own, defaults included, by dotted key.

    With these, keys can be checked against one another even while others are wrong.
    """
    for name, info in section.model_fields.items():
        place = prefix + name
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = raw.get(name, {})
            if isinstance(inner, dict) and (name in raw or not info.is_required()):
                yield from _sound_values(kind, inner, faulty, f"{place}.")
        elif name in raw:
            if place not in faulty:
                yield place, raw[name]
        elif not info.is_required():
            yield place, info.default


def _cross_faults(values: dict[str, Any]) -> list[str]:
    """Faults that lie between keys, wherever all keys concerned are sound."""
    checks: list[tuple[list[str], Callable[..., str | None]]] = [
        (["optimizer.warmup_steps", "train.steps"], _warmup_fault),
        (["model.block_out_channels", "model.spatial_stride"], _stages_fault),
        (["data.frames", "model.temporal_stride"], _frames_fault),
        (["data.source", *_SOURCE_SHARES, "data.folder"], _source_fault),
        (["data.height", "model.spatial_stride"], _size_fault("height")),
        (["data.width", "model.spatial_stride"], _size_fault("width")),
        (["data.more_sizes", "model.spatial_stride"], _more_sizes_fault),
        (["loss.mse", "loss.l1", "loss.log_mse", "loss.ssim"], _loss_fault),
        (["model.num_attention_heads", "model.num_key_value_heads"], _heads_fault),
        (_SHARES, _shares_fault),
        (["lora.rank", "init"], _lora_fault),
        (["freeze_encoder", "init"], _freeze_fault),
        (["init_codes", "init", "freeze_encoder"], _init_codes_fault),
        (["path.kind", "path.alpha"], _path_fault("alpha")),
        (["path.kind", "path.c"], _path_fault("c")),
    ]
    found = [
        check(*map(values.get, keys)) for keys, check in checks if all(k in values for k in keys)
    ]
    return [fault for fault in found if fault is not None]


def _warmup_fault(warmup_steps: int, steps: int) -> str | None:
    if warmup_steps < steps:
        return None
    return f"optimizer.warmup_steps: {warmup_steps} should be fewer than train.steps, {steps}"


def _stages_fault(widths: list[int], spatial_stride: int) -> str | None:
    # Patches of 4 pixels take two halvings; the last stage never halves.
    least = (spatial_stride // 4).bit_length() + 1
    if len(widths) >= least:
        return None
    return (
        f"model.block_out_channels: {len(widths)} widths are too few"
        f" for model.spatial_stride {spatial_stride}, give at least {least}"
    )


def _frames_fault(frames: int, temporal_stride: int) -> str | None:
    try:
        Strides(temporal_stride, 1).grid(PixelShape(frames, 1, 1))
    except ShapeError as error:
        return f"data.frames: {error.message}, {error.hint}"
    return None


_SOURCE_SHARES = ("data.shares.emoji", "data.shares.film", "data.shares.shapes")


def _source_fault(
    source: str, emoji: float, film: float, shapes: float, folder: str | None
) -> str | None:
    if source != "mixture":
        given = "shares" if emoji or film or shapes else "folder" if folder is not None else None
        return given and f"data.{given}: has no meaning for data.source {source}, leave it out"
    if not (emoji or film or shapes):
        return "data.shares: a mixture needs at least one share above 0"
    if folder is None and (emoji or film):
        return "data.folder: is required for emoji and film"
    return None


def _size_fault(name: str) -> Callable[[int, int], str | None]:
    def fault(size: int, spatial_stride: int) -> str | None:
        square = {"height": spatial_stride, "width": spatial_stride}
        return _stride_fault(f"data.{name}", PixelShape(1, **square | {name: size}), spatial_stride)

    return fault


def _more_sizes_fault(sizes: list[tuple[int, int]], spatial_stride: int) -> str | None:
    shapes = (PixelShape(1, *size) for size in sizes)
    faults = (_stride_fault("data.more_sizes", shape, spatial_stride) for shape in shapes)
    return next((fault for fault in faults if fault is not None), None)


def _stride_fault(key: str, shape: PixelShape, spatial_stride: int) -> str | None:
    try:
        Strides(1, spatial_stride).grid(shape)
    except ShapeError as error:
        return f"{key}: {error.message}, {error.hint}"
    return None


def _loss_fault(*weights: float) -> str | None:
    return None if any(weights) else "loss: at least one weight should be above 0"


def _heads_fault(heads: int | None, key_value_heads: int | None) -> str | None:
    if heads is None or key_value_heads is None or heads % key_value_heads == 0:
        return None
    return (
        f"model.num_attention_heads: {heads} should be a multiple of"
        f" model.num_key_value_heads, {key_value_heads}"
    )


_SHARES = [
    f"objective.{name}_probability"
    for name in ("async", "image_to_video", "extension", "interpolation")
]


def _shares_fault(*shares: float) -> str | None:
    if sum(shares) <= 1:
        return None
    return f"{', '.join(_SHARES)}: {sum(shares):g} together, should be 1 at most"


def _lora_fault(rank: int | None, init: str | None) -> str | None:
    if rank is None or init is not None:
        return None
    return f"lora.rank: {rank} asks for an adapter, so init has to name the model that it is for"


def _freeze_fault(freeze_encoder: bool, init: str | None) -> str | None:
    if not freeze_encoder or init is not None:
        return None
    return "freeze_encoder: keeps the codes of a tokenizer, so init has to name it"


def _init_codes_fault(init_codes: float, init: str | None, freeze_encoder: bool) -> str | None:
    if not init_codes or (init is not None and not freeze_encoder):
        return None
    if freeze_encoder:
        return "init_codes: with freeze_encoder all codes are those of init, leave it out"
    return f"init_codes: {init_codes} asks for codes of a tokenizer, so init has to name it"


def _path_fault(name: str) -> Callable[[str, float | None], str | None]:
    def fault(kind: str, value: float | None) -> str | None:
        if kind == "metric" or value is None:
            return None
        return f"path.{name}: {value} has no meaning for path.kind {kind}, leave it out"

    return fault
