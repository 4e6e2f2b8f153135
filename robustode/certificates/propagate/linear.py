"""Linear maps between states, with transpose and absolute value: all that bounds ask of a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional, grad

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A linear map x ↦ K x on rows of states, (rows, *inner) → (rows, *outer), in float64.

    Attributes:
        inner, outer: shapes of one state before and after.
        apply: K x.
        absolute: |K| x, with the absolute values of the entries; `apply` itself where none is negative.
        terms: of the longest sum in K x; 0 where K only moves numbers about, without rounding.
        back: Kᵀ μ where it is known; otherwise `apply` is differentiated.
    """

    inner: tuple[int, ...]
    outer: tuple[int, ...]
    apply: Map
    absolute: Map
    terms: int
    back: Map | None = None

    @property
    def nonnegative(self) -> bool:
        """Whether K has no negative entries."""
        return self.absolute is self.apply

    def transposed(self, mu: Tensor) -> Tensor:
        """Return Kᵀ μ for μ of shape (batch, rows, *outer), (batch, rows, *inner)."""
        flat = mu.reshape(-1, *self.outer)
        if self.back is not None:
            out = self.back(flat)
        else:
            with torch.enable_grad():
                out = torch.func.vjp(self.apply, flat.new_zeros(len(flat), *self.inner))[1](flat)[0]
        return out.detach().reshape(*mu.shape[:2], *self.inner)


def dense(weight: Tensor, inner: tuple[int, ...]) -> Linear:
    """Return x ↦ W x on the last axis, for W of shape (outer, inner)."""
    weight = weight.detach().double()
    size = weight.abs()
    return Linear(
        inner=inner,
        outer=(*inner[:-1], len(weight)),
        apply=lambda x: x @ weight.t(),
        absolute=lambda x: x @ size.t(),
        terms=weight.shape[1],
        back=lambda mu: mu @ weight,
    )


def convolution(kernel: Tensor, inner: tuple[int, ...], *, stride=1, padding=0, dilation=1, groups=1) -> Linear:
    """Return x ↦ K * x as `torch.nn.functional.conv1d`, `conv2d` or `conv3d` computes it, by the kernel's axes."""
    kernel = kernel.detach().double()
    axes = kernel.dim() - 2
    convolve = getattr(functional, f"conv{axes}d")
    pull = getattr(grad, f"conv{axes}d_input")
    if padding == "valid":
        padding = 0
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = kernel.abs()

    def apply(x: Tensor) -> Tensor:
        return convolve(x, kernel, **options)

    return Linear(
        inner=inner,
        outer=tuple(apply(kernel.new_zeros(1, *inner)).shape[1:]),
        apply=apply,
        absolute=lambda x: convolve(x, size, **options),
        terms=math.prod(kernel.shape[1:]),
        back=None if isinstance(padding, str) else lambda mu: pull((len(mu), *inner), kernel, mu, **options),
    )


def scaling(scale: Tensor | float, inner: tuple[int, ...]) -> Linear:
    """Return x ↦ s ⊙ x, for s that broadcasts against one state without changing its shape."""
    factor = torch.as_tensor(scale, dtype=torch.float64).detach()
    size = factor.abs()
    return Linear(
        inner=inner,
        outer=inner,
        apply=lambda x: x * factor,
        absolute=lambda x: x * size,
        terms=1,
        back=lambda mu: mu * factor,
    )


def averaging(apply: Map, inner: tuple[int, ...], outer: tuple[int, ...]) -> Linear:
    """Return a map with nonnegative entries: a mean, a sum, an average pooling."""
    return Linear(
        inner=inner, outer=outer, apply=apply, absolute=apply, terms=math.prod(inner) // max(1, math.prod(outer)) + 64
    )


def rearrangement(apply: Map, inner: tuple[int, ...], outer: tuple[int, ...], back: Map | None = None) -> Linear:
    """Return a map that only moves numbers about: a reshape, a slice, zeros around an image."""
    return Linear(inner=inner, outer=outer, apply=apply, absolute=apply, terms=0, back=back)


def reshaping(inner: tuple[int, ...], outer: tuple[int, ...]) -> Linear:
    """Return the same numbers in another shape."""
    return rearrangement(lambda x: x.reshape(len(x), *outer), inner, outer, back=lambda mu: mu.reshape(len(mu), *inner))
