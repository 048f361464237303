"""Text tokenizers: parity with the reference, word-level vocabularies, damaged folders."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ursa_core.errors import CheckpointError
from ursa_core.tokenizers.text import BOV_WORD, TextTokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "published_text"


def test_published_tokenizer_gives_the_reference_ids() -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text())
    padding = expected["padding"]
    tokenizer = TextTokenizer.load(GOLDEN / "tokenizer", expected["max_prompt_length"])
    assert tokenizer.encode(expected["prompts"]).tolist() == expected["prompt_ids"]
    assert tokenizer.encode(list(padding)).tolist() == list(padding.values())
    assert tokenizer.unknown_words("zyzzyva ☃") == []
    assert tokenizer.max_id + 1 == 292


def test_saved_published_tokenizer_loads_without_transformers(tmp_path: Path) -> None:
    prompts = ["motion=9.0, a red circle", "éa naïve ☃\nboat", ""]
    original = TextTokenizer.load(GOLDEN / "tokenizer", 24)
    original.save(tmp_path)
    code = (
        "import sys; from ursa_core.tokenizers.text import TextTokenizer as T;"
        f"print(T.load({str(tmp_path)!r}, 24).encode({prompts!r}).tolist());"
        "assert 'transformers' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == original.encode(prompts).tolist()


@pytest.fixture
def words() -> TextTokenizer:
    return TextTokenizer.from_words(["a red circle moves right", "on a navy background"], 6)


def test_word_level_ids(words: TextTokenizer) -> None:
    assert words.pad_id == 0
    assert words.token_id(BOV_WORD) == 2
    assert words.max_id + 1 == 3 + 8
    assert words.encode(["A RED circle.", ""]).tolist() == [[0, 0, 0, 3, 4, 5], [0] * 6]
    assert words.encode(["a red  circle,moves"]).tolist() == [[0, 0, 3, 4, 5, 6]]
    assert words.encode([]).shape == (0, 6)


def test_unknown_words_are_named_as_typed_once(words: TextTokenizer) -> None:
    assert words.unknown_words("A Pink circle, a Pink DRAGON") == ["Pink", "DRAGON"]
    assert words.unknown_words("a red circle!") == []
    assert words.encode(["a pink circle"]).tolist() == [[0, 0, 0, 3, 1, 5]]


def test_an_accent_of_its_own_belongs_to_its_word(words: TextTokenizer) -> None:
    composed, apart = "a N\u00e9 caf\u00e9", "a Ne\u0301 cafe\u0301"
    assert words.unknown_words(apart) == words.unknown_words(composed) == ["N\u00e9", "caf\u00e9"]
    own = words.extended(words.new_words([apart]))
    assert own.unknown_words(apart) == []
    assert own.encode([apart]).tolist() == own.encode([composed]).tolist()


def test_special_ids_cannot_be_spelled(words: TextTokenizer) -> None:
    for text in ("<bov>", "[PAD]", "[UNK]"):
        assert words.encode([text])[0, -1] == 1, text
        assert words.unknown_words(text), text


def test_long_prompts_are_cut_at_the_end(words: TextTokenizer) -> None:
    prompt = "a red circle moves right on a Navy background"
    assert words.encode([prompt]).tolist() == [[3, 4, 5, 6, 7, 8]]
    assert words.losses([prompt])[0][1] == "a Navy background"
    assert words.losses(["a red circle moves right on"])[0][1] == ""


def test_saved_word_level_tokenizer_loads_here_and_in_transformers(
    words: TextTokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    words.save(tmp_path)
    prompts = ["a red dragon", "", "a red circle moves right on a navy background"]
    expected = words.encode(prompts)
    assert torch.equal(TextTokenizer.load(tmp_path, 6).encode(prompts), expected)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    padded = theirs(prompts, padding="max_length", max_length=6, truncation=True)
    assert padded["input_ids"] == expected.tolist()


def test_missing_and_damaged_folders_are_refused(words: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer_config\.json"):
        TextTokenizer.load(tmp_path / "absent", 6)
    words.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="can't be read"):
        TextTokenizer.load(tmp_path, 6)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"vocab\.json and merges\.txt"):
        TextTokenizer.load(tmp_path, 6)
    words.save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"pad_token": "<none>"}')
    with pytest.raises(CheckpointError, match="<none>"):
        TextTokenizer.load(tmp_path, 6)
    config.write_text("{}")
    with pytest.raises(CheckpointError, match="names no pad_token"):
        TextTokenizer.load(tmp_path, 6)
    config.write_text("[1")
    with pytest.raises(CheckpointError, match="can't be read"):
        TextTokenizer.load(tmp_path, 6)


def test_damaged_published_tokenizer_is_refused(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "vocab.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match="can't be read"):
        TextTokenizer.load(tmp_path / "tokenizer", 24)
