"""The scorers that a reward recipe names."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from ursa_core.bundle.bundle import resolve_model
from ursa_core.bundle.subjects import load_subjects
from ursa_core.errors import RecipeError
from ursa_core.evaluation.measures.videos import colour_drift, motion, speeds_of
from ursa_core.evaluation.suites.shapes import ATTRIBUTES, Wanted, right
from ursa_core.evaluation.suites.shapes_judge import measure, motion_sizes, verdict
from ursa_core.media import Frames
from ursa_core.media.quality import flicker
from ursa_core.recipe.fields import Recipe, RewardRecipe, RewardTerm
from ursa_core.rewards.command import CommandScorer
from ursa_core.training.prompts import prompts_of
from ursa_core.training.reward.learner import HELD_OUT, Scorer, Scorers
from ursa_core.worlds import shapes

_NEAR_RGB = 120.0  # RGB distance at which a colour counts nothing
_NO_SHAPE = 0.3  # share of the object that disagrees with the shape, from which that counts nothing
_WANTED = {
    shapes.caption(*each, background): Wanted("", *each, background)
    for each in shapes.combinations()
    for background in shapes.BACKGROUNDS
}


@contextlib.contextmanager
def open_scorers(recipe: Recipe) -> Iterator[Scorers]:
    """Scorers of a recipe by name, with weights.

    A program that isn't there, or prompts that ``shapes`` can't score, is a RecipeError.
    """
    with contextlib.ExitStack() as opened:
        found: dict[str, tuple[float, Scorer]] = {}
        if isinstance(recipe, RewardRecipe):
            given = [recipe.prompts, *([recipe.watch.prompts] if recipe.watch else [])]
            subjects = load_subjects(resolve_model(recipe.init or ""))
            prompts = [text for each in given for text in prompts_of(each, subjects)]
            for term in recipe.rewards:
                name = (term.figure or term.kind).replace(" ", "_")
                name += f"_{len(found) + 1}" if name in found else ""
                found[name] = term.weight, _scorer(term, prompts, opened)
            if recipe.watch and (watched := recipe.watch.score):
                found[HELD_OUT] = watched.weight, _scorer(watched, prompts, opened)
        yield found


def _scorer(term: RewardTerm, prompts: list[str], opened: contextlib.ExitStack) -> Scorer:
    if term.command is not None:
        return opened.enter_context(CommandScorer(term.command, term.timeout))
    if term.kind == "shapes":
        if others := [text for text in prompts if text not in _WANTED]:
            hint = "give captions of the procedural world, as shapes:train"
            raise RecipeError(f"kind: shapes can't score {others[0]!r}", hint)
        return lambda clips, prompts: list(map(shapes_score, clips, prompts))
    figure = FIGURES[term.figure or ""]
    return lambda clips, _: [figure(clip) for clip in clips]


FIGURES: dict[str, Callable[[Frames], float]] = {
    "flicker": flicker,
    "motion": lambda frames: motion(speeds_of(frames, shapes.FPS)),
    "colour drift": colour_drift,
}
"""The figures of ``ursa eval videos``, in their units."""


def shapes_score(frames: Frames, prompt: str) -> float | str:
    """How well a clip shows a caption of the procedural world, 0 to 1; a text if it is none.

    The product over colour, shape, motion and background of the mean of two: whether the judge of
    ``ursa eval shapes`` names the wanted one, and how near the clip's measurements are to it.
    """
    if (wanted := _WANTED.get(prompt)) is None:
        return "the prompt is no caption of the procedural world"
    seen = measure(frames)
    ground = np.linalg.norm(seen.ground - shapes.BACKGROUNDS[wanted.background])
    near = dict.fromkeys(ATTRIBUTES, 0.0) | {"background": 1 - ground / _NEAR_RGB}
    if seen.colour is not None:
        near["colour"] = 1 - np.linalg.norm(seen.colour - shapes.COLOURS[wanted.colour]) / _NEAR_RGB
        error = (seen.errors[wanted.shape] + seen.worst[wanted.shape]) / 2
        near["shape"] = 1 - error / _NO_SHAPE
        turn = seen.turns.get(wanted.shape, 0.0)
        sizes = motion_sizes(seen.shift, seen.growth, turn)
        size = sizes.pop(wanted.motion, 0.0)
        near["motion"] = min(size, 1.0) * size / max(size + max(sizes.values()), 1e-9)
        if wanted.motion == "stays still":
            near["motion"] = 1 - max(sizes.values())
    is_right = right(wanted, verdict(seen))
    return float(np.prod([(is_right[n] + np.clip(near[n], 0, 1)) / 2 for n in ATTRIBUTES]))
