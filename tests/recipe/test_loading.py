"""Recipes: all faults at once, overrides, round trip, fingerprint."""

import ast
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ursa_core.errors import RecipeError
from ursa_core.recipe import fields
from ursa_core.recipe.fields import GeneratorRecipe, TokenizerRecipe
from ursa_core.recipe.loading import differing_keys, load_recipe, to_yaml

TOKENIZER = """\
kind: tokenizer
name: small
model:
  block_out_channels: [32, 64, 96]
  levels: [8, 5, 5]
  spatial_stride: 8
  temporal_stride: 4
data: {source: shapes, frames: 17, height: 64, width: 96}
optimizer: {learning_rate: 3e-4, warmup_steps: 100}
train: {steps: 1000, batch_size: 8}
"""
GENERATOR = """\
kind: generator
name: nano
tokenizer: runs/tokenizer
model: {preset: nano, max_prompt_length: 16}
data: {shards: data/shapes}
optimizer: {learning_rate: 0.001, warmup_steps: 100}
train: {steps: 1000, batch_size: 8}
"""

RECIPES = sorted(Path(__file__).parents[2].joinpath("recipes").glob("*.yaml"))

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def faults(path: Path, *overrides: str) -> list[str]:
    """Lines of the refusal after its summary."""
    with pytest.raises(RecipeError) as refusal:
        load_recipe(path, list(overrides))
    assert refusal.value.exit_code == 2
    assert refusal.value.hint
    summary, *lines = refusal.value.message.splitlines()
    assert str(path) in summary
    return [line.strip() for line in lines]


def test_kind_chooses_the_type(write: Write) -> None:
    tokenizer = load_recipe(write(TOKENIZER), [])
    assert isinstance(tokenizer, TokenizerRecipe)
    assert tokenizer.model.levels == [8, 5, 5]
    assert tokenizer.optimizer.learning_rate == 3e-4  # YAML 1.1 alone would read a string
    assert (tokenizer.loss.mse, tokenizer.loss.l1, tokenizer.model.causal) == (1.0, 0.0, True)
    generator = load_recipe(write(GENERATOR), [])
    assert isinstance(generator, GeneratorRecipe)
    assert (generator.path.kind, generator.path.alpha, generator.path.c) == ("metric", 1.0, 5.0)
    assert generator.sampling.guidance_interval == (0.0, 0.9)


def test_overrides_win_and_are_yaml(write: Write) -> None:
    overrides = [
        "train.steps=200",
        "train.steps=300",
        "model.levels=[4, 4]",
        "train.max_hours=1.5",
        "train.compile=true",
        "loss.l1=2",
    ]
    recipe = load_recipe(write(TOKENIZER), overrides)
    assert isinstance(recipe, TokenizerRecipe)
    assert recipe.train.steps == 300
    assert recipe.model.levels == [4, 4]
    assert recipe.train.max_hours == 1.5
    assert recipe.train.compile is True
    assert recipe.loss.l1 == 2.0
    sets = "data=[{shards: a, share: 0.5}, {shards: b, share: 0.5}]"
    mixed = load_recipe(write(GENERATOR), [sets, "data.workers=2"])
    assert isinstance(mixed, GeneratorRecipe)
    assert mixed.data.workers == 2
    assert [each.shards for each in mixed.data.sets or ()] == [["a"], ["b"]]


def test_all_faults_of_single_keys_at_once(write: Write) -> None:
    text = TOKENIZER.replace("spatial_stride: 8", "spatial_stride: 16\n  spatial_strid: 16")
    text = text.replace("batch_size: 8", "batch_size: 2.5, device: tpu")
    text += "learning_rate: 3\nmodle: {}\nname: again\n"
    lines = faults(write(text), "train.stpes=3", "loss.mse=0", "nonsense")
    assert sorted(lines) == sorted(
        [
            "name: given twice, again on line 14",
            "nonsense: an override is a dotted key, an equals sign and a value",
            "model.spatial_strid: unknown key, did you mean model.spatial_stride?",
            "train.batch_size: should be a valid integer, not 2.5",
            "train.device: should be 'auto', 'cpu', 'cuda' or 'mps', not 'tpu'",
            "train.stpes: unknown key, did you mean train.steps?",
            "learning_rate: unknown key, did you mean optimizer.learning_rate?",
            "modle: unknown key, did you mean model?",
            "loss: at least one weight should be above 0",  # all in one section
        ]
    )


