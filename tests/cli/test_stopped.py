"""Every command that writes: stopped in the middle, the same command again comes to its end."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ursa_core.media import read_media, write_media
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.token_files import load_tokens
from ursa_core.worlds.shapes import training_clip

PROMPT = "a red circle moves right on a navy background"
TINY = ["--model", "tiny", "--device", "cpu", "--dtype", "float32"]
TRAINED = """
kind: tokenizer
name: small
model:
  block_out_channels: [8, 8, 8, 8]
  latent_channels: 4
  levels: [3, 3]
  spatial_stride: 16
  temporal_stride: 4
data: {source: shapes, frames: 5, height: 32, width: 32}
optimizer: {learning_rate: 1.0e-3, warmup_steps: 0}
train: {steps: 2, batch_size: 1, log_every: 1, checkpoint_every: 1, sample_every: 100, device: cpu}
"""
REWARD = Path(__file__).parents[1] / "stand_ins" / "tiny_reward.yaml"
COMMANDS = {
    "sample": ["sample", PROMPT, "-o", "out.mp4", "--preview", "1", *TINY],
    "folder": ["sample", PROMPT, "-o", "old", "--force", *TINY],
    "several": ["sample", PROMPT, "-o", "out.mkv", "--num", "3", "--save-tokens",
                "out.safetensors", *TINY],
    "codes": ["sample", PROMPT, "-o", "out.gif", "--save-tokens", "out.safetensors", *TINY],
    "batch": ["sample", "--from-file", "list.txt", "-o", "out", "--save-tokens", "codes",
              "--preview", "1", *TINY],
    "extend": ["extend", "film.mkv", "-o", "out.mkv", "--frames", "23", "--fit", *TINY],
    "extend_batch": ["extend", "--from-file", "films.txt", "-o", "out", "--frames", "17", "--fit",
                     *TINY],
    "interpolate": ["interpolate", "--first", "a.png", "--last", "a.png", "-o", "out.webp",
                    "--fit", *TINY],
    "clip": ["tokenize", "film.mkv", "-o", "out.safetensors", "--model", "tiny"],
    "decode": ["tokenize", "--decode", "film.safetensors", "-o", "out.mp4", "--model", "tiny"],
    "shards": ["tokenize", "films", "-o", "out", "--model", "tiny"],
    "train": ["train", "small.yaml", "-o", "out"],
    "reward": ["train", str(REWARD), "init=tiny", "rollout.updates=2", "train.steps=3",
               "train.checkpoint_every=1", "train.device=cpu", "-o", "out"],
    "calibrate": ["calibrate-path", "--tokenizer", "tiny", "-o", "out", "--alpha", "0.8:1.2:2",
                  "--c", "3:5:2", "--preview", "film.mkv", "--write-to", "path.yaml"],
    "shapes": ["eval", "shapes", "-o", "out", "--limit", "1", "--frames", "9", "--size", "32x32",
               *TINY],
    "vbench": ["eval", "vbench", "-o", "out", "--only", "sample", "--limit", "1", *TINY],
    "long": ["eval", "vbench-long", "-o", "out", "--only", "sample", "--limit", "1", "--frames",
             "13", *TINY],
    "reconstruction": ["eval", "reconstruction", "films", "-o", "out", *TINY[:4]],
    "path": ["eval", "path", "film.mkv", "-o", "out", *TINY[:4]],
    "videos": ["eval", "videos", "films", "-o", "out"],
    "compare": ["eval", "compare", "report", "report", "--plot", "out.png"],
}  # fmt: skip

Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """What the commands are given."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "tiny").symlink_to(tiny_model)
    (folder / "films").mkdir()
    for k in range(3):
        clip, _ = training_clip(0, k, "all", 9, 16, 16)
        write_media(folder / "films" / f"{k}.mkv", clip, 8)
    shutil.copy(folder / "films" / "0.mkv", folder / "film.mkv")
    write_media(folder / "a.png", clip[:1], 8)
    write_media(folder / "old", np.zeros((2, 16, 16, 3), np.uint8), 8)
    (folder / "list.txt").write_text(f"{PROMPT}\na red circle\n")
    (folder / "films.txt").write_text("film.mkv\nfilms/1.mkv\n")
    (folder / "small.yaml").write_text(TRAINED)
    (folder / "path.yaml").write_text("name: x  # mine\npath: {kind: metric, alpha: 1, c: 5}\n")
    return folder


