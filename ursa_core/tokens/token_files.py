"""Codes of one clip in a safetensors file, with metadata."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ursa_core import files
from ursa_core.errors import DataError, unreadable
from ursa_core.files import parse_object
from ursa_core.places import located, regular_file

_KIND = "ursa-clip-tokens"
_DAMAGED = "tokenize the clip again; the file is damaged"


@dataclass(frozen=True)
class TokenFile:
    """Codes of one clip and its metadata."""

    codes: Tensor  # codes on the latent grid, int64 (F, H, W)
    # JSON values, with `tokenizer` (identity of the video tokenizer) and `fps`.
    metadata: dict[str, Any]

    @property
    def fps(self) -> float:
        """Frames per second of the clip in pixels."""
        return float(self.metadata["fps"])


def save_tokens(path: Path | str, codes: Tensor, metadata: Mapping[str, Any]) -> None:
    """Write codes (F, H, W), as int32, and their metadata, with ``tokenizer`` and ``fps``."""
    stored = codes.detach().to("cpu", torch.int32).contiguous()
    header = {"kind": _KIND, "ursa": json.dumps(dict(metadata)), "sha256": _digest(stored)}
    # Not save_file, which lets nobody but the owner read.
    files.write(path, save({"codes": stored}, metadata=header))


def load_tokens(path: Path | str) -> TokenFile:
    """Codes and metadata of a clip; DataError if the file is missing, damaged or something else."""
    path = located(path)
    try:
        with safe_open(regular_file(path), "pt") as file:
            header = file.metadata() or {}
            is_there = "codes" in file.keys()  # noqa: SIM118
            codes: Tensor = file.get_tensor("codes") if is_there else torch.empty(0)
    except FileNotFoundError as error:
        raise DataError(f"there is no token file {path}", "check the path") from error
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error, _DAMAGED) from error
    is_clip = codes.ndim == 3 and codes.dtype in (torch.int32, torch.int64)
    if header.get("kind") != _KIND or not is_clip:
        hint = "give a file that `ursa tokenize CLIP -o` wrote"
        raise DataError(f"{path} holds no clip tokens", hint)
    if header.get("sha256") != _digest(codes):
        raise DataError(f"the codes in {path} don't match their checksum", _DAMAGED)
    try:
        metadata = parse_object(header["ursa"])
        is_whole = isinstance(metadata["tokenizer"], str) and 0 < float(metadata["fps"]) < math.inf
    except (KeyError, TypeError, ValueError) as error:
        fault = f"the metadata of {path} is damaged: {error}"
        raise DataError(fault, "tokenize the clip again") from error
    if not is_whole:
        raise DataError(f"the metadata of {path} has no rate or tokenizer", "tokenize it again")
    return TokenFile(codes.long(), metadata)


def load_tokens_of(path: Path | str, digest: str) -> TokenFile:
    """As ``load_tokens``, of a clip that was made with the tokenizer ``digest``, else DataError."""
    tokens = load_tokens(path)
    if (found := tokens.metadata["tokenizer"]) != digest:
        fault = f"{path} was made with another video tokenizer ({found}, not {digest})"
        raise DataError(fault, "name the model that made it with --model")
    return tokens


def _digest(codes: Tensor) -> str:
    return hashlib.sha256(codes.contiguous().numpy().tobytes()).hexdigest()