def test_faults_between_keys_come_together_once_each_key_is_sound(write: Write) -> None:
    text = TOKENIZER.replace("frames: 17, height: 64", "frames: 18, height: 70")
    between = ["optimizer.warmup_steps=1000", "freeze_encoder=true", "data.more_sizes=[[64, 9]]"]
    assert faults(write(text), *between) == [
        "optimizer.warmup_steps: 1000 should be fewer than train.steps, 1000",
        "data.frames: 18 frames don't fit a temporal stride of 4, use 17 or 21 frames",
        (
            "data.height: a height of 70 pixels doesn't fit a spatial stride of 8,"
            " use a height of 64 or 72"
        ),
        (
            "data.more_sizes: a width of 9 pixels doesn't fit a spatial stride of 8,"
            " use a width of 8 or 16"
        ),
        "freeze_encoder: keeps the codes of a tokenizer, so init has to name it",
    ]
    assert faults(write(TOKENIZER), "model.spatial_stride=16", "data.shares.film=1") == [
        (
            "model.block_out_channels: 3 widths are too few for model.spatial_stride 16,"
            " give at least 4"
        ),
        "data.shares: has no meaning for data.source shapes, leave it out",
    ]


def test_the_old_name_of_latent_frames_is_refused_by_the_new_one(write: Write) -> None:
    (line,) = faults(write(GENERATOR), "data.frames=5")
    assert line == "data.frames: unknown key, did you mean data.latent_frames?"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("seed=true", "seed: should be a valid integer, not True"),
        ("seed=-1", "seed: should be greater than or equal to 0, not -1"),
        ("optimizer.learning_rate='1'", "optimizer.learning_rate: should be a valid number"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate: should be a finite number"),
        ("optimizer.beta2=1.0", "optimizer.beta2: should be less than 1, not 1.0"),
        ("train=3", "train: should be a group of keys, not 3"),
        ("train.steps.more=3", "train.steps.more: train.steps is a value"),
        ("train.steps=[", "train.steps: the value '[' is not valid YAML"),
        (
            "kind=generater",
            "kind: should be tokenizer, generator or reward, not 'generater'; did you",
        ),
        ("model.preset=5B", "model.preset: should be 'nano', '0.6B', '1.7B' or '4B', not '5B'"),
        ("model.head_dim=24", "model.head_dim: should be a multiple of 16, not 24"),
        ("path.kind=masked path.alpha=1", "path.alpha: 1 has no meaning for path.kind masked"),
        ("path.alpha=0", "path.alpha: should be greater than or equal to 0.01, not 0"),
        ("path.c=1000000", "path.c: should be less than or equal to 10000, not 1000000"),
        ("sampling.guidance_interval=[0.9, 0.1]", "sampling.guidance_interval: should start"),
        ("sampling.guidance_interval=[0, 2]", "sampling.guidance_interval[1]: should be less"),
        ("objective.async_probability=1.1", "objective.async_probability: should be less than"),
        (
            "objective.async_probability=0.6 objective.extension_probability=0.5",
            "objective.async_probability, objective.image_to_video_probability, objective.exten",
        ),
        ("data.shards=[]", "data.shards: is empty"),
        ("train.keep=1", "train.keep: unknown key"),
        (
            "model.num_attention_heads=6 model.num_key_value_heads=4",
            "model.num_attention_heads: 6 should be a multiple of model.num_key_value_heads, 4",
        ),
    ],
)
def test_one_fault_is_named_at_its_place(write: Write, override: str, fault: str) -> None:
    overrides = [override] if "[" in override else override.split(" ")
    (line,) = faults(write(GENERATOR), *overrides)
    assert line.startswith(fault)


def test_missing_keys_are_named(write: Write) -> None:
    lines = faults(write("kind: tokenizer\nname: x\noptimizer: {learning_rate: 1}\n"))
    assert lines == [
        f"{key}: is required" for key in ("model", "data", "optimizer.warmup_steps", "train")
    ]
    (line,) = faults(write("name: x\n"))
    assert line.startswith("kind: is required")


def test_too_many_codes_are_refused(write: Write) -> None:
    (line,) = faults(write(TOKENIZER), "model.levels=[64, 64, 64, 64]")
    assert line.startswith("model.levels: should make at most 1048576 codes")


@pytest.mark.parametrize(
    "text", ["kind: [tokenizer", "kind: !!python/name:os.system", "", "- a\n", "a: b: c"]
)
def test_what_is_no_recipe_is_refused(write: Write, text: str) -> None:
    assert faults(write(text)) == []


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    assert faults(tmp_path / "absent.yaml") == []
    assert faults(tmp_path) == []
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00kind")
    assert faults(tmp_path / "binary.yaml") == []


@pytest.mark.parametrize(
    "overrides",
    [[], ["path.kind=mixture"], ["path.c=7", "model.hidden_size=256", "train.max_hours=2"]],
)
def test_yaml_round_trip(write: Write, overrides: list[str]) -> None:
    recipe = load_recipe(write(GENERATOR), overrides)
    again = load_recipe(write(to_yaml(recipe)), [])
    assert again == recipe
    assert not differing_keys(again, recipe.model_dump(mode="json"))


def test_yaml_spells_out_defaults(write: Write) -> None:
    values = yaml.safe_load(to_yaml(load_recipe(write(TOKENIZER), [])))
    assert values["optimizer"]["final_ratio"] == 0.05
    assert values["train"]["ema_decay"] == 0.999


