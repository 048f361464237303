"""Sampling, all tasks and both tokenizers make the same on a device as on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ursa_core.bundle.adapters import read_adapter, save_adapter
from ursa_core.bundle.bundle import load_bundle, load_tokenizer
from ursa_core.bundle.settings import NEGATIVE
from ursa_core.clips.cond_frames import CondFrames, CondMedia
from ursa_core.clips.extend import Extension, extend
from ursa_core.clips.round_store import RoundStore
from ursa_core.convert.checkpoint import convert_checkpoint
from ursa_core.encoding.cuts import ClipCut
from ursa_core.encoding.encode import Tokenizing, token_identity
from ursa_core.encoding.items import find_items
from ursa_core.grids import PixelShape
from ursa_core.media import to_video
from ursa_core.sampling.generate import Request, Sampler, decode, encode, generate
from ursa_core.tokenizers.refine import refined_codes
from ursa_core.tokenizers.visual import decode_frames
from ursa_core.tokens.shards import read_shards
from ursa_core.tokens.writer import ShardWriter

CPU = torch.device("cpu")
PROMPT = "a red circle moves right on navy background"
REQUEST = Request(PROMPT, seed=3)


class Enough(Exception):  # noqa: N818
    """Ends sampling after a step."""


def sampled(model, device, request=REQUEST, conditioning=None, options=None, **words):
    bundle = load_bundle(model, device, **words)
    given = conditioning and conditioning(bundle)
    request = replace(request, options=replace(bundle.settings.defaults, **(options or {})))
    codes = generate(bundle, request, conditioning=given)
    assert codes.device.type == device.type
    return codes


def clip_of(frames, height=16, width=16, seed=0):
    """A clip of smooth random colours, uint8 (F, H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 2, 2, 3), np.uint8)
    return coarse.repeat(height // 2, 1).repeat(width // 2, 2)


def relative(made, expected):
    return float((made.cpu() - expected).abs().max() / expected.abs().max())


def logits(bundle, rows=1):
    """Of the same prompt and random codes in each row, on the CPU."""
    grid = bundle.grid(bundle.settings.shape)
    shape = (1, grid.num_codes)
    x_t = torch.randint(bundle.path.num_codes, shape, generator=torch.Generator().manual_seed(1))
    ids = bundle.text_tokenizer.encode([PROMPT] * rows).to(bundle.device)
    with torch.inference_mode():
        hidden = bundle.transformer(ids, x_t.expand(rows, -1).to(bundle.device), grid)
        return bundle.transformer.head(hidden).float().cpu()


def after_one_step(model, device, rows):
    """Codes (rows, L) after the first of 25 steps."""
    bundle = load_bundle(model, device)
    options = replace(bundle.settings.defaults, steps=25)
    requests = [replace(REQUEST, seed=seed, options=options) for seed in range(rows)]
    found = []

    def stop(step, x_t):
        found.append(x_t)
        raise Enough

    with pytest.raises(Enough):
        Sampler(bundle, requests).sample(stop)
    return found[0].cpu()


def test_logits_and_the_first_step_agree(device, record_property):
    on_sim = device.type == "sim"
    made, expected = (logits(load_bundle("nano", place)) for place in (device, CPU))
    error = relative(made, expected)
    record_property("relative error of logits", error)
    assert error <= (3e-6 if on_sim else 1e-4)  # sums in another order
    rows = 1 if on_sim else 8
    steps = [after_one_step("nano", place, rows) for place in (device, CPU)]
    share = float((steps[0] == steps[1]).double().mean())
    record_property("share of codes equal after one step", share)
    assert share >= (1 if on_sim else 0.999)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frames": 1},
        {"solver": "euler", "steps": 3, "top_p": 0.9, "temperature": 0.7},
        {"guidance": 1.0, "steps": 3, "shift": 2.0},
    ],
)
def test_sampling(options, tiny_model, device, agree):
    agree(*(sampled(tiny_model, place, options=options) for place in (device, CPU)))


