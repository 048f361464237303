"""One rank of several that train: ``python rank_runs.py JOBS`` with the environment of torchrun.

JOBS is JSON, a list of {recipe, overrides, run}, and where wanted {stop_at, fail_at, kill_at,
is_async}: at ``stop_at`` steps the last rank alone gets SIGTERM, at ``fail_at`` it raises, at
``kill_at`` it gets SIGKILL; with ``is_async`` checkpoints are written in the background. Prints how
each job ended.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from ursa_core.errors import DataError, UrsaError
from ursa_core.recipe.fields import Recipe
from ursa_core.recipe.loading import load_recipe, to_yaml
from ursa_core.rewards.scorers import open_scorers
from ursa_core.training.distributed import Ranks, joined_ranks
from ursa_core.training.metrics import Progress
from ursa_core.training.run import Scorers, build_learner
from ursa_core.training.trainer import Trainer

CPU = torch.device("cpu")


def train(job: dict, ranks: Ranks) -> str:
    recipe = load_recipe(Path(job["recipe"]), job["overrides"])
    with open_scorers(recipe) as scorers:
        return train_with(scorers, recipe, job, ranks)


def train_with(scorers: Scorers, recipe: Recipe, job: dict, ranks: Ranks) -> str:
    run = Path(job["run"])
    trainer = Trainer(recipe, build_learner(recipe, CPU, scorers), run, ranks)
    trainer.checkpoints.is_async = job.get("is_async", False)
    ranks.wait()
    trainer.resume()
    if ranks.is_first:
        run.mkdir(parents=True, exist_ok=True)
        (run / "recipe.yaml").write_text(to_yaml(recipe))
    ranks.wait()

    def on_step(now: Progress) -> None:
        is_last = ranks.rank == ranks.count - 1
        if is_last and now.step == job.get("stop_at"):
            signal.raise_signal(signal.SIGTERM)
        if is_last and now.step == job.get("fail_at"):
            raise DataError("the shard is torn", "make it anew")
        if is_last and now.step == job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        trainer.train(on_step)
    except UrsaError as error:
        if job.get("fail_at") or job.get("kill_at"):
            raise
        return error.message
    return f"{trainer.step} steps"


def main() -> None:
    torch.set_num_threads(1)
    ends = []
    try:
        with joined_ranks(CPU) as ranks:
            for job in json.loads(Path(sys.argv[1]).read_text()):
                ends.append(train(job, ranks))
    except UrsaError as error:
        ends.append(str(error))
    print(json.dumps({"rank": int(os.environ["RANK"]), "ends": ends}))


if __name__ == "__main__":
    main()
