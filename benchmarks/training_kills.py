"""A training killed at random moments and continued: does it end with the same weights?

    python benchmarks/training_kills.py [--steps 400] [--kills 20] [--seed 0]

Trains a tiny tokenizer twice: once without interruption, and once killed with SIGKILL at random
moments and continued by the same command. Every third kill waits until a checkpoint is being
written. The averaged weights of both runs have to be equal byte for byte, and each continuation has
to start from the last checkpoint.
"""

import argparse
import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import ursa_core.training.run  # noqa: F401  (so that no fork imports it)
from ursa_cli.main import main as main_of_ursa

RECIPE = Path(__file__).parents[1] / "tests" / "stand_ins" / "tiny_tokenizer.yaml"
SETTINGS = ("train.checkpoint_every=5", "train.sample_every=9999", "train.device=cpu")
PARTIAL = ".step-*.part"
FORK = multiprocessing.get_context("fork")


def train(steps: int, run: Path) -> None:
    """Train in this process, and end it."""
    settings = [f"train.steps={steps}", *SETTINGS]
    sys.exit(main_of_ursa(["train", str(RECIPE), *settings, "-o", str(run), "--quiet"]))


def newest(run: Path) -> int:
    """Steps of the newest whole checkpoint."""
    found = [re.fullmatch(r"step-(\d+)", p.name) for p in (run / "checkpoints").glob("step-*")]
    return max((int(match[1]) for match in found if match), default=0)


def main() -> None:
    """Train both, print the results as JSON, and exit with 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draws = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def started(run: Path) -> BaseProcess:
            """``ursa train`` in a forked process, which has the libraries loaded."""
            process = FORK.Process(target=train, args=(given.steps, run))
            process.start()
            return process

        whole, killed = folder / "whole", folder / "killed"
        started(whole).join()
        kills = in_writing = lost = 0
        partial = killed / "checkpoints"
        for kill in range(given.kills):
            before = newest(killed)
            process = started(killed)
            share = (given.steps - before) / (given.kills - kill + 1)
            enough = before + draws.uniform(0.2, 1.0) * share
            while process.is_alive() and newest(killed) < enough:
                time.sleep(0.005)
            if kill % 3 == 0:
                while process.is_alive() and not list(partial.glob(PARTIAL)):
                    pass
                time.sleep(draws.uniform(0, 0.01))
            else:
                time.sleep(draws.uniform(0, 0.5))
            kills += process.is_alive()
            process.kill()
            process.join()
            in_writing += bool(list(partial.glob(PARTIAL)))
            lost += newest(killed) < before
        started(killed).join()
        steps = [
            [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
            for run in (whole, killed)
        ]
        weights = [(run / "vae" / "diffusion_pytorch_model.safetensors") for run in (whole, killed)]
        results = {
            "steps": given.steps,
            "kills": kills,
            "killed_while_a_checkpoint_was_written": in_writing,
            "checkpoints_lost": lost,
            "same_weights": weights[0].read_bytes() == weights[1].read_bytes(),
            "same_steps_logged": steps[0] == steps[1],
            "left_over": len(list(partial.glob(PARTIAL))),
            "torch": torch.__version__,
        }
    print(json.dumps(results))
    kept = results["same_weights"] and results["same_steps_logged"] and not lost
    sys.exit(not kept)


if __name__ == "__main__":
    main()