@pytest.mark.parametrize(
    ("frames", "places", "cond", "noise"),
    [
        (9, {0: 1}, "lock", 0.0),
        (9, {0: 1}, "lock", 0.2),
        (9, {0: 5}, "soft", 0.3),
        (9, {0: 9}, "soft", 0.6),
        (17, {0: 1, 8: 1, 16: 1}, "lock", 0.1),
        (13, {0: 1, 12: 1}, "lock", 0.0),
    ],
    ids=["image", "noisy image", "beginning", "video of a strength", "keyframes", "loop"],
)
def test_given_frames(frames, places, cond, noise, tiny_model, device, agree):
    media = {at: CondMedia("a.png", "", clip_of(count), None, {}) for at, count in places.items()}
    given = CondFrames(media, cond, noise)

    def conditioning(bundle):
        return given.conditioning(bundle, bundle.grid(PixelShape(frames, 16, 16)))

    options = {"frames": frames}
    made = [
        sampled(tiny_model, place, conditioning=conditioning, options=options)
        for place in (device, CPU)
    ]
    agree(*made)
    assert not torch.equal(made[1], sampled(tiny_model, CPU, options=options))


@pytest.mark.parametrize(
    ("chain", "schedule"), [("tokens", "together"), ("tokens", "diagonal"), ("pixels", "together")]
)
def test_extension(chain, schedule, tiny_model, device, agree, tmp_path):
    extension = Extension(
        own_frames=9, frames=17, window=9, overlap=5, prompts=(PROMPT,), before=False, chain=chain,
        schedule=schedule, stride=4, cond="lock", cond_noise=0.1,
    )  # fmt: skip
    codes = []
    for place in (device, CPU):
        bundle = load_bundle(tiny_model, place)
        store = RoundStore(str(tmp_path / place.type))
        store.open({"tokenizer": "tiny", "fps": 8.0}, fresh=False)
        rounds, frames = extend(bundle, clip_of(9), extension, REQUEST, store)
        assert frames.shape == (17, 16, 16, 3)
        codes.append(torch.stack([store.load(each["index"]) for each in rounds]))
    agree(*codes)


def test_the_video_tokenizer(tiny_model, device, agree, tmp_path):
    video = to_video(clip_of(9))
    found = {}
    for place in (device, CPU):
        bundle = load_bundle(tiny_model, place)
        codes = encode(bundle, clip_of(9))
        refined = refined_codes(bundle.video_tokenizer, video.to(place), 2)
        tokenizer, _, digest = load_tokenizer(tiny_model, place)
        shards = tmp_path / place.type
        writer = ShardWriter(shards, token_identity(tokenizer, digest))
        items = find_items(["shapes:train"], num=2, seed=3, fps=8.0)
        list(
            Tokenizing(tokenizer, ClipCut(8.0, PixelShape(9, 16, 16)), writer, num_checked=0).run(
                items
            )
        )
        found[place] = codes, refined, read_shards(str(shards)).codes([0, 1])
        frames = decode(bundle, found.get(device, found[place])[0])
        found[place] += (frames.astype(int),)
    for name, made, expected in zip(
        ("codes", "refined codes", "shards"), found[device], found[CPU], strict=False
    ):
        agree(made, expected, name)
    assert np.abs(found[device][3] - found[CPU][3]).max() <= 1, "the same codes decoded"


def test_the_image_tokenizer(published_image_model, device, agree):
    tokenizers = [load_tokenizer(published_image_model, place)[0] for place in (device, CPU)]
    image = to_video(clip_of(1, 64, 64))
    with torch.inference_mode():
        codes = [
            each.encode(image.to(at))[0] for each, at in zip(tokenizers, (device, CPU), strict=True)
        ]
    agree(*codes)
    frames = [decode_frames(each, codes[1]).astype(int) for each in tokenizers]
    assert np.abs(frames[0] - frames[1]).max() <= 1


def test_an_image_model(published_image_model, device, agree):
    pytest.importorskip("transformers")  # reads its text tokenizer
    options = {"height": 64, "width": 64, "steps": 2}
    agree(*(sampled(published_image_model, place, options=options) for place in (device, CPU)))


