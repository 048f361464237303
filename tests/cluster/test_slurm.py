"""The recipes for Slurm, on a Slurm of one node that the test starts."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes" / "cluster"
MISSING = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"there is no {MISSING}: slurm-wlm and munge"),
    pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root starts munged"),
]
FAST = ["--steps", "4", "--frames", "1", "--model", "nano", "--device", "cpu", "--seed", "1"]


def test_an_array_makes_a_batch_though_a_task_is_stopped(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    ursa = bin_folder / "ursa"
    ursa.write_text(f'#!/bin/sh\nexec {sys.executable} -m ursa_cli "$@"\n')
    ursa.chmod(0o755)
    (tmp_path / "prompts.txt").write_text("".join(f"a red circle {k}\n" for k in range(60)))
    batch = ["sample", "--from-file", "prompts.txt", *FAST]
    root = str(RECIPES.parents[1])
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": root,
           "OMP_NUM_THREADS": "1"}  # fmt: skip
    asked = ["sbatch", "--wait", "--array=1-2", str(RECIPES / "array.sbatch"), *batch, "-o", "out"]
    slurm = subprocess.Popen(
        [RECIPES / "local_slurm.sh", "sh", "-c", 'touch "$0"; echo "$SLURM_CONF" > "$0"; exec "$@"',
         "conf", *asked], cwd=tmp_path, env=env, process_group=0,
    )  # fmt: skip
    out = tmp_path / "out"
    try:
        while not list(out.glob("00000*.mp4")):
            assert slurm.poll() is None
            time.sleep(0.1)
        conf = (tmp_path / "conf").read_text().strip()
        stop = ["scancel", "--batch", "--signal=TERM", "1_1"]
        subprocess.run(stop, env={**env, "SLURM_CONF": conf}, check=True)
        assert slurm.wait(400) == 0
    finally:
        slurm.terminate()
    logs = "".join(log.read_text() for log in tmp_path.glob("ursa-*.log"))
    assert "stopping after this item" in logs
    assert "interrupted" in logs
    subprocess.run([ursa, *batch, "-o", "one"], cwd=tmp_path, env=env, check=True)
    made = {path.name: path.read_bytes() for path in out.glob("[!.]*.mp4")}
    assert made == {p.name: p.read_bytes() for p in (tmp_path / "one").glob("[!.]*.mp4")}
    assert len(made) == 60
