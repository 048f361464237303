"""Model bundles: a folder in the published layout, with our settings in ``ursa.json`` beside it.

``model_index.json``, ``transformer/``, ``vae/``, ``scheduler/``, ``tokenizer/``: weights are
safetensors, everything else JSON. This file joins models, tokenizers and paths, which don't know
one another.
"""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ursa_core.errors import CheckpointError
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.tokenizers.video_fsq import VideoTokenizer, VideoTokenizerConfig

if TYPE_CHECKING:
    from ursa_core.models.transformer import Transformer
    from ursa_core.path.base import Path as ProbabilityPath
    from ursa_core.tokenizers.text import TextTokenizer

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CODEBOOK = "scheduler_model.safetensors"
CODEBOOK_KEY = "path.emb"


@dataclass(frozen=True)
class BundleSettings:
    """What the published layout has no field for; the defaults are those of the paper's models.

    Args:
        max_prompt_length: ids that every prompt is padded to.
        frames: of a clip made by default.
        height: of its frames, in pixels.
        width: of its frames, in pixels.
        fps: frames a second of the file written.
        steps: network calls along the path.
        guidance: scale of classifier-free guidance; 1 is off.
        guidance_interval: times between which guidance acts.
        shift: time shift of the steps.
        motion_prefix: prompts are prefixed ``motion=9.0, ``.
        negative: prompt of the unconditional half.
        licence: of the weights.
    """

    max_prompt_length: int = 320
    frames: int = 49
    height: int = 320
    width: int = 512
    fps: float = 12.0
    steps: int = 50
    guidance: float = 7.0
    guidance_interval: tuple[float, float] = (0.0, 0.9)
    shift: float = 3.0
    motion_prefix: bool = True
    negative: str = ""
    licence: str = "Apache-2.0"

    @property
    def shape(self) -> PixelShape:
        """Pixel shape made by default."""
        return PixelShape(self.frames, self.height, self.width)


@dataclass(frozen=True)
class Bundle:
    """A model ready to sample from."""

    folder: Path
    transformer: "Transformer"
    video_tokenizer: VideoTokenizer
    text_tokenizer: "TextTokenizer"
    path: "ProbabilityPath"
    settings: BundleSettings

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.folder.name

    def grid(self, shape: PixelShape) -> LatentGrid:
        """Latent grid of a pixel shape; raises ``ShapeError`` if it doesn't fit the strides."""
        return self.video_tokenizer.strides.grid(shape)


def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {p.parent.name: p.parent for p in sorted(SHIPPED.glob("*/model_index.json"))}


def resolve_model(model: str | Path) -> Path:
    """Folder of a model given by shipped name or path.

    Raises:
        CheckpointError: there is no such model.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(shipped) or "none"
        raise CheckpointError(
            f"there is no model {str(model)!r}: neither a shipped name nor a folder",
            f"shipped models: {names}; or give the path of a model folder",
        )
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a bundle.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file.parent} is not a complete model: {file.name} is missing",
            "give a model folder with model_index.json, transformer/, vae/, scheduler/, tokenizer/",
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read: {error}", "get the model anew") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no JSON object", "get the model anew")
    return content


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read a model's safetensors weights, one file or shards with an index, into ``model``.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, foreign or of
            another shape.
    """
    index = folder / f"{WEIGHTS}.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else [WEIGHTS]
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state.update(load_file(folder / name))
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder / name} is missing", "get the model anew") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder / name} is damaged: {error}",
                "get the model anew; the file is cut short or altered",
            ) from error
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ state.keys()):
        what = "lacks the tensor" if name in expected else "has the foreign tensor"
        raise CheckpointError(f"{folder} {what} {name}", "its config.json describes another model")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(tensor.shape)},"
                f" its config.json asks for {tuple(expected[name].shape)}",
                "use the config.json that belongs to these weights",
            )
    model.load_state_dict(state, assign=False)


