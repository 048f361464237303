"""Model bundles: a folder in the published layout, with our settings in ``ursa.json``.

This file joins networks, tokenizers and paths, which don't import one another.
"""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ursa_core import configs
from ursa_core.bundle import hub, path_files
from ursa_core.bundle.adapters import Adapter, add_words, adding
from ursa_core.bundle.folder import (
    NETWORKS,
    PARTS,
    URSA_MODEL,
    WEIGHTS,
    Layout,
    copy_files,
    opened,
    read_json,
    shipped_models,
    write_json,
)
from ursa_core.bundle.folder import tokenizer_identity as tokenizer_identity
from ursa_core.bundle.settings import BundleSettings, PathConfig, load_settings, save_settings
from ursa_core.bundle.subjects import Subject, load_subjects, save_subjects
from ursa_core.bundle.weights import check_depth, load_weights, save_tensors, save_weights
from ursa_core.errors import CheckpointError, HubError
from ursa_core.files import whole
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.models.streaming import StreamedBackbone
from ursa_core.models.transformer import Transformer, TransformerConfig
from ursa_core.path.base import ProbPath
from ursa_core.places import fetch, is_address, located
from ursa_core.tokenizers.text import TextTokenizer
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig
from ursa_core.tokenizers.visual import VisualTokenizer, build_visual_tokenizer

_KINDS = {"average": "ema.", "weights": "model."}
"""Prefix of tensors in a checkpoint by the folder's name inside it."""
_ENCODER = ("encoder.", "quant_conv.")


@dataclass(frozen=True)
class Bundle:
    """A model ready to sample from, of the parts that its folder has.

    With ``offload``, transformer and tokenizer take turns on the device, and guidance's halves run
    one after the other. ``subjects`` are those that it draws by name, where it lists any.
    """

    folder: Path
    transformer: Transformer
    video_tokenizer: VisualTokenizer
    text_tokenizer: TextTokenizer
    path: ProbPath
    settings: BundleSettings
    device: torch.device
    offload: bool = False
    subjects: tuple[Subject, ...] = ()

    def take_turn(self, part: Transformer | VisualTokenizer) -> None:
        """Move ``part`` to the device; with offloading, move the other network to the CPU."""
        if not self.offload:
            return
        for module in (self.transformer, self.video_tokenizer):
            if module is not part:
                module.to("cpu")
        part.to(self.device)

    @property
    def name(self) -> str:
        """Name of the model, at its commit if it came from the hub."""
        return hub.name_of(self.folder, exact=True)

    def grid(self, shape: PixelShape) -> LatentGrid:
        """Latent grid of a pixel shape; raises ``ShapeError`` if it doesn't fit the strides."""
        return self.video_tokenizer.strides.grid(shape)


