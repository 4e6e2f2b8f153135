"""A tensor that records the operations done to it as nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robustode.certificates.propagate.graph import Builder
from robustode.errors import RobustODEError

BATCH = 3  # samples in a traced batch: not 1, so that operations that mix samples show
Rule = Callable[..., Any]
SHAPES = frozenset(["shape", "size", "dim", "ndim", "ndimension", "numel", "nelement", "__len__"])
KINDS = frozenset(["device", "dtype", "layout", "get_device", "requires_grad", "is_cuda", "is_floating_point"])
LOOKS = SHAPES | KINDS | frozenset(["is_sparse", "is_quantized", "is_complex"])
SAME = frozenset(["contiguous", "detach", "clone", "requires_grad_"])
RULES: dict[str, Rule] = {}


class Untraceable(RobustODEError):
    """A module does something that no bound is known for."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register what an operation of one of these names does to symbols."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class Symbol(Tensor):
    """A batch that stands for any: it has the shape of one, holds NaN, and knows its node.

    Operations on it are looked up in `RULES`; what is not there is refused, so that nothing that depends on the values
    goes unseen: neither a comparison nor a conversion.
    """

    build: Builder
    node: int

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record an operation."""
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__
        kwargs = kwargs or {}
        if name in LOOKS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name in SAME:
            return args[0]
        if name not in RULES:
            raise Untraceable(f"no bound for '{name}'")
        try:
            return RULES[name](*args, **kwargs)
        except TypeError as reason:
            raise Untraceable(f"no bound for '{name}' with these arguments ({reason})") from reason

    def made(self, node: int) -> Symbol:
        """Return the symbol of another node of the same graph."""
        return symbol(self.build, node, self)

    def becomes(self, other: Symbol) -> Symbol:
        """Take another symbol's node, as an operation in place does."""
        if tuple(other.shape) != tuple(self.shape):
            raise Untraceable("no bound for an operation in place that changes the shape")
        self.node = other.node
        return self

    @property
    def inner(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.build.nodes[self.node].shape


def symbol(build: Builder, node: int, like: Tensor) -> Symbol:
    """Return a symbol of a node, with the dtype and device of a tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        values = torch.full((BATCH, *build.nodes[node].shape), torch.nan, dtype=like.dtype, device=like.device)
        out = values.as_subclass(Symbol)
    out.build, out.node = build, node
    return out


def plain(symbol: Symbol) -> Tensor:
    """Return the NaNs of a symbol as an ordinary tensor, to find the shape of a result."""
    with torch._C.DisableTorchFunctionSubclass():
        return symbol.as_subclass(Tensor)


def constant(value: Any, like: Symbol) -> Tensor:
    """Return a tensor of numbers that do not depend on the input, in float64.

    Raises:
        Untraceable: it is a symbol, or holds NaN, as what was computed from a symbol behind its back does.
    """
    if isinstance(value, Symbol):
        raise Untraceable("no bound for a product of two values that depend on the input")
    tensor = torch.as_tensor(value, dtype=torch.float64, device=like.device).detach()
    if not bool(tensor.isfinite().all()):
        raise Untraceable("no bound with weights that are not finite, or that depend on the input in a hidden way")
    return tensor
