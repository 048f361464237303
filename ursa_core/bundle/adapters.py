"""LoRA adapters in peft's folder layout: read, checked against a model, added to it, written.

An adapter turns a matrix W into W + scale · alpha / rank · B · A (arXiv 2106.09685). It is added to
the weights as they are read, in float32, so that sampling takes no more time or memory, nor peft.
"""

import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ursa_core import __version__
from ursa_core.bundle.folder import (
    URSA_MODEL,
    copy_files,
    model_identity,
    opened,
    read_json,
    tokenizer_identity,
    write_json,
)
from ursa_core.bundle.hub import name_of
from ursa_core.bundle.settings import load_settings, save_settings
from ursa_core.bundle.summary import licence_of
from ursa_core.bundle.weights import save_tensors, weight_files
from ursa_core.configs import Switch, number, read_config, unusable
from ursa_core.errors import CheckpointError, UsageError
from ursa_core.files import digest_of, whole
from ursa_core.models.transformer import with_words
from ursa_core.tokenizers.text import TextTokenizer

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ORIGIN = "ursa_adapter.json"
PREFIX = "base_model.model."
WORDS = "words"  # key of ORIGIN: words that the adapter adds to the vocabulary
NEW_WORDS = "new_words"  # in the table of embeddings: their change from that of unknown words
_EMBEDDINGS = "model.embed_tokens"
WORD_ROWS = f"{PREFIX}{_EMBEDDINGS}.{NEW_WORDS}"
_PART = re.compile(
    rf"(?:module\.)?{re.escape(PREFIX)}(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight"
)
_ADVICE = "give a folder that `ursa train` with lora.rank, or peft, has written"


@dataclass(frozen=True)
class AdapterConfig:
    """The keys of peft's ``adapter_config.json`` that scale the product."""

    lora_alpha: Annotated[float, number(1e-6, 1e6)]
    use_rslora: Switch = False


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, the scale of its change, and the digest of its weights."""

    folder: Path
    scale: float
    config: AdapterConfig
    sha256: str
    words: tuple[str, ...] = ()  # words that it adds to the vocabulary

    @property
    def provenance(self) -> dict[str, Any]:
        """The adapter as files made with it record it."""
        return {"path": str(self.folder), "sha256": self.sha256, "scale": self.scale}

    def factor(self, rank: int) -> float:
        """Factor of the product of its matrices."""
        divisor = math.sqrt(rank) if self.config.use_rslora else rank
        return self.scale * self.config.lora_alpha / divisor


def _weights(folder: Path) -> Path:
    """The weights of an adapter, which the official trainer pickles."""
    plain, pickled = folder / WEIGHTS, folder / "adapter_model.bin"
    return pickled if pickled.is_file() and not plain.is_file() else plain


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, not a model."""
    return (folder / CONFIG).is_file() and not (folder / "model_index.json").is_file()


def read_adapter(folder: Path, scale: float = 1.0) -> Adapter:
    """The adapter in a folder; CheckpointError if none, or of a kind that can't be added."""
    for file in (folder / CONFIG, _weights(folder)):
        if not file.is_file():
            inside = folder / "transformer"
            hint = f"give {inside}" if (inside / CONFIG).is_file() else _ADVICE
            raise CheckpointError(f"{folder} is no adapter, it lacks {file.name}", hint)
    config = read_json(folder / CONFIG)
    kind, name = config.get("peft_type"), str(folder / CONFIG)
    if kind != "LORA":
        raise CheckpointError(f"{folder} is an adapter of the kind {kind!r}, not LORA", _ADVICE)
    for key in ("alpha_pattern", "use_dora", "fan_in_fan_out"):
        if config.get(key):
            raise unusable(name, key, config[key], "plain LoRA, with one lora_alpha")
    found = read_config(AdapterConfig, {k: v for k, v in config.items() if v is not None}, name)
    words = _origin(folder).get(WORDS, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise unusable(str(folder / ORIGIN), WORDS, words, "a list of words")
    return Adapter(folder, scale, found, digest_of(_weights(folder)), tuple(words))


def _origin(folder: Path) -> dict[str, Any]:
    return read_json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}


