"""Decoding in slices: the same pixels in less memory, also where a device runs out of it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ursa_core import grids as limits
from ursa_core.tokenizers import visual
from ursa_core.tokenizers.image_vq import ImageTokenizer, ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

STRIDES = [(8, 4, 4), (16, 8, 4), (8, 8, 2), (8, 2, 2), (8, 2, 4, 2), (8, 4, 4, 2)]
"""Strides in space and time, patch, its frames: without and with steps of the decoder over time."""


def fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=generator)


def video_tokenizer(spatial: int, temporal: int, patch: int, frames: int = 0) -> VideoTokenizer:
    config = VideoTokenizerConfig(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        levels=(5, 5, 5),
        spatial_stride=spatial,
        temporal_stride=temporal,
        patch_size=patch,
        temporal_patch_size=frames,
    )
    model = VideoTokenizer(config).eval()
    fill(model)
    return model


def some_codes(frames: int) -> Tensor:
    return torch.randint(125, (2, frames, 2, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("size", [1, 2, 5])
@torch.no_grad()
def test_slices_make_up_the_whole_video(strides: tuple[int, ...], size: int) -> None:
    model = video_tokenizer(*strides)
    codes = some_codes(5)
    whole = model.decode(codes)
    slices = list(model.decode_slices(codes, size))
    assert len(slices) == -(-5 // size)
    assert torch.allclose(torch.cat(slices, 2), whole, rtol=1e-4, atol=1e-4 * float(whole.std()))
    assert torch.equal(model.decode(codes), whole)  # nothing is left behind


@torch.no_grad()
def test_a_stop_between_slices_leaves_nothing_behind() -> None:
    model = video_tokenizer(8, 4, 4)
    codes = some_codes(3)
    whole = model.decode(codes)
    slices = model.decode_slices(codes, 1)
    next(slices)
    slices.close()
    assert torch.equal(model.decode(codes), whole)


@torch.no_grad()
def test_frames_of_an_image_tokenizer_are_apart() -> None:
    model = ImageTokenizer(
        ImageTokenizerConfig(
            block_out_channels=(32, 32), latent_channels=4, num_vq_embeddings=125, vq_embed_dim=4
        )
    ).eval()
    codes = some_codes(3)
    slices = list(model.decode_slices(codes, 2))
    assert [part.shape[2] for part in slices] == [2, 1]
    assert torch.allclose(torch.cat(slices, 2), model.decode(codes), atol=1e-5)


class Small(VideoTokenizer):
    """A tokenizer on a device whose memory holds few latent frames at a time."""

    room = 0
    sizes: list[int]

    def decode_slices(self, codes: Tensor, size: int) -> Iterator[Tensor]:
        self.sizes.append(size)
        if len(self.sizes) <= self.room:
            raise torch.OutOfMemoryError
        return super().decode_slices(codes, size)


@pytest.mark.parametrize(("failures", "sizes"), [(0, [2]), (1, [2, 1]), (2, [2, 1, 1])])
def test_decoding_falls_back_when_memory_runs_out(
    failures: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = video_tokenizer(8, 4, 4)
    model = Small(whole.config).eval()
    model.load_state_dict(whole.state_dict())
    model.room, model.sizes = failures, []
    codes = some_codes(3)[0]
    expected = visual.decode_frames(whole, codes)
    monkeypatch.setattr(visual, "SLICE_PIXELS", 2 * 4 * 16 * 24)
    frames = visual.decode_frames(model, codes)
    assert model.sizes == sizes
    assert frames.shape == (9, 16, 24, 3)
    assert np.abs(frames.astype(int) - expected).max() <= 1


def test_the_clip_decides_how_much_is_decoded_at_a_time() -> None:
    # The published video model at 320×512: some latent frames, not all thirteen.
    assert 1 <= limits.SLICE_PIXELS // (4 * 320 * 512) < 13
