"""The commands of docs/guide-training.md, run in small, in their order."""

import json
import re
import shlex
import shutil
from pathlib import Path

from ursa_cli.main import main
from ursa_core.media import read_media, write_media
from ursa_core.worlds.shapes import training_clip

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "docs" / "guide-training.md").read_text(encoding="utf-8")
SMALL = {
    "tokenize": [],
    "train": [
        *("train.batch_size=2", "train.log_every=1", "train.checkpoint_every=2"),
        *("optimizer.warmup_steps=1", "samples.prompts=[]", "train.device=cpu"),
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
    shutil.copytree(REPOSITORY / "recipes", "recipes")
    Path("clips").mkdir()
    for index in range(3):
        clip, caption = training_clip(0, index, "train", 17, 64, 64)
        write_media(f"clips/{index:04d}.mp4", clip, 8)
        Path(f"clips/{index:04d}.txt").write_text(caption)
    steps = {"runs/mine": 0, "runs/whole": 0}
    done = []
    for words in commands():
        run = words[words.index("-o") + 1]
        small = [*words, *SMALL[words[0]]]
        if words[0] == "train" and "--dry-run" not in words:
            steps[run] += 2
        if words[0] == "train":
            small += [f"train.steps={max(steps[run], 2)}"]
        assert main([*small, "--json"]) == 0, (words, capsys.readouterr().err)
        done.append((words[0], run, json.loads(capsys.readouterr().out)))
    assert steps == {"runs/mine": 4, "runs/whole": 2}
    plan = next(told for name, _, told in done if name == "train")
    assert plan["frozen_parameters"] > plan["parameters"]
    assert plan["seconds_per_step"] > 0
    lines = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert len(read_media("star.mp4").frames) == 5
    told = {
        name: read_media(f"{name}.mp4").metadata for name in ("star", "half", "before", "merged")
    }
    assert [told[name]["lora"][0]["scale"] for name in ("star", "half")] == [1.0, 0.5]
    assert "lora" not in told["before"]
    assert told["merged"]["model"] == "merged"
    assert read_media("whole.mp4").metadata["model"] == "whole"


def test_what_the_guide_names_is_there():
    for name in re.findall(r"recipes/[\w.]+", GUIDE):
        assert (REPOSITORY / name).is_file(), name
    for name in re.findall(r"\]\(([\w./-]+)\)", GUIDE):
        assert (REPOSITORY / "docs" / name).is_file(), name
