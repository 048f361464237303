"""Token shards: Parquet files of flat codes with captions, for training.

One row a clip: ``codes`` (list of int32, flat, frame by frame, row by row), ``grid`` (latent
frames, rows, columns), ``captions``, ``fps``, ``motion`` and ``source``. Every shard names the
video tokenizer that its codes belong to.
"""

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.errors import DataError
from ursa_core.grids import LatentGrid

RECORD_KEY = b"ursa"
SCHEMA = pa.schema(
    [
        pa.field("codes", pa.list_(pa.int32()), nullable=False),
        pa.field("grid", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("fps", pa.float32(), nullable=False),
        pa.field("motion", pa.float32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class TokenIdentity:
    """The video tokenizer that codes belong to.

    Attributes:
        tokenizer: digest of its configuration and weights.
        num_codes: codes of its codebook.
        levels: FSQ levels, empty for a learned codebook.
        temporal_stride: frames per latent frame.
        spatial_stride: pixels per latent row and column.
    """

    tokenizer: str
    num_codes: int
    levels: tuple[int, ...]
    temporal_stride: int
    spatial_stride: int


def read_shards(*folders: Path | str) -> "TokenTable":
    """The clips of one or more folders of shards.

    Captions and grids are read now; the codes of a shard when they are first asked for, and kept.

    Raises:
        DataError: a folder has no shard, one is damaged, or they belong to different tokenizers.
    """
    paths: list[Path] = []
    for folder in map(Path, folders):
        found = shard_paths(folder)
        if not found:
            raise DataError(
                f"there is no token shard in {folder}", "make some with `ursa tokenize`"
            )
        paths += found
    identities: list[TokenIdentity] = []
    for path in paths:
        identity = _identity(path)
        if identities and identity != identities[0]:
            raise DataError(
                f"{paths[0]} and {path} belong to different tokenizers",
                "train on the shards of one tokenizer",
            )
        identities.append(identity)
    table = TokenTable(paths, identities[0])
    if not len(table):
        named = ", ".join(map(str, folders))
        raise DataError(f"the shards in {named} hold no clip", "run `ursa tokenize` again")
    return table


class TokenTable:
    """Clips of one or more shards, by row number; made by :func:`read_shards`.

    Attributes:
        identity: the tokenizer of all codes.
        grids: the latent grids that occur, most frequent first.
    """

    def __init__(self, paths: Sequence[Path], identity: TokenIdentity) -> None:
        self.identity = identity
        self._paths = list(paths)
        names = [name for name in SCHEMA.names if name != "codes"]
        parts = [read_columns(path, names) for path in paths]
        self._starts = list(np.cumsum([0] + [len(part) for part in parts]))
        self._table = pa.concat_tables(part.replace_schema_metadata(None) for part in parts)
        self._shapes = _int_rows(self._table["grid"], 3)
        found, self._grid_of, counts = np.unique(
            self._shapes, axis=0, return_inverse=True, return_counts=True
        )
        self._grid_of = self._grid_of.reshape(-1)
        self._grid_kinds = [LatentGrid(*map(int, shape)) for shape in found]
        self.grids = [self._grid_kinds[kind] for kind in np.argsort(-counts, kind="stable")]
        self._codes: dict[int, tuple[NDArray[np.int32], NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        return len(self._table)

    def rows(self, grid: LatentGrid) -> NDArray[np.int64]:
        """Numbers of the rows with this grid, ascending: int64 (n,)."""
        if grid not in self._grid_kinds:
            return np.empty(0, np.int64)
        return np.flatnonzero(self._grid_of == self._grid_kinds.index(grid))

    def grid(self, index: int) -> LatentGrid:
        """Latent grid of a row."""
        return self._grid_kinds[int(self._grid_of[index])]

    def codes(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Tensor:
        """Codes of rows that share one grid: int64 (n, L).

        Raises:
            DataError: a shard that holds one of them is damaged.
        """
        numbers = [int(index) for index in indices]
        if any(not 0 <= number < len(self) for number in numbers):
            raise IndexError(f"row numbers go from 0 to {len(self) - 1}")
        kinds = {int(self._grid_of[number]) for number in numbers}
        if len(kinds) != 1:
            raise ValueError(f"rows of {len(kinds)} grids can't be stacked; ask for one grid")
        length = self._grid_kinds[kinds.pop()].num_codes
        out = np.empty((len(numbers), length), np.int64)
        for place, number in enumerate(numbers):
            shard = bisect.bisect_right(self._starts, number) - 1
            values, offsets = self._shard_codes(shard)
            first = offsets[number - self._starts[shard]]
            out[place] = values[first : first + length]
        return torch.from_numpy(out)

    def captions(self, index: int) -> list[str]:
        """Captions of a row; may be empty."""
        captions: list[str] = self._table["captions"][index].as_py()
        return captions

    def fps(self, index: int) -> float:
        """Frames a second at which a row was sampled."""
        return float(self._table["fps"][index].as_py())

    def motion(self, index: int) -> float:
        """How much a row moves, in [0, 1]."""
        return float(self._table["motion"][index].as_py())

    def source(self, index: int) -> str:
        """Name of the clip that a row was made of."""
        return str(self._table["source"][index].as_py())

    def _shard_codes(self, shard: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All codes of a shard, flat, and where each row begins."""
        if shard not in self._codes:
            path = self._paths[shard]
            column = read_columns(path, ["codes"])["codes"].combine_chunks()
            lengths = column.value_lengths().to_numpy()
            values = column.flatten().to_numpy()
            here = slice(self._starts[shard], self._starts[shard + 1])
            if not np.array_equal(lengths, self._shapes[here].prod(axis=1)):
                raise _damaged(path, ValueError("codes and grids don't match"))
            if values.size and not 0 <= values.min() <= values.max() < self.identity.num_codes:
                raise _damaged(path, ValueError("codes are out of range"))
            self._codes[shard] = (values, np.cumsum(lengths) - lengths)
        return self._codes[shard]


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(folder.glob("shard-[0-9][0-9][0-9][0-9][0-9].parquet"))


def open_shard(path: Path) -> dict[str, Any]:
    """The record of a shard: ``identity``, ``options`` and ``version``.

    Raises:
        DataError: the file is damaged or no token shard.
    """
    try:
        schema = pq.read_schema(path, memory_map=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    if not schema.equals(SCHEMA) or RECORD_KEY not in (schema.metadata or {}):
        raise DataError(f"{path} isn't a token shard", "give a folder that `ursa tokenize` wrote")
    try:
        record: dict[str, Any] = json.loads(schema.metadata[RECORD_KEY])
    except ValueError as error:
        raise _damaged(path, error) from error
    return record


def read_columns(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of a shard.

    Raises:
        DataError: the file is damaged.
    """
    try:
        # The file itself, never a data set: a folder's other files don't matter here.
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            return file.read(columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged: {error}", "delete it and run `ursa tokenize` again")


def _int_rows(column: pa.ChunkedArray, width: int) -> NDArray[np.int64]:
    """A column of fixed-size lists as int64 (rows, width)."""
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.int64), *chunks]).astype(np.int64).reshape(-1, width)


def _identity(path: Path) -> TokenIdentity:
    record = open_shard(path)
    try:
        fields = dict(record["identity"])
        return TokenIdentity(**{**fields, "levels": tuple(fields["levels"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
