"""LPIPS and FVD against others' code and formulas, and what is said where weights are absent."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from ursa_cli.main import main
from ursa_core.errors import CheckpointError
from ursa_core.evaluation.measures.networks import (
    I3D,
    Lpips,
    Networks,
    Published,
    frechet_distance,
)
from ursa_core.grids import PixelShape

Captured = pytest.CaptureFixture[str]


def fill_with_waves_(module: nn.Module) -> None:
    """Tensors that any code can make again, in the order of their names."""
    for k, (name, tensor) in enumerate(sorted(module.state_dict().items())):
        if tensor.dtype == torch.int64:
            continue
        count = torch.arange(tensor.numel(), dtype=torch.float64)
        wave = count.mul(0.7 + k * 0.01).sin().view(tensor.shape)
        if name.endswith("running_var"):
            wave = 1 + wave / 2
        elif tensor.ndim > 3:
            wave = wave * (2 / tensor[0].numel()) ** 0.5
        else:
            wave = 1 + wave / 4 if name.endswith("bn.weight") else wave / 4
        tensor.copy_(wave.float())


def save(module: Published) -> None:
    """Its tensors in the old format of torch, in which the published files are."""
    fill_with_waves_(module)
    file = module.path()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(module.state_dict()), file, _use_new_zipfile_serialization=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("size", [(31, 31), (45, 83)])
def test_lpips_is_that_of_torchmetrics(
    size: tuple[int, int], hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Lpips())
    ours = Lpips.load(torch.device("cpu"))
    # torchmetrics takes AlexNet from torchvision: these are its layers, with our file's weights.
    layers: list[nn.Module] = []
    for name, convolution in ours.features.items():
        layers += [nn.MaxPool2d(3, 2)] if name in ("3", "6") else []
        layers += [convolution, nn.ReLU()]
    monkeypatch.setattr(
        torchmetrics_lpips, "_get_tv_model_features", lambda *_: nn.Sequential(*layers)
    )
    theirs = torchmetrics_lpips._LPIPS(net="alex")
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (17, *size, 3), np.uint8) for _ in range(2))
    first, second = (torch.tensor(each).permute(0, 3, 1, 2) / 127.5 - 1 for each in (a, b))
    with torch.inference_mode():
        expected = float(theirs(first, second).mean())
    assert expected > 0.001
    assert ours.distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert ours.distance(a, a) == 0


def test_i3d_is_that_of_the_published_weights() -> None:
    """Expected values: the same waves in piergiaj/pytorch-i3d at 05783d1, ``model(x).mean(2)``."""
    made = I3D().eval()
    fill_with_waves_(made)
    names = [name for name in made.state_dict() if not name.endswith("num_batches_tracked")]
    assert len(names) == 287
    assert "Mixed_5c.b2b.conv3d.weight" in names
    video = torch.arange(3 * 9 * 224 * 224, dtype=torch.float64).mul(0.013).sin()
    with torch.inference_mode():
        logits = made(video.view(1, 3, 9, 224, 224).float())[0]
    expected = [0.0255479, -0.2585082, 0.1181935, -0.1950989, -0.3083360]
    assert logits[:5].tolist() == pytest.approx(expected, abs=1e-5)
    assert float(logits.norm()) == pytest.approx(4.0856528, abs=1e-4)


def test_frechet_distance_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (60, 8)) @ rng.normal(0, 1, (8, 8))
    b = rng.normal(0.5, 1, (50, 8)) @ rng.normal(0, 1, (8, 8))
    of_a, of_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(
        of_a + of_b - 2 * sqrtm(of_a @ of_b).real
    )
    assert frechet_distance(list(a), list(b)) == pytest.approx(expected)
    assert frechet_distance(list(a), list(a)) == pytest.approx(0, abs=1e-9)
    # Fewer vectors than dimensions: moving all of them changes the means alone.
    few = rng.normal(0, 1, (3, 400))
    assert frechet_distance(list(few), list(few + 0.1)) == pytest.approx(4)


RECONSTRUCTION = ["eval", "reconstruction", "--device", "cpu", "--limit", "2", "--frames", "9"]


def test_reconstruction_takes_the_weights_that_are_there(
    hub: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main([*RECONSTRUCTION, "-o", str(tmp_path / "without")]) == 0
    shown = capsys.readouterr().out
    assert f"lpips is not measured: {hub / 'alexnet-owt-7be5be79.pth'} isn't there; get " in shown
    assert f"fvd is not measured: {hub / 'rgb_imagenet.pt'} isn't there" in shown
    assert not hub.exists()  # nothing is downloaded
    save(Lpips())
    assert main([*RECONSTRUCTION, "-o", str(tmp_path / "with"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (score,) = (score for score in report["scores"] if score["name"] == "lpips")
    assert 0 < score["low"] <= score["value"] <= score["high"]
    values = [sample["values"]["lpips"] for sample in report["samples"]]
    assert score["value"] == pytest.approx(sum(values) / 2)
    assert report["settings"]["lpips"].startswith("alexnet-owt-7be5be79.pth, ")
    small = Networks(PixelShape(5, 16, 16), torch.device("cpu"))
    assert small.notes == [
        "lpips is not measured: it needs 31 pixels a side.",
        "fvd is not measured: it needs 9 frames.",
    ]
    assert small.fvd is None


@pytest.mark.slow
def test_reconstruction_measures_fvd(hub: Path, tmp_path: Path, capsys: Captured) -> None:
    save(I3D())
    assert main([*RECONSTRUCTION, "-o", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (score,) = (score for score in report["scores"] if score["name"] == "fvd")
    assert score["value"] > 0
    assert score["num"] == 2
    assert not any("fvd" in note for note in report["notes"])


def test_damaged_and_other_weights_are_refused(hub: Path, tmp_path: Path, capsys: Captured) -> None:
    save(Lpips())
    content = Lpips.path().read_bytes()
    given = ["eval", "reconstruction", "--device", "cpu", "--limit", "1", "-o", str(tmp_path / "o")]
    for damaged in (content[: len(content) // 2], b"<html>404</html>", b""):
        Lpips.path().write_bytes(damaged)
        assert main(given) == 1
        error, hint = capsys.readouterr().err.splitlines()
        assert "alexnet-owt-7be5be79.pth can't be read" in error
        assert hint.startswith("hint: get it again from https://")
    torch.save([1, 2], Lpips.path())
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        Lpips.load(torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("features.0.weight", torch.zeros(2), r"another file: .*features\.0\.weight.*\[2\]"),
        ("features.10.bias", None, r"it has no features\.10\.bias"),
    ],
)
def test_weights_of_another_network_are_refused(
    name: str, tensor: torch.Tensor | None, words: str, hub: Path
) -> None:
    save(Lpips())
    tensors = {**torch.load(Lpips.path()), name: tensor}
    torch.save({k: v for k, v in tensors.items() if v is not None}, Lpips.path())
    with pytest.raises(CheckpointError, match=words):
        Lpips.load(torch.device("cpu"))
