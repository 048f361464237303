"""Train the shipped emoji model in a given time: tokenizer, tokens, generator; for `gpu_day.py`.

    SECONDS=300 RESULT=r.json python benchmarks/gpu_day_weights.py --pixels P --out DIR --scratch .

Recipes are those of `recipes/`, but for their number of steps, which is set from 20 measured ones,
so that the learning-rate schedule ends with the time. Where DIR holds weights already, their
tokenizer stays, and the generator trains on from the averaged weights.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gpu_day import BUNDLE, GENERATOR, HERE, unpack

sys.path.insert(0, str(HERE.parent / "recipes"))
import torch
from pixel_file import restore_pixels

from ursa_core.bundle.bundle import load_tokenizer
from ursa_core.bundle.subjects import save_subjects
from ursa_core.encoding.cuts import ClipCut
from ursa_core.encoding.encode import Tokenizing, token_identity
from ursa_core.encoding.items import find_items
from ursa_core.grids import PixelShape
from ursa_core.recipe.loading import load_recipe
from ursa_core.tokens.writer import ShardWriter
from ursa_core.training.metrics import Progress
from ursa_core.training.run import train_recipe
from ursa_core.worlds.sprites import load_sprites

RECIPES = HERE.parent / "recipes"
TOKENIZER_SHARE, TOKENS_SHARE = 0.35, 0.1
"""Shares of the time: a tokenizer that goes on from the shipped one needs less than a generator
that begins anew; 10 % encode several times the clips that the generator sees."""
SAFETY = 0.93
"""Share of a part's time that its steps are planned to fill."""
LAST_SECONDS = 15.0
"""Kept of the whole time for imports, the last checkpoint and its samples."""
MEASURED_STEPS, NUM_CLIPS, FPS = 20, 60_000, 8.0
TINY_TOKENIZER = (
    "init=null",
    "model.block_out_channels=[8,8,8]",
    "model.latent_channels=4",
    "model.levels=[4,4]",
    "data.frames=5",
    "data.height=32",
    "data.width=32",
    "data.more_sizes=[]",
    "train.batch_size=2",
)
TINY_GENERATOR = (
    "model.hidden_size=32",
    "model.intermediate_size=32",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.num_key_value_heads=1",
    "model.head_dim=16",
    "train.batch_size=2",
    "sampling.steps=2",
    "samples.prompts=[a fox on a purple background]",
)
NO_FILM = "data.shares={emoji: 0.92, shapes: 0.08}"
"""Shares where the carried pixels have no film."""


class Part:
    """A recipe to train within a time.

    Args:
        recipe: The YAML file.
        overrides: Keys that are set otherwise, as `KEY=VALUE`.
        scratch: Folder for the throw-away run that is measured.
        clock: Seconds since some moment.
    """

    def __init__(
        self, recipe: Path, overrides: list[str], scratch: Path, clock: Callable[[], float]
    ) -> None:
        self.recipe, self.overrides, self.scratch = recipe, overrides, scratch
        self.clock = clock

    def train(self, run: Path, seconds: float) -> dict[str, float]:
        """Train into `run` for about so many seconds; the steps, and the seconds of one."""
        end = self.clock() + seconds
        each = self._step_seconds()
        left = max(1.0, end - self.clock())
        steps = max(MEASURED_STEPS, int(SAFETY * left / each))
        self._run(run, steps, f"train.max_hours={left / 3600:.6f}")
        return {"steps": steps, "seconds_per_step": each}

    def _step_seconds(self) -> float:
        times: list[float] = []
        run = self.scratch / f"measured-{self.recipe.stem}"
        self._run(run, MEASURED_STEPS, on_step=lambda _: times.append(self.clock()))
        half = times[len(times) // 2 :]
        return statistics.median(b - a for a, b in itertools.pairwise(half))

    def _run(
        self,
        run: Path,
        steps: int,
        *overrides: str,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        given = [
            *self.overrides,
            f"train.steps={steps}",
            f"optimizer.warmup_steps={min(100, steps // 10)}",
            f"train.checkpoint_every={max(1, steps // 4)}",
            f"train.sample_every={steps}",
            *overrides,
        ]
        train_recipe(load_recipe(self.recipe, given), run, True, lambda _: None, on_step)


def tokenize(
    tokenizer: Path, pixels: Path, out: Path, shape: PixelShape, is_over: Callable[[], bool]
) -> int:
    """Encode emoji clips of a shape into shards until the time is over; their number."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    visual, _, digest = load_tokenizer(tokenizer, device)
    sprites = load_sprites(pixels)
    items = find_items(["emoji:train"], NUM_CLIPS, 1, FPS, sprites=sprites)
    cut, count = ClipCut(FPS, shape), 0
    writer = ShardWriter(out, token_identity(visual, digest), cut.to_json())
    with closing(Tokenizing(visual, cut, writer, num_checked=0).run(items)) as work:
        for _ in work:
            count += 1
            if is_over():
                break
    save_subjects(out, sprites.subjects)
    return count


def train_all(
    pixels_file: Path,
    out: Path,
    scratch: Path,
    seconds: float,
    note: Callable[[str, object], None],
    *,
    rehearse: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train tokenizer and generator in a given time; the model comes to `scratch/generator`.

    Args:
        pixels_file: Carried pixels.
        out: Folder that holds the weights of an earlier call, if there was one.
        scratch: Folder for everything else.
        seconds: Time for all of it.
        note: Called with a name and what was done.
        rehearse: Take tiny networks.
        clock: Seconds since some moment.
    """

    def part(name: str, overrides: list[str], tiny: tuple[str, ...]) -> Part:
        return Part(RECIPES / name, [*overrides, *(tiny if rehearse else ())], scratch, clock)

    end = clock() + seconds
    pixels, tokens, tokenizer = scratch / "pixels", scratch / "tokens", scratch / "tokenizer"
    has_film = restore_pixels(pixels_file, pixels)
    start: list[str] = []
    given = [f"data.folder={pixels}", *([] if has_film else [NO_FILM])]
    of_tokenizer = part("emoji_tokenizer_all.yaml", given, TINY_TOKENIZER)
    if (out / BUNDLE).is_file():
        tokenizer = unpack(out, scratch / "start")
        start = [f"init={tokenizer}"]
        note("trains_on", True)
    else:
        note("tokenizer", of_tokenizer.train(tokenizer, TOKENIZER_SHARE * seconds))
    data = load_recipe(of_tokenizer.recipe, of_tokenizer.overrides).data
    shape = PixelShape(data.frames, data.height, data.width)
    tokens_end = clock() + TOKENS_SHARE * seconds
    note("clips", tokenize(tokenizer, pixels, tokens, shape, lambda: clock() > tokens_end))
    given = [f"tokenizer={tokenizer}", f"data.shards={tokens}", *start]
    of_generator = part("emoji_all.yaml", given, TINY_GENERATOR)
    note("generator", of_generator.train(scratch / GENERATOR, end - clock()))


def main() -> None:
    """Train in `$SECONDS`, and write what was done to `$RESULT`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pixels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    done: dict[str, object] = {}

    def note(name: str, found: object) -> None:
        done[name] = found
        Path(os.environ["RESULT"]).write_text(json.dumps(done), encoding="utf-8")

    seconds = float(os.environ["SECONDS"]) - LAST_SECONDS
    train_all(args.pixels, args.out, args.scratch, seconds, note, rehearse=args.rehearse)


if __name__ == "__main__":
    main()
