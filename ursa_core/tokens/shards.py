"""Token shards: Parquet files of flat codes with captions, for training.

One row per clip: ``codes`` (list of int32, flat, frame by frame, row by row), ``grid`` (latent
frames, rows, columns), ``captions``, ``fps``, ``motion``, ``source`` and ``origin``, the file
of the clip (null where it has none). Rows lie in groups of about a megabyte, which are read
separately.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ursa_core.errors import DataError
from ursa_core.files import parse_object
from ursa_core.grids import LatentGrid
from ursa_core.places import located, regular_file

RECORD_KEY = b"ursa"
CACHE_BYTES = 256 << 20
ORIGIN = pa.struct(
    {"path": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64(), "digest": pa.string()}
)
SCHEMA = pa.schema(
    [
        pa.field("codes", pa.list_(pa.int32()), nullable=False),
        pa.field("grid", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("fps", pa.float32(), nullable=False),
        pa.field("motion", pa.float32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("origin", ORIGIN),
    ]
)
_NAME = re.compile(r"shard-(\d+-of-\d+-)?\d{5,}\.parquet")
_SIDE_BITS = 20


@dataclass(frozen=True)
class TokenIdentity:
    """The video tokenizer that codes belong to."""

    tokenizer: str  # digest of its configuration and weights
    num_codes: int  # size of its codebook
    levels: tuple[int, ...]  # FSQ levels, empty for a learned codebook
    temporal_stride: int  # frames per latent frame
    spatial_stride: int  # pixels per latent row and column


def read_shards(*folders: Path | str) -> "TokenTable":
    """The clips of folders of shards; a DataError if one has none, or they don't fit each other."""
    paths: list[Path] = []
    for folder in folders:
        paths += (found := shard_paths(located(folder)))
        if not found:
            hint = "make some with `ursa tokenize`"
            raise DataError(f"there is no token shard in {folder}", hint)
    identity = _identity(paths[0])
    if other := next((path for path in paths[1:] if _identity(path) != identity), None):
        fault = f"{paths[0]} and {other} belong to different tokenizers"
        raise DataError(fault, "train on the shards of one tokenizer")
    table = TokenTable(paths, identity)
    if not len(table):
        named = ", ".join(map(str, folders))
        raise DataError(f"the shards in {named} hold no clip", "run `ursa tokenize` again")
    return table


class _Group(NamedTuple):
    """A decoded group of rows: their flat codes, where each row begins, and the other columns."""

    codes: NDArray[np.int32]
    begins: NDArray[np.int64]
    rest: pa.Table

    @property
    def num_bytes(self) -> int:
        return sum(int(part.nbytes) for part in self)


