"""Training over two torchrun agents, the "nodes": one is killed, the training goes on."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from waiting import is_open, wait_until

from ursa_core.training.checkpoints import steps_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="ranks are found in /proc"),
]
KEYS = (
    "train.steps=150", "train.accumulate=2", "train.batch_size=2", "train.checkpoint_every=5",
    "train.precision=float32", "optimizer.warmup_steps=5",
)  # fmt: skip
LOST = "another rank of the run ended without an error message"


class Agents:
    """Agents that train a recipe into a run, on a port of their own; ``nodes`` as torchrun's."""

    def __init__(self, recipe: Path, run: Path, nodes: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"),
            *("--nproc-per-node=1", "--max-restarts=10", "--rdzv-backend=c10d"),
            *(f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=two", "--monitor-interval=0.2"),
            "--rdzv-conf=last_call_timeout=20,keep_alive_interval=1,keep_alive_max_attempt=5",
            *("-m", "ursa_cli", "train", str(recipe), "-o", str(run), *KEYS),
        ]
        self.port, self.run = port, run
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start an agent; the first holds the rendezvous."""
        # Otherwise an agent that has been in a round waits for ever for one that joins later.
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        log = (self.run.parent / f"{self.run.name}-{len(self.started)}.log").open("wb")
        agent = subprocess.Popen(self.command, env=env, stdout=log, stderr=subprocess.STDOUT)
        self.started.append(agent)
        if len(self.started) == 1:
            wait_until(lambda: is_open(self.port), agent, report=lambda: self.logs)
        return agent

    def wait_for(self, step: int) -> None:
        """Wait for a checkpoint of that step or a later one."""
        folder = self.run / "checkpoints"
        wait_until(
            lambda: max(map(steps_of, folder.glob("step-*")), default=0) >= step,
            self.started[0],
            report=lambda: self.logs,
        )

    @property
    def logs(self) -> str:
        """What all of them have printed."""
        return "\n".join(log.read_text() for log in self.run.parent.glob(f"{self.run.name}-*.log"))

    def __enter__(self) -> "Agents":
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.started:
            if agent.poll() is None:
                kill(agent)


def kill(agent: subprocess.Popen[bytes]) -> None:
    """A node goes away: the agent and its rank, which has a session of its own, at once."""
    ranks = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    for each in (agent.pid, *map(int, ranks)):
        os.kill(each, signal.SIGKILL)
    agent.wait()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def recipe(generator_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("agents") / "recipe.yaml"
    file.write_text(generator_recipe)
    return file


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> dict[str, torch.Tensor]:
    with Agents(recipe, recipe.parent / "undisturbed", "2") as agents:
        agents.start()
        agents.start()
        ends = [agent.wait(150) for agent in agents.started]
        assert ends == [0, 0], agents.logs
    return weights(agents.run)


def test_a_new_agent_takes_the_place_of_a_killed_one(
    recipe: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    with Agents(recipe, recipe.parent / "replaced", "2") as agents:
        first = agents.start()
        second = agents.start()
        agents.wait_for(10)
        kill(second)
        third = agents.start()
        assert (first.wait(150), third.wait(150)) == (0, 0), agents.logs
    # The other rank finds out and says so, or its agent stops it before that.
    assert LOST in agents.logs or "closing signal" in agents.logs
    assert "continuing after step" in agents.logs
    now = weights(agents.run)
    assert all(torch.equal(now[name], undisturbed[name]) for name in undisturbed)


def test_the_other_agent_goes_on_alone(recipe: Path, undisturbed: dict[str, torch.Tensor]) -> None:
    with Agents(recipe, recipe.parent / "alone", "1:2") as agents:
        first = agents.start()
        second = agents.start()
        agents.wait_for(10)
        kill(second)
        assert first.wait(150) == 0, agents.logs
    assert LOST in agents.logs or "closing signal" in agents.logs
    assert "continuing after step" in agents.logs
    now = weights(agents.run)
    for name, before in undisturbed.items():
        torch.testing.assert_close(now[name], before, rtol=0, atol=1e-5)
