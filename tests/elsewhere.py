"""A second device where there is none: what a GPU would refuse is refused, and the numbers are those of the CPU.

Tensors there call themselves "meta" and hold their values in a tensor of the CPU. Operations on tensors of both devices
are refused, and so are draws for it by a generator of the CPU and its conversion to NumPy, as for CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from robustode.models import device as devices

PLACE = torch.device("meta")
ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)
INDEXING = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)


class Elsewhere(torch.Tensor):
    """A tensor there; `here` are its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, here.size(), dtype=here.dtype, device=PLACE, **layout)

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    def tolist(self) -> Any:
        """Return the values as numbers, which takes them to the host, as on a GPU."""
        return self.here.tolist()

    def numpy(self, **options: Any) -> Any:
        """Refuse."""
        raise TypeError("a tensor elsewhere cannot be converted to NumPy")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


Elsewhere.__module__ = "torch"  # by which eagerpy knows tensors


class _Factories(TorchDispatchMode):
    """Operations that make a tensor there of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    """Tensors there of numbers, which torch makes past all other modes; and indices that are numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, asked = kwargs or {}, (kwargs or {}).get("device")
        if func in (torch.tensor, torch.as_tensor) and asked is not None and torch.device(asked) == PLACE:
            return func(*args, **{**kwargs, "device": None}).to(PLACE)
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(PLACE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(_indices(one) if isinstance(one, list | range) else one for one in index)
            args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


def _indices(numbers: list[Any] | range) -> Tensor:
    return torch.tensor(numbers) if len(numbers) else torch.tensor([], dtype=torch.long)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU; its results are there if one of its tensors is, or if it says so."""
    tensors = [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, Tensor)]
    there = [one for one in tensors if isinstance(one, Elsewhere)]
    asked = kwargs.get("device")
    into = asked is not None and torch.device(asked) == PLACE
    _check(func, args, tensors, there)
    if (there or into) and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{func}: a generator of the CPU for a tensor elsewhere")
    kwargs = {**kwargs, "device": torch.device("cpu")} if into else kwargs
    a, k = pytree.tree_map(lambda one: one.here if isinstance(one, Elsewhere) else one, (args, kwargs))
    out = func(*a, **k)
    if func is ATEN.copy_.default:
        return args[0]
    if not (there or into) or (func is ATEN._to_copy.default and asked is not None and not into):
        return out
    known = {id(one.here): one for one in there}  # what was written into stays what it is
    return pytree.tree_map(lambda one: _there(one, known), out)


def _check(func: Any, args: Any, tensors: list[Tensor], there: list[Elsewhere]) -> None:
    """Refuse tensors of both devices, but for numbers, copies and indices, which may be of the CPU."""
    if any(one.device == PLACE and not isinstance(one, Elsewhere) for one in tensors):
        raise RuntimeError(f"{func}: a tensor elsewhere that was made without values")
    if func in INDEXING and isinstance(args[0], Elsewhere):
        tensors = [args[0], *args[2:3]]
    here = [one for one in tensors if not isinstance(one, Elsewhere) and one.dim() > 0]
    if there and here and func not in COPIES:
        raise RuntimeError(f"{func}: tensors on both devices")


def _there(value: Any, known: dict[int, Elsewhere]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, Elsewhere):
        return value
    return known[id(value)] if id(value) in known else Elsewhere(value)


@contextmanager
def elsewhere() -> Iterator[str]:
    """Yield the name of a device "meta" that holds values; models are loaded onto it like onto any other."""
    resolve = devices.resolve_device

    def resolved(name: Any = "auto") -> torch.device:
        return PLACE if str(name) == "meta" else resolve(name)

    future: Any = torch.__future__
    before = future.get_overwrite_module_params_on_conversion()
    future.set_overwrite_module_params_on_conversion(True)  # values are not in the memory that `data` would replace
    try:
        with mock.patch("robustode.models.load.resolve_device", resolved), _Factories(), _Numbers():
            yield "meta"
    finally:
        future.set_overwrite_module_params_on_conversion(before)
