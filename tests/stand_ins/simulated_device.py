"""A strict accelerator, ``sim``, that computes on the CPU: it shows mixed devices without a device.

All uses of torch's experimental Python back ends are in this module. A tensor on ``sim`` wraps the
CPU tensor that holds its values; what CUDA refuses, it refuses. It doesn't show rounding of
kernels, asynchronous copies, streams, compilation or lack of memory.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.backend_registration import (  # not in every version
    _DummyBackendModule,
    _DummyPrivateUse1Hook,
    _setup_privateuseone_for_python_backend,
)

DEVICE = "sim:0"
_COPIES = ("aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize")
# Kernels that take indices from the CPU, too: (operator, position of the indices).
_INDEXING = {
    "aten::index": 1,
    "aten::index_put": 1,
    "aten::index_put_": 1,
    "aten::_index_put_impl_": 1,
}
# Factories that otherwise make an empty tensor and give it its size in place.
_RESIZING = (
    "arange", "arange.start", "arange.start_step", "linspace", "randperm", "eye", "eye.m",
)  # fmt: skip
_active = False
_libraries: list[torch.library.Library] = []


class MixedDevicesError(RuntimeError):
    """An operator got tensors or a generator of two devices."""


class SimTensor(torch.Tensor):
    """A tensor of the simulated device; its values are in a CPU tensor."""

    value: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor) -> "SimTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
        )
        made.value = value
        return made

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _run(operator, *args, **(kwargs or {}))

    def __repr__(self) -> str:
        return f"SimTensor({self.value})"

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert a tensor of sim to numpy: copy it to the CPU first")

    def tolist(self):
        return self.value.tolist()

    def new_tensor(self, data, *, dtype=None, device=DEVICE, requires_grad=False):
        made = torch.tensor(data, dtype=dtype or self.dtype).to(device)
        return made.requires_grad_(requires_grad)

    def data_ptr(self):
        raise TypeError("a tensor of sim has no address")


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute on the CPU what was asked of the simulated device; refuse what CUDA would."""
    schema = operator._schema
    name = schema.name
    crosses = name in _COPIES or name == "aten::_to_copy"
    _check(operator, args, kwargs, crosses)
    wrappers: dict[int, SimTensor] = {}

    def unwrap(each: Any) -> Any:
        if isinstance(each, SimTensor):
            wrappers[id(each.value)] = each
            return each.value
        if isinstance(each, list | tuple):
            return type(each)(unwrap(x) for x in each)
        return each

    target = kwargs.get("device")
    on_sim = target is None or torch.device(target).type == "sim"
    if target is not None:
        kwargs = {**kwargs, "device": "cpu", "pin_memory": None}
        if "pin_memory" not in {a.name for a in schema.arguments}:
            del kwargs["pin_memory"]
    values, named = unwrap(args), {key: unwrap(each) for key, each in kwargs.items()}
    if name.startswith("aten::_copy_from"):
        values[1].copy_(values[0])
        return args[1]
    given = {id(each) for each in (*args, *kwargs.values()) if isinstance(each, Tensor)}

    def wrap(each: Any) -> Any:
        if isinstance(each, list | tuple):
            return type(each)(wrap(x) for x in each)
        if not isinstance(each, Tensor) or id(each) in given or not on_sim:
            return each
        if (known := wrappers.get(id(each))) is None:
            return SimTensor(each)
        if known.shape != each.shape or known.stride() != each.stride():
            raise NotImplementedError(f"{name} gives a tensor another shape in place")
        return known

    with _own_randomness(torch.Tag.nondeterministic_seeded in operator.tags):
        return wrap(operator(*values, **named))


def _check(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], crosses: bool) -> None:
    name, arguments = operator._schema.name, operator._schema.arguments
    pairs = [*zip(arguments, args, strict=False)]
    pairs += [(a, kwargs[a.name]) for a in arguments if a.name in kwargs]
    indices = _INDEXING.get(name)
    for at, (argument, given) in enumerate(pairs):
        if isinstance(given, torch.Generator):
            raise MixedDevicesError(f"{name} on sim got a generator of {given.device}")
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        for each in given if isinstance(given, list | tuple) else [given]:
            if not isinstance(each, Tensor) or isinstance(each, SimTensor) or crosses:
                continue
            is_index = at == indices and isinstance(args[0], SimTensor)
            if is_index or (each.ndim == 0 and not is_written):
                continue
            raise MixedDevicesError(f"{name}: {argument.name} is on {each.device}, others on sim")


_random_state: list[Tensor] = []


@contextlib.contextmanager
def _own_randomness(is_random: bool) -> Iterator[None]:
    """Draws without a generator come from the device's own one, which isn't the CPU's."""
    if not is_random:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(_random_state[0])
        yield
        _random_state[:] = [torch.get_rng_state()]


class _Stream:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def synchronize(self) -> None: ...

    wait_stream = wait_event = record_event = lambda self, *_: None


class _Module(_DummyBackendModule):
    """``torch.sim``."""

    Stream = Event = _Stream

    def is_available(self) -> bool:
        return _active

    def device_count(self) -> int:
        return int(_active)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def current_stream(self, *_: Any) -> _Stream:
        return _Stream()

    def stream(self, *_: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def synchronize(self, *_: Any) -> None: ...

    def set_device(self, *_: Any) -> None: ...


class _Hook(_DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return _active


def register() -> None:
    """Make ``sim`` known to torch, for the whole process; unavailable where it isn't in use.

    Autograd must not have run before. Where a GPU is, torch would take ``sim`` for the accelerator.
    """
    if _libraries:
        return
    _setup_privateuseone_for_python_backend("sim", _Module(), _Hook())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, dispatch_key="PrivateUse1")
    library.fallback(torch.library.fallthrough_kernel, dispatch_key="AutocastPrivateUse1")
    factories = torch.library.Library("aten", "IMPL")
    for name in _RESIZING:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        factories.impl(name, functools.partial(_run, operator), "PrivateUse1")
    _libraries.extend([library, factories])


def _made_on_the_cpu(function: Any) -> Any:
    """A function that makes a tensor of data, which has no tensor to dispatch on."""

    def made(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **named: Any):
        if device is None or torch.device(device).type != "sim":
            return function(data, *args, device=device, **named).requires_grad_(requires_grad)
        kept = data if isinstance(data, SimTensor) else function(data, *args, **named)
        return kept.to(device).requires_grad_(requires_grad)

    return made


@contextlib.contextmanager
def simulated_device() -> Iterator[torch.device]:
    """The device, there while the context is open.

    Inference mode, which knows no wrapped tensors, is read as ``no_grad`` meanwhile.
    """
    global _active
    register()
    _random_state[:] = [torch.Generator().manual_seed(4711).get_state()]

    def enter(self: torch.inference_mode) -> None:
        self.read_as = torch.set_grad_enabled(not self.mode)

    def leave(self: torch.inference_mode, *error: object) -> None:
        self.read_as.__exit__(*error)

    _active = True
    try:
        with (
            patch.object(torch.inference_mode, "__enter__", enter),
            patch.object(torch.inference_mode, "__exit__", leave),
            patch.object(torch, "tensor", _made_on_the_cpu(torch.tensor)),
            patch.object(torch, "as_tensor", _made_on_the_cpu(torch.as_tensor)),
        ):
            yield torch.device(DEVICE)
    finally:
        _active = False
