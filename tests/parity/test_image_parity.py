"""A whole published-style image model, loaded as a bundle, against outputs of the reference."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ursa_core.bundle.bundle import Bundle, load_bundle
from ursa_core.grids import LatentGrid
from ursa_core.media import to_frames
from ursa_core.path.metric import MetricPath
from ursa_core.path.schedules import PowerSchedule

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def bundle(published_image_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = tmp_path_factory.mktemp("models") / "image"
    shutil.copytree(published_image_model, model)
    # The reference's outputs were made with prompts of 24 ids, which its own layout can't say.
    (model / "ursa.json").write_text(json.dumps({"max_prompt_length": 24}))
    return load_bundle(model)


def test_codes_and_pixels_are_the_references(bundle: Bundle) -> None:
    expected = load_file(GOLDEN / "published_image" / "expected.safetensors")
    video = expected["video_uint8"].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        codes = bundle.video_tokenizer.encode(video)
        decoded = bundle.video_tokenizer.decode(expected["encoded_tokens"].long())
    assert torch.equal(codes, expected["encoded_tokens"].long())
    torch.testing.assert_close(decoded[:, :, 0], expected["decoded_float"], atol=1e-4, rtol=0)
    pixels = torch.from_numpy(to_frames(decoded, "truncate")).int()
    assert (pixels - expected["decoded_uint8"].int()).abs().max() <= 1


def test_logits_of_a_prompt_are_the_references(bundle: Bundle) -> None:
    expected = load_file(GOLDEN / "published_transformer" / "expected.safetensors")
    prompts = json.loads((GOLDEN / "published_text" / "expected.json").read_text())["prompts"]
    grid = LatentGrid(1, 4, 6)
    with torch.no_grad():
        ids = bundle.text_tokenizer.encode(prompts)
        hidden = bundle.transformer(ids, expected["x_t"].long(), grid)
        logits = bundle.transformer.head(hidden)
    at = logits[:, expected["logits_positions"].long()]
    assert (at - expected["logits"]).abs().max() < 1e-4 * expected["logits"].abs().max()
    assert torch.equal(logits.argmax(-1), expected["logits_argmax"].long())


def test_path_is_the_references(bundle: Bundle) -> None:
    expected = load_file(GOLDEN / "path_reference.safetensors")
    path, x_1, x_t = bundle.path, expected["ibq.path_x1"].long(), expected["ibq.path_xt"].long()
    assert isinstance(path, MetricPath)
    assert path.schedule == PowerSchedule(0.5, 6.0)
    assert bundle.settings.shift == 2.0
    for i, t in enumerate(expected["ibq.path_t"].tolist()):
        for ours, theirs in (
            (path.conditional_probs(x_1, t), expected["ibq.path_prob"][i]),
            (path.jump_rates(x_t, x_1, t), expected["ibq.path_rate"][i]),
        ):
            of_the_rows_largest = (ours - theirs).abs() / theirs.amax(-1, keepdim=True)
            assert of_the_rows_largest.max() < 1e-5
