"""The work of `ursa tokenize` on a small random tokenizer: batches, skips, continuing, quality."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ursa_core.data.shapes import training_clip
from ursa_core.data.shard_writer import ShardWriter, motion_of
from ursa_core.data.shards import read_shards
from ursa_core.data.token_files import load_tokens_of
from ursa_core.data.tokenizing import (
    Cut,
    ItemResult,
    encode_clips,
    find_clip,
    find_items,
    measure,
    token_identity,
    tokenize_clip,
    tokenize_items,
)
from ursa_core.errors import DataError, ShapeError, UsageError
from ursa_core.evaluation.image_metrics import psnr
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.media import read_media, resize_and_crop, to_video, write_media
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig
from ursa_core.tokenizers.visual import decode_frames

CUT = Cut(8.0, PixelShape(5, 16, 24))


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
    cut: Cut = CUT,
    num: int = 4,
    num_checked: int | None = None,
) -> list[ItemResult]:
    writer = ShardWriter(out, token_identity(tokenizer, "digest"), rows_per_shard=3)
    items = find_items(inputs, num, 7, cut.fps)
    return list(tokenize_items(items, tokenizer, cut, writer, num_checked))


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
        assert (table.motion(k) == 0) == ("stays still" in table.captions(k)[0])
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
        assert table.motion(k) == pytest.approx(motion_of(frames))


def test_bad_and_short_files_are_skipped_with_a_reason(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    (media / "1.mkv").write_bytes((media / "1.mkv").read_bytes()[:300])
    (media / "a.png").write_bytes(b"")
    results = run([str(media)], tmp_path / "out", tokenizer, Cut(8.0, PixelShape(9, 16, 16)))
    assert [r.status for r in results] == ["skipped", "skipped", "skipped", "done"]
    reasons = {r.source: r.reason for r in results}
    assert "6 frames at 8 a second, 9 are needed (take 5 frames" in reasons["media/2.mkv"]
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
    iteration = tokenize_items(items, tokenizer, CUT, writer)
    next(iteration)
    iteration.close()
    assert len(read_shards(broken)) == 16
    statuses = [r.status for r in run(["shapes:heldout"], broken, tokenizer, num=20)]
    assert statuses == ["kept"] * 16 + ["done"] * 4
    first, second = read_shards(whole), read_shards(broken)
    rows = range(20)
    assert torch.equal(first.codes(rows), second.codes(rows))
    assert [first.captions(k) for k in rows] == [second.captions(k) for k in rows]


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
        run(["shapes:train"], tmp_path / "out", tokenizer, Cut(8.0, PixelShape(6, 16, 16)))


def test_one_clip_goes_to_a_token_file_and_back(
    media: Path, tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    path = tmp_path / "clip.safetensors"
    result = tokenize_clip(find_clip(str(media / "0.mkv"), 0, 8.0), tokenizer, "digest", CUT, path)
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
    loaded = find_clip(str(tmp_path / "frames"), 0, 8.0).load(CUT, 4)
    assert np.array_equal(loaded.frames, frames)
    assert loaded.captions == (caption,)
