"""A tokenizer of one's own files: clips as `ursa tokenize` cuts them, and a decoder for a model."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_runs import TOKENIZER, recipe_of, train

from ursa_cli.main import main
from ursa_core.bundle.bundle import load_bundle, load_tokenizer, tokenizer_identity
from ursa_core.encoding.options import TokenizeOptions
from ursa_core.encoding.run import tokenize
from ursa_core.errors import CheckpointError, DataError, RecipeError, UrsaWarning
from ursa_core.media import write_media
from ursa_core.tokens.shards import read_shards
from ursa_core.training.run import build_learner
from ursa_core.worlds.shapes import training_clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six films of nine frames, three stills."""
    folder = tmp_path_factory.mktemp("own") / "films"
    folder.mkdir()
    for k in range(6):
        frames = training_clip(3, k, "all", 9, 32, 32)[0]
        write_media(folder / f"{k}.mkv", frames, 8)
        if k < 3:
            write_media(folder / f"still-{k}.png", frames[:1], 8)
    return folder


def own(folder, *more: str) -> list[str]:
    return ["data.source=files", f"data.files={folder}", *more]


def test_clips_are_those_of_tokenize(folder, trained_tokenizer, tmp_path):
    cut = ("data.cut.clips=slide", "data.cut.stride=2", "data.cut.min_motion=0.001")
    with pytest.warns(UrsaWarning, match="clips left out by the bounds in data.cut: [1-9]"):
        learner = build_learner(recipe_of(TOKENIZER, tmp_path, *own(folder, *cut)), CPU)
    options = TokenizeOptions(
        frames=5, size=[(32, 32)], clips="slide", stride=2, min_motion=0.001, fps=8.0
    )
    done = tokenize([folder], tmp_path / "shards", options, model=trained_tokenizer)
    assert learner.num_clips == done.summary()["num_done"] > 6
    (folder.parent / "note.doc").touch()
    with pytest.warns(UrsaWarning, match=r"left out, as no media of a known suffix: .*note\.doc"):
        build_learner(recipe_of(TOKENIZER, tmp_path, *own(folder.parent)), CPU)
    plain = build_learner(recipe_of(TOKENIZER, tmp_path, *own(folder)), CPU)
    shapes = {tuple(plain.clips(2 * k, 2, "train", 5)[0].shape[1:4]) for k in range(30)}
    assert shapes == {(5, 32, 32), (1, 32, 32)}
    pixels, kinds = plain.clips(0, 2, "train", 5)
    assert np.array_equal(pixels, plain.clips(0, 2, "train", 5)[0])
    assert kinds == ["files", "files"]
    (tmp_path / "list.csv").write_text(f"file;caption\n{folder / '0.mkv'};a film\n")
    one = build_learner(recipe_of(TOKENIZER, tmp_path, *own(tmp_path / "list.csv")), CPU)
    assert one.num_clips == 1
    cut = own(tmp_path / "list.csv", "data.cut.crops=2")
    crops = build_learner(recipe_of(TOKENIZER, tmp_path, *cut), CPU)
    whole, *parts = crops.files.batch("train", 0, 3)
    assert np.array_equal(whole, one.files.batch("train", 0, 1)[0])
    assert len(parts) == 2
    assert not any(np.array_equal(whole, part) for part in parts)
    wanted = torch.from_numpy(np.asarray(one.files.batch("train", 0, 1)))
    assert wanted.shape == (1, 5, 32, 32, 3)


def test_a_run_continues_and_notices_other_files(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "films")
    words = own(tmp_path / "films", "train.precision=float32", "optimizer.schedule=constant")
    whole = train(TOKENIZER, tmp_path, "whole", *words)
    train(TOKENIZER, tmp_path, "parts", *words, "train.steps=3")
    parts = train(TOKENIZER, tmp_path, "parts", *words)
    for name, value in whole.tensors().items():
        assert torch.equal(value, parts.tensors()[name]), name
    (tmp_path / "films" / "0.mkv").unlink()
    with pytest.raises(CheckpointError, match=r"data\.files hold other clips .* 8 clips, 9"):
        train(TOKENIZER, tmp_path, "parts", *words, "train.steps=7")
    run = train(TOKENIZER, tmp_path, "parts", *words, "train.steps=7", allow_change=True)
    assert run.step == 7


