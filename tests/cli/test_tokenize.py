"""`ursa tokenize` through the command line, on a small random tokenizer.

All that it promises, in one file, as the tests share their small films, folders and tokenizer.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ursa_cli.main import main
from ursa_core.batches.part_files import PartFile
from ursa_core.bundle.bundle import load_tokenizer, save_tokenizer
from ursa_core.bundle.settings import BundleSettings, save_settings
from ursa_core.encoding import encode as work
from ursa_core.errors import UsageError
from ursa_core.media import read_media, write_media
from ursa_core.parts import Part
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.tokens import writer
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.token_files import load_tokens
from ursa_core.worlds.shapes import training_clip


def make_model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = VideoTokenizerConfig(
        block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, levels=(7, 5, 5)
    )
    save_tokenizer(folder, config, VideoTokenizer(config).state_dict())
    save_settings(folder, BundleSettings(frames=5, height=16, width=24, fps=8.0))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("models") / "tiny", 0))


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for k, frames in enumerate((9, 6)):
        clip, caption = training_clip(0, k, "all", frames, 32, 40)
        write_media(folder / f"{k}.mkv", clip, fps=8)
        (folder / f"{k}.txt").write_text(caption)
    return folder


def tokenize(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = main(["tokenize", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(out: str) -> dict[str, Any]:
    (line,) = out.splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_clip_goes_to_tokens_and_back(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, back = tmp_path / "clip.safetensors", tmp_path / "back.mkv"
    code, out, _ = tokenize(capsys, media / "0.mkv", "-o", path, "--model", model)
    assert code == 0
    assert "PSNR" in out
    assert out.splitlines()[-1] == str(path)
    tokens = load_tokens(path)
    assert tokens.codes.shape == (2, 2, 3)
    assert tokens.metadata["prompt"] == (media / "0.txt").read_text()

    code, out, _ = tokenize(capsys, "--decode", path, "-o", back, "--model", model, "--json")
    assert (code, as_json(out)["frames"], as_json(out)["output"]) == (0, 5, str(back))
    clip = read_media(back)
    assert (clip.frames.shape, clip.fps) == ((5, 16, 24, 3), 8.0)
    assert clip.metadata["prompt"] == tokens.metadata["prompt"]
    tokenizer, _, _ = load_tokenizer(model)
    assert np.array_equal(clip.frames, decode_frames(tokenizer, tokens.codes))

    code, _, err = tokenize(capsys, "--decode", path, "-o", back, "--model", model)
    assert (code, "--force" in err) == (2, True)
    code, _, err = tokenize(capsys, media / "0.mkv", "-o", path, "--model", model)
    assert (code, "--force" in err) == (2, True)
    other = make_model(tmp_path / "other", 1)
    code, _, err = tokenize(capsys, "--decode", path, "-o", back, "--model", other, "--force")
    assert code == 1
    assert "another video tokenizer" in err
    assert read_media(back).frames.shape == (5, 16, 24, 3)


def test_a_folder_goes_to_shards_and_bad_files_are_told(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "bad.mp4").write_bytes(b"no film")
    arguments = (media, "-o", tmp_path / "shards", "--model", model, "--json")
    code, out, err = tokenize(capsys, *arguments)
    found = as_json(out)
    assert code == 1
    assert err.count("media/bad.mp4 is no film") == err.count("bad.mp4") == 1
    assert "1 of 3 clips were skipped" in err
    assert (found["num_done"], found["num_kept"], found["num_skipped"]) == (2, 0, 1)
    assert found["grid"] == [2, 2, 3]
    measured = [item["psnr"] for item in found["items"] if item["status"] == "done"]
    assert found["psnr"] == pytest.approx(sum(measured) / 2)
    assert len(read_shards(tmp_path / "shards")) == 2

    (media / "bad.mp4").unlink()
    code, out, _ = tokenize(capsys, *arguments)
    assert (code, as_json(out)["num_kept"], as_json(out)["num_done"]) == (0, 2, 0)
    code, _, err = tokenize(capsys, *arguments, "--fps", "4", "--frames", "1")
    assert code == 1
    assert "frames: 5, not 1" in err
    code, out, _ = tokenize(capsys, *arguments, "--fps", "4", "--frames", "1", "--fresh")
    assert (code, as_json(out)["num_done"]) == (0, 2)
    assert [grid.frames for grid in read_shards(tmp_path / "shards").grids] == [1]


def test_refined_codes_are_told_apart_and_come_nearer(
    model: str,
    published_image_model: Path,
    media: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    psnr = []
    for steps in (0, 8):
        out = tmp_path / f"{steps}.safetensors"
        options = ["-o", out, "--model", model, "--refine", steps, "--json"]
        code, text, _ = tokenize(capsys, media / "0.mkv", *options)
        assert code == 0
        psnr.append(as_json(text)["psnr"])
        assert load_tokens(out).metadata.get("refine", 0) == as_json(text)["refine"] == steps
    assert psnr[1] > psnr[0]
    shards = [media, "-o", tmp_path / "shards", "--model", model]
    assert tokenize(capsys, *shards, "--refine", 2)[0] == 0
    assert tokenize(capsys, *shards, "--refine", 2)[0] == 0
    code, _, err = tokenize(capsys, *shards)
    assert code == 1
    assert "made with another refine: 2, not none" in err
    tiny = ["-o", tmp_path / "tiny.safetensors", "--model", model, "--frames", 1, "--size", "8x8"]
    code, _, err = tokenize(capsys, media / "0.mkv", *tiny)
    assert (code, "too small for SSIM" in err) == (2, True)
    assert not (tmp_path / "tiny.safetensors").exists()
    image = ["--model", published_image_model, "--frames", 1, "--size", "64x64"]
    code, _, err = tokenize(capsys, media / "0.mkv", "-o", tmp_path / "i", *image, "--refine", 1)
    assert code == 2
    assert "codes can't be refined" in err


def test_an_interrupted_run_keeps_its_clips_and_goes_on(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    arguments = ("shapes:train", "--num", 20, "-o", tmp_path, "--model", model)
    with monkeypatch.context() as patched:
        patched.setattr(work, "measure", interrupt)
        code, out, err = tokenize(capsys, *arguments)
    assert (code, out) == (130, "")
    assert "16 clips are in" in err
    assert len(read_shards(tmp_path)) == 16
    code, out, _ = tokenize(capsys, *arguments, "--check", 2, "--json")
    found = as_json(out)
    assert (code, found["num_kept"], found["num_done"], len(found["items"])) == (0, 16, 4, 2)
    assert len(read_shards(tmp_path)) == 20
    code, out, _ = tokenize(capsys, *arguments, "--quiet")
    assert (code, out) == (0, f"{tmp_path}\n")


def test_parts_make_the_same_clips_in_one_folder(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def clips(folder: Path) -> dict[str, list[int]]:
        table = read_shards(folder)
        assert len({table.source(k) for k in range(len(table))}) == len(table)
        return {table.source(k): table.codes([k])[0].tolist() for k in range(len(table))}

    fixed = ("shapes:train", "--num", 20, "--model", model, "--json", "--check", 1)
    assert tokenize(capsys, *fixed, "-o", tmp_path / "alone")[0] == 0
    shared = tmp_path / "shared"
    for number in (2, 1):
        code, out, _ = tokenize(capsys, *fixed, "-o", shared, "--shard", f"{number}/3")
        assert (code, as_json(out)["num_done"]) == (0, 7)
        assert as_json(out)["report"] == str(shared / f"report-{number}-of-3.jsonl")
    # The third one never ran: all others go on, and then it's anybody's.
    for number, found in ((1, 0), (2, 0)):
        code, out, _ = tokenize(capsys, *fixed, "-o", shared, "--shard", f"{number}/3")
        assert (code, as_json(out)["num_done"], as_json(out)["num_kept"]) == (0, found, 7)
    code, out, _ = tokenize(capsys, *fixed, "-o", shared)
    assert (code, as_json(out)["num_done"], as_json(out)["num_kept"]) == (0, 6, 14)
    assert clips(shared) == clips(tmp_path / "alone")
    assert {path.name for path in shared.glob("*.parquet")} == {
        "shard-00000.parquet",
        "shard-1-of-3-00000.parquet",
        "shard-2-of-3-00000.parquet",
    }


def test_parts_that_collide_are_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ("shapes:train", "--num", 4, "--model", model, "-o", tmp_path)
    code, _, err = tokenize(capsys, *fixed, "--shard", "1/2", "--fresh")
    assert (code, "--fresh would delete" in err) == (2, True)
    assert tokenize(capsys, *fixed, "--shard", "1/2")[0] == 0
    with PartFile(tmp_path, "report", Part(1, 2)):
        for taken in ("1/2", "1/3"):
            code, _, err = tokenize(capsys, *fixed, "--shard", taken)
            assert (code, "another run is at work" in err) == (2, True)
        assert tokenize(capsys, *fixed, "--shard", "2/2")[0] == 0
    code, _, err = tokenize(capsys, *fixed, "--shard", "2/2", "--frames", 1)
    assert (code, "frames: 5, not 1" in err) == (1, True)
    assert len(read_shards(tmp_path)) == 4
    with PartFile(tmp_path, "report", Part()):
        code, _, err = tokenize(capsys, *fixed, "--fresh")
        assert (code, "another run is at work" in err) == (2, True)
    assert len(read_shards(tmp_path)) == 4  # none was deleted


def test_what_is_done_is_read_once_no_other_process_can_add_to_it(model, tmp_path, monkeypatch):
    opened, out = [], tmp_path / "shards"

    def open_shard(path):
        with pytest.raises(UsageError, match="another run is at work"):
            PartFile(out, "report", Part())
        opened.append(path)
        return found(path)

    found = writer.shards.open_shard
    given = ["tokenize", "shapes:train", "--num", "2", "--model", model, "-o", str(out)]
    assert main(given) == 0
    monkeypatch.setattr(writer.shards, "open_shard", open_shard)
    assert main(given) == 0
    assert opened


def test_a_manifest_with_filters_reports_what_was_left_out(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"file": f"media/{k}.mkv", "captions": ["long", "short"]} for k in range(2)]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    fixed = (manifest, "--model", model, "-o", tmp_path / "out", "--json", "--clips", "chunk")
    code, out, err = tokenize(capsys, *fixed, "--min-seconds", "1")
    found = as_json(out)
    assert (code, found["num_done"], found["num_dropped"]) == (0, 1, 1)
    assert found["dropped"] == {"shorter than 1 s": 1}
    assert "left out: 1 shorter than 1 s" in err
    header, *lines = (json.loads(x) for x in (tmp_path / "out" / "report.jsonl").open())
    assert header["options"]["min_seconds"] == 1
    told = {line["source"]: (line["status"], line["found"]) for line in lines}
    name = f"{tmp_path.name}/media"
    assert told == {f"{name}/0.mkv@0": ("done", ""), f"{name}/1.mkv": ("dropped", "0.75 s")}
    assert next(line["psnr"] for line in lines if line["status"] == "done") > 0
    assert read_shards(tmp_path / "out").captions(0) == ["long", "short"]

    # What a filter left out isn't read again: the file may even be gone.
    (media / "1.mkv").unlink()
    code, out, _ = tokenize(capsys, *fixed, "--min-seconds", "1")
    assert (code, as_json(out)["num_kept"], as_json(out)["num_skipped"]) == (0, 2, 0)
    code, _, err = tokenize(
        capsys, media, "--model", model, "-o", tmp_path / "none", "--min-motion", "1"
    )
    assert (code, "all 1 clips were left out" in err) == (1, True)
    # Without a shard there is nothing that other settings wouldn't fit.
    assert tokenize(capsys, media, "--model", model, "-o", tmp_path / "none")[0] == 0
    code, _, err = tokenize(
        capsys, media, "--model", model, "-o", tmp_path / "none", "--min-motion", "1"
    )
    assert (code, "min_motion: none, not 1.0" in err) == (1, True)


def test_bad_captions_cost_only_their_clips(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "1.txt").write_bytes(b"caf\xe9")
    (media / "metadata.jsonl").write_text('{"file": "0.mkv"\n')
    arguments = (media, media / "0.mkv", "-o", tmp_path / "shards", "--model", model)
    code, _, err = tokenize(capsys, *arguments)
    assert code == 1
    assert f"skipped: {media / '1.txt'}:1: not UTF-8" in err
    assert f"skipped: {media / 'metadata.jsonl'}:1: not JSON" in err
    assert "2 of 3 clips were skipped" in err
    assert f"given twice, taken once: {media / '0.mkv'}" in err
    assert len(read_shards(tmp_path / "shards")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
def test_names_that_are_not_utf8_cost_only_their_files(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin1 = os.fsdecode(b"caf\xe9")
    shutil.copy(media / "0.mkv", media / f"{latin1}.mkv")
    beside = tmp_path / latin1
    beside.mkdir()
    shutil.copy(media / "0.mkv", beside / "x.mkv")
    (media / "link").symlink_to(beside)
    (media / f"{latin1}.heic").touch()
    code, out, err = tokenize(capsys, media, "-o", tmp_path / "shards", "--model", model, "--json")
    assert (code, as_json(out)["num_done"], as_json(out)["num_skipped"]) == (1, 2, 2)
    assert f"skipped: {media}/caf\\xe9.mkv: its path is not UTF-8" in err
    assert f"skipped: {media}/link/x.mkv: its path is not UTF-8" in err
    assert f"left out, as no media of a known suffix or unreadable: {media}/caf\\xe9.heic" in err
    assert len(read_shards(tmp_path / "shards")) == 2
    report = (tmp_path / "shards" / "report.jsonl").read_text()
    assert report.count('"skipped"') == 2
    code, _, err = tokenize(
        capsys, media / f"{latin1}.mkv", "-o", tmp_path / "x.safetensors", "--model", model
    )
    assert (code, "its path is not UTF-8" in err) == (1, True)


def test_bad_pictures_cost_only_themselves(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those with odd comments are whole, and read."""
    picture = Image.new("RGB", (32, 32), "red")
    for k, comment in enumerate(("[" * 100_000, f'{{"fps": {"9" * 5000}}}', '{"fps": null}')):
        about = PngInfo()
        about.add_text("comment", comment)
        picture.save(media / f"odd{k}.png", pnginfo=about)
    picture.save(media / "whole.png")
    whole = (media / "whole.png").read_bytes()
    for k, content in enumerate((whole[:-30], whole[:20], whole.replace(b"IDAT", b"IDAX"), b"\0")):
        (media / f"bad{k}.png").write_bytes(content)
    (media / "bad4.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))
    code, out, err = tokenize(
        capsys, media, "-o", tmp_path / "s", "--model", model, "--frames", "1", "--json"
    )
    assert (code, as_json(out)["num_done"], as_json(out)["num_skipped"]) == (1, 6, 5)
    assert all(f"bad{k}." in err for k in range(5))


def test_captions_that_the_model_cannot_take_are_warned_of(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(model, whole)
    arguments = (media, "-o", tmp_path / "shards", "--model", whole, "--fresh")
    assert "captions" not in tokenize(capsys, *arguments)[2]  # no text tokenizer, nothing to say
    texts = "a red boat on a sea"
    TextTokenizer.from_words([texts], 4).save(whole / "tokenizer")
    settings = BundleSettings(
        frames=5, height=16, width=24, fps=8.0, max_prompt_length=4, motion_prefix=False
    )
    save_settings(whole, settings)
    (media / "0.txt").write_text("a red boat\na red boat on a sea")
    (media / "1.txt").write_text("a quokka\na boat")
    code, _, err = tokenize(capsys, *arguments)
    assert code == 0
    assert (
        "warning: 1 of 4 captions (25 %) are longer than the 4 tokens that whole reads: "
        'of "a red boat on a sea" this is cut off: "a sea"\n'
    ) in err
    assert "warning: 1 of 4 captions (25 %) hold words that whole doesn't know: quokka (1)\n" in err
    clip = (media / "1.mkv", "-o", tmp_path / "x.safetensors", "--model", whole)
    assert "1 of 2 captions (50 %) hold words" in tokenize(capsys, *clip)[2]
    (media / "0.txt").write_text("a red boat")
    (media / "1.txt").write_text("a boat")
    assert "captions" not in tokenize(capsys, *arguments)[2]


def test_films_and_stills_of_one_folder_become_clips_of_their_own_grids(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_media(media / "still.png", training_clip(0, 0, "all", 1, 16, 24)[0], 8)
    assert tokenize(capsys, media, "-o", tmp_path / "shards", "--model", model)[0] == 0
    table = read_shards(tmp_path / "shards")
    names = {table.source(k): table.grid(k).frames for k in range(len(table))}
    assert names.pop("media/still.png") == 1
    assert min(names.values()) > 1


def test_a_spreadsheets_semicolons_are_read(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"media/{k}.mkv;a boat, and {k} more\r\n" for k in range(2))
    (tmp_path / "list.csv").write_text("file;caption\r\n" + rows, newline="")
    given = (tmp_path / "list.csv", "-o", tmp_path / "shards", "--model", model)
    assert tokenize(capsys, *given)[0] == 0
    assert read_shards(tmp_path / "shards").captions(1) == ["a boat, and 1 more"]
    (tmp_path / "list.csv").write_text("file;caption\r\nmedia/0.mkv;a boat\r\nnone.mkv;a\r\n")
    code, out, err = tokenize(capsys, *given, "--dry-run", "--json")
    assert (code, as_json(out)["num_faulty"]) == (0, 1)
    assert "warning: will be skipped: " in err


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (media, "-o", tmp_path / "shards", "--model", model, "--json")
    code, out, _ = tokenize(capsys, *given, "--dry-run")
    found = as_json(out)
    assert (code, found["num_items"], found["num_kept"]) == (0, len(list(media.glob("*.mkv"))), 0)
    assert not (tmp_path / "shards").exists()
    assert tokenize(capsys, *given)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "shards").iterdir()}
    assert as_json(tokenize(capsys, *given, "--dry-run")[1])["num_kept"] == found["num_items"]
    assert as_json(tokenize(capsys, *given, "--dry-run", "--fresh")[1])["num_kept"] == 0
    assert {p: p.read_bytes() for p in (tmp_path / "shards").iterdir()} == before
    clip = (media / "0.mkv", "-o", tmp_path / "x.safetensors", "--model", model, "--dry-run")
    assert tokenize(capsys, *clip)[0] == 0
    assert not (tmp_path / "x.safetensors").exists()


def test_folders_and_stills_that_are_no_clip_are_told(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = media / "still.png"
    write_media(still, training_clip(0, 0, "all", 1, 16, 24)[0], 8)
    options = ("-o", tmp_path / "x.safetensors", "--model", model)
    code, _, err = tokenize(capsys, media, *options)
    assert (code, f"{media} holds several clips" in err) == (2, True)
    code, _, err = tokenize(capsys, media / "0.mkv", "-o", still / "x.safetensors")
    assert (code, "still.png is a file" in err) == (2, True)
    code, _, err = tokenize(capsys, media / "0.mkv", "-o", still / "x", "--model", model)
    assert (code, "a part of the path is a file" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x.mp4"], "no output is given"),
        (["-o", "x"], "no input is given"),
        (["x.mp4", "-o", "x.mp4"], "is no folder"),
        (["a.mp4", "b.mp4", "-o", "x.safetensors"], "2 inputs"),
        (["x.mp4", "-o", "x", "--fps", "0"], "--fps can't be 0"),
        (["x.mp4", "-o", "x", "--fps", "1e-300"], "--fps can't be 1e-300"),
        (["x.mp4", "-o", "x", "--fps", "nan"], "--fps can't be nan"),
        (["x.mp4", "-o", "x", "--size", "64"], "is no size"),
        (["x.mp4", "-o", "x", "--frames", "6"], "use 5 or 9 frames"),
        (["x.mp4", "-o", "x", "--size", "16x20"], "width of 16 or 24"),
        (["shapes:train", "-o", "x", "--num", "0"], "--num can't be 0"),
        (["shapes:test", "-o", "x"], "no procedural input 'shapes:test'"),
        (["shapes:train", "-o", "x", "--fps", "9"], "use --fps 8"),
        (["x.mp4", "-o", "x", "--clips", "slide"], "--clips slide needs --stride"),
        (["x.mp4", "-o", "x", "--clips", "uniform"], "needs --clips-per-file"),
        (["x.mp4", "-o", "x", "--stride", "2"], "--stride is for --clips slide"),
        (["x.mp4", "-o", "x", "--clips", "slide", "--stride", "0"], "--stride can't be 0"),
        (["x.mp4", "-o", "x", "--clips", "full", "--frames", "5"], "no --frames"),
        (["x.mp4", "-o", "x.safetensors", "--clips", "chunk"], "holds one clip"),
        (["x.mp4", "-o", "x.safetensors", "--shard", "1/2"], "holds one clip"),
        (["x.mp4", "-o", "x", "--shard", "3/2"], "'3/2' is no shard"),
        (["x.mp4", "-o", "x", "--min-motion", "2"], "--min-motion can't be 2"),
        (["x.mp4", "-o", "x", "--max-seconds", "-1"], "--max-seconds can't be -1"),
        (["x.mp4", "-o", "x", "--min-seconds", "3", "--max-seconds", "2"], "3 to 2 of seconds"),
        (["x.mp4", "-o", "x", "--size", "16x16,20x16"], "height of 20"),
        (["shapes:train", "-o", "x", "--clips", "chunk"], "drawn at one length and size"),
        (["shapes:train", "-o", "x", "--min-size", "3"], "drawn at one length and size"),
        (["list.csv", "-o", "x.safetensors"], "list.csv lists files"),
        (["--decode", "x.safetensors", "a.mp4", "-o", "x"], "no INPUT"),
        (["--decode", "x.safetensors", "-o", "x.mp4", "--crf", "52"], "--crf can't be 52"),
        (["--decode", "x.safetensors", "-o", "x.avi"], "unknown extension"),
        (["x.mp4", "-o", "x", "--refine", "-1"], "--refine can't be -1"),
        (["--decode", "x.safetensors", "-o", "x.mp4", "--refine", "3"], "--refine"),
        (["x.mp4", "-o", "x", "--device", "abacus"], "no device 'abacus'"),
    ],
)
def test_wrong_usage_is_two_lines_and_writes_nothing(
    arguments: list[str],
    complaint: str,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tokenize(capsys, *arguments, "--model", model)
    assert (code, out) == (2, "")
    assert complaint in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent.mp4", "-o", "x"], "absent.mp4 doesn't exist"),
        (["absent.mp4", "-o", "x.safetensors"], "absent.mp4 doesn't exist"),
        (["short.mkv", "-o", "x.safetensors", "--frames", "9"], "take 5 frames"),
        (["short.mkv", "-o", "no/x.safetensors"], "doesn't exist"),
        (["short.mkv", "-o", "x", "--model", "absent"], "there is no model 'absent'"),
        (["--decode", "absent.safetensors", "-o", "x.mp4"], "no token file"),
        (["--decode", "short.mkv", "-o", "x.mp4"], "can't be read"),
    ],
)
def test_failures_are_two_lines_and_write_nothing(
    arguments: list[str],
    complaint: str,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "short.mkv", training_clip(0, 0, "all", 7, 16, 24)[0], 8.0)
    options = arguments if "--model" in arguments else [*arguments, "--model", model]
    code, out, err = tokenize(capsys, *options)
    assert (code, out) == (1, "")
    assert complaint in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["short.mkv"]


