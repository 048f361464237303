"""GenEval: 553 prompts, four images each, in the folders that ``evaluate_images.py`` reads.

``00000/metadata.jsonl`` is the prompt's line of the official list, ``00000/samples/0000.png`` to
``0003.png`` are its images.
"""

import json
from pathlib import Path

from ursa_core.errors import DataError
from ursa_core.evaluation.suites.suite import LISTS, PlannedFile, Results, Suite, read_rows, thinned

RESULTS = "results.jsonl"
_SAMPLES = 4


def plan(prompts: str = "raw", limit: int | None = None) -> Suite:
    """GenEval's 2,212 images of ``raw`` or ``rewritten`` prompts, or those of ``limit`` prompts."""
    rows = read_rows(LISTS / "geneval.jsonl", ("metadata", "rewritten"))
    files, fixed = [], {}
    for number in thinned(len(rows), limit):
        metadata, rewritten = rows[number]["metadata"], rows[number]["rewritten"]
        fixed[f"{number:05d}/metadata.jsonl"] = json.dumps(metadata) + "\n"
        given = metadata["prompt"] if prompts == "raw" else rewritten
        prompt_id = f"{number} {metadata['prompt']}"  # some prompts are there twice
        for sample in range(_SAMPLES):
            name, tags = f"{number:05d}/samples/{sample:04d}.png", (metadata["tag"],)
            files.append(PlannedFile(name, prompt_id, given, sample, groups=tags))
    return Suite("geneval", files, _SAMPLES * len(rows), fixed)


def read_results(path: Path) -> Results:
    """Whether the scorer found each image right, by tag and overall; empty without a file."""
    rows = read_rows(path, ("filename", "tag", "prompt", "correct")) if path.exists() else []
    tags: dict[str, dict[str, bool]] = {}
    overall, verdicts = {}, {}
    for row in rows:
        if not isinstance(row["correct"], bool | int):
            raise DataError(f"{path} is of another version", "run --only score again")
        name, correct = "/".join(Path(str(row["filename"])).parts[-3:]), bool(row["correct"])
        tags.setdefault(str(row["tag"]), {})[name] = overall[name] = correct
        reason = " ".join(str(row.get("reason") or "wrong").split()) or "wrong"
        verdicts[name] = "right" if correct else reason
    return Results({}, {**tags, "overall": overall}, verdicts)
