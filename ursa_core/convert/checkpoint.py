"""Networks that others have saved in another form than a model folder's, and the model they become.

The official trainer pickles its fine-tunes, as ``checkpoint-N/transformer/*.bin``. Others save
variants (``.fp16.safetensors``), shards without an index, or names with the prefixes of a training.
"""

import os
import re
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ursa_core.bundle import weights
from ursa_core.bundle.adapters import CONFIG as ADAPTER
from ursa_core.bundle.folder import (
    NETWORKS,
    URSA_MODEL,
    WEIGHTS,
    copy_files,
    listed,
    opened,
    read_json,
)
from ursa_core.bundle.summary import keep_settings
from ursa_core.configs import index_of
from ursa_core.errors import CheckpointError, UrsaWarning, UsageError
from ursa_core.files import whole
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.tokenizers.visual import build_visual_tokenizer

_FILE = re.compile(
    r".*?(?P<variant>\.\w+)?(?:-\d+-of-0*(?P<count>\d+))?(?P<old>\.\w+)?\.(?P<kind>safetensors|bin)"
)


def is_checkpoint(source: Path) -> bool:
    """Whether a file or folder is a saved network, a model with one, or an adapter."""
    names = ("model_index.json", ADAPTER, f"{Path(WEIGHTS).stem}*")
    inside = (source.glob(f"{part}{name}") for part in ("", "transformer/") for name in names)
    return source.suffix in (".bin", ".safetensors") or any(map(any, inside))


def convert_checkpoint(source: Path, folder: Path, base: Path | None = None) -> None:
    """Write a model folder with the network of a checkpoint, whole or not at all.

    The source is a file of weights, their folder, the folder that ``transformer/`` lies in, or a
    whole model. Its other parts, and its configuration where it has none, are those of ``base``.
    Weights keep their precision. Where they are missing or damaged, hold more than tensors, or
    don't fit, it is a CheckpointError; where the folder exists, the base is needed, or the source
    is an adapter, a UsageError.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already", "give a new folder")
    if not source.exists():
        raise CheckpointError(f"there is no file or folder {source}", "check the path")
    for place in (source, source / "transformer"):
        if (place / ADAPTER).is_file():
            raise UsageError(f"{place} is an adapter, not a network", f"use it: --lora {place}")
    if base is None and not (source / "model_index.json").is_file():
        hint = "add --base with the model that it was trained from"
        raise UsageError(f"{source} is a network without the other parts of a model", hint)
    base = base or source
    own = {part: source / part for part in NETWORKS if (source / part).is_dir()}
    networks = {"transformer": source, "vae": base / "vae", **own}
    is_vae_whole = any((networks["vae"] / name).is_file() for name in (WEIGHTS, index_of(WEIGHTS)))
    with whole(folder) as made:
        copy_files(base, made, lambda name: name.split("/")[0] not in NETWORKS)
        if is_vae_whole:  # by whose bytes codes are known
            copy_files(networks.pop("vae").parent, made, lambda name: name.startswith("vae/"))
        for part, place in networks.items():
            _convert(place, base / part, made / part)
        keep_settings(base, made)
        URSA_MODEL.check(made)


def _convert(place: Path, base: Path, out: Path) -> None:
    own = (place.parent if place.is_file() else place) / "config.json"
    stated = own if own.is_file() else base / "config.json"
    config = read_json(stated)
    weights.save_weights(out, config, _read(place), None)
    with torch.device("meta"):
        if base.name == "transformer":
            sizes = TransformerConfig.from_json(config)
            theirs = TransformerConfig.from_json(read_json(base / "config.json"))
            for key in ("lm_vocab_size", "lm_head_size", "bov_token_id"):
                value, other = getattr(sizes, key), getattr(theirs, key)
                if value != other:
                    hint = "give the model that it was trained from with --base"
                    raise CheckpointError(f"{stated}: {key} is {value}, {other} in {base}", hint)
            weights.check_depth(out, str(stated), "num_hidden_layers", sizes.num_hidden_layers)
            network: torch.nn.Module = Transformer(sizes)
        else:
            network = build_visual_tokenizer(config, partial(weights.check_depth, out))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    weights.check_tensors(shapes, place, weights.weight_files(out))


def _read(place: Path) -> dict[str, Tensor]:
    """Tensors of a file, or of the best set of files of a folder, by their names in the network."""
    found: dict[tuple[bool, str], dict[Path, int]] = {}
    stem = Path(WEIGHTS).stem
    for file in [place] if place.is_file() else sorted(place.glob(f"{stem}[.-]*")):
        if match := _FILE.fullmatch(file.name):
            key = match["kind"] == "bin", match["variant"] or match["old"] or ""
            found.setdefault(key, {})[file] = int(match["count"] or 1)
    if not found:
        raise CheckpointError(f"{place} holds no weights", f"give a folder with {WEIGHTS} or .bin")
    files, *others = (found[key] for key in sorted(found))
    if unread := [file.name for each in others for file in each if file.suffix == ".bin"]:
        warnings.warn(f"{place}: {listed(unread)} is left out", UrsaWarning, stacklevel=2)
    if len(files) != max(files.values()):
        hint = "get the others, too"
        raise CheckpointError(f"{place} has {len(files)} of {max(files.values())} shards", hint)
    state: dict[str, Tensor] = {}
    for file in files:
        with opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118
                plain = name
                for wrapper in weights.WRAPPERS:
                    plain = plain.replace(f".{wrapper}", ".").removeprefix(wrapper)
                if plain in state:
                    raise CheckpointError(f"{place} holds {plain} twice", "save it under one name")
                value = tensors.get_tensor(name)
                if value.is_floating_point() and not bool(value.float().isfinite().all()):
                    hint = "take an earlier checkpoint of the training, or get the file again"
                    raise CheckpointError(f"{file}: {name} holds numbers that aren't finite", hint)
                is_whole = value.untyped_storage().nbytes() == value.nbytes
                state[plain] = value if is_whole else value.clone()  # views can't be saved
    if not state:
        raise CheckpointError(f"{place} holds no weights", "save them again, from one process")
    return state