def resolve_model(
    model: str | Path,
    progress: hub.Progress | None = None,
    *,
    may_download: bool = True,
    layouts: Sequence[Layout] = (URSA_MODEL,),
) -> Path:
    """Folder of a model: a shipped name, a folder, here or at an address, a checkpoint, or an id.

    From the hub only models of these layouts are accepted; a folder isn't checked. What isn't there
    and can't be downloaded is a CheckpointError.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    if is_address(model) and not str(model).startswith(("hf://", "https://huggingface.co/")):
        fetch(model := located(model), [name for layout in layouts for name in layout.patterns])
    if (made := checkpoint_model(Path(model))) is not None:
        return made
    if os.path.isdir(model):  # noqa: PTH112 - a Path raises where a name is too long
        return Path(model)
    wanted = hub.parse_id(str(model).removeprefix("hf://"))
    if wanted is None:
        names, meant = ", ".join(shipped) or "none", hub.meant_id(str(model)) or "owner/name"
        raise CheckpointError(
            f"there is no model {str(model)!r}: no shipped name, folder or Hugging Face id",
            f"shipped models: {names}; or give a model folder, or an id as {meant}",
        )
    folder = hub.found_here(wanted, layouts)
    if folder is None and not may_download:
        fault = f"the model {wanted} isn't on this machine: neither a folder nor pulled before"
        raise HubError(fault, f"check the path, or get it from the hub: ursa models pull {wanted}")
    return folder or hub.download(wanted, progress=progress, layouts=layouts)


def checkpoint_model(path: Path) -> Path | None:
    """Model folder of a checkpoint; None for paths of anything else.

    ``step-N``, or ``average`` in it, has the averaged weights, and ``weights`` those of that step.
    A checkpoint that is damaged, or of an adapter, is a CheckpointError.
    """
    folder, kind = (path.parent, path.name) if path.name in _KINDS else (path, "average")
    is_step = re.fullmatch(r"step-\d+", folder.name) and folder.parent.name == "checkpoints"
    if not (is_step and (folder / "state.json").is_file()):
        return None
    run, target = folder.parents[1], folder / kind
    part = next((name for name in NETWORKS if (run / name / WEIGHTS).is_file()), None)
    if part is None:
        raise CheckpointError(
            f"{run} holds no model, which its checkpoint {folder.name} would be one of",
            "give a run that trained whole weights; an adapter is given as --lora RUN",
        )
    if not target.is_dir():
        with opened(run / part / WEIGHTS) as tensors:
            state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        state |= _read_checkpoint(folder, _KINDS[kind], state)
        with whole(target) as made:
            own = (*PARTS, "ursa.json", "model_index.json", "subjects.json")
            copy_files(run, made, lambda name: name.partition("/")[0] in own)
            save_tensors(made / part / WEIGHTS, state)
    return target


def _read_checkpoint(folder: Path, prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint that the run trained, whole even if ranks wrote parts of them."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        reader = HuggingFaceStorageReader(str(folder))
        names = [n for n in like if prefix + n in reader.read_metadata().state_dict_metadata]
        found = {prefix + name: torch.empty(like[name].shape) for name in names}
        with warnings.catch_warnings(action="ignore"):  # that this is one process
            load(found, storage_reader=reader, no_dist=True)
    except (CheckpointException, OSError, RuntimeError, ValueError, SafetensorError) as error:
        hint = "it is damaged: give another one"
        raise CheckpointError(f"the checkpoint {folder} can't be read", hint) from error
    return {name: found[prefix + name].to(like[name].dtype) for name in names}


def save_tokenizer(
    folder: Path,
    config: VideoTokenizerConfig,
    weights: dict[str, Tensor],
    codes_of: str | None = None,
) -> None:
    """Write the video tokenizer of a bundle, in float16.

    ``codes_of`` is the identity of the tokenizer whose encoder, and so whose codes, it has. If that
    encoder isn't the same in float16, all is written in float32.
    """
    kept = {} if codes_of is None else {"codes_of": codes_of}
    encoder = [value for name, value in weights.items() if name.startswith(_ENCODER)]
    is_same = codes_of is None or all(torch.equal(w, w.half().float()) for w in encoder)
    dtype = torch.float16 if is_same else torch.float32
    save_weights(folder / "vae", {**config.to_json(), **kept}, weights, dtype)


def load_tokenizer(
    model: str | Path, device: torch.device | str = "cpu"
) -> tuple[VisualTokenizer, BundleSettings, str]:
    """The video or image tokenizer of a bundle in float32, its settings, and its identity.

    Codes of two tokenizers mean the same only if the identities are equal. A file that is missing
    or damaged, or describes no tokenizer of ours, is a CheckpointError.
    """
    folder = resolve_model(model)
    config = read_json(folder / "vae" / "config.json")
    with torch.device("meta"):
        tokenizer = build_visual_tokenizer(config, partial(check_depth, folder / "vae"))
    load_weights(tokenizer, folder / "vae", device)
    return tokenizer.eval(), load_settings(folder), tokenizer_identity(folder)


def save_bundle(
    folder: Path,
    transformer: Transformer,
    weights: dict[str, Tensor],
    path: ProbPath,
    codebook: Tensor,
    text_tokenizer: TextTokenizer,
    tokenizer_folder: Path,
    settings: BundleSettings,
    subjects: Sequence[Subject] = (),
) -> None:
    """Write a whole bundle, its transformer in float16; what is there is replaced file by file.

    Of the transformer the configuration is written, with ``weights`` by name; the codebook is float
    (K, C), and ``vae/`` is copied from the bundle ``tokenizer_folder``.
    """
    save_weights(folder / "transformer", transformer.config.to_json(), weights, torch.float16)
    scheduler = folder / "scheduler"
    write_json(scheduler / "scheduler_config.json", path_files.path_to_json(path, settings.shift))
    stored = {path_files.CODEBOOK_KEY: codebook}
    save_tensors(scheduler / path_files.CODEBOOK, stored, torch.float32)
    text_tokenizer.save(folder / "tokenizer")
    if tokenizer_folder.resolve() != folder.resolve():
        copy_files(tokenizer_folder, folder, lambda name: name.startswith("vae/"))
    save_settings(folder, settings)
    if subjects:
        save_subjects(folder, subjects)
    vae = read_json(folder / "vae" / "config.json")["_class_name"]
    module = "autoencoder_vq_cosmos3d" if vae == configs.VIDEO_CLASS else "autoencoder_vq"
    index = {
        "_class_name": configs.PIPELINE_CLASS,
        "scheduler": ["diffnext.schedulers.scheduling_dfm", configs.SCHEDULER_CLASS],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffnext.models.transformers.transformer_ursa", configs.TRANSFORMER_CLASS],
        "vae": [f"diffnext.models.autoencoders.{module}", vae],
    }
    write_json(folder / "model_index.json", index)


def load_bundle(
    model: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    offload: bool = False,
    offload_blocks: int | None = None,
    compiled: bool = False,
    adapters: Sequence[Adapter] = (),
    empty: bool = False,
) -> Bundle:
    """Read a model folder, or a shipped model by name; CheckpointError if a part is damaged.

    The transformer takes ``dtype`` and the ``adapters``, and its layers may be ``compiled`` with
    ``torch.compile``; the tokenizer stays in float32. ``offload_blocks`` is the number of layers
    on the device at most; it offloads, too. The transformer of an ``empty`` bundle has no weights.
    """
    offload = offload or offload_blocks is not None
    folder = resolve_model(model)
    read_json(folder / "model_index.json")
    video_tokenizer, settings, _ = load_tokenizer(folder, "cpu" if offload else device)
    config = TransformerConfig.from_json(read_json(folder / "transformer" / "config.json"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = configs.read_config(PathConfig, scheduler, "scheduler_config.json").kind
    num_states = video_tokenizer.quantizer.num_codes + (kind == "masked")
    if config.lm_head_size != num_states:
        raise CheckpointError(
            f"{folder}: the transformer knows {config.lm_head_size} codes,"
            f" the tokenizer and the path make {num_states}",
            "use the parts of one model",
        )
    weights, layers = folder / "transformer", config.num_hidden_layers
    check_depth(weights, "transformer/config.json", "num_hidden_layers", layers)
    with torch.device("meta"):
        transformer = Transformer(config)
    codebook = path_files.stored_codebook(folder / "scheduler", video_tokenizer.codebook)
    path = path_files.build_path(scheduler, codebook).to(device)
    home = device if offload_blocks is None else "cpu"
    if not empty:
        load_weights(transformer, weights, home, dtype, adding(adapters))
    text_tokenizer = TextTokenizer.load(folder / "tokenizer", settings.max_prompt_length)
    if text_tokenizer.max_id >= config.lm_vocab_size:
        raise CheckpointError(
            f"{folder}: the text tokenizer has the id {text_tokenizer.max_id},"
            f" the transformer {config.lm_vocab_size} text ids",
            "use the parts of one model",
        )
    text_tokenizer, unknown, changes = add_words(adapters, text_tokenizer, config.hidden_size)
    for rows in changes:
        transformer.add_words_(unknown, rows)
    if compiled:
        transformer.model.compile()
    if offload_blocks is not None:
        pinned = torch.device(device).type == "cuda"
        transformer.model = StreamedBackbone(transformer.model, offload_blocks, pinned=pinned)
    return Bundle(
        folder, transformer.eval(), video_tokenizer, text_tokenizer, path, settings,
        torch.device(device), offload, load_subjects(folder),
    )  # fmt: skip
