"""Model bundles: a folder in the published layout, with our settings in ``ursa.json`` beside it.

``model_index.json``, ``transformer/``, ``vae/``, ``scheduler/``, ``tokenizer/``: weights are
safetensors, everything else JSON; the published models keep their codebook in a pickle, of which
tensors alone are read. This file joins models, tokenizers and paths, which don't know one another.
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ursa_core.errors import CheckpointError, UsageError
from ursa_core.grids import LatentGrid, PixelShape
from ursa_core.model_folder import is_folder, read_json, shipped_models
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig
from ursa_core.tokenizers.visual import (
    IMAGE_CLASS,
    VIDEO_CLASS,
    VisualTokenizer,
    build_visual_tokenizer,
)
from ursa_core.weights import load_weights, save_tensors, save_weights, write_json

if TYPE_CHECKING:
    from ursa_core.hub_download import Progress
    from ursa_core.models.transformer import Transformer
    from ursa_core.path.base import Path as ProbabilityPath
    from ursa_core.tokenizers.text import TextTokenizer

CODEBOOK = "scheduler_model.safetensors"
PICKLED_CODEBOOK = "scheduler_model.pth"
CODEBOOK_KEY = "path.emb"
_PUBLISHED_MODULES = {VIDEO_CLASS: "autoencoder_vq_cosmos3d", IMAGE_CLASS: "autoencoder_vq"}


@dataclass(frozen=True)
class BundleSettings:
    """What the published layout has no field for; the defaults are the paper's for video.

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


IMAGE_SETTINGS = BundleSettings(frames=1, height=1024, width=1024, steps=25, motion_prefix=False)
"""The paper's defaults for images."""


@dataclass(frozen=True)
class Bundle:
    """A model ready to sample from.

    Args:
        folder: it was read from.
        transformer: predicts codes.
        video_tokenizer: makes pixels of them.
        text_tokenizer: makes ids of prompts.
        path: that the transformer was trained on.
        settings: defaults.
        device: where sampling runs.
        offload: transformer and tokenizer take turns on it, and guidance's halves run one after
            the other.
    """

    folder: Path
    transformer: "Transformer"
    video_tokenizer: VisualTokenizer
    text_tokenizer: "TextTokenizer"
    path: "ProbabilityPath"
    settings: BundleSettings
    device: torch.device
    offload: bool = False

    def take_turn(self, part: "Transformer | VisualTokenizer") -> None:
        """Have a network on the device, and where they take turns the other one off it."""
        if not self.offload:
            return
        for module in (self.transformer, self.video_tokenizer):
            if module is not part:
                module.to("cpu")
        part.to(self.device)

    @property
    def name(self) -> str:
        """Name of the model, at its commit if it came from the hub."""
        from ursa_core.hub import name_of

        return name_of(self.folder, exact=True)

    def grid(self, shape: PixelShape) -> LatentGrid:
        """Latent grid of a pixel shape; raises ``ShapeError`` if it doesn't fit the strides."""
        return self.video_tokenizer.strides.grid(shape)


def resolve_model(
    model: str | Path, progress: "Progress | None" = None, *, may_download: bool = True
) -> Path:
    """Folder of a model: a shipped name, else an existing folder, else a Hugging Face id.

    Args:
        model: name, path or ``owner/name``, at a revision with ``@revision`` behind it.
        progress: told of a download.
        may_download: False looks on this machine alone.

    Raises:
        CheckpointError: there is no such model, or it can't be had.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    if is_folder(model):
        return Path(model)
    from ursa_core import hub

    wanted = hub.parse_id(str(model))
    if wanted is None:
        names = ", ".join(shipped) or "none"
        raise CheckpointError(
            f"there is no model {str(model)!r}: no shipped name, folder or Hugging Face id",
            f"shipped models: {names}; or give a model folder, or an id as owner/name",
        )
    return hub.find(wanted, progress, may_download=may_download)


def save_tokenizer(folder: Path, config: VideoTokenizerConfig, weights: dict[str, Tensor]) -> None:
    """Write the video tokenizer of a bundle, in float16."""
    save_weights(folder / "vae", config.to_json(), weights, torch.float16)


def load_tokenizer(
    model: str | Path, device: torch.device | str = "cpu"
) -> tuple[VisualTokenizer, BundleSettings, str]:
    """The video or image tokenizer of a bundle in float32, its settings, and its identity.

    The identity is a hash of configuration and weights: codes mean the same only under one.

    Raises:
        CheckpointError: a file is missing or damaged, or describes no tokenizer of ours.
    """
    folder = resolve_model(model)
    config = read_json(folder / "vae" / "config.json")
    with torch.device("meta"):
        tokenizer = build_visual_tokenizer(config)
    load_weights(tokenizer, folder / "vae", device)
    return tokenizer.eval(), load_settings(folder), tokenizer_identity(folder)


def tokenizer_identity(folder: Path) -> str:
    """Sixteen hex digits that change with the tokenizer's configuration or weights."""
    digest = hashlib.sha256()
    for file in (folder / "vae" / "config.json", *sorted((folder / "vae").glob("*.safetensors"))):
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()[:16]


