"""Cores are shared: what OpenMP's runtimes and pools are told before torch is loaded."""

import os
import subprocess
import sys

import pytest

from ursa_core.parts import num_cores, share_cores_

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {}),
        ({"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "0"}),
        ({"KMP_BLOCKTIME": "200"}, {"GOMP_SPINCOUNT": "0"}),
        (
            {"LOCAL_WORLD_SIZE": "1"},
            {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"},
        ),
        (
            {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"},
            {},
        ),
    ],
)
def test_what_the_user_has_set_stays(own: dict[str, str], told: dict[str, str]) -> None:
    environment = dict(own)
    share_cores_(environment)
    assert environment == {**own, **told}


def test_ranks_of_a_launcher_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert num_cores() == 12
    for ranks, cores in (("1", 12), ("4", 3), ("5", 2), ("64", 1), ("", 12), ("0", 12)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert num_cores() == cores
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    environment = {"LOCAL_WORLD_SIZE": "4"}
    share_cores_(environment)
    assert environment["OMP_NUM_THREADS"] == "3"


# The import of torch ends the command, and says what the runtimes would have read.
STOPS_AT_TORCH = f"""
import importlib.abc, os, sys

class Torch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            os.write(1, repr([os.environ.get(name) for name in {NAMES[:3]}]).encode())
            os._exit(7)

sys.meta_path.insert(0, Torch())
sys.argv[1:] = ["models", "show", "nano"]
from ursa_cli.__main__ import run
run()
"""


@pytest.mark.parametrize(
    ("own", "read"),
    [({}, [None, "0", "0"]), ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None, None])],
)
def test_the_command_tells_the_runtimes_before_torch_is_loaded(
    own: dict[str, str], read: list[str | None]
) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    command = [sys.executable, "-c", STOPS_AT_TORCH]
    done = subprocess.run(
        command, env={**environment, **own}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, repr(read)), done.stderr
