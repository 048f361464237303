"""What tests of several folders share."""

import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def published_image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's random image checkpoint, whole, of its golden parts; copy it to change it."""
    folder = tmp_path_factory.mktemp("models") / "published_image"
    no_outputs = shutil.ignore_patterns("expected.*")
    shutil.copytree(GOLDEN / "published_image", folder, ignore=no_outputs)
    shutil.copytree(GOLDEN / "published_transformer", folder / "transformer", ignore=no_outputs)
    shutil.copytree(GOLDEN / "published_text" / "tokenizer", folder / "tokenizer")
    return folder
