"""A commented recipe that trains a model further on one's own token shards."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ursa_core import amounts, files
from ursa_core.bundle.bundle import resolve_model
from ursa_core.bundle.folder import URSA_MODEL, read_json
from ursa_core.bundle.settings import PathConfig, load_settings
from ursa_core.bundle.subjects import load_subjects
from ursa_core.configs import read_config
from ursa_core.encoding.cuts import CROP
from ursa_core.errors import UsageError
from ursa_core.files import check_folder_of
from ursa_core.models.presets import PRESETS
from ursa_core.models.transformer import TransformerConfig
from ursa_core.places import mirror_of
from ursa_core.recipe.fields import SamplingSettings
from ursa_core.recipe.loading import load_recipe
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokens.shards import read_shards
from ursa_core.training.run import TrainingPlan, plan_training
from ursa_core.worlds import shapes

TEMPLATE = Path(__file__).with_name("new_recipe.yaml")
SCHEMA = Path(__file__).parents[1] / "recipe" / "recipe.schema.json"
SHARE = 0.6  # of the new clips among all
PASSES, LEAST, MOST = 30, 300, 5000  # times that a new clip is shown; bounds of the steps
STEP_CLIPS, PASS_TOKENS = 16, 6000


def write_recipe(file: Path, data: Sequence[str], init: str) -> TrainingPlan:
    """Write a recipe that fits token shards and a model, and return its plan.

    60 % of the clips that it draws are those of the first folder. The rest are those of the other
    folders, or where there are none and its prompts are known, clips that the model makes itself.
    A file that exists is a UsageError.
    """
    if file.exists() or file.suffix not in (".yaml", ".yml"):
        what = "exists already" if file.exists() else "is no name of a recipe"
        raise UsageError(f"{file} {what}", "give a new name that ends in .yaml")
    check_folder_of(file)
    start = resolve_model(init)
    URSA_MODEL.check(start)
    settings, table = load_settings(start), read_shards(*data)
    config = TransformerConfig.from_json(read_json(start / "transformer" / "config.json"))
    path = read_config(PathConfig, read_json(start / "scheduler" / "scheduler_config.json"), "path")
    texts = TextTokenizer.load(start / "tokenizer", settings.max_prompt_length)
    clips = range(*table.folders[mirror_of(data[0])][:2])
    captions = Counter(text for clip in clips for text in table.captions(clip))
    words = texts.new_words(sorted(captions))
    added = _yaml(words[:8]) + f" and {len(words) - 8} more" * (len(words) > 8)
    preset = min(PRESETS, key=lambda name: abs(PRESETS[name].hidden_size - config.hidden_size))
    sizes = {k: own for k, v in asdict(PRESETS[preset]).items() if v != (own := getattr(config, k))}
    is_small = preset == "nano"
    world = "emoji:train" if load_subjects(start) else "shapes:train"
    # A list of words that has those of the procedural world is of a model that was trained on it.
    is_known = world == "emoji:train" or not texts.unknown_words(" ".join(shapes.SHAPES))
    knows_all = texts.unknown_id is None
    has_prior = is_known and not knows_all and len(data) == 1
    known = world if is_known else ["a prompt that the model knows", "another one"]
    made = f"{data[0].rstrip('/')}_prior_{Path(init).resolve().name}"
    prior = {"shards": made, "share": 1 - SHARE, "prompts": known, "num": 480}
    shares = [SHARE, *[(1 - SHARE) / max(1, len(data) - 1)] * (len(data) - 1)]
    sets = [{"shards": d, "share": share} for d, share in zip(data, shares, strict=True)]
    source: dict[str, object] = {"sets": sets} if len(data) > 1 else {"shards": data[0]}
    tokens = texts.max_prompt_length + 1 + max(grid.num_codes for grid in table.grids)
    batch = max(1, min(STEP_CLIPS, PASS_TOKENS // tokens))
    new_per_step = STEP_CLIPS * (SHARE if has_prior or len(data) > 1 else 1)
    wholes = sum(not CROP.fullmatch(table.source(clip)) for clip in clips)
    shown = wholes * PASSES * (1 + (wholes < len(clips)))  # with crops twice as often in all
    steps = min(max(round(shown / new_per_step), LEAST), MOST)
    sampling = {k: getattr(settings, k) for k in SamplingSettings.model_fields}
    if settings.correct:  # its few steps are for what it knows well
        more = {"steps": 2 * settings.steps, "guidance": 1.5 * settings.guidance}
        sampling |= {**more, "correct": 0.5}
    rate = {"kind": "muon", "learning_rate": 1e-3} if is_small else {"learning_rate": 1e-4}
    folders = [word for each in data for word in ("--data", each)]
    values = {
        "schema": SCHEMA,
        "command": shlex.join(["ursa", "train", "--new", str(file), *folders, "--init", init]),
        "clips": len(clips),
        "grids": " and ".join(map(str, table.grids[:3])),
        "file": shlex.quote(str(file)),
        "name": _yaml(file.stem),
        "run": shlex.quote(f"runs/{file.stem}"),
        "init": _yaml(init),
        "vocabulary": "keep" if knows_all else "extend",
        "words": "knows every text" if knows_all else f"new words are added: {added}",
        "model": _yaml({"preset": preset, **sizes, "max_prompt_length": texts.max_prompt_length}),
        "data": _yaml(source | ({"motion_prefix": True} if settings.motion_prefix else {})),
        "prior": ("" if has_prior else "# ") + f"prior: {_yaml(prior)}",
        "path": _yaml({"kind": path.kind} | {k: v for k in ("alpha", "c") if (v := vars(path)[k])}),
        "shift": max(2.0, settings.shift),
        "lora": "# lora: {rank: 64}" if is_small else "lora: {rank: 32}",
        "adapter_rate": "; with learning_rate 0.004" * is_small,
        "optimizer": _yaml({**rate, "weight_decay": 0.0, "warmup_steps": 20}),
        "steps": steps,
        "passes": round(steps * new_per_step / len(clips)),
        "batch": batch,
        "accumulate": -(-STEP_CLIPS // batch),
        "sampling": _yaml(sampling),
        "samples": _yaml({"prompts": [text[:300] for text, _ in captions.most_common(3)]}),
    }  # fmt: skip
    try:
        _write(file, values, "")
        plan = plan_training(load_recipe(file, []), Path("runs") / file.stem, fresh=True)
        whole = amounts.duration(plan.seconds_per_step * steps)
        first = f", and {amounts.duration(plan.prior_seconds)} before it" * bool(plan.prior_clips)
        needs = amounts.size(plan.memory["total"])
        _write(file, values, f"About {whole} on {plan.device}{first}, {needs}.")
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return plan


def _yaml(value: object) -> str:
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1 << 20}
    text = yaml.safe_dump(value, default_flow_style=True, **options)
    return str(text).removesuffix("...\n").strip()


def _write(file: Path, values: Mapping[str, object], estimate: str) -> None:
    """Fill the template, with comments in one column."""
    text = TEMPLATE.read_text(encoding="utf-8").format(**values, estimate=estimate)
    files.write(file, re.sub(r"^([^#\n].*?) +# ", lambda m: f"{m[1]:<25} # ", text, flags=re.M))