def load_settings(folder: Path) -> BundleSettings:
    """Settings of a bundle; for what its ``ursa.json`` lacks the published defaults hold.

    Those are the paper's, for video or for images, with the time shift of the bundle's scheduler.

    Raises:
        CheckpointError: a file is damaged or a value can't be used.
    """
    tokenizer = read_json(folder / "vae" / "config.json")
    is_image = tokenizer.get("_class_name") == IMAGE_CLASS
    settings = IMAGE_SETTINGS if is_image else BundleSettings()
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.exists():
        content = read_json(scheduler)
        given = {"shift": content["shift"]} if "shift" in content else {}
        settings = _with_settings(settings, given, scheduler)
    file = folder / "ursa.json"
    return _with_settings(settings, read_json(file), file) if file.exists() else settings


def _with_settings(settings: BundleSettings, content: dict[str, Any], file: Path) -> BundleSettings:
    """Settings changed to what a file gives."""
    known: dict[str, Any] = {}
    for field in fields(BundleSettings):
        if field.name not in content:
            continue
        value = content[field.name]
        if not _is_setting(value, field.default):
            raise CheckpointError(
                f"{file}: {field.name} can't be {value!r}",
                f"give a value such as {field.default!r}",
            )
        known[field.name] = tuple(value) if isinstance(value, list) else value
    return replace(settings, **known)


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
    tokenizer_class = read_json(folder / "vae" / "config.json")["_class_name"]
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
                f"diffnext.models.autoencoders.{_PUBLISHED_MODULES[tokenizer_class]}",
                tokenizer_class,
            ],
        },
    )


def load_bundle(
    model: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    offload: bool = False,
    compiled: bool = False,
) -> Bundle:
    """Read a model folder, or a shipped model by name.

    Args:
        model: folder or name.
        device: of the networks.
        dtype: of the transformer; the tokenizer stays in float32.
        offload: save the device's memory: its networks take turns.
        compiled: run the transformer's layers through ``torch.compile``.

    Raises:
        CheckpointError: a part is missing, damaged or of another kind.
    """
    from ursa_core.models.transformer import Transformer, TransformerConfig
    from ursa_core.tokenizers.text import TextTokenizer

    folder = resolve_model(model)
    read_json(folder / "model_index.json")
    video_tokenizer, settings, _ = load_tokenizer(folder, "cpu" if offload else device)
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
    with torch.device("meta"):
        transformer = Transformer(config)
    load_weights(transformer, folder / "transformer", device, dtype)
    text_tokenizer = TextTokenizer.load(folder / "tokenizer", settings.max_prompt_length)
    if text_tokenizer.max_id >= config.lm_vocab_size:
        raise CheckpointError(
            f"{folder}: the text tokenizer has the id {text_tokenizer.max_id},"
            f" the transformer {config.lm_vocab_size} text ids",
            "use the parts of one model",
        )
    if compiled:
        transformer.model.compile()
    return Bundle(
        folder,
        transformer.eval(),
        video_tokenizer,
        text_tokenizer,
        path,
        settings,
        torch.device(device),
        offload,
    )


