"""Make the README's pictures by the README's own commands.

    python benchmarks/pictures.py [--only image_to_video]

Runs each command in a new folder, as a user would (tasks with `nano` as the default), and writes a
contact sheet of what it made to ``docs/``.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from ursa_core.media import Frames, read_media, write_media
from ursa_core.media.frames import contact_sheet

DOCS = Path(__file__).parents[1] / "docs"
NANO = (
    "a red circle moves right on a navy background",
    "a green star spins on a black background",
    "a cyan square grows on a brown background",
    "a yellow triangle moves up on a gray background",
    "a purple ring stays still on a black background",
    "a white star shrinks on a navy background",
)
EMOJI = (
    "a fox on a purple background",
    "a robot on a green background",
    "a panda on a teal background",
    "a unicorn on a navy background",
    "a skull on an orange background",
    "a frog on a pink background",
    "a whale on a yellow background",
    "an owl on a black background",
    "a rabbit on a blue background",
    "an alien on a white background",
    "a dragon on a red background",
    "a T-Rex on a purple background",
)
SHEETS = {"nano": NANO, "emoji": EMOJI}
"""What each model is shown with."""
MEDIA = (
    'sample "a red circle moves right on a navy background" -o out.mp4 --seed 0',
    'sample "a cyan square grows on a brown background" -o square.png --frames 1 --seed 0',
    'sample "a yellow square stays still on a navy background" -o first.png --frames 1 --seed 0',
    'sample "a purple ring moves up on a gray background" -o ring --seed 0',
)
"""What the tasks are given."""
TASKS = {
    "image_to_video": 'sample "a cyan square moves right on a brown background" --image square.png'
    " -o moving.mp4 --seed 0",
    "edit": 'sample "a blue circle moves right on a navy background" --video out.mp4'
    " --strength 0.6 -o blue.mp4 --seed 0",
    "extend": 'extend out.mp4 "a red circle moves left on a navy background"'
    ' "a red circle moves right on a navy background" -o long.mp4 --seconds 7 --seed 0',
    "interpolate": 'interpolate "a purple ring moves up on a gray background"'
    " --first ring/00000.png --last ring/00016.png -o between.mp4 --seed 0",
    "loop": 'interpolate "a yellow square spins on a navy background" --first first.png --loop'
    " -o loop.gif --seed 0",
}
COLUMNS = 9
"""Frames shown of a clip."""


def ursa(command: str, folder: str) -> Frames:
    """Frames that a command line of ``ursa`` writes."""
    words = shlex.split(command)
    command_line = [sys.executable, "-m", "ursa_cli", *words, "--quiet"]
    subprocess.run(command_line, cwd=folder, check=True, env={**os.environ, "URSA_MODEL": "nano"})
    return read_media(Path(folder, words[words.index("-o") + 1])).frames


def save(name: str, sheet: Frames) -> None:
    """Write a picture to ``docs/``."""
    write_media(DOCS / f"{name}.png", sheet[None], 1.0)
    print(DOCS / f"{name}.png")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*SHEETS, *TASKS])
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        for model, prompts in SHEETS.items():
            if only in (None, model):
                options = f"--model {model} --seed 0 -o {model}"
                clips = [
                    ursa(f"sample {shlex.quote(prompt)} {options}{index}.mkv", folder)
                    for index, prompt in enumerate(prompts)
                ]
                save(model, contact_sheet(clips, columns=2))
        if only not in SHEETS:
            for command in MEDIA:
                ursa(command, folder)
        for name, command in TASKS.items():
            if only in (None, name):
                save(name, contact_sheet([ursa(command, folder)], 1, COLUMNS))


if __name__ == "__main__":
    main()
