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


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without models; returns what points the hub library at an address."""
    from huggingface_hub import constants

    monkeypatch.setenv("URSA_HOME", str(tmp_path / "ursa"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def connect(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    connect("http://127.0.0.1:9")  # discard: nothing listens
    return connect
