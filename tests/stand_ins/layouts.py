"""Checks a folder against the layouts of the official scorers, as their documentation has them.

Written from it, and sharing no code with what writes them; prompts come from the bundled lists.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import ursa_core.evaluation.suites

LISTS = Path(ursa_core.evaluation.suites.__file__).parent / "prompt_lists"

FOLDERS = {  # official folder of prompts, and how many they are
    "subject_consistency": 72,
    "scene": 86,
    "overall_consistency": 93,
    "object_class": 79,
    "multiple_objects": 82,
    "human_action": 100,
    "color": 85,
    "spatial_relationship": 84,
    "temporal_style": 100,
    "appearance_style": 90,
    "temporal_flickering": 75,
}


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (LISTS / name).open(encoding="utf-8")]


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name with slashes."""
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def check_vbench(names: Collection[str]) -> None:
    """Whole VBench: every prompt's videos, of flickering 25, else 5, and no other name."""
    entries = rows("vbench.jsonl")
    counts = Counter(row["dimensions"][0] for row in entries)
    assert counts == FOLDERS
    assert len(entries) == 946
    assert len({row["prompt"] for row in entries}) == 944
    wanted = set()
    for row in entries:
        num = 25 if "temporal_flickering" in row["dimensions"] else 5
        wanted |= {f"{row['prompt']}-{index}.mp4" for index in range(num)}
    assert len(names) == len(wanted) == 6220
    assert set(names) == wanted
    assert max(len(name.encode()) for name in names) == 216


def check_i2v(names: Collection[str]) -> None:
    """Whole VBench-I2V: 1,118 prompts, 5 videos each."""
    entries = rows("vbench_i2v.jsonl")
    assert len(entries) == 1118
    assert len({row["image"] for row in entries}) == 355
    counts = Counter(row["dimensions"][0] for row in entries)
    assert counts == {"i2v_subject": 246, "i2v_background": 109, "camera_motion": 763}
    assert len(names) == 5590
    assert set(names) == {f"{row['prompt']}-{index}.mp4" for row in entries for index in range(5)}


def check_geneval(files: Mapping[str, bytes], num_folders: int = 553) -> None:
    """GenEval: numbered folders with a prompt's metadata and four numbered images."""
    entries = rows("geneval.jsonl")
    assert len(entries) == 553
    folders = {name.split("/")[0] for name in files}
    assert len(folders) == num_folders
    assert len(files) == 5 * num_folders
    for folder in folders:
        assert len(folder) == 5
        metadata = json.loads(files[f"{folder}/metadata.jsonl"])
        assert metadata == entries[int(folder)]["metadata"]
        for image in ("0000.png", "0001.png", "0002.png", "0003.png"):
            assert f"{folder}/samples/{image}" in files


def check_dpg(names: Collection[str], prompts: Path) -> None:
    """DPG-Bench: one image a prompt file, of its name, whose key is what stands before a dot."""
    wanted = {path.name.removesuffix(".txt") for path in prompts.iterdir()}
    assert {name.split(".")[0] for name in names} == wanted
    assert all(name.endswith(".png") for name in names)