def stored_codebook(folder: Path, expected: Tensor) -> Tensor:
    """The codebook that a path was trained with: the one stored beside it, else the tokenizer's.

    The published models store theirs in float16; their paths have seen that rounding.

    Args:
        folder: of the scheduler.
        expected: float32 (K, C) vectors of the tokenizer's codes.

    Returns:
        float32 (K, C), on the device of ``expected``.

    Raises:
        CheckpointError: the stored one is damaged or another.
    """
    found = _read_codebook(folder)
    if found is None:
        return expected
    file, stored = found
    stored = stored.to(expected)
    tolerance = 2.0**-8  # that of bfloat16, the coarsest that a codebook may be stored in
    scale = float(expected.abs().max())
    if stored.shape != expected.shape or not torch.allclose(
        stored, expected, rtol=tolerance, atol=tolerance * scale
    ):
        raise CheckpointError(
            f"{file} holds another codebook than the tokenizer's", "use the parts of one model"
        )
    return stored


def _read_codebook(folder: Path) -> tuple[Path, Tensor] | None:
    """The file of a stored codebook and the tensor in it, if there is one."""
    file = folder / CODEBOOK
    try:
        if file.exists():
            return file, load_file(file)[CODEBOOK_KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{file} is damaged: {error}", "get the model anew") from error
    file = folder / PICKLED_CODEBOOK
    if not file.exists():
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles surface as many kinds
        raise CheckpointError(
            f"{file} can't be read: it is damaged, or holds more than tensors",
            "get the model anew, from a source that you trust",
        ) from error
    stored = content.get(CODEBOOK_KEY) if isinstance(content, dict) else None
    if not isinstance(stored, Tensor) or stored.layout != torch.strided:
        raise CheckpointError(f"{file} has no tensor {CODEBOOK_KEY}", "get the model anew")
    return file, stored


def path_to_json(path: "ProbabilityPath", shift: float) -> dict[str, Any]:
    """The published ``scheduler_config.json``; alpha is null where the path has none."""
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.schedules import LinearSchedule, PowerSchedule

    config: dict[str, Any] = {
        "_class_name": "KineticOptimalScheduler",
        "alpha": None,
        "c": None,
        "eps": 1e-5,
        "shift": shift,
    }
    schedule = path.schedule if isinstance(path, MetricPath) else None
    if isinstance(schedule, PowerSchedule):
        return {**config, **asdict(schedule)}
    if isinstance(schedule, LinearSchedule):
        return {**config, "path": "linear", "schedule": asdict(schedule)}
    return {**config, "path": "masked"} if isinstance(path, MaskedPath) else config


def build_path(config: dict[str, Any], codebook: Tensor) -> "ProbabilityPath":
    """The probability path that a ``scheduler_config.json`` describes.

    A linear path without a ``schedule`` gets the one that its codebook asks for.

    Raises:
        CheckpointError: alpha, c or the schedule can't shape a path.
    """
    from ursa_core.path.calibration import distance_curve
    from ursa_core.path.masked import MaskedPath
    from ursa_core.path.metric import MetricPath
    from ursa_core.path.mixture import MixturePath
    from ursa_core.path.schedules import LinearSchedule, PowerSchedule

    kind, alpha, c = config.get("path"), config.get("alpha"), config.get("c")
    if kind == "masked":
        return MaskedPath(len(codebook))
    try:
        if kind == "linear" and config.get("schedule") is None:
            return MetricPath(codebook, LinearSchedule.of(distance_curve(codebook)))
        if kind == "linear":
            table = {name: tuple(map(float, v)) for name, v in config["schedule"].items()}
            return MetricPath(codebook, LinearSchedule(**table))
        if alpha is None:
            return MixturePath(len(codebook))
        return MetricPath(codebook, PowerSchedule(*(_number(v) for v in (alpha, c))))
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        what = "schedule" if kind == "linear" else f"alpha {alpha!r} and c {c!r}"
        raise CheckpointError(
            f"scheduler_config.json: its {what} can't shape a path",
            "give numbers above 0, as 1.0 and 5.0, or get the model anew",
        ) from error


def _number(value: object) -> float:
    """A number of JSON, which neither a text nor a truth value is.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)