def save_weights(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Write ``config.json`` and the weights, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    save_tensors(folder / WEIGHTS, state)
    write_json(folder / "config.json", config)


def save_tensors(file: Path, state: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all, readable by all."""
    partial = file.with_name(file.name + ".partial")
    save_file(state, partial, {"format": "pt"})
    partial.chmod(0o644)
    partial.replace(file)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(file)


def save_tokenizer(folder: Path, config: VideoTokenizerConfig, weights: dict[str, Tensor]) -> None:
    """Write the video tokenizer of a bundle, in float16."""
    save_weights(folder / "vae", config.to_json(), weights, torch.float16)


def load_tokenizer(
    model: str | Path, device: torch.device | str = "cpu"
) -> tuple[VideoTokenizer, BundleSettings, str]:
    """The video tokenizer of a bundle, its settings, and its identity.

    The identity is a hash of configuration and weights: codes mean the same only under one.
    """
    folder = resolve_model(model)
    config = read_json(folder / "vae" / "config.json")
    tokenizer = VideoTokenizer(VideoTokenizerConfig.from_json(config))
    load_weights(tokenizer, folder / "vae")
    return tokenizer.to(device).eval(), load_settings(folder), tokenizer_identity(folder)


def tokenizer_identity(folder: Path) -> str:
    """Sixteen hex digits that change with the video tokenizer's configuration or weights."""
    digest = hashlib.sha256()
    for file in (folder / "vae" / "config.json", *sorted((folder / "vae").glob("*.safetensors"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def load_settings(folder: Path) -> BundleSettings:
    """Settings of a bundle; without an ``ursa.json`` the published defaults hold.

    Raises:
        CheckpointError: the file is damaged or a value can't be used.
    """
    file = folder / "ursa.json"
    if not file.exists():
        return BundleSettings()
    content = read_json(file)
    known: dict[str, Any] = {}
    for field in fields(BundleSettings):
        value = content.get(field.name, field.default)
        if not _is_setting(value, field.default):
            raise CheckpointError(
                f"{file}: {field.name} can't be {value!r}",
                f"give a value such as {field.default!r}",
            )
        known[field.name] = tuple(value) if isinstance(value, list) else value
    return BundleSettings(**known)


def _is_setting(value: object, like: object) -> bool:
    """Whether a JSON value has the kind and the range of a setting's default."""
    if isinstance(like, bool | str):
        return type(value) is type(like)
    if isinstance(like, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(v, int | float) and 0 <= v <= 1 for v in value)
        )
    if isinstance(like, int):
        return type(value) is int and value >= 1
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e6


def save_settings(folder: Path, settings: BundleSettings) -> None:
    """Write ``ursa.json``."""
    write_json(folder / "ursa.json", asdict(settings))


def save_bundle(
    folder: Path,
    transformer: "Transformer",
    weights: dict[str, Tensor],
    path: "ProbabilityPath",
    codebook: Tensor,
    text_tokenizer: "TextTokenizer",
    tokenizer_folder: Path,
    settings: BundleSettings,
) -> None:
    """Write a whole bundle, its transformer in float16.

    Args:
        folder: to write to; what is there is replaced file by file.
        transformer: for its configuration.
        weights: of the transformer, by name.
        path: that it was trained on.
        codebook: float (K, C) vectors of the codes.
        text_tokenizer: of its prompts.
        tokenizer_folder: bundle whose ``vae/`` is taken over.
        settings: defaults of sampling.
    """
    save_weights(folder / "transformer", transformer.config.to_json(), weights, torch.float16)
    scheduler = folder / "scheduler"
    write_json(scheduler / "scheduler_config.json", path_to_json(path, settings.shift))
    save_tensors(scheduler / CODEBOOK, {CODEBOOK_KEY: codebook.cpu().float().contiguous()})
    text_tokenizer.save(folder / "tokenizer")
    if tokenizer_folder.resolve() != folder.resolve():
        (folder / "vae").mkdir(parents=True, exist_ok=True)
        for file in (tokenizer_folder / "vae").iterdir():
            shutil.copyfile(file, folder / "vae" / file.name)
    save_settings(folder, settings)
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "URSAPipeline",
            "scheduler": ["diffnext.schedulers.scheduling_dfm", "KineticOptimalScheduler"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "transformer": [
                "diffnext.models.transformers.transformer_ursa",
                "URSATransformer3DModel",
            ],
            "vae": [
                "diffnext.models.autoencoders.autoencoder_vq_cosmos3d",
                "AutoencoderVQCosmos3D",
            ],
        },
    )


def load_bundle(
    model: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Bundle:
    """Read a model folder, or a shipped model by name.

    Args:
        model: folder or name.
        device: of the networks.
        dtype: of the transformer; the tokenizer stays in float32.

    Raises:
        CheckpointError: a part is missing, damaged or of another kind.
    """
    from ursa_core.models.transformer import Transformer, TransformerConfig
    from ursa_core.tokenizers.text import TextTokenizer

    folder = resolve_model(model)
    read_json(folder / "model_index.json")
    video_tokenizer, settings, _ = load_tokenizer(folder, device)
    config = TransformerConfig.from_json(read_json(folder / "transformer" / "config.json"))
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    codebook = stored_codebook(folder / "scheduler", video_tokenizer.codebook)
    path = build_path(scheduler, codebook).to(device)
    if config.lm_head_size != path.num_states:
        raise CheckpointError(
            f"{folder}: the transformer knows {config.lm_head_size} codes,"
            f" the tokenizer and the path make {path.num_states}",
            "use the parts of one model",
        )
    transformer = Transformer(config)
    load_weights(transformer, folder / "transformer")
    text_tokenizer = TextTokenizer.load(folder / "tokenizer", settings.max_prompt_length)
    if text_tokenizer.max_id >= config.lm_vocab_size:
        raise CheckpointError(
            f"{folder}: the text tokenizer has the id {text_tokenizer.max_id},"
            f" the transformer {config.lm_vocab_size} text ids",
            "use the parts of one model",
        )
    return Bundle(
        folder,
        transformer.to(device, dtype).eval(),
        video_tokenizer,
        text_tokenizer,
        path,
        settings,
    )


def stored_codebook(folder: Path, expected: Tensor) -> Tensor:
    """The codebook (K, C) of a tokenizer, after a look at the one stored beside the path.

    Raises:
        CheckpointError: the stored one is damaged or another.
    """
    file = folder / CODEBOOK
    if not file.exists():
        return expected
    try:
        stored = load_file(file)[CODEBOOK_KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} is damaged: {error}", "get the model anew") from error
    if stored.shape != expected.shape or not torch.allclose(stored.to(expected), expected):
        raise CheckpointError(
            f"{file} holds another codebook than the tokenizer's", "use the parts of one model"
        )
    return expected


def path_to_json(path: "ProbabilityPath", shift: float) -> dict[str, Any]:
    """The published ``scheduler_config.json``; alpha is null for the mixture path."""
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath

    alpha, c = (path.alpha, path.c) if isinstance(path, MetricPath) else (None, None)
    config = {
        "_class_name": "KineticOptimalScheduler",
        "alpha": alpha,
        "c": c,
        "eps": 1e-5,
        "shift": shift,
    }
    return {**config, "path": "masked"} if isinstance(path, MaskedPath) else config


def build_path(config: dict[str, Any], codebook: Tensor) -> "ProbabilityPath":
    """The probability path that a ``scheduler_config.json`` describes.

    Raises:
        CheckpointError: alpha or c isn't a positive number.
    """
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.mixture import MixturePath

    if config.get("path") == "masked":
        return MaskedPath(len(codebook))
    alpha, c = config.get("alpha"), config.get("c")
    if alpha is None:
        return MixturePath(len(codebook))
    if not all(isinstance(v, int | float) and 0 < v < math.inf for v in (alpha, c)):
        raise CheckpointError(
            f"scheduler_config.json: alpha {alpha!r} and c {c!r} can't shape a path",
            "give numbers above 0, as 1.0 and 5.0",
        )
    return MetricPath(codebook, float(alpha), float(cast(float, c)))
