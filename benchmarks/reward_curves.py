"""Reward tuning next to the naive policy gradient: curves of the same recipe, step by step.

Ours takes the finished clip as the action and corrupts it by the path for its states. The naive one
takes the sampler's own steps: each state x_t that it went through, and the x_1 that it drew there.
Recipe, prompts, seeds, rollouts, loss and number of states are the same.

    .venv/bin/python benchmarks/reward_curves.py recipes/nano_reward.yaml --steps 60

Runs go on where they stopped. Prints a table and writes curves.png and curves.json into --out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ursa_core.recipe.loading import load_recipe
from ursa_core.rewards.scorers import open_scorers
from ursa_core.sampling.generate import Sampler
from ursa_core.seeding import stream
from ursa_core.training import run as training_run
from ursa_core.training.metrics import METRICS, Metrics, Progress
from ursa_core.training.reward.learner import RewardLearner

PANELS = {
    "reward": "reward of the step's clips",
    "diversity": "diversity of the step's clips",
    "kl": "divergence from the start, nats per code",
    "validation_score_held_out": "held-out score, held-out prompts",
    "validation_reward": "reward, held-out prompts",
}


class NaiveLearner(RewardLearner):
    """The policy gradient on the sampler's own steps but for the first, one update per rollout."""

    def rollout(self, number: int, sampler: Sampler) -> tuple[dict[str, Tensor], Metrics]:
        """As the base does it; what the sampler went through is kept."""
        visited: list[Tensor] = []
        drawn: list[Tensor] = []
        sample = sampler.sample

        def recorded() -> list[Tensor]:
            return sample(
                on_step=lambda _, x_t: visited.append(x_t),
                on_estimate=lambda _, x_1: drawn.append(x_1),
            )

        sampler.sample = recorded  # type: ignore[method-assign, assignment]
        found = super().rollout(number, sampler)
        self._visited, self._drawn = visited, drawn
        return found

    def states(self, number: int, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The x_1 drawn at steps of the sampler, and the x_t that they were drawn at."""
        steps = torch.randperm(
            len(self._drawn) - 1, generator=stream(self.recipe.seed, "states", number)
        )[: self.recipe.objective.states].tolist()
        drawn = torch.cat([self._drawn[step + 1] for step in steps])
        return drawn.clone(), torch.cat([self._visited[step] for step in steps]).clone()


WAYS: dict[str, type[RewardLearner]] = {"ours": RewardLearner, "naive": NaiveLearner}


def tune(way: str, recipe_file: Path, overrides: list[str], out: Path) -> list[dict[str, Any]]:
    """Lines of the metrics of a run, which goes on where it stopped."""
    recipe = load_recipe(recipe_file, overrides)
    assert recipe.kind == "reward"
    training_run.RewardLearner = WAYS[way]  # type: ignore[misc]

    def on_step(now: Progress) -> None:
        print(f"{way}: step {now.step} of {recipe.train.steps}", file=sys.stderr, flush=True)

    try:
        with open_scorers(recipe) as scorers:
            training_run.train_recipe(
                recipe, out / way, False, lambda _: None, on_step, scorers=scorers
            )
    finally:
        training_run.RewardLearner = RewardLearner  # type: ignore[misc]
    return [json.loads(line) for line in (out / way / METRICS).read_text().splitlines()]


def draw(curves: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """One panel per figure, one curve per way; the start's level of validation is dotted."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    shown = [key for key in PANELS if any(key in line for way in curves.values() for line in way)]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 3.0), squeeze=False)
    for axis, key in zip(axes[0], shown, strict=True):
        for way, lines in curves.items():
            points = [(line["step"], line[key]) for line in lines if key in line]
            axis.plot(*zip(*points, strict=True), label=way, linewidth=1)
        start = key.replace("validation_", "validation_start_")
        levels = [line[start] for line in next(iter(curves.values())) if start in line]
        if start != key and levels:
            axis.axhline(levels[0], color="gray", linestyle=":", linewidth=1)
        axis.set_title(PANELS[key], fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def table(curves: dict[str, list[dict[str, Any]]]) -> str:
    """First and last fifth of each curve, as means."""
    rows = [f"{'way':8}{'figure':28}{'first fifth':>12}{'last fifth':>12}"]
    for way, lines in curves.items():
        for key in PANELS:
            values = [line[key] for line in lines if key in line]
            if values:
                part = max(1, len(values) // 5)
                ends = (sum(values[:part]) / part, sum(values[-part:]) / part)
                rows.append(f"{way:8}{key:28}{ends[0]:12.4f}{ends[1]:12.4f}")
    return "\n".join(rows)


def main() -> None:
    """Run both ways, print the table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="YAML file of kind reward")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE as for `ursa train`")
    parser.add_argument("--steps", type=int, required=True, help="steps of each run")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("outputs/reward_curves"))
    args = parser.parse_args()
    fixed = [f"train.steps={args.steps}", "train.log_every=1", "rollout.updates=1"]
    words = [*args.overrides, *fixed]
    curves = {way: tune(way, args.recipe, words, args.out) for way in args.ways}
    draw(curves, args.out / "curves.png")
    (args.out / "curves.json").write_text(json.dumps(curves))
    print(table(curves))


if __name__ == "__main__":
    main()
