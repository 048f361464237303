"""`ursa eval`: one command per suite or measure, and the comparison of two reports."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa_cli.commands.evaluate import measures
from ursa_cli.options import sampling as of_sampling
from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import EVALUATION, EvalOptions, Out
from ursa_cli.terminal.help import Command, Group, new_app

_SCORER = ("scorer_repo", "scorer_python")
_SHARED = ("seed", "only", "limit", "shard", "ray", "ray_cpus", "ray_gpus")


@dataclass(frozen=True)
class SuiteCommand:
    """A suite as a command, by ``suites.toml``, which says what the fields are."""

    name: str
    help: str
    own: list[str]
    is_official: bool = False
    of_images: bool = False


def _command_of(suite: SuiteCommand) -> Callable[..., None]:
    def run(out: Out, sampling: of_sampling.SamplingCall, given: Mapping[str, Any]) -> None:
        chosen = EvalOptions(out, **given)
        sampling = sampling.with_options({"seed": chosen.seed})
        sampling.begin()
        chosen.check()
        if suite.of_images:
            frames = sampling.clip.get("frames")
            options.require(frames in (None, 1), "--frames", frames, "1: it is of images")
            negative = sampling.clip.get("negative", "")  # the official samplers have none
            sampling = sampling.with_options({"frames": 1, "negative": negative})
        from ursa_cli.commands.evaluate.parts import SuiteRun

        SuiteRun(suite, chosen, sampling).run()

    run.__doc__ = suite.help
    every = options.parameters(EvalOptions, EVALUATION)
    names = {*_SHARED, *suite.own, *(_SCORER if suite.is_official else ())}
    own = [each for each in every if each.name in names]
    return of_sampling.spread(options.with_parameters(run, given=(own, dict)))


evaluate = new_app(
    cls=Group,
    help="""Score a model: sample a suite, score the samples, report.

    A stopped run goes on when the same command is given again.
    """,
)
_table = tomllib.loads(Path(__file__).with_name("suites.toml").read_text(encoding="utf-8"))
for _suite in (SuiteCommand(**each) for each in _table["suites"]):
    evaluate.command(_suite.name, cls=Command)(_command_of(_suite))
for _measure in (measures.reconstruction, measures.path, measures.videos, measures.compare):
    evaluate.command(cls=Command)(_measure)
