"""Prior clips: what a model makes of given prompts before it is trained further.

Mixed with new data they keep what it knew (Ruiz et al. 2022, arXiv:2208.12242, Sec. 3.2).
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ursa_core import amounts
from ursa_core.bundle.bundle import load_bundle, load_tokenizer, resolve_model, tokenizer_identity
from ursa_core.bundle.folder import URSA_MODEL, model_identity
from ursa_core.bundle.options import SamplingOptions
from ursa_core.bundle.settings import load_settings
from ursa_core.bundle.subjects import load_subjects
from ursa_core.bundle.summary import summary
from ursa_core.encoding.encode import token_identity
from ursa_core.errors import DataError, RecipeError
from ursa_core.parts import Part
from ursa_core.recipe.fields import GeneratorRecipe, PriorSettings
from ursa_core.sampling.generate import Request, Sampler
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.writer import ShardWriter, TokenRow
from ursa_core.training.generator.batches import PRIOR, PRIOR_SEED
from ursa_core.training.learner import check_corrector
from ursa_core.training.prompts import prompts_of

PACK = 8  # clips in one pass of the network
ROWS_PER_SHARD = 64  # about the most clips that a killed run loses


def missing_of_prior(prior: PriorSettings) -> int:
    """Number of a prior's clips that its folder lacks."""
    with suppress(DataError):
        return max(0, prior.num - len(read_shards(prior.shards)))
    return prior.num


def prior_options(prior: PriorSettings, start: Path) -> SamplingOptions:
    """How a prior's clips are sampled: as ``start`` does, but for what the recipe says."""
    given = prior.model_dump(include={"steps", "guidance", "correct"}, exclude_none=True)
    return replace(load_settings(start).defaults, **given)


def open_prior(
    recipe: GeneratorRecipe,
    prior: PriorSettings,
    start: Path,
    part: Part = Part(),  # noqa: B008  (frozen)
) -> tuple[ShardWriter, list[str], SamplingOptions]:
    """Writer, prompts and options of a prior's clips.

    A start that can't make them is a RecipeError, a folder of other ones a DataError.
    """
    if not (start / URSA_MODEL.mark).is_file():
        raise RecipeError(f"prior: {recipe.init} makes no clips", "leave prior out")
    tokenizer, _, digest = load_tokenizer(start)
    if digest != tokenizer_identity(resolve_model(recipe.tokenizer)):
        raise RecipeError(
            f"prior: {recipe.init} makes clips in the codes of its own tokenizer, and the recipe"
            f" has that of {recipe.tokenizer}",
            f"give tokenizer: {recipe.init}, or the old data in data.sets in place of prior",
        )
    prompts = prompts_of(prior.prompts, load_subjects(start))
    if not prompts:
        raise RecipeError(f"prior.prompts: {prior.prompts[0]} has no prompt", "give some")
    options = prior_options(prior, start)
    if options.correct:
        check_corrector("prior", options, summary(start).solvers)
    if recipe.objective.coupling == "pairs" and options.correct:
        raise RecipeError(
            f"objective.coupling: a corrector of {options.correct:g} draws codes again, so that"
            " clips are no pairs with their noise",
            "give prior.correct=0",
        )
    record: dict[str, Any] = {
        "starting model": model_identity(start),
        "prompts": hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16],
        **asdict(options),
    }
    try:
        identity = token_identity(tokenizer, digest)
        writer = ShardWriter(Path(prior.shards), identity, record, ROWS_PER_SHARD, part)
    except DataError as error:
        error.hint = "give prior.shards another folder, or delete this one if only priors need it"
        raise
    return writer, prompts, options


def make_prior(
    recipe: GeneratorRecipe,
    prior: PriorSettings,
    start: Path,
    device: torch.device,
    part: Part,
    on_note: Callable[[str], None],
) -> None:
    """Make the clips that a prior's folder lacks; each process makes those of its part.

    Raises as ``open_prior``.
    """
    writer, prompts, options = open_prior(recipe, prior, start, part)
    todo = [k for k in range(prior.num) if part.owns(k) and f"{PRIOR}{k}" not in writer.done]
    with writer:
        if not todo:
            return
        on_note(f"{recipe.init} makes {len(todo)} clips for {prior.shards}")
        bundle, began = load_bundle(start, device), time.monotonic()
        motion = options.motion / recipe.data.motion_scale
        for place in range(0, len(todo), PACK):
            pack = todo[place : place + PACK]
            requests = [Request(prompts[k % len(prompts)], PRIOR_SEED, k, options) for k in pack]
            for request, codes in zip(requests, Sampler(bundle, requests).sample(), strict=True):
                about = ((request.prompt,), options.fps, motion, f"{PRIOR}{request.index}")
                writer.add(TokenRow(codes.cpu(), *about))
            made = place + len(pack)
            if place == 0 or made // ROWS_PER_SHARD > place // ROWS_PER_SHARD:
                left = (time.monotonic() - began) * (len(todo) - made) / made
                on_note(f"{made} of {len(todo)} clips made, {amounts.duration(left)} left")