class TokenTable:
    """Clips of one or more shards, by row number; made by :func:`read_shards`.

    Grids and motions are read at first, the rest of a group of rows when one of them is asked for.
    Safe for several threads. The groups used last, of ``cache_bytes`` together, stay decoded.
    """

    def __init__(self, paths: Sequence[Path], identity: TokenIdentity) -> None:
        self.identity, self.cache_bytes = identity, CACHE_BYTES
        # First row of each folder, its end, and its number of rows without a caption.
        self.folders: dict[Path, tuple[int, int, int]] = {}
        self._places: list[tuple[Path, int]] = []
        sizes: list[int] = []
        tables: list[pa.Table] = []
        digest = hashlib.sha256()
        for path in paths:
            begin, end, without = self.folders.get(path.parent, (sum(sizes), sum(sizes), 0))
            with _opened(path) as file:
                for group in range(file.metadata.num_row_groups):
                    self._places.append((path, group))
                    about = file.metadata.row_group(group)
                    sizes.append(about.num_rows)
                    digest.update(str(about.column(0).total_compressed_size).encode())  # codes
                columns = ["grid", "motion", "captions", "source", "origin.digest"]
                rows = file.read(columns, use_threads=False)
            without += pc.sum(pc.equal(pc.list_value_length(rows["captions"]), 0)).as_py() or 0
            self.folders[path.parent] = begin, end + rows.num_rows, without
            digest.update(str(rows.num_rows).encode())
            for batch in rows.to_batches():
                digest.update(batch.serialize())
            tables.append(rows.select(["grid", "motion"]))
        self.num_uncaptioned = sum(without for *_, without in self.folders.values())
        self.digest = digest.hexdigest()[:16]  # of the clips, their captions and their order
        columns = pa.concat_tables([table.replace_schema_metadata() for table in tables])
        self.group_starts = np.cumsum([0, *sizes])  # first row of each group, and the end
        self.motions = columns["motion"].to_numpy()  # of each row, float32
        flat = columns["grid"].combine_chunks().flatten().to_numpy()
        sides = flat.astype(np.int64).reshape(-1, 3)
        # One number per grid: sorting numbers is far faster than sorting rows.
        keys = (sides[:, 0] << 2 * _SIDE_BITS) | (sides[:, 1] << _SIDE_BITS) | sides[:, 2]
        found, first, kinds, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        self._grid_kinds = [LatentGrid(*map(int, sides[row])) for row in first]
        self._grid_of = kinds.astype(np.uint16 if len(found) < 1 << 16 else np.int64)
        # Latent grids that occur, most frequent first.
        self.grids = [self._grid_kinds[kind] for kind in np.argsort(-counts, kind="stable")]
        self._decoded: OrderedDict[int, _Group] = OrderedDict()
        self._decoded_bytes, self._lock = 0, Lock()

    def __len__(self) -> int:
        return int(self.group_starts[-1])

    def rows(self, grid: LatentGrid) -> NDArray[np.int64]:
        """Numbers of the rows with a grid, ascending: int64 (n,)."""
        if grid not in self._grid_kinds:
            return np.empty(0, np.int64)
        return np.flatnonzero(self._grid_of == self._grid_kinds.index(grid))

    def grid(self, index: int) -> LatentGrid:
        """Latent grid of a row."""
        return self._grid_kinds[int(self._grid_of[index])]

    def codes(self, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Tensor:
        """Codes of rows that share one grid: int64 (n, L)."""
        return torch.from_numpy(np.stack([self.row_codes(int(k)) for k in indices])).long()

    def row_codes(self, index: int) -> NDArray[np.int32]:
        """Codes of a row, flat and read-only: int32 (L,)."""
        group, place = self._group_of(index)
        begin = group.begins[place]
        return group.codes[begin : begin + self.grid(index).num_codes]

    def captions(self, index: int) -> list[str]:
        """Captions of a row; may be empty."""
        return list(self._field("captions", index))

    def source(self, index: int) -> str:
        """Name of the clip of a row."""
        return str(self._field("source", index))

    def all_captions(self) -> Iterator[str]:
        """The captions of all rows, read group by group."""
        for path, number in self._places:
            yield from pc.list_flatten(_read_group(path, number, ["captions"])[0]).to_pylist()

    def _field(self, name: str, index: int) -> Any:
        group, place = self._group_of(index)
        return group.rest[name][place].as_py()

    def _group_of(self, index: int) -> tuple[_Group, int]:
        """The decoded group of a row, and the row's place in it."""
        number = int(np.searchsorted(self.group_starts, index, side="right")) - 1
        with self._lock:
            found = self._decoded.get(number)
            if found is not None:
                self._decoded.move_to_end(number)
        if found is None:
            found = self._decode(number)
            with self._lock:
                if self._decoded.setdefault(number, found) is found:
                    self._decoded_bytes += found.num_bytes
                while self._decoded_bytes > self.cache_bytes and len(self._decoded) > 1:
                    _, oldest = self._decoded.popitem(last=False)
                    self._decoded_bytes -= oldest.num_bytes
        return found, int(index - self.group_starts[number])

    def _decode(self, number: int) -> _Group:
        path, group = self._places[number]
        table = _read_group(path, group, [name for name in SCHEMA.names if name != "origin"])
        column = table["codes"].combine_chunks()
        lengths = column.value_lengths().to_numpy()
        values = column.flatten().to_numpy()
        kinds = self._grid_of[self.group_starts[number] : self.group_starts[number + 1]]
        if not np.array_equal(lengths, [self._grid_kinds[kind].num_codes for kind in kinds]):
            raise _damaged(path, ValueError("codes and grids don't match"))
        if values.size and not 0 <= values.min() <= values.max() < self.identity.num_codes:
            raise _damaged(path, ValueError("codes are out of range"))
        return _Group(values, np.cumsum(lengths) - lengths, table.drop_columns(["codes", "grid"]))


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of a folder, in order."""
    return sorted(path for path in folder.glob("shard-*.parquet") if _NAME.fullmatch(path.name))


def open_shard(path: Path) -> dict[str, Any]:
    """The record of a shard: ``identity``, ``options`` and ``version``."""
    with _opened(path) as file:
        schema = file.schema_arrow
    if not schema.equals(SCHEMA) or RECORD_KEY not in (schema.metadata or {}):
        raise DataError(f"{path} isn't a token shard", "give a folder that `ursa tokenize` wrote")
    try:
        return parse_object(schema.metadata[RECORD_KEY])
    except ValueError as error:
        raise _damaged(path, error) from error


def read_columns(path: Path, *columns: str) -> pa.Table:
    """The named columns of a shard; all columns where none is named."""
    with _opened(path) as file:
        return file.read(columns or None)


def _read_group(path: Path, number: int, columns: list[str]) -> pa.Table:
    with _opened(path) as file:
        return file.read_row_group(number, columns, use_threads=False)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, never a data set of the folder's files; damage becomes a DataError."""
    try:
        path = regular_file(path)
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{path} can't be read: {error.strerror}", "make it readable")
    return DataError(f"{path} is damaged: {error}", "delete it and run `ursa tokenize` again")


def _identity(path: Path) -> TokenIdentity:
    record = open_shard(path)
    try:
        fields = dict(record["identity"])
        return TokenIdentity(**{**fields, "levels": tuple(fields["levels"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
