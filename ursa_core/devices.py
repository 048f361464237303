"""Compute devices of this machine, and the number format that they multiply faster."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from ursa_core.errors import DeviceError, UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# bfloat16 is either much faster (matrix units) or slower (emulated): noise can't cross this.
_CLEARLY_FASTER = 1.3


def pick_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes cuda, else mps, else cpu; DeviceError if not here."""
    if name == "auto":
        return torch.device(available_devices()[0])
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not index.isdecimal()):
        raise UsageError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:N or mps")
    devices = available_devices()
    if kind not in devices:
        hint = f"use `device={devices[0]}`"
        raise DeviceError(f"this machine has no {kind} device that torch can use", hint)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if index and int(index) >= count:
        raise DeviceError(f"there is no {name}: torch sees {count}", f"use {kind}:{count - 1}")
    return torch.device(name)


def local_device(name: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """As ``pick_device``; process LOCAL_RANK of a launcher takes the GPU of that number."""
    device, rank = pick_device(name), environment.get("LOCAL_RANK", "")
    if device.type == "cuda" and device.index is None and rank.isdecimal():
        return torch.device("cuda", int(rank) % torch.cuda.device_count())
    return device


def available_devices() -> list[str]:
    """Kinds of devices on this machine, best first; cpu is always among them."""
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [*found, "cpu"]


def check_compiler(device: torch.device, without: str = "leave out --compile") -> None:
    """Refuse ``torch.compile`` where it can't work (DeviceError); ``without`` is the hint."""
    if device.type == "mps":
        raise DeviceError("torch can't compile for mps well enough", without)
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        hint = f"install g++ or clang++, or {without}"
        raise DeviceError("torch.compile needs a C++ compiler, there is none", hint)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of a name, else UsageError; ``auto``: bfloat16 where clearly faster."""
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"there is no dtype {name!r}", f"use auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    rates = matmul_rates(device)
    is_faster = rates["bfloat16"] > _CLEARLY_FASTER * rates["float32"]
    return torch.bfloat16 if is_faster else torch.float32


def matmul_rates(device: torch.device, seconds: float = 0.1) -> dict[str, float]:
    """Floating-point operations per second of matrix products, by number format."""
    size = {"cpu": 256, "cuda": 8192}.get(device.type, 2048)
    matrices = {
        name: torch.ones(size, size, dtype=DTYPES[name], device=device)
        for name in ("float32", "bfloat16")
    }
    best = {name: _product_seconds(a) for name, a in matrices.items()}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:  # in turns, so that other work slows both formats
        for name, a in matrices.items():
            best[name] = min(best[name], _product_seconds(a))
    return {name: 2.0 * size**3 / least for name, least in best.items()}


def _product_seconds(a: torch.Tensor) -> float:
    start = time.perf_counter()
    product = a @ a
    if a.device.type != "cpu":
        product[0, 0].item()  # waits for the device
    return time.perf_counter() - start


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that this process has had on a device, all of it; None where it isn't known."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)  # with what torch itself doesn't count
        others = total - free - torch.cuda.memory_reserved(device)
        return int(torch.cuda.max_memory_reserved(device) + max(others, 0))
    try:
        with Path("/proc/self/status").open(encoding="ascii") as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    except OSError:
        return None


def total_memory_bytes(device: torch.device) -> int | None:
    """Memory of a device, for cpu and mps that of the machine; None where it isn't known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
