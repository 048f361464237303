"""From packs to a bundle that lists its subjects: tokenizer on a mixture, tokens, generator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pixel_packs import prepare_film, prepare_sprites
from tiny_packs import SUBJECTS, write_packs
from tiny_runs import GENERATOR, TOKENIZER, recipe_of, train
from torchmetrics.functional.image import structural_similarity_index_measure

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.encoding.encode import encode_clips
from ursa_core.errors import DataError, RecipeError
from ursa_core.media.quality import psnr
from ursa_core.media.ssim import ssim_map
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.tokens.shards import read_shards
from ursa_core.training.prefetch import Prefetcher
from ursa_core.training.run import build_learner
from ursa_core.training.tokenizer_learner import moving_weights
from ursa_core.worlds import shapes

CPU = torch.device("cpu")
MIXTURE = TOKENIZER.replace(
    "source: shapes", "source: mixture, shares: {emoji: 2, film: 1, shapes: 1}, folder: FOLDER"
).replace("frames: 5", "frames: 1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    packs = write_packs(tmp_path_factory.mktemp("packs"))
    prepare_film(packs / "film", packs / "pixels", 36)
    prepare_sprites(packs / "emoji", packs / "pixels", 32)
    return packs / "pixels"


@pytest.fixture(scope="module")
def mixture(folder):
    return MIXTURE.replace("FOLDER", str(folder))


def test_a_mixture_trains_and_tells_the_quality_of_each_source(mixture, tmp_path):
    train(mixture, tmp_path, "run", "train.batch_size=4", "train.sample_every=6")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    seen = {key for line in lines for key in line if key.startswith("psnr_")}
    assert seen == {"psnr_emoji", "psnr_film", "psnr_shapes"}
    for line in lines:
        kinds = [line[key] for key in seen if key in line]
        assert min(kinds) - 1e-4 <= line["psnr"] <= max(kinds) + 1e-4
    assert (tmp_path / "run/samples/step-0000006.png").is_file()


def test_steps_take_turns_between_sizes(mixture, tmp_path):
    sizes = ["data.more_sizes=[[48, 32], [32, 48]]", "train.accumulate=2"]
    learner = build_learner(recipe_of(mixture, tmp_path, *sizes), CPU)
    for index, size in enumerate([(32, 32), (32, 32), (48, 32), (48, 32), (32, 48)]):
        pixels, _ = learner.clips(index * 2, 2, "train", 1)
        assert pixels.shape[2:4] == size
    train(mixture, tmp_path, "run", *sizes, "train.steps=2", "train.sample_every=2")
    assert json.loads((tmp_path / "run/ursa.json").read_text())["height"] == 32
    with pytest.raises(RecipeError, match="a height of 33 pixels"):
        recipe_of(mixture, tmp_path, "data.more_sizes=[[48, 48], [33, 32]]")


def test_the_logarithm_is_of_each_frame_as_the_psnr_is(tmp_path):
    weights = ["loss.mse=0", "loss.log_mse=2", "loss.saturation=0"]
    learner = build_learner(recipe_of(TOKENIZER, tmp_path, *weights), CPU)
    loss, figures = learner.loss(3, learner.model)
    video = learner.video(learner.clips(6, 2, "train", 5)[0])
    error = (learner.model(video)[0] - video).square()
    by_frame = torch.stack([error[clip, :, f].mean() for clip in range(2) for f in range(5)])
    assert loss.item() == pytest.approx(2 * by_frame.log10().mean().item(), abs=1e-3)
    psnr, weight = figures["psnr"]
    expected = (10 * (4 / by_frame).log10()).mean().item()
    assert (psnr / weight).item() == pytest.approx(expected, abs=1e-3)


def test_a_batch_is_the_same_whether_begun_ahead_or_not(mixture, tmp_path):
    learner = build_learner(recipe_of(mixture, tmp_path), CPU)
    frames = learner.recipe.data.frames
    ahead = Prefetcher(lambda index: learner.clips(index * 2, 2, "train", frames), workers=1)
    for index in (0, 2, 4, 6):  # of a rank of two
        first, kinds = learner.prefetcher.take(index)
        second, same = ahead.take(index)
        assert np.array_equal(first, second)
        assert kinds == same


def test_more_code_dimensions_keep_what_the_start_knew(mixture, trained_tokenizer, tmp_path):
    init = f"init={trained_tokenizer}"
    learner = build_learner(recipe_of(mixture, tmp_path, init, "model.levels=[3, 3, 3]"), CPU)
    start, _, _ = load_tokenizer(trained_tokenizer)
    theirs, ours = start.state_dict(), learner.model.state_dict()
    different = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert different == {"quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight"}
    for name in set(ours) - different:
        assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours["quant_conv.weight"][:2], theirs["quant_conv.weight"])
    assert torch.equal(ours["post_quant_conv.weight"][:, :2], theirs["post_quant_conv.weight"])
    with pytest.raises(RecipeError, match="of another kind"):
        build_learner(recipe_of(mixture, tmp_path, init, "model.latent_channels=8"), CPU)


def test_a_shorter_stride_starts_from_the_shared_bands(trained_tokenizer, tmp_path):
    init = f"init={trained_tokenizer}"
    shorter = "model.temporal_stride=2"
    learner = build_learner(recipe_of(TOKENIZER, tmp_path, init, shorter), CPU)
    start, _, _ = load_tokenizer(trained_tokenizer)
    theirs, ours = start.state_dict(), learner.model.state_dict()
    different = {name for name in ours if ours[name].shape != theirs[name].shape}
    ends = {"decoder.conv_out.0.weight", "decoder.conv_out.0.bias"}
    ends |= {"decoder.conv_out.1.weight", "decoder.conv_out.1.bias"}
    assert different == {"encoder.conv_in.0.weight", *ends}
    for name, weight in ours.items():
        corner = theirs[name][tuple(map(slice, weight.shape))]
        assert torch.equal(weight, corner)
    train(TOKENIZER, tmp_path, "run", init, shorter, "train.steps=2")
    again, _, _ = load_tokenizer(tmp_path / "run")
    assert again.strides.temporal == again.config.temporal_patch_size == 2
    with pytest.raises(RecipeError, match="of another kind") as refusal:
        build_learner(recipe_of(TOKENIZER, tmp_path, init, shorter, "freeze_encoder=true"), CPU)
    assert "temporal_stride: 4" in refusal.value.hint


def test_pixels_weigh_more_where_the_clip_moves():
    video = torch.zeros(2, 3, 5, 16, 16)
    video[0, :, 2:, 4:8, 4:8] = 1.0  # appears in the third frame and stays
    weight = moving_weights(video, 0.5)
    torch.testing.assert_close(weight.mean((1, 2, 3, 4)), torch.ones(2))
    assert torch.equal(weight[1], torch.ones(1, 5, 16, 16))
    changing = weight[0, 0, :, 5, 5]
    assert torch.equal(changing == changing.max(), torch.tensor([0, 1, 1, 0, 0]).bool())
    assert weight[0, 0, :, 14, 14].max() < 1 < changing.max()
    assert torch.equal(moving_weights(video, 0.0), torch.ones(2, 1, 5, 16, 16))


def test_likeness_is_that_of_torchmetrics():
    torch.manual_seed(0)
    a = torch.rand(2, 3, 24, 20) * 2 - 1
    b = (a + 0.2 * torch.randn_like(a)).clamp(-1, 1)
    _, wanted = structural_similarity_index_measure(
        a, b, kernel_size=7, sigma=1.0, data_range=2.0, return_full_image=True
    )
    torch.testing.assert_close(ssim_map(a, b), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(ssim_map(a, a), torch.ones(2, 3, 24, 20))
    with torch.autocast("cpu", torch.bfloat16):  # as training in bfloat16 runs the loss
        inside = ssim_map(a, b)
    assert torch.equal(inside, ssim_map(a, b))


def test_the_loss_has_its_weighed_parts(tmp_path):
    weights = ["loss.mse=0", "loss.ssim=2", "loss.moving=0.5", "loss.saturation=0"]
    with pytest.raises(RecipeError, match="at least one weight"):
        recipe_of(TOKENIZER, tmp_path, "loss.mse=0", "loss.moving=0.5")
    learner = build_learner(recipe_of(TOKENIZER, tmp_path, *weights), CPU)
    loss, figures = learner.loss(0, learner.model)
    video = learner.video(learner.clips(0, 2, "train", 5)[0])
    back = learner.model(video)[0]
    share = moving_weights(video, 0.5)
    unlike = 1 - ssim_map(back.mean(1, keepdim=True), video.mean(1, keepdim=True))
    assert loss.item() == pytest.approx(2 * (share * unlike).mean().item())
    plain = build_learner(recipe_of(TOKENIZER, tmp_path), CPU).loss(0, learner.model)[1]
    assert torch.equal(figures["psnr"][0], plain["psnr"][0])
    squared = ["loss.moving=0.5", "loss.saturation=0"]
    loss, _ = build_learner(recipe_of(TOKENIZER, tmp_path, *squared), CPU).loss(0, learner.model)
    assert loss.item() == pytest.approx((share * (back - video).square()).mean().item())


def test_a_frozen_encoder_keeps_the_codes_and_the_decoder_learns(
    mixture, trained_tokenizer, tmp_path
):
    freeze = [f"init={trained_tokenizer}", "freeze_encoder=true"]
    train(mixture, tmp_path, "run", *freeze, "train.steps=3")
    train(mixture, tmp_path, "run", *freeze, "train.steps=6")
    runs = trained_tokenizer, tmp_path / "run"
    (start, _, identity), (run, _, same) = map(load_tokenizer, runs)
    assert same == identity
    theirs, ours = start.state_dict(), run.state_dict()
    kept = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert kept >= {name for name in ours if name.startswith(("encoder.", "quant_conv."))}
    assert not any(name.startswith("decoder.conv_in") for name in kept)
    with pytest.raises(RecipeError, match="freeze_encoder: keeps the codes of a tokenizer"):
        recipe_of(mixture, tmp_path, "freeze_encoder=true")
    with pytest.raises(RecipeError, match="of another kind") as refusal:
        build_learner(recipe_of(mixture, tmp_path, *freeze, "model.levels=[3, 3, 3]"), CPU)
    assert refusal.value.hint == "give the recipe's model its levels: [3, 3]"


def test_more_residual_blocks_start_by_passing_on_what_the_start_knew(trained_tokenizer, tmp_path):
    init = f"init={trained_tokenizer}"
    learner = build_learner(recipe_of(TOKENIZER, tmp_path, init, "model.layers_per_block=2"), CPU)
    start, _, _ = load_tokenizer(trained_tokenizer)
    theirs, ours = start.state_dict(), learner.model.state_dict()
    assert len(ours) > len(theirs)
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    video = learner.video(learner.clips(0, 2, "train", 5)[0])
    with torch.no_grad():
        for mine, wanted in zip(learner.model(video), start(video), strict=True):
            torch.testing.assert_close(mine, wanted)
    train(TOKENIZER, tmp_path, "deep", init, "model.layers_per_block=2", "train.steps=2")
    with pytest.raises(RecipeError, match="of another kind") as refusal:
        build_learner(recipe_of(TOKENIZER, tmp_path, f"init={tmp_path / 'deep'}"), CPU)
    assert refusal.value.hint == "give the recipe's model its layers_per_block: 2"


def test_tokens_of_emoji_make_a_bundle_with_subjects(folder, mixture, tmp_path, capsys):
    train(mixture, tmp_path, "tokenizer", "train.steps=1")
    shards = tmp_path / "shards"
    tokenize = ["tokenize", "emoji:train", "--model", str(tmp_path / "tokenizer"), "--frames", "5"]
    tokenize += ["--num", "16", "-o", str(shards), "--quiet"]
    assert main(tokenize) == 2
    assert "add --data FOLDER" in capsys.readouterr().err
    assert main([*tokenize, "--data", str(tmp_path)]) == 1
    assert "no prepared emoji" in capsys.readouterr().err
    assert main([*tokenize, "--data", str(folder)]) == 0
    table = read_shards(shards)
    assert [table.source(k) for k in range(2)] == ["emoji:train/0/0", "emoji:train/0/1"]
    text = GENERATOR.replace("TOKENIZER", str(tmp_path / "tokenizer"))
    text = text.replace("SHARDS", str(shards)).replace("red circle grows", "fox")
    train(text, tmp_path, "generator", "train.steps=2")
    bundle = load_bundle(tmp_path / "generator")
    assert {s.name for s in bundle.subjects} == {name for name, *_ in SUBJECTS}
    capsys.readouterr()
    assert main(["models", "show", str(tmp_path / "generator"), "--prompts"]) == 0
    assert "travel: airplane" in capsys.readouterr().out
    (shards / "subjects.json").unlink()
    train(f"{text}init: {tmp_path / 'generator'}\n", tmp_path, "tuned", "train.steps=1")
    assert load_bundle(tmp_path / "tuned").subjects == bundle.subjects


def test_data_that_cannot_be_is_told(folder, mixture, tmp_path, capsys):
    for overrides, message in (
        (["data.folder=null"], "data.folder: is required for emoji and film"),
        (["data.shares={shapes: 0}"], "a mixture needs at least one share above 0"),
        (["data.shares.flim=1"], "did you mean data.shares.film"),
        (["data.source=shapes"], "data.shares: has no meaning for data.source shapes"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe_of(mixture, tmp_path, *overrides)
    with pytest.raises(DataError, match="no prepared emoji"):
        build_learner(recipe_of(mixture, tmp_path, f"data.folder={tmp_path}"), CPU)
    with pytest.raises(DataError, match="no train shot of the film has 21 frames"):
        build_learner(recipe_of(mixture, tmp_path, "data.frames=21"), CPU)
    assert main(["tokenize", "shapes:train", "--data", str(folder), "-o", str(tmp_path / "x")]) == 2
    assert "--data is for the emoji" in capsys.readouterr().err


def test_codes_of_two_frames_lose_less_than_those_of_four():
    clip = np.ascontiguousarray(shapes.training_clip(0, 1, "heldout", 17, 96, 96)[0])
    decibels = {}
    for model in ("emoji", Path(__file__).parents[2] / "recipes" / "emoji_tokenizer_2"):
        tokenizer, *_ = load_tokenizer(model)
        (codes,) = encode_clips(tokenizer, [clip])
        decibels[len(codes)] = psnr(clip, decode_frames(tokenizer, codes))
    assert decibels[9] > decibels[5] + 1
