"""Devices for tests of device behaviour: the simulated one, and a GPU where there is one."""

import pytest
import torch


@pytest.fixture
def sim():
    """The simulated device, which stands in where there is no GPU."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: set CUDA_VISIBLE_DEVICES= to simulate one")
    simulated = pytest.importorskip(
        "simulated_device", reason="this torch has no Python back ends", exc_type=ImportError
    )
    with simulated.simulated_device() as device:
        yield device


@pytest.fixture
def cuda(monkeypatch):
    """A GPU that doesn't round float32 products to TF32, and adds up in a fixed order."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield torch.device("cuda")
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["sim", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Each of the devices."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def agree(device, record_property):
    """Check codes made on the device against the CPU's: equal but for rounding.

    Rounding of a GPU may turn a draw, and all that follows from it: there the share of equal codes
    is recorded.
    """

    def check(made: torch.Tensor, expected: torch.Tensor, name: str = "codes") -> None:
        assert made.shape == expected.shape
        if device.type == "sim":
            assert torch.equal(made.cpu(), expected), name
        else:
            share = float((made.cpu() == expected).double().mean())
            record_property(f"share of equal {name}", share)
            print(f"{name}: {share:.4%} as on the CPU")

    return check
