"""Operations that only move numbers about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustode.certificates.propagate.linear import Linear, rearrangement, reshaping
from robustode.certificates.propagate.symbol import BATCH, RULES, Rule, Symbol, Untraceable, plain, rule

MIXED = "no bound for an operation that moves the axis of samples"


def _moved(x: Symbol, linear: Linear) -> Symbol:
    return x.made(x.build.affine(x.node, linear))


def _per_sample(out: Tensor) -> tuple[int, ...]:
    """Return the shape of one sample of a result, whose batch stays first."""
    if out.dim() < 1 or len(out) != BATCH:
        raise Untraceable(MIXED)
    return tuple(out.shape[1:])


def _reshape(function: Callable[..., Tensor]) -> Rule:
    """Return what a reshape does to symbols: with the batch still first, it keeps the samples apart."""

    def apply(input: Symbol, *args: Any, **kwargs: Any) -> Symbol:
        outer = _per_sample(function(plain(input), *args, **kwargs))
        if math.prod(outer) != math.prod(input.inner):
            raise Untraceable(MIXED)
        return _moved(input, reshaping(input.inner, outer))

    return apply


for _name in ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze"):
    RULES[_name] = _reshape(getattr(Tensor, _name))


def _on_images(function: Callable[..., Tensor]) -> Rule:
    def apply(input: Symbol, *args: Any, **kwargs: Any) -> Symbol:
        outer = _per_sample(function(plain(input), *args, **kwargs))
        return _moved(input, rearrangement(lambda x: function(x, *args, **kwargs), input.inner, outer))

    return apply


for _name in ("pixel_shuffle", "pixel_unshuffle"):
    RULES[_name] = _on_images(getattr(functional, _name))


@rule("pad")
def _pad(input: Symbol, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Symbol:
    if mode != "constant" or value or len(pad) > 2 * len(input.inner) or min(pad) < 0:
        raise Untraceable("no bound for padding other than with zeros around a sample")
    outer = _per_sample(functional.pad(plain(input), list(pad)))
    return _moved(input, rearrangement(lambda x: functional.pad(x, list(pad)), input.inner, outer))


@rule("permute")
def _permute(input: Symbol, *dims: Any) -> Symbol:
    order = [d % input.dim() for d in (dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)]
    if order[0] != 0:
        raise Untraceable(MIXED)
    outer = _per_sample(plain(input).permute(order))
    return _moved(input, rearrangement(lambda x: x.permute(order), input.inner, outer))


@rule("transpose", "swapaxes", "swapdims")
def _transpose(input: Symbol, dim0: int, dim1: int) -> Symbol:
    first, second = dim0 % input.dim(), dim1 % input.dim()
    if 0 in (first, second):
        raise Untraceable(MIXED)
    outer = _per_sample(plain(input).transpose(first, second))
    return _moved(input, rearrangement(lambda x: x.transpose(first, second), input.inner, outer))


@rule("__getitem__")
def _getitem(input: Symbol, index: Any) -> Symbol:
    keys = index if isinstance(index, tuple) else (index,)
    simple = all(key is None or key is Ellipsis or isinstance(key, int | slice) for key in keys)
    if not simple or not (keys[0] is Ellipsis or keys[0] == slice(None)):
        raise Untraceable("no bound for an index other than slices and numbers behind the axis of samples")
    outer = _per_sample(plain(input)[keys])
    return _moved(input, rearrangement(lambda x: x[keys], input.inner, outer))


@rule("cat", "concat", "concatenate")
def _cat(tensors: Sequence[Any], dim: int = 0) -> Symbol:
    if not all(isinstance(x, Symbol) for x in tensors):
        raise Untraceable("no bound for joining constants to what depends on the input")
    first = tensors[0]
    axis = dim % first.dim()
    if axis == 0:
        raise Untraceable(MIXED)
    total, parts, start = sum(x.shape[axis] for x in tensors), [], 0
    for x in tensors:
        before, after = start, total - start - x.shape[axis]
        parts.append(_pad(x, [0, 0] * (first.dim() - 1 - axis) + [before, after]))
        start += x.shape[axis]
    return first.made(first.build.combine([x.node for x in parts], [1.0] * len(parts)))


@rule("to", "type_as")
def _to(input: Symbol, *args: Any, **kwargs: Any) -> Symbol:
    other: list[Any] = [plain(a) if isinstance(a, Symbol) else a for a in args]
    if torch.ones((), dtype=input.dtype, device=input.device).to(*other, **kwargs).dtype != input.dtype:
        raise Untraceable("no bound for a conversion to another type of numbers")
    return input
