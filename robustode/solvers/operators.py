"""The linear part of an sNODE's right-hand side: dense or convolutional, with transpose and weight derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional, grad


class Operator(ABC):
    """A map (θ, z) ↦ K z + b, linear in the state z and in θ = (K, b), on batches of rows: all that a sweep asks of it.

    States are (rows, *state) with `dims` axes of one state, K is (out, in, ...), b is (out,). The methods that end in
    an underscore add to their first argument in place. Four products define an operator; the others combine them, and
    are overridden where one call is faster.
    """

    dims: ClassVar[int]

    @abstractmethod
    def product(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return K z."""

    @abstractmethod
    def transposed(self, mu: Tensor, weight: Tensor) -> Tensor:
        """Return Kᵀ μ, where ⟨K z, μ⟩ = ⟨z, Kᵀ μ⟩."""

    @abstractmethod
    def weight_gradient(self, mu: Tensor, z: Tensor, shape: torch.Size) -> Tensor:
        """Return G of `shape`, that of K, where ⟨K z, μ⟩ = ⟨K, G⟩ for all K; summed over the rows."""

    @abstractmethod
    def bias_gradient(self, mu: Tensor) -> Tensor:
        """Return g, where ⟨b, μ⟩ = ⟨b, g⟩ for all b, broadcast over the rows on the left: (out,)."""

    @abstractmethod
    def spread(self, bias: Tensor) -> Tensor:
        """Return a view of b that broadcasts against states."""

    @abstractmethod
    def columns(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return all that a row of K is multiplied with: (n, size of a row), for a K of the shape of `weight`."""

    def affine(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return K z + b, always a new tensor."""
        return self.product(z, weight).add_(self.spread(bias))

    def add_product(self, out: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        """Return `out` + K z."""
        return out + self.product(z, weight)

    def add_transposed_(self, out: Tensor, mu: Tensor, weight: Tensor, scale: float) -> None:
        """Add `scale` Kᵀ μ to `out`."""
        out.add_(self.transposed(mu, weight), alpha=scale)

    def add_weight_gradient_(self, out: Tensor, mu: Tensor, z: Tensor, scale: float) -> None:
        """Add `scale` G to `out`; see `weight_gradient`."""
        out.add_(self.weight_gradient(mu, z, out.shape), alpha=scale)


class Dense(Operator):
    """K z = W z for states (features,): W is (features, features), b is (features,)."""

    dims = 1

    def product(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return W z."""
        return z @ weight.t()

    def transposed(self, mu: Tensor, weight: Tensor) -> Tensor:
        """Return Wᵀ μ."""
        return mu @ weight

    def weight_gradient(self, mu: Tensor, z: Tensor, shape: torch.Size) -> Tensor:
        """Return Σ μ zᵀ."""
        return mu.t() @ z

    def bias_gradient(self, mu: Tensor) -> Tensor:
        """Return Σ μ."""
        return mu.sum(0)

    def spread(self, bias: Tensor) -> Tensor:
        """Return b."""
        return bias

    def columns(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return the states."""
        return z

    def affine(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return W z + b."""
        return torch.addmm(bias, z, weight.t())

    def add_product(self, out: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        """Return `out` + W z."""
        return torch.addmm(out, z, weight.t())

    def add_transposed_(self, out: Tensor, mu: Tensor, weight: Tensor, scale: float) -> None:
        """Add `scale` Wᵀ μ to `out`."""
        out.addmm_(mu, weight, alpha=scale)

    def add_weight_gradient_(self, out: Tensor, mu: Tensor, z: Tensor, scale: float) -> None:
        """Add `scale` Σ μ zᵀ to `out`."""
        out.addmm_(mu.t(), z, alpha=scale)


class Convolution(Operator):
    """K z = K * z for states (channels, height, width), with zeros around the image so that its size stays.

    K is (channels, channels, s, s) with s odd; as in torch, * is cross-correlation. b is (channels,), the same at every
    position.
    """

    dims = 3

    def product(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return K * z."""
        return functional.conv2d(z, weight, padding=weight.shape[-1] // 2)

    def transposed(self, mu: Tensor, weight: Tensor) -> Tensor:
        """Return Kᵀ μ, the transposed convolution."""
        return functional.conv_transpose2d(mu, weight, padding=weight.shape[-1] // 2)

    def weight_gradient(self, mu: Tensor, z: Tensor, shape: torch.Size) -> Tensor:
        """Return the correlation of μ with z at the s × s offsets of the kernel."""
        return grad.conv2d_weight(z, shape, mu, padding=shape[-1] // 2)

    def bias_gradient(self, mu: Tensor) -> Tensor:
        """Return Σ μ over rows and positions."""
        return mu.sum((0, 2, 3))

    def spread(self, bias: Tensor) -> Tensor:
        """Return b as (channels, 1, 1)."""
        return bias[:, None, None]

    def columns(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return the patches of the images under the kernel, one row for each position."""
        size = weight.shape[-1]
        return functional.unfold(z, size, padding=size // 2).transpose(1, 2).flatten(0, 1)

    def affine(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return K * z + b."""
        return functional.conv2d(z, weight, bias, padding=weight.shape[-1] // 2)