@pytest.mark.parametrize("pickled", [False, True])
def test_an_adapter(pickled, tiny_model, device, agree, tmp_path):
    random = torch.Generator().manual_seed(0)
    names = [n for n, w in load_bundle(tiny_model).transformer.state_dict().items() if "mlp" in n]
    weights = load_bundle(tiny_model).transformer.state_dict()
    tensors = {}
    for name in names:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        rows, columns = weights[name].shape
        tensors[f"{stem}.lora_A.weight"] = torch.randn(2, columns, generator=random)
        tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, 2, generator=random)
    save_adapter(tmp_path, tensors, {"peft_type": "LORA", "lora_alpha": 2, "r": 2}, {})
    if pickled:
        (tmp_path / "adapter_model.safetensors").unlink()
        torch.save(tensors, tmp_path / "adapter_model.bin")
    made = [
        sampled(tiny_model, place, adapters=[read_adapter(tmp_path)]) for place in (device, CPU)
    ]
    agree(*made)
    assert not torch.equal(made[1], sampled(tiny_model, CPU))


def test_an_official_fine_tune(tiny_model, device, agree, tmp_path):
    """Weights out of a pickle, guided away from the negative prompt of published models."""
    tensors = load_bundle(tiny_model).transformer.state_dict()
    drawn = torch.Generator().manual_seed(0)
    tuned = {n: w + 0.05 * torch.randn(w.shape, generator=drawn) for n, w in tensors.items()}
    torch.save(tuned, tmp_path / "diffusion_pytorch_model.bin")
    convert_checkpoint(tmp_path, tmp_path / "made", tiny_model)
    options = {"negative": NEGATIVE, "guidance": 7.0}
    made = [sampled(tmp_path / "made", place, options=options) for place in (device, CPU)]
    agree(*made)
    assert not torch.equal(made[1], sampled(tmp_path / "made", CPU, options={"guidance": 7.0}))
    assert not torch.equal(made[1], sampled(tiny_model, CPU, options=options))


def test_offloading_changes_nothing(tiny_model, device, agree):
    bundle = load_bundle(tiny_model, device, offload=True)

    def places():
        parts = bundle.transformer, bundle.video_tokenizer
        return [next(part.parameters()).device.type for part in parts]

    assert places()[1] == "cpu"
    codes = generate(bundle, REQUEST)
    assert places() == [device.type, "cpu"]
    agree(codes, sampled(tiny_model, CPU))
    assert decode(bundle, codes).shape == (9, 16, 16, 3)
    assert places() == ["cpu", device.type]


@pytest.mark.parametrize(("num", "staying", "places"), [(1, 0, 1), (2, 0, 2), (4, 2, 2), (6, 6, 0)])
def test_layers_that_take_turns_change_nothing(num, staying, places, device, agree):
    options = replace(load_bundle("nano").settings.defaults, steps=2, frames=1)
    bundle = load_bundle("nano", device, offload_blocks=num)
    backbone = bundle.transformer.model
    assert next(backbone.parameters()).device.type == "cpu"  # where all wait before the first turn
    codes = generate(bundle, replace(REQUEST, options=options))
    assert (len(backbone.layers), len(backbone.places)) == (staying, places)
    assert {weight.device.type for weight in bundle.transformer.parameters()} == {device.type}
    assert {w.device.type for layer in backbone._waiting for w in layer.parameters()} <= {"cpu"}
    agree(codes, sampled("nano", CPU, options={"steps": 2, "frames": 1}))
    decode(bundle, codes)
    assert {weight.device.type for weight in bundle.transformer.parameters()} == {"cpu"}


def test_a_clip_does_not_depend_on_its_batch(tiny_model, device, agree):
    bundle = load_bundle(tiny_model, device)
    alone, among = logits(bundle), logits(bundle, rows=3)
    assert relative(among[1:2], alone) <= 1e-4
    requests = [replace(REQUEST, seed=seed) for seed in (3, 4)]
    together = Sampler(bundle, requests).sample()
    agree(together[0], sampled(tiny_model, device).cpu())
    agree(together[1], sampled(tiny_model, device, requests[1]).cpu())


def test_bfloat16_is_close(tiny_model, device, record_property):
    made = logits(load_bundle(tiny_model, device, torch.bfloat16))
    expected = logits(load_bundle(tiny_model))
    error = float((made - expected).norm() / expected.norm())
    record_property("relative error of logits in bfloat16", error)
    assert 0 < error < 0.05
    assert sampled(tiny_model, device, dtype=torch.bfloat16).shape == (3, 2, 2)


@pytest.mark.gpu
def test_compiled_layers_agree(cuda):
    assert (
        relative(logits(load_bundle("nano", cuda, compiled=True)), logits(load_bundle("nano")))
        <= 1e-4
    )
