"""Codebooks to calibrate a path for: the published one, a model's, or a file of vectors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ursa_core.bundle.bundle import load_tokenizer, resolve_model
from ursa_core.bundle.folder import read_json
from ursa_core.configs import PUBLISHED_LEVELS, VIDEO_CLASS
from ursa_core.errors import CheckpointError, DataError, regular_file, unreadable
from ursa_core.tokenizers.quantizers import FiniteScalarQuantizer
from ursa_core.tokenizers.video_fsq import VideoTokenizerConfig
from ursa_core.tokens.shards import read_shards

COSMOS = "cosmos"
"""Name of the FSQ codebook of the published video models, which its levels define."""


@dataclass(frozen=True)
class Codebook:
    """Vectors of codes, float32 (K, C), and the name of the model that they are of, if any.

    ``num_twins`` codes have the direction of another one, which the path can't distinguish.
    """

    vectors: Tensor
    model: str | None
    num_twins: int


def load_codebook(source: str) -> Codebook:
    """The codebook of ``cosmos``, of a model, or of a ``.npy`` or ``.safetensors`` file.

    Raises:
        CheckpointError: There is no such source, or the file is damaged or isn't one matrix.
        UsageError: The vectors can't make a path (the metric path checks them).
    """
    model = None
    if source == COSMOS:
        vectors = FiniteScalarQuantizer(list(PUBLISHED_LEVELS)).codebook
    elif Path(source).suffix.lower() in (".npy", ".safetensors"):
        vectors = _read_vectors(Path(source))
    else:
        model, vectors = source, _vectors_of_model(source)
    return Codebook(vectors, model, _num_twins(vectors))


def _vectors_of_model(model: str) -> Tensor:
    """Codebook of a model folder; an FSQ one without reading any weights."""
    config = read_json(resolve_model(model) / "vae" / "config.json")
    if config.get("_class_name") == VIDEO_CLASS:
        levels = VideoTokenizerConfig.from_json(config).levels
        return FiniteScalarQuantizer(list(levels)).codebook
    return load_tokenizer(model)[0].codebook.detach()


def _read_vectors(file: Path) -> Tensor:
    try:
        if file.suffix.lower() == ".npy":
            arrays = [torch.from_numpy(np.load(regular_file(file), allow_pickle=False))]
        else:
            arrays = [t for t in load_file(regular_file(file)).values() if t.ndim == 2]
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {file}", "give the codebook's file") from error
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        hint = "give a .npy or .safetensors file of numbers"
        raise unreadable(file, error, hint, CheckpointError) from error
    if len(arrays) != 1 or arrays[0].ndim != 2:
        raise CheckpointError(
            f"{file} holds {len(arrays)} matrices of shape {[tuple(a.shape) for a in arrays]}",
            "give a file with one matrix (codes, dimensions)",
        )
    return arrays[0].float()


def _num_twins(vectors: Tensor) -> int:
    """Number of codes whose normalised vector equals another's to 1e-5 per component."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1, eps=1e-5)
    if not bool(unit.isfinite().all()):
        return 0  # refused where the path is made
    # Sorting one random projection brings equal directions together; near ones are compared.
    direction = torch.randn(unit.shape[1], generator=torch.Generator().manual_seed(0)).double()
    order = (unit @ direction).argsort()
    ordered = unit[order]
    same = (ordered.diff(dim=0).abs() < 1e-5).all(1)
    is_twin = torch.zeros(len(unit), dtype=torch.bool)
    is_twin[1:] |= same
    is_twin[:-1] |= same
    return int(is_twin.sum())


def count_codes(shards: str | Path, num_codes: int) -> Tensor:
    """Counts of each code in a folder of token shards, float64 (K,).

    Shards that belong to a codebook of another size, or hold nothing, are a `DataError`.
    """
    table = read_shards(shards)
    theirs = table.identity.num_codes
    if theirs != num_codes:
        raise DataError(
            f"the shards in {shards} have {theirs} codes, the codebook {num_codes}",
            "give shards of the same tokenizer",
        )
    counts = torch.zeros(num_codes, dtype=torch.float64)
    for grid in table.grids:
        for rows in np.array_split(table.rows(grid), len(table) // 1000 + 1):
            if len(rows):
                counts += table.codes(rows).flatten().bincount(minlength=num_codes)
    return counts