def test_help_names_every_option_and_two_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = tokenize(capsys, "--help")
    assert code == 0
    assert out.count("ursa tokenize ") >= 2
    for option in (
        "--decode",
        "--fps",
        "--frames",
        "--size",
        "--num",
        "--seed",
        "--check",
        "--clips",
        "--shard",
    ):
        assert option in out
    assert "Encode videos" in out


def test_a_folder_of_frames_without_a_rate_is_told_of(model, tmp_path, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in range(20):
        Image.new("RGB", (24, 16), (10 * k,) * 3).save(folder / f"frame_{k}.png")
    out = ["-o", tmp_path / "a.safetensors", "--model", model, "--device", "cpu"]
    code, _, err = tokenize(capsys, folder, *out)
    assert (code, "taken as 25 a second; --source-fps" in err) == (0, True)
    code, _, err = tokenize(capsys, folder, *out, "--source-fps", 8, "--force")
    assert (code, "taken as 25" in err) == (0, False)
    assert tokenize(capsys, folder, *out, "--source-fps", -1, "--force")[0] == 2
    shards = ["-o", tmp_path / "shards", "--model", model, "--device", "cpu"]
    film = tmp_path / "a.mkv"
    write_media(film, np.zeros((9, 16, 24, 3), np.uint8), fps=25)
    assert tokenize(capsys, film, *shards, "--source-fps", 8)[0] == 0
    # Shards of another rate of the same files are other shards.
    assert tokenize(capsys, film, *shards)[0] == 1


def rows_of(shards: Path) -> list[tuple[str, list[str], list[int]]]:
    """Name, captions and codes of each clip, sorted."""
    table = read_shards(shards)
    rows = range(len(table))
    return sorted((table.source(k), table.captions(k), table.codes([k])[0].tolist()) for k in rows)


def test_replaced_films_and_corrected_captions_are_made_again(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ("--model", model, "--json", "--check", 0)
    for name in ("2.mkv", "2.txt"):
        shutil.copy(media / name.replace("2", "1"), media / name)
    arguments = (media, "-o", tmp_path / "shards", *fixed)
    assert tokenize(capsys, *arguments)[0] == 0
    first = rows_of(tmp_path / "shards")
    (media / "0.txt").write_text("corrected")
    write_media(media / "1.mkv", training_clip(0, 7, "all", 9, 32, 40)[0], fps=8)
    os.utime(media / "2.mkv")  # the same content
    code, out, err = tokenize(capsys, *arguments)
    found, changed = as_json(out), [str(media / f"{k}.mkv") for k in (0, 1)]
    assert (code, found["num_done"], found["num_kept"]) == (0, 2, 1)
    assert found["changed"] == changed
    assert f"changed, made again: {', '.join(changed)}" in err
    assert tokenize(capsys, media, "-o", tmp_path / "new", *fixed)[0] == 0
    again = rows_of(tmp_path / "shards")
    assert again == rows_of(tmp_path / "new")
    assert again[0][1] == ["corrected"]
    assert (again[0][2], again[2]) == (first[0][2], first[2])
    assert again[1][2] != first[1][2]
    code, out, err = tokenize(capsys, *arguments)
    assert (code, as_json(out)["num_kept"], as_json(out)["changed"], err) == (0, 3, [], "")


def test_clips_of_a_film_that_became_unreadable_stay(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (media, "-o", tmp_path / "shards", "--model", model, "--check", 0)
    assert tokenize(capsys, *arguments)[0] == 0
    before = rows_of(tmp_path / "shards")
    (media / "0.mkv").write_bytes(b"no film")
    code, _, err = tokenize(capsys, *arguments)
    assert (code, "skipped" in err) == (1, True)
    assert rows_of(tmp_path / "shards") == before
    (media / "0.mkv").unlink()
    os.mkfifo(media / "0.mkv")  # reading it would never end
    assert tokenize(capsys, *arguments)[0] == 1
    assert rows_of(tmp_path / "shards") == before


def test_clips_of_gone_files_are_told_and_dropped_when_asked(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (media, "-o", tmp_path / "shards", "--model", model, "--json", "--check", 0)
    assert tokenize(capsys, *arguments)[0] == 0
    kept = rows_of(tmp_path / "shards")
    (media / "1.mkv").unlink()
    code, out, err = tokenize(capsys, *arguments)
    assert (code, as_json(out)["gone"]) == (0, [str(media / "1.mkv")])
    assert f"gone, their clips stay in {tmp_path / 'shards'} without --drop-gone: {media}" in err
    assert rows_of(tmp_path / "shards") == kept
    code, _, err = tokenize(capsys, *arguments, "--drop-gone")
    assert (code, f"their clips dropped: {media / '1.mkv'}" in err) == (0, True)
    assert rows_of(tmp_path / "shards") == kept[:1]
    assert tokenize(capsys, *arguments, "--drop-gone")[2] == ""
    clip = (media / "0.mkv", "-o", tmp_path / "x.safetensors", "--model", model)
    code, _, err = tokenize(capsys, *clip, "--drop-gone")
    assert (code, "holds one clip" in err) == (2, True)


def test_films_of_one_name_from_two_folders_both_stay(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "media"
    other.mkdir(parents=True)
    shutil.copy(media / "1.mkv", other / "0.mkv")
    fixed = ("--model", model, "--json", "--check", 0)
    for folder in (media, other):
        assert tokenize(capsys, folder, "-o", tmp_path / "in-turn", *fixed)[0] == 0
    assert tokenize(capsys, media, other, "-o", tmp_path / "at-once", *fixed)[0] == 0
    assert rows_of(tmp_path / "in-turn") == rows_of(tmp_path / "at-once")
    names = [name for name, _, _ in rows_of(tmp_path / "in-turn")]
    assert names == ["media/0.mkv", "media/0.mkv", "media/1.mkv"]


def test_a_folder_is_known_by_any_path_to_it_and_when_it_has_moved(
    media: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = tmp_path / "shards"
    fixed = ("--model", model, "--json", "--check", 0)
    assert tokenize(capsys, media, "-o", shards, *fixed)[0] == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(media)
    (tmp_path / "far").mkdir()
    for given in ("media", "link", "far/../media", "far/clips"):
        if given == "far/clips":
            media.rename(given)
        code, out, err = tokenize(capsys, given, "-o", "shards", *fixed, "--drop-gone")
        assert (code, as_json(out)["num_kept"], as_json(out)["gone"], err) == (0, 2, [], "")
    Path("far/clips/1.txt").write_text("corrected")
    code, out, _ = tokenize(capsys, "far/clips", "-o", shards, *fixed)
    assert (code, as_json(out)["num_done"], len(read_shards(shards))) == (0, 1, 2)


def test_a_film_that_was_left_out_is_read_again_when_replaced(
    media: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (media, "-o", tmp_path / "s", "--model", model, "--json", "--min-seconds", 1)
    code, out, _ = tokenize(capsys, *arguments)
    assert (code, as_json(out)["num_done"], as_json(out)["num_dropped"]) == (0, 1, 1)
    shutil.copy(media / "0.mkv", media / "1.mkv")
    code, out, _ = tokenize(capsys, *arguments)
    assert (code, as_json(out)["num_done"], as_json(out)["num_kept"]) == (0, 1, 1)
    assert len(read_shards(tmp_path / "s")) == 2


def test_shards_that_came_meanwhile_are_told(
    media: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed = (media, "--model", model, "--check", 0)
    assert tokenize(capsys, *fixed, "-o", tmp_path / "other", "--shard", "2/2")[0] == 0
    (made,) = (tmp_path / "other").glob("*.parquet")

    def encode_clips(*given: Any) -> torch.Tensor:
        shutil.copy(made, tmp_path / "shards")
        return encode(*given)

    encode = work.encode_clips
    monkeypatch.setattr(work, "encode_clips", encode_clips)
    code, _, err = tokenize(capsys, *fixed, "-o", tmp_path / "shards", "--shard", "1/2")
    assert (code, "shards that other processes added meanwhile: 1" in err) == (0, True)
    assert len(read_shards(tmp_path / "shards")) == 2
