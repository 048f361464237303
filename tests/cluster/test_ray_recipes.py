"""The recipes for Ray: a RayJob by KubeRay's schema, its entrypoint, and Ray on a Slurm job."""

import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from waiting import wait_until

RECIPES = Path(__file__).parents[2] / "recipes" / "cluster"
JOB = yaml.safe_load((RECIPES / "rayjob.yaml").read_text())
SCHEMA = yaml.safe_load(Path(__file__).with_name("rayjob_schema.yaml").read_text())
OPTIONS = "--steps 4 --frames 1 --device cpu --seed 1"


def test_the_job_fits_the_schema() -> None:
    jsonschema.validate(JOB, SCHEMA)
    wrong: dict[str, Any] = {**JOB, "spec": {**JOB["spec"], "entryPoint": "ursa"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.slow
def test_the_entrypoint_makes_the_batch(tmp_path: Path, ursa_on_path: dict[str, str]) -> None:
    pytest.importorskip("ray", reason="Ray isn't installed: pip install 'ursa-video[ray]'")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    env = {**ursa_on_path, **token, "RAY_ADDRESS": address, "DATA": str(tmp_path)}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", f"--port={address.partition(':')[2]}", "--num-cpus=1",
             "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--block"]  # fmt: skip
    head = subprocess.Popen([*ray, *start], env=env, stdout=subprocess.DEVNULL)
    try:
        status = [*ray, "status"]
        wait_until(
            lambda: not subprocess.run(status, env=env, capture_output=True).returncode, head
        )
        entrypoint = f"{JOB['spec']['entrypoint']} {OPTIONS}"
        subprocess.run(entrypoint, shell=True, env=env, cwd=tmp_path, check=True)
    finally:
        head.terminate()
        head.wait(60)
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == 2
