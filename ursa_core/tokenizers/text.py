"""Prompts to ids: a thin wrapper over published BPE tokenizers and small word-level ones."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from ursa_core import files
from ursa_core.configs import LARGEST, unusable, way_out
from ursa_core.errors import CheckpointError, unreadable
from ursa_core.files import parse_object
from ursa_core.places import regular_file

PAD_WORD = "[PAD]"
UNKNOWN_WORD = "[UNK]"
BOV_WORD = "<bov>"


class TextTokenizer:
    """Ids of prompts, left-padded to one length.

    Padding is on the left, so that the end of every prompt is next to the begin-of-video token.
    Longer prompts are cut at the end. A vocabulary that has no ``pad_token`` is a CheckpointError.

    Attributes:
        max_id: Largest id that a prompt can hold; published vocabularies may have gaps below it.
        unknown_id: Id of unknown words; None of BPE, which has none.
    """

    def __init__(self, backend: Tokenizer, pad_token: str, max_prompt_length: int) -> None:
        # Padding and cutting happen here; a tokenizer.json may carry settings of its own.
        backend.no_padding()
        backend.no_truncation()
        self._backend, self._pad_token = backend, pad_token
        self.max_prompt_length = max_prompt_length
        self._vocab: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self.max_id = max(self._vocab.values(), default=0)
        if self.max_id > LARGEST:
            hint = f"its ids should be {LARGEST} at most"
            raise CheckpointError(f"the text tokenizer has the id {self.max_id}", hint)
        self._unknown: str | None = getattr(backend.model, "unk_token", None)
        self.unknown_id = None if self._unknown is None else self.token_id(self._unknown)
        if self._unknown is not None and self.unknown_id is None:
            raise CheckpointError(
                "the vocabulary of the text tokenizer lacks its own unknown token"
                f" {self._unknown!r}",
                "get the model again; its tokenizer is of two versions",
            )
        if (pad_id := self.token_id(pad_token)) is None:
            raise CheckpointError(
                f"the text tokenizer has no padding token {pad_token!r}",
                "name a token of its vocabulary as pad_token in tokenizer_config.json",
            )
        self.pad_id = pad_id

    @classmethod
    def load(cls, folder: Path | str, max_prompt_length: int) -> Self:
        """The tokenizer of a model folder's ``tokenizer`` directory; CheckpointError if damaged.

        A ``tokenizer.json`` is read directly, because importing transformers takes seconds. Code
        that such a folder may contain is never run.
        """
        folder = Path(folder)
        config = _read_config(folder)
        fast = folder / "tokenizer.json"
        if fast.exists():
            with _explained(f"{fast} can't be read", way_out(fast)):
                text = regular_file(fast).read_text(encoding="utf-8")
                _check_pieces(parse_object(text), fast)
                backend = Tokenizer.from_str(text)
        else:
            backend = _read_with_transformers(folder)
        pad_token = config.get("pad_token")  # a string or an object
        if isinstance(pad_token, dict):
            pad_token = pad_token.get("content")
        if not isinstance(pad_token, str):
            hint = "add the pad_token that the model was trained with"
            raise CheckpointError(f"{folder / 'tokenizer_config.json'} names no pad_token", hint)
        return cls(backend, pad_token, max_prompt_length)

    @classmethod
    def from_words(cls, words: Iterable[str], max_prompt_length: int) -> Self:
        """A word-level tokenizer of the given words (or whole captions), lower-cased.

        Text is split at white space and punctuation, which is dropped. Id 0 is padding, 1 unknown
        words, 2 the begin-of-video token, which no spelling in a prompt produces; the words follow.
        """
        normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        words_of = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("removed")]
        splitter = pre_tokenizers.Sequence(words_of)
        vocab = {PAD_WORD: 0, UNKNOWN_WORD: 1, BOV_WORD: 2}
        for text in words:
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
                vocab.setdefault(word, len(vocab))
        backend = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN_WORD))
        backend.normalizer = normalizer
        backend.pre_tokenizer = splitter
        return cls(backend, PAD_WORD, max_prompt_length)

    @property
    def identity(self) -> str:
        """Sixteen hex digits that change with the vocabulary."""
        vocab = sorted(self._vocab.items())
        return hashlib.sha256(json.dumps(vocab).encode()).hexdigest()[:16]

    def token_id(self, token: str) -> int | None:
        """Id of one token of the vocabulary, or None where it has no such token."""
        return self._vocab.get(token)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Ids of prompts, int64 (B, max_prompt_length), padded on the left, and cut at the end."""
        ids = torch.full((len(texts), self.max_prompt_length), self.pad_id, dtype=torch.int64)
        for row, encoding in enumerate(self._encode(list(texts))):
            kept = encoding.ids[: self.max_prompt_length]
            if kept:
                ids[row, -len(kept) :] = torch.tensor(kept)
        return ids

    def losses(self, texts: Sequence[str]) -> list[tuple[list[str], str]]:
        """The words of each prompt that the vocabulary lacks, and the end of it that is cut."""
        found = []
        unknown, length = self.unknown_id, self.max_prompt_length
        # Offsets leave out an accent that is written as a character of its own.
        texts = [unicodedata.normalize("NFC", text) for text in texts]
        for text, encoding in zip(texts, self._encode(texts), strict=True):
            pairs = list(zip(encoding.ids, encoding.offsets, strict=True))
            words = dict.fromkeys(text[a:b] for token, (a, b) in pairs if token == unknown)
            cut = text[pairs[length][1][0] :].strip() if len(pairs) > length else ""
            found.append((list(words), cut))
        return found

    def new_words(self, texts: Iterable[str]) -> list[str]:
        """Words of texts that the vocabulary lacks, as it would spell them, in order."""
        spelling = self._backend.normalizer
        typed = {word for words, _ in self.losses(list(texts)) for word in words}
        return sorted({spelling.normalize_str(word) if spelling else word for word in typed})

    def extended(self, words: Sequence[str]) -> Self:
        """The tokenizer with more words, whose ids follow the largest one, else CheckpointError."""
        content = json.loads(self._backend.to_str())
        known = [word for word in words if word in self._vocab]
        if known or content["model"]["type"] != "WordLevel":
            reason = f"has {known[0]!r} already" if known else "isn't made of whole words"
            raise CheckpointError(
                f"the vocabulary of the text tokenizer {reason}, so words can't be added",
                "use vocabulary: keep, and no adapter with words of its own",
            )
        ids = {word: self.max_id + place for place, word in enumerate(words, 1)}
        content["model"]["vocab"].update(ids)
        backend = Tokenizer.from_str(json.dumps(content))
        return type(self)(backend, self._pad_token, self.max_prompt_length)

    def unknown_words(self, text: str) -> list[str]:
        """Words of a prompt that the vocabulary lacks, as typed, each once; BPE lacks none."""
        return self.losses([text])[0][0]

    def knows_any(self, text: str) -> bool:
        """Whether the vocabulary has any word of a prompt."""
        (encoding,) = self._encode([text])
        return any(token != self.unknown_id for token in encoding.ids)

    def save(self, folder: Path | str) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which transformers loads too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "tokenizer.json", self._backend.to_str(pretty=True))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_prompt_length,
            "pad_token": self._pad_token,
            "padding_side": "left",
            "unk_token": self._unknown,
        }
        text = json.dumps({key: value for key, value in config.items() if value is not None})
        files.write(folder / "tokenizer_config.json", text + "\n")

    def _encode(self, texts: list[str]) -> list[Any]:
        # Published checkpoints add no special token to a prompt; bov follows as part of the model.
        with _explained("the text tokenizer can't read the prompt", "use another model"):
            return self._backend.encode_batch(texts, add_special_tokens=False)


