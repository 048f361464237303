"""The commands that the suites of `ursa eval` become."""

import inspect
from collections.abc import Callable
from typing import Any

from ursa_cli.commands.evaluate.app import SUITES, SuiteCommand
from ursa_cli.options import sampling as of_sampling
from ursa_cli.options import shared as options
from ursa_cli.options.evaluation import EVALUATION, EvalOptions
from ursa_cli.options.records import parameters, with_parameters
from ursa_cli.terminal import output

_SHARED = ("seed", "only", "limit", "shard", "ray", "ray_cpus", "ray_gpus")


def _command_of(suite: SuiteCommand) -> Callable[..., None]:
    """The command of a suite, with the options that the suite has."""

    def run(*, sampling: of_sampling.SamplingCall, **given: Any) -> None:
        output.configure(as_json=sampling.as_json, quiet=sampling.quiet)
        chosen = EvalOptions(**given)
        sampling = sampling.with_options({"seed": chosen.seed})
        sampling.check()
        chosen.check()
        if suite.of_images:
            frames = sampling.clip.get("frames")
            options.require(frames in (None, 1), "--frames", frames, "1: it is of images")
            negative = sampling.clip.get("negative", "")  # the official samplers have none
            sampling = sampling.with_options({"frames": 1, "negative": negative})
        from ursa_cli.commands.evaluate.parts import SuiteRun

        SuiteRun(suite, chosen, sampling).run()

    run.__doc__ = suite.help
    every = parameters(EvalOptions, EVALUATION)
    *own, out = [each for each in every if each.name in ("out", *_SHARED, *suite.own)]
    sampling = inspect.Parameter("sampling", inspect.Parameter.KEYWORD_ONLY)
    return of_sampling.spread(with_parameters(run, [out, sampling, *own]))


shapes, vbench, vbench_i2v, vbench_long, geneval, dpg = map(_command_of, SUITES)
