"""`ursa eval`: one command per suite or measure, and the comparison of two reports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """A suite as a command; ``own`` are options in addition to those of every suite."""

    name: str
    help: str
    own: tuple[str, ...]
    of_images: bool = False

    @property
    def is_official(self) -> bool:
        """Whether official code scores it, not this package."""
        return "scorer_repo" in self.own


SUITES = (
    SuiteCommand(
        "shapes",
        """Score colour, shape, motion and background of clips of the procedural world.

        A judge reads the four from the pixels. Combinations held out of training
        stand apart from as many that training saw (--limit counts each), and the
        judge's own error on rendered clips is stated.

        Examples:
          ursa eval shapes --model nano -o shapes
          ursa eval shapes --model nano --limit 24 --steps 8 -o trial
        """,
        ("batch_size",),
    ),
    SuiteCommand(
        "vbench",
        """Score a model by VBench: text to video, 6,220 files, 16 dimensions.

        Examples:
          ursa eval vbench --only sample --prompts rewritten --shard 1/4 -o vbench
          ursa eval vbench -o vbench --scorer-repo VBench --scorer-python bin/python
        """,
        ("batch_size", "prompts", *_SCORER),
    ),
    SuiteCommand(
        "vbench-i2v",
        """Score a model by VBench-I2V: image to video, 5,590 files, 9 dimensions.

        The images are in no package: download_data.sh in the checkout of VBench fetches them.

        Examples:
          ursa eval vbench-i2v --only sample --scorer-repo VBench -o i2v
          ursa eval vbench-i2v -o i2v --scorer-repo VBench --scorer-python bin/python
        """,
        ("images", "ratio", *_SCORER),
    ),
    SuiteCommand(
        "vbench-long",
        """Score a model by VBench-Long: clips that are extended, as `ursa extend` does.

        Examples:
          ursa eval vbench-long --only sample --seconds 10 -o long
          ursa eval vbench-long -o o --scorer-repo VBench --scorer-python bin/python
        """,
        ("prompts", "seconds", *_SCORER),
    ),
    SuiteCommand(
        "geneval",
        """Score a model by GenEval: text to image, 553 prompts, four images each, six tags.

        Examples:
          ursa eval geneval --only sample --prompts rewritten -o geneval
          ursa eval geneval -o geneval --scorer-repo code --scorer-python bin/python
        """,
        ("batch_size", "prompts", "detector", *_SCORER),
        of_images=True,
    ),
    SuiteCommand(
        "dpg",
        """Score a model by DPG-Bench: text to image, 1,065 grids of four square images.

        Its prompts are read from the checkout of ELLA, so sampling needs --scorer-repo, too.

        Examples:
          ursa eval dpg --only sample --scorer-repo ELLA --size 1024x1024 -o dpg
          ursa eval dpg -o dpg --scorer-repo ELLA --scorer-python bin/python
        """,
        _SCORER,
        of_images=True,
    ),
)


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
    own = [each for each in every if each.name in (*_SHARED, *suite.own)]
    return of_sampling.spread(options.with_parameters(run, given=(own, dict)))


evaluate = new_app(
    cls=Group,
    help="""Score a model: sample a suite, score the samples, report.

    A stopped run goes on when the same command is given again.
    """,
)
for _suite in SUITES:
    evaluate.command(_suite.name, cls=Command)(_command_of(_suite))
for _measure in (measures.reconstruction, measures.path, measures.videos, measures.compare):
    evaluate.command(cls=Command)(_measure)
