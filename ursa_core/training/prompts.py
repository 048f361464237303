"""The prompts that a key of a recipe names."""

import re
from collections.abc import Sequence

import numpy as np

from ursa_core.batches.lists import SUFFIXES, Line, read_list, refuse
from ursa_core.bundle.subjects import Subject
from ursa_core.errors import DataError
from ursa_core.worlds import emoji, shapes


def prompts_of(given: Sequence[str], subjects: Sequence[Subject]) -> list[str]:
    """The texts themselves; or those of the one list, or of the procedural world, that is named.

    ``shapes:train`` and ``emoji:heldout`` are captions of a world's split, in a fixed random order;
    those of emoji name the ``subjects``. A list is a .txt with a prompt per line, a .jsonl or .csv;
    a faulty one is a DataError.
    """
    (first, *others) = given
    if others:
        return list(given)
    if first.endswith(SUFFIXES):
        listed = read_list(first, {"prompt": str}, lambda: b"")
        if faults := listed.faults:
            raise DataError(refuse(first, faults).message, "correct it, or leave it out")
        return [each.given["prompt"] for each in listed if isinstance(each, Line) and each.given]
    world, _, split = first.partition(":")
    if split not in ("train", "heldout") or world not in ("shapes", "emoji"):
        if re.fullmatch(r"\w+:\w+", first):
            raise DataError(f"there are no prompts {first}", "give shapes:train or emoji:train")
        return [first]
    if world == "shapes":
        of_world = [
            shapes.caption(*each, background)
            for each in shapes.combinations(split)
            for background in shapes.BACKGROUNDS
        ]
    else:
        of_world = [
            emoji.caption(subject.name, background)
            for subject in subjects
            for background in emoji.backgrounds_of(subject.name, split)
        ]
    return [of_world[place] for place in np.random.default_rng(0).permutation(len(of_world))]
