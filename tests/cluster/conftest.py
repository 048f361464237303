"""What the recipes for clusters run in."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ursa_on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``ursa`` and ``torchrun`` are those of this Python, on one thread."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, module in (("ursa", "ursa_cli"), ("torchrun", "torch.distributed.run"),
                         ("ray", "ray.scripts.scripts")):  # fmt: skip
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
