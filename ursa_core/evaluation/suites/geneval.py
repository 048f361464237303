"""GenEval: 553 prompts, four images each, in the folders that ``evaluate_images.py`` reads.

``00000/metadata.jsonl`` is the prompt's line of the official list, ``00000/samples/0000.png`` to
``0003.png`` are its images.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ursa_core.errors import DataError
from ursa_core.evaluation.suites.suite import LISTS, PlannedFile, Prompts, Suite, read_rows, thinned

RESULTS = "results.jsonl"
_SAMPLES = 4


def plan(prompts: Prompts = "raw", limit: int | None = None) -> Suite:
    """GenEval's 2,212 images, and the metadata beside them.

    Args:
        prompts: what the model is given.
        limit: prompts of a trial; they keep their numbers.
    """
    rows = read_rows(LISTS / "geneval.jsonl", ("metadata", "rewritten"))
    files, fixed = [], {}
    for number in thinned(len(rows), limit):
        metadata, rewritten = rows[number]["metadata"], rows[number]["rewritten"]
        fixed[f"{number:05d}/metadata.jsonl"] = json.dumps(metadata) + "\n"
        given = metadata["prompt"] if prompts == "raw" else rewritten
        files += [
            PlannedFile(
                f"{number:05d}/samples/{sample:04d}.png",
                f"{number} {metadata['prompt']}",  # some prompts are there twice
                given,
                sample,
                groups=(metadata["tag"],),
            )
            for sample in range(_SAMPLES)
        ]
    return Suite("geneval", files, _SAMPLES * len(rows), fixed)


@dataclass(frozen=True)
class Image:
    """What the scorer found in an image."""

    tag: str
    prompt: str
    correct: bool
    reason: str


def read_results(path: Path) -> dict[str, Image]:
    """The scorer's findings by file, as ``00000/samples/0000.png``; empty where there are none.

    Raises:
        DataError: the file is of another form.
    """
    if not path.exists():
        return {}
    found = {}
    for row in read_rows(path, ("filename", "tag", "prompt", "correct")):
        name = "/".join(Path(str(row["filename"])).parts[-3:])
        if not isinstance(row["correct"], bool | int):
            raise DataError(f"{path} is of another version", "run --only score again")
        reason = str(row.get("reason") or "")
        found[name] = Image(str(row["tag"]), str(row["prompt"]), bool(row["correct"]), reason)
    return found


def by_tag(images: Mapping[str, Image]) -> dict[str, list[bool]]:
    """Whether images are right, by tag."""
    found: dict[str, list[bool]] = {}
    for image in images.values():
        found.setdefault(image.tag, []).append(image.correct)
    return found
