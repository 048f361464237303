"""The work of `ursa tokenize` on a small random tokenizer: batches, skips, continuing, quality."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ursa_core.encoding import encode as tokenizing
from ursa_core.encoding.cuts import ClipCut, LoadedClip
from ursa_core.encoding.encode import (
    Tokenizing,
    encode_clips,
    measure,
    token_identity,
)
from ursa_core.encoding.items import find_clip, find_items
from ursa_core.encoding.options import Filters
from ursa_core.encoding.report import ItemResult, Quality
from ursa_core.encoding.run import Encoder, tokenize_clip
from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import read_media, resize_and_crop, to_video, write_media
from ursa_core.media.quality import psnr
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.token_files import load_tokens_of
from ursa_core.tokens.writer import ShardWriter
from ursa_core.worlds.shapes import training_clip

CUT = ClipCut(8.0, PixelShape(5, 16, 24))


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    config = VideoTokenizerConfig(
        block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, levels=(7, 5, 5)
    )
    tokenizer = VideoTokenizer(config).eval()
    with torch.no_grad():  # spread the latents over the levels, so that codes differ
        for parameter in tokenizer.quant_conv.parameters():
            parameter *= 20
    return tokenizer


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for k, frames in enumerate((9, 5, 6)):
        clip, caption = training_clip(0, k, "all", frames, 32, 40)
        write_media(folder / f"{k}.mkv", clip, fps=8)
        (folder / f"{k}.txt").write_text(caption)
    return folder


def run(
    inputs: list[str],
    out: Path,
    tokenizer: VideoTokenizer,
    cut: ClipCut = CUT,
    num: int = 4,
    num_checked: int | None = None,
) -> list[ItemResult]:
    writer = ShardWriter(out, token_identity(tokenizer, "digest"), rows_per_shard=3)
    items = find_items(inputs, num, 7, cut.fps)
    iteration = Tokenizing(tokenizer, cut, writer, num_checked).run(items)
    return [result for _, of_item in iteration for result in of_item]


def test_files_become_rows_with_captions_motion_and_quality(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    results = run([str(media)], tmp_path / "out", tokenizer)
    assert [(r.source, r.status) for r in results] == [(f"media/{k}.mkv", "done") for k in range(3)]
    table = read_shards(tmp_path / "out")
    assert table.identity.num_codes == 175
    assert table.identity.levels == (7, 5, 5)
    assert table.grids == [LatentGrid(2, 2, 3)]
    for k in range(3):
        assert table.captions(k) == [(media / f"{k}.txt").read_text()]
        assert table.source(k) == f"media/{k}.mkv"
        assert (table.motions[k] == 0) == ("stays still" in table.captions(k)[0])
        quality = results[k].quality
        assert quality is not None
        assert 0 < quality.psnr < 100
        assert -1 <= quality.ssim <= 1


def test_shards_hold_the_codes_of_each_clip_alone(
    tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    run(["shapes:train"], tmp_path, tokenizer, num=5)
    table = read_shards(tmp_path)
    assert len(table) == 5
    assert len(table.codes(range(5)).unique()) > 1
    for k in range(5):
        frames, caption = training_clip(7, k, "train", 5, 16, 24)
        with torch.inference_mode():
            alone = tokenizer.encode(to_video(frames))
        assert torch.equal(table.codes([k])[0], alone.flatten())
        assert table.captions(k) == [caption]
        assert table.motions[k] == pytest.approx(LoadedClip(frames, (), "").motion)


def test_bad_and_short_files_are_skipped_with_a_reason(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    (media / "1.mkv").write_bytes((media / "1.mkv").read_bytes()[:300])
    (media / "a.png").write_bytes(b"")
    results = run([str(media)], tmp_path / "out", tokenizer, ClipCut(8.0, PixelShape(9, 16, 16)))
    assert [r.status for r in results] == ["skipped", "skipped", "skipped", "done"]
    reasons = {r.source: r.reason for r in results}
    assert "6 frames at 8 per second, 9 are needed (take 5 frames" in reasons["media/2.mkv"]
    assert "empty" in reasons["media/a.png"]
    assert reasons["media/1.mkv"]
    assert len(read_shards(tmp_path / "out")) == 1


def test_stopped_run_continues_and_equals_an_unbroken_one(
    tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(["shapes:heldout"], whole, tokenizer, num=20)
    writer = ShardWriter(broken, token_identity(tokenizer, "digest"), rows_per_shard=3)
    items = find_items(["shapes:heldout"], 20, 7, 8.0)
    iteration = Tokenizing(tokenizer, CUT, writer).run(items)
    next(iteration)
    iteration.close()
    assert len(read_shards(broken)) == 16
    statuses = [r.status for r in run(["shapes:heldout"], broken, tokenizer, num=20)]
    assert statuses == ["kept"] * 16 + ["done"] * 4
    first, second = read_shards(whole), read_shards(broken)
    rows = range(20)
    assert torch.equal(first.codes(rows), second.codes(rows))
    assert [first.captions(k) for k in rows] == [second.captions(k) for k in rows]


@pytest.mark.parametrize(
    ("cut", "starts"),
    [
        (ClipCut(8.0, CUT.shape, "chunk"), [0, 5, 10, 15]),
        (ClipCut(8.0, CUT.shape, "slide", stride=7), [0, 7, 14]),
        (ClipCut(8.0, CUT.shape, "uniform", count=2), [0, 18]),
        (ClipCut(4.0, CUT.shape, "chunk"), [0, 5]),
    ],
)
def test_a_film_gives_several_clips(
    cut: ClipCut, starts: list[int], tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    frames, _ = training_clip(0, 1, "all", 23, 32, 40)
    write_media(tmp_path / "film.mkv", frames, 8.0)
    writer = ShardWriter(tmp_path / "out", token_identity(tokenizer, "digest"), cut.to_json())
    items = find_items([str(tmp_path / "film.mkv")], 1, 0, cut.fps)
    ((_, results),) = Tokenizing(tokenizer, cut, writer).run(items)
    names = [f"{tmp_path.name}/film.mkv@{start}" for start in starts]
    assert [result.source for result in results] == names
    table = read_shards(tmp_path / "out")
    assert [table.source(k) for k in range(len(table))] == names
    read = resize_and_crop(read_media(tmp_path / "film.mkv", cut.fps).frames, 16, 24)
    for k, start in enumerate(starts):
        clip = read[start : start + 5]
        assert torch.equal(table.codes([k])[0], encode_clips(tokenizer, [clip])[0].flatten())
        assert table.motions[k] == pytest.approx(LoadedClip(clip, (), "").motion)
    again = ShardWriter(tmp_path / "out", token_identity(tokenizer, "digest"), cut.to_json())
    ((_, (kept,)),) = Tokenizing(tokenizer, cut, again).run(items)
    assert kept.status == "kept"


def test_whole_films_of_several_sizes_make_several_grids(
    tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for name, shape in {"wide": (11, 32, 48), "tall": (7, 48, 32), "still": (1, 24, 32)}.items():
        suffix = "png" if shape[0] == 1 else "mkv"
        write_media(folder / f"{name}.{suffix}", training_clip(0, 0, "all", *shape)[0], 8.0)
    cut = ClipCut(8.0, CUT.shape, "full", sizes=((24, 16),))
    results = run([str(folder)], tmp_path / "out", tokenizer, cut)
    assert [result.status for result in results] == ["done"] * 3
    table = read_shards(tmp_path / "out")
    found = {table.source(k): table.grid(k) for k in range(3)}
    assert found == {
        "media/wide.mkv": LatentGrid(3, 2, 3),  # 9 of 11 frames fit
        "media/tall.mkv": LatentGrid(2, 3, 2),
        "media/still.png": LatentGrid(1, 2, 3),
    }


def test_filters_leave_clips_out_and_say_why(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    write_media(media / "small.mkv", training_clip(0, 0, "all", 9, 16, 40)[0], 8.0)
    filters = Filters(min_size=20, min_seconds=0.7, min_motion=1e-4)
    cut = ClipCut(8.0, CUT.shape, filters=filters)
    results = {r.source: r for r in run([str(media)], tmp_path / "out", tokenizer, cut)}
    assert {name: (r.status, r.reason, r.found) for name, r in results.items()} == {
        "media/0.mkv": ("done", "", ""),
        "media/1.mkv": ("dropped", "shorter than 0.7 s", "0.625 s"),
        "media/2.mkv": ("dropped", "motion below 0.0001", "0"),  # it stays still
        "media/small.mkv": ("dropped", "smaller than 20 pixels", "16x40"),
    }


def test_an_interrupted_film_is_begun_again(
    tmp_path: Path, tokenizer: VideoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its clips were encoded: none of them is in the shards, so that none is missing."""
    monkeypatch.setattr(tokenizing, "BATCH_SIZE", 2)
    frames, _ = training_clip(0, 1, "all", 25, 16, 24)
    for name in "ab":
        write_media(tmp_path / f"{name}.mkv", frames, 8.0)
    cut = ClipCut(8.0, CUT.shape, "chunk")
    items = find_items([str(tmp_path / f"{name}.mkv") for name in "ab"], 1, 0, 8.0)
    writer = ShardWriter(tmp_path / "out", token_identity(tokenizer, "digest"))
    measured = 0

    def interrupt(*_: object) -> Quality:
        nonlocal measured
        measured += 1
        if measured > 6:  # of 5 clips each, in the second film
            raise KeyboardInterrupt
        return Quality(1.0, 1.0)

    with monkeypatch.context() as patched:
        patched.setattr(tokenizing, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(Tokenizing(tokenizer, cut, writer).run(items))
    table = read_shards(tmp_path / "out")
    assert {cut.item_of(table.source(k)) for k in range(len(table))} == {items[0].name}
    assert len(table) == 5
    again = ShardWriter(tmp_path / "out", token_identity(tokenizer, "digest"))
    results = list(Tokenizing(tokenizer, cut, again).run(items))
    assert [of_item[0].status for _, of_item in results] == ["kept", "done"]
    assert len(read_shards(tmp_path / "out")) == 10


def test_only_so_many_clips_are_checked(tmp_path: Path, tokenizer: VideoTokenizer) -> None:
    results = run(["shapes:all"], tmp_path, tokenizer, num=5, num_checked=2)
    assert [r.quality is not None for r in results] == [True, True, False, False, False]


def test_quality_compares_the_decoded_clip(tokenizer: VideoTokenizer) -> None:
    frames, _ = training_clip(1, 1, "all", 5, 16, 24)
    (codes,) = encode_clips(tokenizer, [frames])
    decoded = decode_frames(tokenizer, codes)
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    assert measure(tokenizer, codes, frames).psnr == psnr(decoded, frames)
    assert measure(tokenizer, codes, decoded).psnr == 100


def test_inputs_that_cannot_be(tmp_path: Path, tokenizer: VideoTokenizer) -> None:
    with pytest.raises(UsageError, match="shapes:test"):
        find_items(["shapes:test"], 1, 0, 8.0)
    with pytest.raises(UsageError, match="not 12"):
        find_items(["shapes:train"], 1, 0, 12.0)
    with pytest.raises(DataError, match="doesn't exist"):
        find_items([str(tmp_path / "absent.mp4")], 1, 0, 8.0)
    assert len(find_items(["shapes:train", "shapes:train"], 3, 0, 8.0)) == 3
    with pytest.raises(ShapeError, match="6 frames"):
        run(["shapes:train"], tmp_path / "out", tokenizer, ClipCut(8.0, PixelShape(6, 16, 16)))


def test_one_clip_goes_to_a_token_file_and_back(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    path = tmp_path / "clip.safetensors"
    encoder = Encoder("tiny", tmp_path, tokenizer, "digest", CUT)
    result = tokenize_clip(find_clip(str(media / "0.mkv"), 0, 8.0), encoder, path)
    assert result.source == "media/0.mkv"
    tokens = load_tokens_of(path, "digest")
    assert tokens.codes.shape == (2, 2, 3)
    assert tokens.metadata["prompt"] == (media / "0.txt").read_text()
    assert tokens.fps == 8
    original = resize_and_crop(read_media(media / "0.mkv", 8.0, 5).frames, 16, 24)
    assert result.quality is not None
    assert result.quality.psnr == psnr(decode_frames(tokenizer, tokens.codes), original)
    with pytest.raises(DataError, match="another video tokenizer"):
        load_tokens_of(path, "other")


def test_a_folder_of_frames_is_one_clip(tmp_path: Path, tokenizer: VideoTokenizer) -> None:
    frames, caption = training_clip(0, 3, "all", 5, 16, 24)
    write_media(tmp_path / "frames", frames, 8.0)
    (tmp_path / "frames.txt").write_text(caption)
    loaded = next(find_clip(str(tmp_path / "frames"), 0, 8.0).clips(CUT, 4))
    assert np.array_equal(loaded.frames, frames)
    assert loaded.captions == (caption,)
