"""The recipes for Slurm, on a Slurm of one node that the test starts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from waiting import wait_until

RECIPES = Path(__file__).parents[2] / "recipes" / "cluster"
MISSING = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"there is no {MISSING}: slurm-wlm and munge"),
    pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root starts munged"),
]
FAST = ["--steps", "4", "--frames", "1", "--model", "nano", "--device", "cpu", "--seed", "1"]


def run_in_slurm(folder: Path, env: dict[str, str], *words: str) -> "subprocess.Popen[bytes]":
    """A Slurm of one node for as long as a command runs in it; its SLURM_CONF goes to ``conf``."""
    command = ["sh", "-c", 'echo "$SLURM_CONF" > conf; exec "$@"', "sh", *words]
    return subprocess.Popen(
        [RECIPES / "local_slurm.sh", *command], cwd=folder, env=env, process_group=0
    )


def finish(slurm: "subprocess.Popen[bytes]", folder: Path) -> str:
    """Wait for its command, which must succeed; what its jobs have printed."""
    try:
        ended = slurm.wait(400)
    finally:
        slurm.terminate()
    logs = "".join(log.read_text() for log in folder.glob("ursa-*.log"))
    assert ended == 0, logs
    return logs


def test_an_array_makes_a_batch_though_a_task_is_stopped(
    tmp_path: Path, ursa_on_path: dict[str, str]
) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"a red circle {k}\n" for k in range(60)))
    batch = ["sample", "--from-file", "prompts.txt", *FAST]
    asked = ["sbatch", "--wait", "--array=1-2", str(RECIPES / "array.sbatch"), *batch, "-o", "out"]
    slurm = run_in_slurm(tmp_path, ursa_on_path, *asked)
    out = tmp_path / "out"
    try:
        wait_until(lambda: list(out.glob("00000*.mp4")), slurm)
        conf = (tmp_path / "conf").read_text().strip()
        stop = ["scancel", "--batch", "--signal=TERM", "1_1"]
        subprocess.run(stop, env={**ursa_on_path, "SLURM_CONF": conf}, check=True)
        logs = finish(slurm, tmp_path)
    finally:
        slurm.terminate()
    assert "stopping after this item" in logs
    assert "interrupted" in logs
    subprocess.run(["ursa", *batch, "-o", "one"], cwd=tmp_path, env=ursa_on_path, check=True)
    made = {path.name: path.read_bytes() for path in out.glob("[!.]*.mp4")}
    assert made == {p.name: p.read_bytes() for p in (tmp_path / "one").glob("[!.]*.mp4")}
    assert len(made) == 60


def test_a_training_job_trains_on_all_ranks_of_its_node(
    tmp_path: Path, ursa_on_path: dict[str, str], generator_recipe: str
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(generator_recipe)
    words = [str(RECIPES / "train.sbatch"), str(recipe), "-o", "run", "train.steps=8"]
    env = {**ursa_on_path, "RANKS": "2"}
    finish(run_in_slurm(tmp_path, env, "sbatch", "--wait", *words), tmp_path)
    last = tmp_path / "run" / "checkpoints" / "step-0000008"
    assert len(list(last.glob("*.safetensors"))) == 2, "each rank writes a part"


def test_ray_runs_on_the_nodes_of_a_job(tmp_path: Path, ursa_on_path: dict[str, str]) -> None:
    pytest.importorskip("ray", reason="Ray isn't installed: pip install 'ursa-video[ray]'")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    batch = ["sample", "--from-file", "prompts.txt", *FAST, "-o", "out"]
    words = ["sbatch", "--wait", str(RECIPES / "ray.sbatch"), *batch]
    finish(run_in_slurm(tmp_path, ursa_on_path, *words), tmp_path)
    assert len(list((tmp_path / "out").glob("[!.]*.mp4"))) == 2
