"""The way of docs/rewards.md, run in small: its scorer, its recipe and its commands, in order."""

import json
import re
import shlex
import sys
from pathlib import Path

import yaml

from ursa_cli.main import main
from ursa_core.media import read_media

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "docs" / "rewards.md").read_text(encoding="utf-8")
SMALL = {
    "train": [
        *("train.steps=1", "train.batch_size=2", "rollout.group_size=2", "rollout.steps=3"),
        *("train.validation_passes=1", "watch.min_diversity=0", "train.device=cpu"),
    ],
    "sample": ["--steps", "2", "--device", "cpu"],
}


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return found


def test_the_guide_leads_from_a_scorer_to_a_tuned_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("score.py").write_text(block("python"))
    recipe = yaml.safe_load(block("yaml"))
    assert recipe["rewards"][0]["command"] == ["python", "score.py"]
    recipe["rewards"][0]["command"][0] = sys.executable
    Path("reward.yaml").write_text(yaml.safe_dump(recipe))
    lines = re.findall(r"```bash\n(.*?)\n```", GUIDE, re.DOTALL)
    assert [line.split()[1] for line in lines] == ["train", "train", "sample"]
    told = []
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *SMALL[words[0]], "--json"]) == 0, capsys.readouterr().err
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["seconds_per_step"] > 0
    assert told[1]["steps"] == 1
    step, watched = map(json.loads, Path("runs/reward/metrics.jsonl").read_text().splitlines())
    weighted = step["score_command"] + 0.5 * step["score_shapes"]
    assert abs(step["reward"] - weighted) < 1e-5
    assert 0 < step["score_command"] < 1
    for name in ("kl", "diversity", "groups_without_variation", "failed", "clipped"):
        assert name in step
    assert {"validation_score_held_out", "validation_start_score_held_out"} <= {*watched}
    assert len(read_media("circle.mp4").frames) == 17


def test_what_the_guide_names_is_there():
    for name in re.findall(r"(?:recipes|benchmarks|tests)/[\w./]+\.\w+", GUIDE):
        assert (REPOSITORY / name).is_file(), name
    for name in re.findall(r"\]\(([\w.-]+\.md)\)", GUIDE):
        assert (REPOSITORY / "docs" / name).is_file(), name