@contextmanager
def _explained(message: str, hint: str) -> Iterator[None]:
    """Turn whatever the tokenizer library raises, panics too, into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        # The library raises bare Exception, and panics are no Exception at all.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{message}: {reason}", hint) from error


_NORMALIZERS = (
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer"),
    *("Prepend", "Replace", "ByteLevel", "Nmt", "Sequence"),
)
_PRE_TOKENIZERS = (
    *("BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits"),
    *("Punctuation", "CharDelimiterSplit", "Split", "UnicodeScripts", "FixedLength", "Sequence"),
)
_MAX_REPLACEMENT = 64
_MAX_GROWTH = 1000
_MAX_REGEX = 1000
# Repeated groups and references back, which can make matching take exponential time. No published
# tokenizer has one.
_REPEATED_GROUP = re.compile(r"\)[*+{]|\\[1-9k]")


def _check_pieces(content: Mapping[str, Any], file: Path | str) -> None:
    """Refuse a ``tokenizer.json`` whose parts can grow or stall without bound; CheckpointError."""
    growth = 1
    for key, inside, known in (
        ("normalizer", "normalizers", _NORMALIZERS),
        ("pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS),
    ):
        left = [content.get(key)]
        while left:
            part = left.pop()
            if part is None:
                continue
            kind = part.get("type") if isinstance(part, dict) else part
            if kind not in known or not isinstance(part, dict):
                raise unusable(str(file), key, kind, f"one of {', '.join(known)}")
            parts = part.get(inside, [])
            left += parts if isinstance(parts, list) else [parts]
            text = part.get("content", part.get("prepend"))
            if isinstance(text, str):
                growth *= len(text) + 1
                if len(text) > _MAX_REPLACEMENT or growth > _MAX_GROWTH:
                    expected = f"replacements of at most {_MAX_REPLACEMENT} characters, few in all"
                    raise unusable(str(file), f"{key} {kind}", text, expected)
            pattern = part.get("pattern")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            if isinstance(regex, str) and (
                len(regex) > _MAX_REGEX or _REPEATED_GROUP.search(regex)
            ):
                expected = "a short expression without repeated groups and references back"
                raise unusable(str(file), f"the pattern of its {key}", regex, expected)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        return parse_object(regular_file(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "check the path, or fetch the model again"
        raise CheckpointError(f"{folder} has no tokenizer_config.json", hint) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error, way_out(path), CheckpointError) from error


def _read_with_transformers(folder: Path) -> Tokenizer:
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        fault = f"{folder} has neither tokenizer.json nor {' and '.join(missing)}"
        raise CheckpointError(fault, "fetch the model again; its tokenizer is incomplete")
    from transformers import AutoTokenizer

    with _explained(f"the tokenizer in {folder} can't be read", "fetch the model again"):
        loaded = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        hint = "use a tokenizer that comes with a tokenizer.json"
        raise CheckpointError(f"{type(loaded).__name__} in {folder} has no fast version", hint)
    _check_pieces(parse_object(backend.to_str()), folder)
    return backend
