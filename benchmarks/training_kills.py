"""A training killed at random moments and continued: does it end with the same weights?

    python benchmarks/training_kills.py [--steps 400] [--kills 20] [--seed 0]

Trains a tiny tokenizer once undisturbed and once killed with SIGKILL as often as asked for, each
time at a random moment of its share of the run, and continued by the same command. Every third kill
waits until a checkpoint is being written. Then the averaged weights of both are compared byte by
byte, and it is checked that no continuation began before the last checkpoint there was.
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

RECIPE = """
kind: tokenizer
name: tiny
model:
  block_out_channels: [8, 8, 8, 8]
  latent_channels: 4
  levels: [3, 3]
  spatial_stride: 16
  temporal_stride: 4
data: {source: shapes, frames: 5, height: 32, width: 32}
optimizer: {learning_rate: 1.0e-3, warmup_steps: 0}
train:
  {steps: STEPS, batch_size: 2, log_every: 1, checkpoint_every: 5, sample_every: 9999, device: cpu}
"""


FORK = multiprocessing.get_context("fork")


def train(recipe: Path, run: Path) -> None:
    """What a process does."""
    sys.exit(main_of_ursa(["train", str(recipe), "-o", str(run), "--quiet"]))


def newest(run: Path) -> int:
    """Steps of the newest whole checkpoint."""
    found = [re.fullmatch(r"step-(\d+)", p.name) for p in (run / "checkpoints").glob("step-*")]
    return max((int(match[1]) for match in found if match), default=0)


def main() -> None:
    """Run both, print the figures as JSON, and exit with 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draws = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "tiny.yaml"
        recipe.write_text(RECIPE.replace("STEPS", str(given.steps)))

        def started(run: Path) -> BaseProcess:
            """``ursa train`` in a process of its own, forked: it shares the libraries alone."""
            process = FORK.Process(target=train, args=(recipe, run))
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
                while process.is_alive() and not list(partial.glob("step-*.partial")):
                    pass
                time.sleep(draws.uniform(0, 0.01))
            else:
                time.sleep(draws.uniform(0, 0.5))
            kills += process.is_alive()
            process.kill()
            process.join()
            in_writing += bool(list(partial.glob("*.partial")))
            lost += newest(killed) < before
        started(killed).join()
        steps = [
            [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
            for run in (whole, killed)
        ]
        weights = [(run / "vae" / "diffusion_pytorch_model.safetensors") for run in (whole, killed)]
        figures = {
            "steps": given.steps,
            "kills": kills,
            "killed_while_a_checkpoint_was_written": in_writing,
            "checkpoints_lost": lost,
            "same_weights": weights[0].read_bytes() == weights[1].read_bytes(),
            "same_steps_logged": steps[0] == steps[1],
            "left_over": len(list(partial.glob("*.partial"))),
            "torch": torch.__version__,
        }
    print(json.dumps(figures))
    kept = figures["same_weights"] and figures["same_steps_logged"] and not lost
    sys.exit(not kept)


if __name__ == "__main__":
    main()
