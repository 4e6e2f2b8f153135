"""Layers with weights, poolings, means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robustode.certificates.propagate.linear import averaging, convolution, dense, scaling
from robustode.certificates.propagate.nodes import Largest
from robustode.certificates.propagate.symbol import RULES, Rule, Symbol, Untraceable, constant, plain, rule


@rule("linear")
def _linear(input: Symbol, weight: Any, bias: Any = None) -> Symbol:
    x, b = input, None if bias is None else constant(bias, input)
    return x.made(x.build.affine(x.node, dense(constant(weight, x), x.inner), b))


@rule("conv1d", "conv2d", "conv3d")
def _conv(input: Symbol, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups=1):
    x, kernel = input, constant(weight, input)
    linear = convolution(kernel, x.inner, stride=stride, padding=padding, dilation=dilation, groups=groups)
    b = None if bias is None else constant(bias, x).reshape(-1, *([1] * (kernel.dim() - 2)))
    return x.made(x.build.affine(x.node, linear, b))


@rule("batch_norm")
def _batch_norm(
    input: Symbol,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Symbol:
    if training or running_mean is None or running_var is None:
        raise Untraceable("no bound for the statistics of a batch")
    x = input
    axes = [1] * (len(x.inner) - 1)
    mean, var = (constant(value, x).reshape(-1, *axes) for value in (running_mean, running_var))
    scale = (var + eps).rsqrt()
    scale = scale if weight is None else scale * constant(weight, x).reshape(-1, *axes)
    shift = scale * 0 if bias is None else constant(bias, x).reshape(-1, *axes)
    linear, size = scaling(scale, x.inner), (mean * scale).abs() + shift.abs()
    return x.made(x.build.affine(x.node, linear, shift - mean * scale, size))


def _average(function: Callable[..., Tensor]) -> Rule:
    """Return what an average pooling does to symbols."""

    def apply(input: Symbol, *args: Any, **kwargs: Any) -> Symbol:
        outer = tuple(function(plain(input), *args, **kwargs).shape[1:])
        linear = averaging(lambda x: function(x, *args, **kwargs), input.inner, outer)
        return input.made(input.build.affine(input.node, linear))

    return apply


for _name in ("avg_pool1d", "avg_pool2d", "avg_pool3d"):
    RULES[_name] = _average(getattr(functional, _name))
    RULES[f"adaptive_{_name}"] = _average(getattr(functional, f"adaptive_{_name}"))


@rule("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(
    input: Symbol,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Symbol:
    if return_indices:
        raise Untraceable("no bound for the indices of max pooling")
    function = getattr(functional, f"max_pool{len(input.inner) - 1}d")
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}

    def apply(x: Tensor) -> Tensor:
        return function(x, kernel_size, **options)

    shape = tuple(apply(plain(input)).shape[1:])
    return input.made(input.build.add(Largest(sources=(input.node,), shape=shape, apply=apply)))


@rule("mean")
def _mean(input: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    return _summed(input, dim, keepdim, torch.mean)


@rule("sum")
def _sum(input: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    return _summed(input, dim, keepdim, torch.sum)


def _summed(x: Symbol, dim: Any, keepdim: bool, function: Any) -> Symbol:
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    dims = [d % x.dim() for d in dims]
    if not dims or 0 in dims:
        raise Untraceable("no bound for a mean or sum over the samples of a batch")
    outer = tuple(function(plain(x), dims, keepdim=keepdim).shape[1:])
    return x.made(x.build.affine(x.node, averaging(lambda v: function(v, dims, keepdim=keepdim), x.inner, outer)))
