"""A pretended accelerator: a device of its own, whose tensors lie in the memory of the host, and a watcher of what
would stall a real one.

Its tensors are ordinary ones with ordinary values, so layers behave as on any device that is no CPU, and their results
can be compared with those of the CPU. But torch then knows of an accelerator for the rest of the process: whoever calls
`register` does so in a process of its own.
"""

import ctypes
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE, ATEN = "pretended", torch.ops.aten
ROOT = f"{Path(__file__).parent.parent}/"
INSTALLED = f"{Path(torch.__file__).parent.parent}/"  # `make` puts it below ROOT
KINDS = {"cpu": 1, DEVICE: 12}  # of DLPack: kDLCPU, kDLExtDev
KIND_AT = 8  # the bytes of a DLTensor before the kind of its device
# Of our frames, those around everything: what waits directly below them is of transformers.
OUTER = {"__call__", "generate", "results", "compared", "of_method", "of_peft"}
# Memory that is not written yet, and more views of the same memory, need no kernel.
NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "lift_fresh"}
LIBRARY = torch.library.Library("aten", "IMPL")

_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Backend:
    """What torch asks of a device's module. waits: how often it was told to wait for the device."""

    waits = 0

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are those of the CPU."""

    def _is_in_bad_fork(self) -> bool:
        return False


class Watcher(TorchDispatchMode):
    """Runs what is asked of the device, and refuses what a real one refuses.

    stalls: what makes host and device wait for each other, by line of this project.
    launched: the kernels started on the device, by line and name.
    float64: False for a device that has none.
    """

    active: list["Watcher"] = []

    def __init__(self, float64: bool = True):
        super().__init__()
        self.float64 = float64
        self.stalls, self.launched = Counter(), Counter()

    def __enter__(self):
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error):
        self.active.remove(self)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        tensors = _tensors((args, kwargs))
        to = _asked(kwargs)
        if to != DEVICE and not any(map(is_pretended, tensors)):
            return func(*args, **kwargs)
        self._note_stalls(func, name, tensors, to)
        if not func.is_view and name not in NO_KERNEL:
            self.launched[f"{_place()} {name}"] += 1
        result = _run(func, *args, **kwargs)
        if not self.float64 and any(is_pretended(t) and t.dtype == torch.float64 for t in _tensors(result)):
            raise TypeError(f"{func} makes float64 on a device that has none")
        return result

    def _note_stalls(self, func, name: str, tensors: list[torch.Tensor], to: str | None) -> None:
        """Raises RuntimeError for tensors of the CPU, other than single numbers, among those of the device."""
        hosts = [tensor for tensor in tensors if not is_pretended(tensor) and tensor.dim()]
        if name == "_to_copy":
            if to is not None and tensors[0].device.type != to:
                self.note(f"copied from {tensors[0].device.type}")
        elif name == "_copy_from" or hosts and name in ("copy_", "index", "index_put", "index_put_"):
            self.note(f"{name} between devices")
        elif hosts:
            raise RuntimeError(f"{func} got tensors of the CPU among those of the device: {[t.shape for t in hosts]}")
        if name == "_local_scalar_dense":
            self.note("a number is read")
        # Integers as an index give a size that is known, a mask does not.
        known = func is ATEN.index.Tensor and all(tensor.dtype != torch.bool for tensor in tensors[1:])
        if torch.Tag.dynamic_output_shape in func.tags and not known:
            self.note(f"{name} has a size that depends on values")

    def note(self, what: str) -> None:
        place = _place()
        if place is not None:
            self.stalls[f"{place} {what}"] += 1


def register() -> Backend:
    """Make the device known to torch."""
    if torch._C._get_privateuse1_backend_name() != DEVICE:
        _setup_privateuseone_for_python_backend(DEVICE, backend_module=Backend())
        # What torch's own code calls below the watcher, such as torch.tensor(.., device=DEVICE).
        LIBRARY.impl("empty.memory_format", partial(_run, ATEN.empty.memory_format), "PrivateUse1")
        LIBRARY.impl("empty_strided", partial(_run, ATEN.empty_strided.default), "PrivateUse1")
        LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
    return getattr(torch, DEVICE)


def is_pretended(tensor: torch.Tensor) -> bool:
    return tensor.device.type == DEVICE


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor of the CPU; a parameter of a parameter."""
    moved = _alias(tensor.detach().clone(), DEVICE)
    return nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved


def move(model: nn.Module) -> nn.Module:
    """Replace the parameters and buffers of a model by copies on the device; what is shared stays so."""
    moved: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved[tensor] = tensors[name] = moved[tensor] if tensor in moved else on_device(tensor)
    return model._apply(lambda tensor: tensor)  # empties the caches of the modules


def _mapped(function, value):
    """The tensors of an operation's arguments or results replaced; torch's tree_map takes ten times as long."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(function, part) for key, part in value.items()}
    return type(value)([_mapped(function, part) for part in value]) if isinstance(value, list | tuple) else value


def _tensors(value: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _mapped(found.append, value)
    return found


def _asked(kwargs: dict) -> str | None:
    """The kind of device that an operation was told to put its result on."""
    return None if kwargs.get("device") is None else torch.device(kwargs["device"]).type


def _alias(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The same memory as a tensor of another device."""
    capsule = torch._C._to_dlpack(tensor)
    ctypes.c_int32.from_address(_address(capsule, b"dltensor") + KIND_AT).value = KINDS[device]
    return torch._C._from_dlpack(capsule)


def _run(func, *args, **kwargs):
    """Run an operation of the device on the memory that it shares with the host."""
    given = {id(tensor): tensor for tensor in _tensors((args, kwargs))}
    hosts = {key: _alias(tensor, "cpu") for key, tensor in given.items() if is_pretended(tensor)}
    to = _asked(kwargs)
    args, kwargs = _mapped(lambda tensor: hosts.get(id(tensor), tensor), (args, kwargs))
    result = func(*args, **(kwargs if to is None else {**kwargs, "device": torch.device("cpu")}))
    if to not in (None, DEVICE):
        return result
    own = {id(host): given[key] for key, host in hosts.items()}  # written in place, and returned

    def back(tensor: torch.Tensor) -> torch.Tensor:
        return own[id(tensor)] if id(tensor) in own else _alias(tensor, DEVICE)

    return _mapped(back, result)


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    for watcher in Watcher.active:
        watcher.note(f"copied from {source.device.type}")
    source, host = (_alias(tensor, "cpu") if is_pretended(tensor) else tensor for tensor in (source, target))
    host.copy_(source)
    return target


def _place() -> str | None:
    """file:line of the innermost frame of this project that is not around everything; None: there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        path, function = frame.f_code.co_filename, frame.f_code.co_name
        ours = path.startswith(ROOT) and not path.startswith(INSTALLED) and path != __file__
        if ours and function not in OUTER:
            return f"{path.removeprefix(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return None
