"""Values of the configs in a model folder: each of a wrong kind is refused by name."""

import re
from dataclasses import MISSING, fields
from typing import get_origin, get_type_hints

import pytest

from ursa_core.configs import LARGEST
from ursa_core.errors import CheckpointError
from ursa_core.models.transformer import TransformerConfig
from ursa_core.tokenizers.image_vq import ImageTokenizerConfig
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig

SOUND = {
    TransformerConfig: TransformerConfig(32, 48, 2, 4, 2, 10, 24, 0, head_dim=16).to_json(),
    VideoTokenizerConfig: VideoTokenizerConfig((8, 8, 8), levels=(8, 5)).to_json(),
    ImageTokenizerConfig: {"_class_name": "AutoencoderVQ", "block_out_channels": [32, 32]},
}
WRONG = {
    int: (["8", -1, 2.0, True, [8], {}, float("inf"), LARGEST + 1], "a whole number from"),
    float: (["1", -1.0, 0, True, [1.0], float("inf"), float("nan"), 1e30], "a number from"),
    bool: ([1, 0, "true", []], "true or false"),
    tuple: (
        [8, "88", [], {}, [8, "8"], [8, 0], [8, -8], [True], [8.0], [[8]], [8, None], [8] * 65],
        "a list of whole numbers from",
    ),
}
CASES = [(kind, field) for kind in SOUND for field in fields(kind)]


def refused(kind, match, **changes):
    with pytest.raises(CheckpointError, match=match) as caught:
        kind.from_json({**SOUND[kind], **changes})
    return caught.value.hint


@pytest.mark.parametrize(
    ("kind", "field"), CASES, ids=lambda x: x.name if hasattr(x, "name") else x.__name__
)
def test_values_of_wrong_kinds_are_named(kind, field):
    kind.from_json(SOUND[kind])
    hint = get_type_hints(kind)[field.name]
    values, expected = WRONG[get_origin(hint) or hint]
    may_be_zero = field.name in ("bov_token_id", "temporal_patch_size")
    zero = [0] if hint is int and not may_be_zero else []
    for value in [*values, *zero]:
        match = f"config.json: {field.name} can't be {re.escape(repr(value)[:80])}"
        assert expected in refused(kind, match, **{field.name: value})


@pytest.mark.parametrize("field", fields(TransformerConfig), ids=lambda field: field.name)
def test_null_stands_for_a_transformers_default(field):
    if field.default is MISSING:
        refused(TransformerConfig, f"lacks {field.name}", **{field.name: None})
    else:
        config = {**SOUND[TransformerConfig], field.name: None}
        assert getattr(TransformerConfig.from_json(config), field.name) == field.default


@pytest.mark.parametrize(
    ("kind", "changes", "hint"),
    [
        (TransformerConfig, {"num_key_value_heads": 3}, "a divisor of the 4 heads"),
        (TransformerConfig, {"head_dim": 24}, "a multiple of 16"),
        (TransformerConfig, {"bov_token_id": 10}, "below lm_vocab_size 10"),
        (VideoTokenizerConfig, {"levels": [8, 1]}, "from 2"),
        (VideoTokenizerConfig, {"levels": [4096, 4096, 2]}, "codes or less"),
        (VideoTokenizerConfig, {"patch_size": 3}, "a power of 2"),
        (VideoTokenizerConfig, {"spatial_stride": 12}, "a power of 2 from the patch_size 4"),
        (VideoTokenizerConfig, {"temporal_stride": 2}, "a power of 2 from the patch_size 4"),
        (VideoTokenizerConfig, {"temporal_stride": 16}, "at most 8"),
        (VideoTokenizerConfig, {"temporal_patch_size": 3}, "a power of 2"),
        (VideoTokenizerConfig, {"temporal_patch_size": 8}, "at most the patch_size 4"),
        (VideoTokenizerConfig, {"block_out_channels": [8, 8]}, "3 widths or more"),
        (ImageTokenizerConfig, {"block_out_channels": [32, 48]}, "multiples of 32"),
    ],
)
def test_values_that_make_no_network_are_named(kind, changes, hint):
    ((name, value),) = changes.items()
    match = f"config.json: {name} can't be {re.escape(repr(value))}\n"
    assert hint in refused(kind, match, **changes)
