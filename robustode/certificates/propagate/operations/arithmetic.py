"""Arithmetic with constants, and sums of two values that depend on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustode.certificates.propagate.linear import dense, scaling
from robustode.certificates.propagate.symbol import Symbol, Untraceable, constant, rule

BROADCAST = "no bound for broadcasting what depends on the input"


def _shifted(x: Symbol, bias: Any) -> Symbol:
    """Return x + b for a constant b."""
    b = _per_sample(constant(bias, x), x)
    outer = tuple(torch.broadcast_shapes(b.shape, x.inner))
    if outer != x.inner:
        raise Untraceable(BROADCAST)
    return x.made(x.build.affine(x.node, scaling(1.0, x.inner), b))


def _scaled(x: Symbol, factor: Any) -> Symbol:
    s = _per_sample(constant(factor, x), x)
    if tuple(torch.broadcast_shapes(s.shape, x.inner)) != x.inner:
        raise Untraceable(BROADCAST)
    return x.made(x.build.affine(x.node, scaling(s, x.inner)))


def _per_sample(value: Tensor, x: Symbol) -> Tensor:
    """Return a constant without its axis of samples."""
    if value.dim() > len(x.inner):
        if value.dim() > len(x.inner) + 1 or len(value) != 1:
            raise Untraceable("no bound for constants that differ between the samples of a batch")
        return value[0]
    return value


@rule("add", "__radd__")
def _add(a: Any, b: Any, *, alpha: float = 1) -> Symbol:
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        if a.inner != b.inner:
            raise Untraceable(BROADCAST)
        return a.made(a.build.combine([a.node, b.node], [1.0, float(alpha)]))
    if isinstance(a, Symbol):
        return _shifted(a, constant(b, a) * alpha)
    return _shifted(b if alpha == 1 else _scaled(b, alpha), a)


@rule("sub", "subtract")
def _sub(a: Any, b: Any, *, alpha: float = 1) -> Symbol:
    return _add(a, b, alpha=-alpha)


@rule("rsub", "__rsub__")
def _rsub(a: Any, b: Any) -> Symbol:
    return _add(b, a, alpha=-1)


@rule("mul", "__rmul__", "multiply")
def _mul(a: Any, b: Any) -> Symbol:
    return _scaled(a, b) if isinstance(a, Symbol) else _scaled(b, a)


@rule("div", "true_divide", "__truediv__")
def _div(a: Any, b: Any) -> Symbol:
    if not isinstance(a, Symbol):
        raise Untraceable("no bound for a division by what depends on the input")
    return _scaled(a, 1 / constant(b, a))


@rule("neg", "negative")
def _neg(a: Symbol) -> Symbol:
    return _scaled(a, -1.0)


@rule("add_", "__iadd__")
def _add_(a: Symbol, b: Any, *, alpha: float = 1) -> Symbol:
    return a.becomes(_add(a, b, alpha=alpha))


@rule("sub_", "__isub__")
def _sub_(a: Symbol, b: Any, *, alpha: float = 1) -> Symbol:
    return a.becomes(_add(a, b, alpha=-alpha))


@rule("mul_", "__imul__")
def _mul_(a: Symbol, b: Any) -> Symbol:
    return a.becomes(_mul(a, b))


@rule("div_", "__itruediv__")
def _div_(a: Symbol, b: Any) -> Symbol:
    return a.becomes(_div(a, b))


@rule("matmul", "mm", "__matmul__", "__rmatmul__")
def _matmul(a: Any, b: Any) -> Symbol:
    if not isinstance(a, Symbol) or constant(b, a).dim() != 2:
        raise Untraceable("no bound for a product other than states × a matrix")
    return a.made(a.build.affine(a.node, dense(constant(b, a).t(), a.inner)))


@rule("addmm")
def _addmm(bias: Any, a: Symbol, b: Any, *, beta: float = 1, alpha: float = 1) -> Symbol:
    return _add(_mul(_matmul(a, b), alpha), constant(bias, a) * beta)
