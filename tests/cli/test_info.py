"""`ursa info` and the choice of device and number format behind it."""

import json
import platform

import pytest
import torch

from ursa_cli.commands.info import _gigaflops
from ursa_cli.main import main
from ursa_core import __version__
from ursa_core.devices import available_devices, matmul_rates, pick_device, pick_dtype
from ursa_core.errors import DeviceError, UsageError


def test_info_tells_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ursa"] == __version__
    assert told["python"] == platform.python_version()
    assert told["torch"] == torch.__version__
    assert told["cores"] >= 1
    assert told["memory_bytes"] > 10**8
    assert [device["device"] for device in told["devices"]] == available_devices()
    assert {"ursa", "transformers", "av", "ffmpeg", "platform", "models"} <= told.keys()
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert told["torch"] in text
    assert "GFLOP/s" in text


def test_slow_rates_keep_a_decimal() -> None:
    assert _gigaflops(0.44e9) == "0.4 GFLOP/s"
    assert _gigaflops(44.4e9) == "44 GFLOP/s"


def test_rates_are_measured() -> None:
    rates = matmul_rates(torch.device("cpu"), seconds=0.02)
    assert set(rates) == {"float32", "bfloat16"}
    assert all(1e7 < rate < 1e15 for rate in rates.values())


def test_devices_are_picked_or_refused() -> None:
    assert pick_device("auto").type == available_devices()[0]
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("tpu", "cuda:x", "cpu:", ""):
        with pytest.raises(UsageError, match="no device"):
            pick_device(name)
    absent = [kind for kind in ("cuda", "mps") if kind not in available_devices()]
    for kind in absent:
        with pytest.raises(DeviceError, match=kind) as caught:
            pick_device(kind)
        assert "cpu" in caught.value.hint
    assert absent, "no machine has both"


def test_number_formats_are_picked_or_refused() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("float16", cpu) == torch.float16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(UsageError, match="fp8"):
        pick_dtype("fp8", cpu)
