"""`ursa eval`: one command per suite or measure, and the comparison of two reports."""

from typing import ClassVar

from ursa_cli.terminal.help import Group, new_app


class _Evaluate(Group):
    table: ClassVar = {
        "shapes": ("evaluate.suites:shapes",
                   "Score colour, shape, motion and background of clips of the procedural world."),
        "vbench": ("evaluate.suites:vbench",
                   "Score a model by VBench: text to video, 6,220 files, 16 dimensions."),
        "vbench-i2v": ("evaluate.suites:vbench_i2v",
                       "Score a model by VBench-I2V: image to video, 5,590 files, 9 dimensions."),
        "vbench-long": ("evaluate.suites:vbench_long", ("Score a model by VBench-Long: clips that "
                        "are extended, as `ursa extend` does.")),
        "geneval": ("evaluate.suites:geneval", ("Score a model by GenEval: text to image, 553 "
                    "prompts, four images each, six tags.")),
        "dpg": ("evaluate.suites:dpg",
                "Score a model by DPG-Bench: text to image, 1,065 grids of four square images."),
        "reconstruction": ("evaluate.measures:reconstruction", ("Measure what a tokenizer keeps: "
                           "PSNR, SSIM, flicker, use of its codes, bits per pixel.")),
        "path": ("evaluate.measures:path",
                 "Measure how linearly the model's path leads from noise to real tokens."),
        "videos": ("evaluate.measures:videos", ("Measure any videos, without weights or "
                   "references: flicker, motion, drift, kept frames.")),
        "compare": ("evaluate.compare:compare", ("Show what differs between two reports of one "
                    "suite: B minus A, with 95 % intervals.")),
    }  # fmt: skip


evaluate = new_app(cls=_Evaluate)


@evaluate.callback()
def _evaluate() -> None:
    """Score a model: sample a suite, score the samples, report.

    A stopped run goes on when the same command is given again.
    """
