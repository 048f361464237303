"""`ursa models`: the models there are, and what each is, from its files alone."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ursa_cli import options, output

if TYPE_CHECKING:
    import torch

    from ursa_core.bundle import BundleSettings
    from ursa_core.grids import LatentGrid, PixelShape, Strides

models = typer.Typer(no_args_is_help=True, help="List the models there are, or show one.")

# Python with torch, transformers and av, before any weight.
_PROCESS_BYTES = 450_000_000


@dataclass(frozen=True)
class Summary:
    """What a model's folder says about it, read without loading its weights."""

    folder: Path
    settings: "BundleSettings"
    transformer: dict[str, Any]
    tokenizer_widths: tuple[int, ...]
    strides: "Strides"
    num_codes: int
    path_kind: str
    alpha: float | None
    c: float | None
    transformer_parameters: int
    tokenizer_parameters: int
    file_bytes: int

    @property
    def solvers(self) -> tuple[str, ...]:
        """Ways to take a step along the model's path, the default first."""
        return ("maskgit",) * (self.path_kind == "masked") + ("integrated", "euler")

    @property
    def grid(self) -> "LatentGrid":
        """Latent grid of the default shape."""
        return self.strides.grid(self.settings.shape)

    def memory_bytes(self, dtype: "torch.dtype", shape: "PixelShape | None" = None) -> int:
        """About what a process that samples one clip of a shape needs at most.

        The larger of two peaks, the network's guided pass and the decoding, over the weights.
        """
        shape = shape or self.settings.shape
        config, size = self.transformer, dtype.itemsize
        tokens = self.settings.max_prompt_length + 1 + self.strides.grid(shape).num_codes
        widths = 8 * config["hidden_size"] + 3 * config["intermediate_size"]
        network = 2 * tokens * widths * size
        # The widest maps of the decoder have the first width at a quarter of the resolution.
        pixels = shape.frames * shape.height * shape.width
        decoding = pixels * 4 * (6 * self.tokenizer_widths[0] / 64 + 12)
        weights = self.transformer_parameters * size + self.tokenizer_parameters * 4
        peak: float = max(network, decoding)
        return _PROCESS_BYTES + weights + round(peak)


def summary(folder: Path) -> Summary:
    """The summary of a model folder.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    from ursa_core.bundle import load_settings, read_json
    from ursa_core.errors import CheckpointError
    from ursa_core.grids import Strides
    from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig

    read_json(folder / "model_index.json")
    transformer = read_json(folder / "transformer" / "config.json")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    known = {key: value for key, value in scheduler.items() if value is not None}
    tokenizer = VideoTokenizerConfig.from_json(read_json(folder / "vae" / "config.json"))
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "lm_head_size"):
        if not isinstance(transformer.get(key), int):
            raise CheckpointError(
                f"{folder / 'transformer' / 'config.json'} has no whole number {key}",
                "get the model anew",
            )
    return Summary(
        folder=folder,
        settings=load_settings(folder),
        transformer=transformer,
        tokenizer_widths=tuple(tokenizer.block_out_channels),
        strides=Strides(tokenizer.temporal_stride, tokenizer.spatial_stride),
        num_codes=transformer["lm_head_size"],
        path_kind=scheduler.get("path") or ("metric" if "alpha" in known else "mixture"),
        alpha=known.get("alpha"),
        c=known.get("c"),
        transformer_parameters=_num_parameters(folder / "transformer"),
        tokenizer_parameters=_num_parameters(folder / "vae"),
        file_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )


@models.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models that come with ursa.

    Examples:
      ursa models list

      ursa models list --json
    """
    output.configure(as_json=as_json)
    from ursa_core.bundle import shipped_models

    found = {name: summary(folder) for name, folder in shipped_models().items()}
    rows = [
        (
            name,
            f"{(s.transformer_parameters + s.tokenizer_parameters) / 1e6:.1f} M",
            f"{s.file_bytes / 1e6:.1f} MB",
            s.settings.shape,
            s.settings.licence,
        )
        for name, s in found.items()
    ]
    header = ("NAME", "PARAMETERS", "SIZE", "SHAPE", "LICENCE")
    payload = {"models": [_payload(name, s) for name, s in found.items()]}
    output.data(payload, lines=output.table(header, rows))


@models.command("show")
def show_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a shipped model, or a model's folder.")
    ],
    as_json: options.Json = False,
) -> None:
    """Show a model's size, path, grid, defaults, licence and need for memory.

    Examples:
      ursa models show nano

      ursa models show nano --json
    """
    output.configure(as_json=as_json)
    options.require_text("model", model)
    from ursa_core.bundle import resolve_model

    folder = resolve_model(model)
    found = summary(folder)
    payload = _payload(folder.name, found)
    settings, config = found.settings, found.transformer
    low, high = settings.guidance_interval
    path = found.path_kind
    if found.alpha is not None:
        path += f", alpha {found.alpha:g}, c {found.c or 0:g}"
    rows = [
        ("name", folder.name),
        ("folder", folder),
        ("size", f"{found.file_bytes / 1e6:.1f} MB"),
        ("transformer", f"{found.transformer_parameters / 1e6:.2f} M parameters"),
        ("", f"{config['num_hidden_layers']} layers of width {config['hidden_size']}"),
        ("video tokenizer", f"{found.tokenizer_parameters / 1e6:.2f} M parameters"),
        ("codes", found.num_codes),
        ("stride", f"{found.strides.temporal} in time, {found.strides.spatial} in space"),
        ("path", path),
        ("prompt", f"at most {settings.max_prompt_length} ids"),
        ("default shape", f"{settings.shape} at {settings.fps:g} fps"),
        ("latent grid", f"{found.grid}, {found.grid.num_codes} codes"),
        ("steps", settings.steps),
        ("guidance", f"{settings.guidance:g} while {low:g} <= t < {high:g}"),
        ("memory", f"about {payload['memory_bytes'] / 1e9:.1f} GB for the default shape"),
        ("licence", settings.licence),
    ]
    output.data(payload, lines=[f"{name:<17}{value}" for name, value in rows])


def _payload(name: str, found: Summary) -> dict[str, Any]:
    import torch

    return {
        "name": name,
        "folder": str(found.folder),
        "file_bytes": found.file_bytes,
        "transformer_parameters": found.transformer_parameters,
        "tokenizer_parameters": found.tokenizer_parameters,
        "num_codes": found.num_codes,
        "temporal_stride": found.strides.temporal,
        "spatial_stride": found.strides.spatial,
        "path": found.path_kind,
        "alpha": found.alpha,
        "c": found.c,
        "grid": [found.grid.frames, found.grid.rows, found.grid.columns],
        "memory_bytes": found.memory_bytes(torch.float32),
        "settings": asdict(found.settings),
    }


def _num_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a folder, from their headers."""
    import math

    from safetensors import SafetensorError, safe_open

    from ursa_core.errors import CheckpointError

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "np") as weights:
                names = weights.keys()
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} is damaged: {error}", "get the model anew") from error
    if not total:
        raise CheckpointError(f"{folder} holds no weights", "get the model anew")
    return total
