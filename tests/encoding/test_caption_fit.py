"""Captions that a generator's text tokenizer can't take whole, told before it is trained."""

import json

import numpy as np
from tiny_runs import GENERATOR

from ursa_cli.main import main
from ursa_core.encoding.caption_fit import measure_captions
from ursa_core.media import write_media
from ursa_core.tokenizers.text import TextTokenizer


def test_what_is_lost_is_counted_with_an_example():
    tokenizer = TextTokenizer.from_words(["motion a red boat"], 3)
    captions = ["a boat", "a red boat, a boat", "a Zebra and zebra, zebra", "a quokka"] * 600
    fit = measure_captions(tokenizer, captions)
    assert (fit.num, fit.num_cut, fit.num_unknown) == (2400, 1200, 1200)
    assert (fit.example, fit.lost) == ("a red boat, a boat", "a boat")
    assert fit.unknown == dict.fromkeys(("Zebra", "and", "zebra", "quokka"), 600)
    fit = measure_captions(tokenizer, captions[:1], "motion, a ".__add__)
    assert (fit.num_cut, fit.example, fit.lost) == (1, "a boat", "boat")


def test_captions_that_the_model_cannot_take_are_warned_of(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    for k, text in enumerate(("a red circle", "a red circle grows on a navy background, quokka")):
        write_media(tmp_path / "media" / f"{k}.png", np.zeros((1, 32, 32, 3), np.uint8), 12)
        (tmp_path / "media" / f"{k}.txt").write_text(text)
    shards = str(tmp_path / "shards")
    given = ["tokenize", str(tmp_path / "media"), "-o", shards, "--frames", "1"]
    assert main([*given, "--model", "nano", "--size", "32x32", "--check", "0"]) == 0
    words = ["a red circle grows on a navy background"]
    TextTokenizer.from_words(words, 6).save(tmp_path / "words")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(GENERATOR.replace("TOKENIZER", "nano").replace("SHARDS", shards))
    run = ["train", str(recipe), "-o", str(tmp_path / "run"), "train.steps=1", "samples.prompts=[]"]
    capsys.readouterr()
    for more in (["--dry-run"], []):
        words = [*run, f"text_tokenizer={tmp_path / 'words'}", "model.max_prompt_length=6"]
        assert main([*words, *more]) == 0
        err = capsys.readouterr().err
        assert "1 of 2 captions (50 %) are longer than the 6 tokens that the model reads" in err
        assert 'is cut off: "navy background, quokka"' in err
        assert "1 of 2 captions (50 %) hold words that the model doesn't know: quokka (1)" in err
    assert (
        main([*run, "--fresh", "--dry-run", "--json"]) == 0
    )  # a tokenizer of the captions' own words
    shown = capsys.readouterr()
    found = json.loads(shown.out)["captions"]
    assert (found["num"], found["num_cut"], found["num_unknown"]) == (2, 0, 0)
    assert "captions" not in shown.err
