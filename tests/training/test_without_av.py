"""Machines without PyAV: nothing but opening or writing a film asks for it."""

import subprocess
import sys
from pathlib import Path

from tiny_runs import TOKENIZER

_PROGRAM = """
import sys
from pathlib import Path

sys.modules["av"] = None  # whoever imports it gets an ImportError
model, folder, generator, tokenizer = sys.argv[1:]
from tiny_runs import train

from ursa_core.bundle.bundle import load_bundle
from ursa_core.media import read_media, write_media
from ursa_core.sampling.generate import Request, decode, generate

bundle = load_bundle(model)
codes = generate(bundle, Request("a red circle"))
frames = decode(bundle, codes)
assert frames.shape == (9, 16, 16, 3)
for name in ("clip.gif", "frames"):
    write_media(Path(folder) / name, frames, 8.0)
    assert read_media(Path(folder) / name).frames.shape == frames.shape
for name, recipe in (("generator", generator), ("tokenizer", tokenizer)):
    run = train(recipe, Path(folder), name, "train.steps=1", "train.precision=float32")
    assert run.step == 1
    assert list((run.run_folder / "samples").glob("*.png"))
try:
    write_media(Path(folder) / "clip.mp4", frames, 8.0)
except ImportError:
    print("only films ask for it")
"""


def test_clips_are_sampled_and_models_trained_without_av(tiny_model, generator_recipe, tmp_path):
    words = [str(tiny_model), str(tmp_path), generator_recipe, TOKENIZER]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        cwd=Path(__file__).parents[1] / "stand_ins",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "only films ask for it" in done.stdout