def names(folder: Path) -> set[str]:
    """Files below a folder but for those of checkpoints, whose number isn't what a stop keeps."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if "checkpoints/" not in name}


EVERYWHERE = [pytest.param(each, marks=pytest.mark.slow, id=f"{each}-at-all") for each in COMMANDS]


@pytest.fixture
def prepared(command: str, run_in: Run, given: Path, tmp_path: Path) -> Path:
    """What a command is given, with what another command has to have made for it."""
    if command not in ("decode", "compare"):
        return given
    folder = tmp_path / "prepared"
    shutil.copytree(given, folder, symlinks=True)
    first = COMMANDS["clip" if command == "decode" else "videos"]
    assert run_in(first, folder)[0]["code"] == 0
    for before, after in (("out.safetensors", "film.safetensors"), ("out", "report")):
        if (folder / before).exists():
            (folder / before).rename(folder / after)
    return folder


def check_stop(ended: dict[str, int], said: str, number: signal.Signals) -> None:
    """A killed process says nothing; an interrupted one says so, unless it had done all."""
    if number == signal.SIGKILL:
        assert ended["code"] == -number
        return
    assert ended["code"] in (130, 0), said  # 0 where it was done with all
    told = "error: interrupted" in said or "the run is saved" in said
    assert told == (ended["code"] == 130), said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [*COMMANDS, *EVERYWHERE])
def test_a_stopped_command_goes_on(
    command: str, run_in: Run, prepared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def fresh(name: str) -> Path:
        shutil.copytree(prepared, tmp_path / name, symlinks=True)
        return tmp_path / name

    ended, said = run_in(COMMANDS[command], fresh("whole"))
    assert ended["code"] == 0, said
    num, whole = ended["changes"], names(tmp_path / "whole")
    assert num > 0
    middle, last = (num // 2, signal.SIGKILL), (num - 1, signal.SIGKILL)
    by = signal.SIGINT if num % 2 else signal.SIGTERM
    # What 60 changes have not shown, later ones repeat for other clips: every seventh of these.
    every = [(k, signal.SIGKILL) for k in (*range(min(num, 60)), *range(60, num, 7))]
    for k, number in every if "slow" in request.keywords else [middle, last, (num // 3, by)]:
        folder = fresh(f"{number.name} before change {k} of {num}")
        check_stop(*run_in(COMMANDS[command], folder, k, number), number)
        again, said = run_in(COMMANDS[command], folder)
        is_done = again["code"] == 2 and "already" in said  # what had come to its end before
        assert again["code"] == 0 or is_done, f"{folder.name}: {said}"
        assert names(folder) == whole, folder.name
        if command == "reward":
            file = Path("out", "transformer", "diffusion_pytorch_model.safetensors")
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    if command == "folder":
        assert len(read_media(folder / "old").frames) == 9


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_shards_that_are_rewritten_lose_nothing(
    everywhere: bool, run_in: Run, given: Path, tmp_path: Path
) -> None:
    command = [*COMMANDS["shards"], "--drop-gone", "--check", "0"]
    prepared = tmp_path / "prepared"
    shutil.copytree(given, prepared, symlinks=True)
    assert run_in(command, prepared)[0]["code"] == 0
    (prepared / "films" / "0.txt").write_text("corrected")
    (prepared / "films" / "2.mkv").unlink()

    def clips(folder: Path) -> list[tuple[str, list[str], list[int]]]:
        table = read_shards(folder / "out")
        rows = range(len(table))
        return sorted(
            (table.source(k), table.captions(k), table.codes([k])[0].tolist()) for k in rows
        )

    before = clips(prepared)
    shutil.copytree(prepared, tmp_path / "whole", symlinks=True)
    num = run_in(command, tmp_path / "whole")[0]["changes"]
    after = clips(tmp_path / "whole")
    assert after == [("films/0.mkv", ["corrected"], before[0][2]), before[1]]
    assert num > 4
    for k in range(num) if everywhere else (num // 2, num - 2):
        folder = tmp_path / str(k)
        shutil.copytree(prepared, folder, symlinks=True)
        assert run_in(command, folder, k)[0]["code"] == -signal.SIGKILL
        left = clips(folder)
        assert before[1] in left, k
        assert before[0] in left or after[0] in left, k
        assert all(clip in before or clip in after for clip in left), k
        assert run_in(command, folder)[0]["code"] == 0
        assert clips(folder) == after, k
        assert not [each for each in (folder / "out").glob(".*") if each.suffix != ".lock"], k


def test_several_videos_go_on_with_the_seed_drawn_before(
    run_in: Run, given: Path, tmp_path: Path
) -> None:
    shutil.copytree(given, tmp_path / "here", symlinks=True)
    here = tmp_path / "here"
    command = COMMANDS["several"]
    assert run_in(command, here)[0]["code"] == 0
    videos, codes = (sorted(here.glob(f"out-000*.{kind}")) for kind in ("mkv", "safetensors"))
    content = [file.read_bytes() for file in videos]
    tokens = [load_tokens(file).codes for file in codes]  # headers come in any order
    assert (len(content), len(tokens)) == (3, 3)
    ended, said = run_in(command, here)
    assert (ended["code"], "out-0000.mkv exists already" in said) == (2, True)
    for gone in ("out-0001.mkv", "out-0002.mkv", "out-0002.safetensors"):
        (here / gone).unlink()
    ended, said = run_in([*command, "--json"], here)
    assert ended["code"] == 0, said
    assert [file.read_bytes() for file in videos] == content
    for file, before in zip(codes, tokens, strict=True):
        torch.testing.assert_close(load_tokens(file).codes, before, rtol=0, atol=0)
    told = json.loads(said.splitlines()[-1])
    assert [each["index"] for each in told["outputs"]] == [0, 1, 2]
    (here / "out-0001.mkv").unlink()
    ended, said = run_in([*command, "--steps", "1"], here)
    assert (ended["code"], "made with steps 2, not 1" in said) == (2, True)
    (here / "out-0000.safetensors").unlink()
    ended, said = run_in(command, here)
    assert (ended["code"], "out-0000.mkv exists already" in said) == (2, True)
    assert run_in([*command, "--force"], here)[0]["code"] == 0
    assert videos[1].read_bytes() != content[1]


def test_files_of_the_users_stay(run_in: Run, given: Path, tmp_path: Path) -> None:
    mine = {
        "out.mp4.preview.png": ["sample", PROMPT, "-o", "out.mp4", "--preview", "1", *TINY],
        "out/00001-a-red-circle.mp4.preview.png": COMMANDS["batch"],
        "codes/00001-a-red-circle.mp4.safetensors": COMMANDS["batch"],
        "out.mkv.rounds/mine.txt": COMMANDS["extend"],
        "out/report.html": COMMANDS["videos"],
        "out/samples/00000.png": COMMANDS["reconstruction"],
        "out/linearity.png": COMMANDS["path"],
        "out/heatmap.png": COMMANDS["calibrate"],
        "out.png": COMMANDS["compare"],
    }
    for k, (name, command) in enumerate(mine.items()):
        here = tmp_path / str(k)
        shutil.copytree(given, here, symlinks=True)
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(given / "a.png", here / name)
        before = names(here)
        ended, said = run_in(command, here)
        refused = "exists already" in said or "is in the way" in said
        assert (ended["code"] in (1, 2), refused) == (True, True), said
        assert (here / name).read_bytes() == (given / "a.png").read_bytes()
        assert names(here) - before <= {"codes"}
    # A suite doesn't take the place of another evaluation's report.
    ended, said = run_in(COMMANDS["shapes"], tmp_path / "4")
    assert (ended["code"], "of another evaluation" in said) == (2, True)


def test_a_video_that_is_written_beside_its_rounds_is_finished(
    run_in: Run, given: Path, tmp_path: Path
) -> None:
    here = tmp_path / "whole"
    shutil.copytree(given, here, symlinks=True)
    num = run_in(COMMANDS["extend"], here)[0]["changes"]
    while (num := num - 1) and not (here / "out.mkv.rounds").exists():
        here = tmp_path / str(num)
        shutil.copytree(given, here, symlinks=True)
        run_in(COMMANDS["extend"], here, num)
    assert (here / "out.mkv").exists()
    whole = (here / "out.mkv").read_bytes()
    assert run_in(COMMANDS["extend"], here)[0]["code"] == 0
    assert (here / "out.mkv").read_bytes() == whole
    assert not (here / "out.mkv.rounds").exists()
    assert run_in(COMMANDS["extend"], here)[0]["code"] == 2