def test_a_run_goes_on_with_other_bookkeeping_only(write: Write) -> None:
    path = write(GENERATOR)
    earlier = load_recipe(path, []).model_dump(mode="json")
    same = [
        "train.steps=2000",
        "train.max_hours=3",
        "train.log_every=1",
        "train.sample_every=1",
        "train.checkpoint_every=1",
        "train.keep_checkpoints=5",
        "train.keep_every=50",
        "train.distributed=fsdp",
        "train.recompute=true",
        "train.on_fault=skip",
        "train.spike=3",
        "samples.prompts=[a red circle]",
        "optimizer.learning_rate=1e-3",
    ]
    assert not differing_keys(load_recipe(path, same), earlier)
    for override in ["seed=1", "train.batch_size=9", "optimizer.learning_rate=2e-3", "name=b"]:
        (difference,) = differing_keys(load_recipe(path, [override]), earlier)
        assert difference.startswith(override.partition("=")[0] + " is ")
        assert ", was " in difference


def test_a_run_of_an_earlier_version_had_the_defaults(write: Write) -> None:
    path = write(GENERATOR)
    earlier = load_recipe(path, []).model_dump(mode="json")
    del earlier["train"]["compile"]
    assert not differing_keys(load_recipe(path, []), earlier)
    assert differing_keys(load_recipe(path, ["train.compile=true"]), earlier) == [
        "train.compile is True, was False"
    ]


def test_every_key_has_a_comment() -> None:
    """At its end, or above it; groups of keys have docstrings."""
    source = Path(fields.__file__).read_text(encoding="utf-8")
    lines = ["", *source.splitlines()]
    keys = [
        line
        for section in ast.parse(source).body
        if isinstance(section, ast.ClassDef)
        for line in section.body
        if isinstance(line, ast.AnnAssign) and not isinstance(line.value, ast.Call)
    ]
    assert len(keys) > 90
    plain = [
        lines[key.lineno]
        for key in keys
        if "  # " not in lines[key.lineno] and not lines[key.lineno - 1].startswith("    # ")
    ]
    groups = [
        name for name in vars(fields) if name.endswith(("Settings", "Model", "Data", "Objective"))
    ]
    assert [line for line in plain if line.split()[-1] not in groups] == [
        "    kind: str",
        '    kind: Literal["tokenizer"]',
        '    kind: Literal["generator"]',
        '    kind: Literal["reward"]',
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path, [])
    assert recipe.name == path.stem


YAML_BOMBS = {
    "aliases": "\n".join(
        ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
        + [f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    ),
    "merge keys": "\n".join(
        ["a0: &a0 {x: 1, y: 2}"]
        + [f"a{k}: &a{k} {{<<: [{','.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 12)]
    ),
    "a circle": "a: &a [*a]",
    "bool": "a: !!bool maybe",
    "timestamp": "a: 2024-99-99",
    "set": "a: !!set {x, y}",
    "binary": "a: !!binary x",
    "python": "a: !!python/object/apply:os.system [x]",
    "int": "a: !!int x",
    "many digits": "a: 1" + ":59" * 10_000,
    "deep": "a: " + "[" * 5000,
    "long": "a: " + "x" * (1 << 20),
}


@pytest.mark.parametrize("text", YAML_BOMBS.values(), ids=YAML_BOMBS)
def test_yaml_that_would_hang_or_break_the_loader_is_refused(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text("kind: generator\n" + text)
    began = time.process_time()
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(file, [])
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.steps", 1 << 64), ("train.steps", 2.0), ("seed", 1 << 63),
     ("model.num_hidden_layers", 1 << 24), ("optimizer.learning_rate", "1e300")],
)  # fmt: skip
def test_numbers_out_of_any_range_are_faults(key, value):
    with pytest.raises(RecipeError, match=key):
        load_recipe(RECIPES[0].with_name("nano.yaml"), [f"{key}={value}"])


@pytest.mark.parametrize(
    "value", ["steps=20000", "guidance=200", "shift=0.0001", "temperature=0.00001", "fps=2000"]
)
def test_what_no_bundle_may_say_is_refused_in_the_recipe_that_makes_it(value, write):
    with pytest.raises(RecipeError, match=f"sampling.{value.partition('=')[0]}: "):
        load_recipe(write(GENERATOR), [f"sampling.{value}"])


@pytest.mark.parametrize("name", ["../esc", "/abs", "'  '", "..", '"a\\nb"'])
def test_a_name_is_that_of_a_folder(name):
    recipe = Path(__file__).parents[2] / "recipes" / "nano.yaml"
    assert load_recipe(recipe, ["name=a fox 🦊"]).name == "a fox 🦊"
    with pytest.raises(RecipeError, match="name: should be a name for a folder"):
        load_recipe(recipe, [f"name={name}"])
