"""The commands of docs/guide-training.md, run in small, in their order."""

import json
import re
import shlex
from pathlib import Path

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle
from ursa_core.media import read_media, write_media
from ursa_core.worlds.shapes import training_clip

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "docs" / "guide-training.md").read_text(encoding="utf-8")
SMALL = {
    "tokenize": [],
    "train": [
        *("train.batch_size=2", "train.log_every=1", "train.checkpoint_every=2"),
        *("optimizer.warmup_steps=1", "samples.prompts=[]", "train.device=cpu"),
        *("prior.num=2", "prior.steps=1"),
    ],
    "sample": ["--steps", "2", "--frames", "5", "--device", "cpu"],
    "models": [],
}


def commands() -> list[list[str]]:
    """Words of every `ursa` line in the guide's blocks for a shell, `ursa` itself left out."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    assert all(line.startswith("ursa ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_the_guide_leads_from_clips_to_a_fine_tuned_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for index in range(3):
        clip, caption = training_clip(0, index, "train", 17, 64, 64)
        write_media(f"clips/{index:04d}.mp4", clip, 8)
        Path(f"clips/{index:04d}.txt").write_text(caption.replace("a ", "a cross and ", 1))
    steps = {"runs/mine": 0, "runs/adapter": 0}
    done = []
    for words in commands():
        run = words[words.index("-o") + 1] if "-o" in words else ""
        small = [*words, *(SMALL[words[0]] if run else [])]
        if words[0] == "train" and run:
            steps[run] += 2 * ("--dry-run" not in words)
            small += [f"train.steps={max(steps[run], 2)}"]
        assert main([*small, "--json"]) == 0, (words, capsys.readouterr().err)
        done.append((words[0], run, json.loads(capsys.readouterr().out)))
    assert steps == {"runs/mine": 4, "runs/adapter": 2}
    plans = [told for name, run, told in done if name == "train" and "parameters" in told]
    assert [plan.get("recipe") for plan in plans] == ["mine.yaml", None]
    assert plans[0]["seconds_per_step"] > 0
    with_crops = 3 * (1 + 24)
    assert plans[0]["captions"]["unknown"] == {"cross": with_crops, "and": with_crops}
    lines = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert len(read_media("cross.mp4").frames) == 5
    names = ("cross", "star", "adapted", "half", "merged")
    told = {name: read_media(f"{name}.mp4").metadata for name in names}
    assert [told[name]["lora"][0]["scale"] for name in ("adapted", "half")] == [1.0, 0.5]
    assert [told[name]["model"] for name in ("cross", "star", "merged")] == [
        "mine",
        "mine",
        "merged",
    ]
    assert load_bundle("merged").text_tokenizer.unknown_words("a red cross") == []


def test_what_the_guide_names_is_there():
    for name in re.findall(r"recipes/[\w.]+", GUIDE):
        assert (REPOSITORY / name).is_file(), name
    for name in re.findall(r"\]\(([\w./-]+)\)", GUIDE):
        assert (REPOSITORY / "docs" / name).is_file(), name