def check_adapter(adapter: Adapter, model: Path) -> None:
    """Refuse, with a CheckpointError, an adapter of another model than that of a folder."""
    folder, name = adapter.folder, name_of(model)
    origin = _origin(folder)
    theirs, ours = origin.get("base_identity"), model_identity(model, ("transformer",))
    if theirs not in (None, ours):
        raise CheckpointError(
            f"the adapter {folder} belongs to the model {origin.get('base')} ({theirs}),"
            f" not to {name} ({ours})",
            f"give its own model: --model {origin.get('base')}",
        )
    files, pairs = weight_files(model / "transformer"), _pairs(adapter)
    if not pairs and not adapter.words:
        raise CheckpointError(f"the adapter {folder} changes nothing", "save it again, or omit it")
    hint = "give the model that the adapter was trained on"
    for weight, (a, b) in pairs.items():
        if weight not in files:
            fault = f"the adapter {folder} changes {weight}, which the model {name} doesn't have"
            raise CheckpointError(fault, hint)
        with opened(files[weight]) as tensors:
            shape = tuple(tensors.get_slice(weight).get_shape())
        if (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
            raise CheckpointError(
                f"the adapter {folder} changes {weight} by {tuple(b.shape)} times"
                f" {tuple(a.shape)}, the model {name} has {shape} there",
                hint,
            )


def add_words(
    adapters: Sequence[Adapter], texts: TextTokenizer, width: int
) -> tuple[TextTokenizer, int, list[Tensor]]:
    """Vocabulary with the adapters' words, the id of unknown ones, and changes from its embedding.

    Changes are float (words, D); a CheckpointError where the model can't take the words.
    """
    unknown, changes = texts.unknown_id, []
    for adapter in adapters:
        with opened(_weights(adapter.folder)) as tensors:
            is_there = WORD_ROWS in tensors.keys()  # noqa: SIM118
            rows = tensors.get_tensor(WORD_ROWS).float() if is_there else torch.empty(0, width)
        if rows.shape != (len(adapter.words), width) or not bool(rows.isfinite().all()):
            raise CheckpointError(
                f"the adapter {adapter.folder} has words of shape {tuple(rows.shape)},"
                f" its {ORIGIN} and the model ask for {(len(adapter.words), width)} finite numbers",
                "get the adapter again, all of its files",
            )
        if adapter.words:
            texts = texts.extended(adapter.words)
            changes.append(adapter.scale * rows)
    return texts, unknown or 0, changes


def adding(adapters: Sequence[Adapter]) -> Callable[[str, Tensor], Tensor]:
    """The function of a weight's name and value that adds adapters to it."""
    parts: dict[str, list[tuple[float, Tensor, Tensor]]] = {}
    for adapter in adapters:
        for weight, pair in _pairs(adapter).items():
            down, up = (matrix.float() for matrix in pair)
            if not bool(down.isfinite().all() and up.isfinite().all()):
                raise CheckpointError(
                    f"the adapter {adapter.folder} changes {weight} by numbers that aren't finite",
                    "get the adapter again",
                )
            parts.setdefault(weight, []).append((adapter.factor(len(down)), down, up))

    def change(name: str, weight: Tensor) -> Tensor:
        for factor, down, up in parts.get(name, ()):
            weight = torch.addmm(weight.float(), up, down, alpha=factor)
        return weight

    return change


def merge_adapters(
    model: Path, adapters: Sequence[Adapter], out: Path, decoder: Path | None = None
) -> None:
    """Write a model with adapters added, in the number formats of the original, to a new folder.

    It takes the tokenizer of ``decoder``. That of other codes, or what is no adapter of the model,
    is a CheckpointError; a folder that holds something a UsageError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", "give a new folder with -o")
    for adapter in adapters:
        check_adapter(adapter, model)
    source = decoder or model
    theirs, ours = tokenizer_identity(source), tokenizer_identity(model)
    if theirs != ours:
        raise CheckpointError(
            f"the decoder of {source} is for codes of the tokenizer {theirs}, those of"
            f" {name_of(model)} are of {ours}",
            f"train one with freeze_encoder=true init={name_of(model)}",
        )
    change = adding(adapters)
    files = {*weight_files(model / "transformer").values()} if adapters else set()
    texts = TextTokenizer.load(model / "tokenizer", load_settings(model).max_prompt_length)
    config = read_json(model / "transformer" / "config.json")
    more, unknown, changes = add_words(adapters, texts, config["hidden_size"])
    ids, table = config["lm_vocab_size"], f"{_EMBEDDINGS}.weight"
    merged = {
        "base": name_of(model, exact=True),
        "base_identity": model_identity(model, ("transformer",)),
        "lora": [adapter.provenance for adapter in adapters],
        **({} if decoder is None else {"decoder": {"path": str(decoder)}}),
        "ursa": __version__,
    }

    def is_kept(name: str) -> bool:
        is_replaced = model / name in files or (decoder is not None and name.startswith("vae/"))
        is_known = any(fnmatch(name, each) for each in URSA_MODEL.patterns)
        return is_known and name != "README.md" and not is_replaced

    with whole(out) as part:
        copy_files(model, part, is_kept)
        for file in files:
            with opened(file) as tensors:
                read = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
            changed = {k: change(k, w).to(w.dtype) for k, w in read.items()}
            for rows in changes if table in changed else ():
                changed[table] = with_words(changed[table], ids, unknown, rows)
                ids += len(rows)
            save_tensors(part / "transformer" / file.name, changed)
        if changes:
            more.save(part / "tokenizer")
            sizes = {"lm_vocab_size": ids, "vocab_size": ids + config["lm_head_size"]}
            write_json(part / "transformer" / "config.json", {**config, **sizes})
        if decoder is not None:
            shutil.copytree(decoder / "vae", part / "vae")
        write_json(part / "merged.json", merged)
        save_settings(part, replace(load_settings(model), licence="not stated"))
        added = [str(adapter.folder) for adapter in adapters] + [str(decoder)] * bool(decoder)
        text = f"# {out.name}\n\n{merged['base']}, whose licence is: {licence_of(model)}, with"
        text += f" {', '.join(added)}, by `ursa models merge`.\n\n## Licence\n\nNot stated.\n"
        (part / "README.md").write_text(text, encoding="utf-8")


def save_adapter(
    folder: Path, weights: Mapping[str, Tensor], config: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Write an adapter: weights by peft's names, and its model with that one's identity."""
    save_tensors(folder / WEIGHTS, weights)
    write_json(folder / CONFIG, config)
    write_json(folder / ORIGIN, origin)


def _pairs(adapter: Adapter) -> dict[str, tuple[Tensor, Tensor]]:
    """The matrices A (rank, in) and B (out, rank) by the weight that they change."""
    found: dict[str, dict[str, Tensor]] = {}
    with opened(_weights(adapter.folder)) as tensors:
        for name in sorted({*tensors.keys()} - {WORD_ROWS}):
            match = _PART.fullmatch(name)
            if match is None:
                raise CheckpointError(
                    f"the adapter {adapter.folder} has the tensor {name}, which is no plain LoRA",
                    "train it with matrices alone: no bias, no DoRA, no modules to save",
                )
            sides = found.setdefault(f"{match['module']}.weight", {})
            sides[match["side"]] = tensors.get_tensor(name)
    for weight, sides in found.items():
        shapes = [tuple(sides[side].shape) for side in sorted(sides)]
        if len(shapes) != 2:
            what = f"has one of the two matrices of {weight}"
        elif [len(shape) for shape in shapes] != [2, 2] or not shapes[0][0]:
            what = f"changes {weight} by {shapes[1]} times {shapes[0]}"
        else:
            continue
        raise CheckpointError(f"the adapter {adapter.folder} {what}", "get the adapter again")
    return {weight: (sides["A"], sides["B"]) for weight, sides in found.items()}