def test_held_out_files_are_never_trained_on_and_choose_the_model(folder, tmp_path):
    words = own(folder, "data.held_out=0.3", "train.validate_every=2", "train.keep_best=true")
    run = train(TOKENIZER, tmp_path, "run", *words)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "validation_psnr" in line] == [2, 4, 6]
    begins = run.learner.files._begins
    assert sum(map(len, begins["heldout"].values())) == 3
    seen = {at for split in begins.values() for each in split.values() for at in each}
    assert len(seen) == 9
    assert run.best["step"] in (2, 4, 6)
    assert json.loads((tmp_path / "run" / "ursa.json").read_text())["frames"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.source=files"], "data.files: is required"),
        (["data.files=x"], "data.files: has no meaning for data.source shapes"),
        (["data.held_out=0.5"], "data.held_out: has no meaning"),
        (["train.keep_best=true"], "so give data.held_out"),
    ],
)
def test_keys_that_do_not_go_together(words, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        recipe_of(TOKENIZER, tmp_path, *words)


def test_files_that_give_no_clip_are_named(folder, tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no film")
    with pytest.warns(UrsaWarning, match="broken.mp4"), pytest.raises(DataError, match="no clip"):
        build_learner(recipe_of(TOKENIZER, tmp_path, *own(tmp_path / "films")), CPU)
    with pytest.raises(DataError, match="doesn't exist"):
        build_learner(recipe_of(TOKENIZER, tmp_path, *own(tmp_path / "nowhere")), CPU)


def test_a_new_decoder_goes_into_a_model_and_keeps_its_codes(
    folder, generator_recipe, trained_tokenizer, tmp_path, capsys
):
    train(generator_recipe, tmp_path, "model", "train.steps=1")
    words = own(folder, f"init={trained_tokenizer}", "freeze_encoder=true", "train.steps=2")
    train(TOKENIZER, tmp_path, "decoder", *words)
    model, decoder, out = (str(tmp_path / name) for name in ("model", "decoder", "merged"))
    assert main(["models", "merge", model, "--decoder", decoder, "-o", out]) == 0
    assert tokenizer_identity(tmp_path / "merged") == tokenizer_identity(tmp_path / "model")
    before, after = (load_bundle(folder) for folder in (model, out))
    old, new = (each.video_tokenizer.state_dict() for each in (before, after))
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"decoder", "post_quant_conv"}
    for name, value in before.transformer.state_dict().items():
        assert torch.equal(value, after.transformer.state_dict()[name])
    options = TokenizeOptions(frames=5, size=[(32, 32)], fps=8.0)
    for name in ("model", "merged"):
        tokenize([folder], tmp_path / f"of-{name}", options, model=tmp_path / name)
    tables = [read_shards(tmp_path / f"of-{name}") for name in ("model", "merged")]
    for k in range(len(tables[0])):
        assert np.array_equal(*(table.row_codes(k) for table in tables))
    capsys.readouterr()
    assert main(["models", "merge", "nano", "--decoder", decoder, "-o", out + "2"]) == 1
    assert "is for codes of the tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "merged2").exists()


def test_an_encoder_that_float16_would_change_is_kept_in_float32(
    folder, trained_tokenizer, tmp_path
):
    shutil.copytree(trained_tokenizer, tmp_path / "fine")
    start, _, _ = load_tokenizer(tmp_path / "fine")
    from ursa_core.bundle.bundle import save_weights

    weights = {n: w + 1e-6 * torch.randn_like(w) for n, w in start.state_dict().items()}
    config = json.loads((tmp_path / "fine" / "vae" / "config.json").read_text())
    save_weights(tmp_path / "fine" / "vae", config, weights, torch.float32)
    words = own(folder, f"init={tmp_path / 'fine'}", "freeze_encoder=true", "train.steps=1")
    train(TOKENIZER, tmp_path, "run", *words)
    kept, _, _ = load_tokenizer(tmp_path / "run")
    for name, value in kept.state_dict().items():
        if name.startswith(("encoder.", "quant_conv.")):
            assert torch.equal(value, weights[name]), name
