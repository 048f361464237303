"""Clip token files: round trip, damage, and writes that leave nothing half done."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ursa_core.errors import DataError
from ursa_core.tokens.token_files import load_tokens, save_tokens

METADATA = {"tokenizer": "abc", "fps": 8.0, "prompt": "ein Löwe", "seed": 3, "size": [64, 48]}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    codes = torch.randint(64_000, (3, 6, 8), generator=torch.Generator().manual_seed(0))
    save_tokens(tmp_path / "clip.safetensors", codes, METADATA)
    return tmp_path / "clip.safetensors", codes


def test_codes_and_metadata_come_back(saved: tuple[Path, torch.Tensor]) -> None:
    path, codes = saved
    loaded = load_tokens(path)
    assert loaded.codes.dtype == torch.int64
    assert torch.equal(loaded.codes, codes)
    assert loaded.metadata == METADATA
    assert loaded.fps == 8.0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_truncation_and_changed_code_is_refused(saved: tuple[Path, torch.Tensor]) -> None:
    path, _ = saved
    whole = path.read_bytes()
    for end in (0, 4, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="can't be read"):
            load_tokens(path)
    path.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])
    with pytest.raises(DataError, match="checksum"):
        load_tokens(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no token file"):
        load_tokens(tmp_path / "absent.safetensors")
    save_file({"codes": torch.zeros(2, 2, 2)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="holds no clip tokens"):
        load_tokens(tmp_path / "weights.safetensors")


def test_others_may_read_as_the_umask_says(saved: tuple[Path, torch.Tensor]) -> None:
    path, _ = saved
    other = path.with_suffix(".txt")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_failed_writes_leave_the_old_file(saved: tuple[Path, torch.Tensor]) -> None:
    path, codes = saved
    with pytest.raises(DataError, match="can't be written"):
        save_tokens(path.parent / "absent" / "x.safetensors", codes, METADATA)
    with pytest.raises(TypeError):
        save_tokens(path, codes, METADATA | {"seed": object()})
    assert torch.equal(load_tokens(path).codes, codes)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
