"""`ursa sample --replay` and `--preview`, with nano."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ursa_cli.main import main
from ursa_core.media import read_media, write_media

PROMPT = "a red circle moves right on a navy background"
FAST = ["--steps", "2", "--frames", "5", "--device", "cpu", "--dtype", "float32", "--top-p", "0.9"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clip 1 of 2, as an mp4."""
    folder = tmp_path_factory.mktemp("made")
    arguments = ["sample", PROMPT, "-o", str(folder / "a.mp4"), "--num", "2", "--seed", "6"]
    assert main([*arguments, *FAST, "--guidance-interval", "0.1:0.7", "--crf", "12"]) == 0
    return folder / "a-0001.mp4"


def test_a_file_is_made_again_to_the_byte(made: Path, tmp_path: Path) -> None:
    assert main(["sample", "--replay", str(made), "-o", str(tmp_path / "b.mp4")]) == 0
    assert (tmp_path / "b.mp4").read_bytes() == made.read_bytes()


@pytest.mark.parametrize("name", ["b.gif", "b.webp", "b.mkv", "frames"])
def test_every_format_tells_enough(made: Path, name: str, tmp_path: Path) -> None:
    frames = read_media(made).frames
    first, again = tmp_path / name, tmp_path / f"again-{name}"
    write_media(first, frames, 8, read_media(made).metadata)
    assert main(["sample", "--replay", str(first), "-o", str(again)]) == 0
    assert read_media(again).metadata == read_media(made).metadata
    assert read_media(again).frames.shape == frames.shape


def test_options_given_change_the_replay(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.mkv"
    changes = ["--seed", "7", "--steps", "1", "--top-p", "1.0"]
    assert main(["sample", "a green star", "--replay", str(made), "-o", str(out), *changes]) == 0
    before, now = read_media(made).metadata, read_media(out).metadata
    differ = {key: now[key] for key in now if now[key] != before[key]}
    assert differ == {"prompt": "a green star", "seed": 7, "steps": 1, "top_p": None}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ursa": "0.0.1"}, "was made by ursa 0.0.1, this is"),
        ({"model_identity": "0" * 16}, "was made by the model nano when its files were 0000"),
        ({"model_identity": None}, "doesn't record model_identity"),
        ({"seed": None}, "doesn't record how it was made"),
        ({"own_frames": 5}, "was made by ursa extend, and only"),
        ({"given": {"files": [{}, {}]}}, "was made by ursa interpolate, and only"),
        ({"given": {"files": [{}]}}, "is damaged"),
        ({"given": 3}, "is damaged"),
        ({"magic": True}, "was made with magic, which can't be replayed"),
        ({"guidance_interval": 3}, "is damaged"),
        ({"crf": "12"}, "is damaged"),
        ({"device": 5}, "is damaged"),
        ({"offload": "no"}, "is damaged"),
        ({"steps": True}, "is damaged"),
        ({"index": 2}, "is damaged"),
    ],
)
def test_what_can_not_be_replayed_is_refused(
    change: dict[str, Any],
    named: str,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = read_media(made)
    metadata = {**clip.metadata, **change}
    kept = {key: value for key, value in metadata.items() if change.get(key, 0) is not None}
    write_media(tmp_path / "a.png", clip.frames[:1], 8, kept)
    assert main(["sample", "--replay", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.mp4")]) > 0
    error, hint = capsys.readouterr().err.splitlines()
    assert named in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "b.mp4").exists()


def test_a_file_without_metadata_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_media(tmp_path / "a.mp4", np.zeros((2, 8, 8, 3), np.uint8), 8)
    assert main(["sample", "--replay", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.mp4")]) == 1
    assert "doesn't record how it was made" in capsys.readouterr().err


def test_previews_are_pictures_of_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ursa_core.clips import clip as making

    out, pictures = tmp_path / "a.mkv", []
    whole = making.write_media

    def kept(path: Path, *rest: Any) -> None:
        whole(path, *rest)
        if Path(path).name.endswith(".preview.png"):
            pictures.append((Path(path).name, read_media(path)))

    monkeypatch.setattr(making, "write_media", kept)
    arguments = ["sample", PROMPT, "-o", str(out), "--seed", "1", *FAST[2:]]
    assert main([*arguments, "--steps", "5", "--preview", "2"]) == 0
    assert [(name, clip.metadata["step"]) for name, clip in pictures] == [
        ("a.mkv.preview.png", 2), ("a.mkv.preview.png", 4),
    ]  # fmt: skip
    first = read_media(out).frames[:1].astype(int)
    distances = [np.abs(clip.frames - first).mean() for _, clip in pictures]
    assert all(clip.frames.shape == first.shape for _, clip in pictures)
    assert distances[1] < np.abs(np.flip(first, 2) - first).mean() + 20
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert json.loads(json.dumps(read_media(out).metadata["steps"])) == 5
