"""The linear part of a right-hand side with its products in a shorter format: mixed precision."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.solvers.operators import Operator


class Rounded(Operator):
    """Another operator whose products K z and Kᵀ μ are of factors rounded to `dtype`.

    States, bias, activations and the sums over steps keep the format of the state, as in mixed-precision training
    (Micikevicius et al. 2018, arXiv 1710.03740). Derivatives with respect to the weights are not rounded.

    Args:
        exact: the operator itself.
        dtype: of the factors, torch.bfloat16 or torch.float16; the product is rounded to it, too.
    """

    def __init__(self, exact: Operator, dtype: torch.dtype) -> None:
        self.exact, self.dtype = exact, dtype
        self.dims = exact.dims  # type: ignore[misc]

    def product(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return K z."""
        return self.exact.product(z.to(self.dtype), weight.to(self.dtype)).to(z.dtype)

    def transposed(self, mu: Tensor, weight: Tensor) -> Tensor:
        """Return Kᵀ μ."""
        return self.exact.transposed(mu.to(self.dtype), weight.to(self.dtype)).to(mu.dtype)

    def weight_gradient(self, mu: Tensor, z: Tensor, shape: torch.Size) -> Tensor:
        """Return the exact operator's."""
        return self.exact.weight_gradient(mu, z, shape)

    def bias_gradient(self, mu: Tensor) -> Tensor:
        """Return the exact operator's."""
        return self.exact.bias_gradient(mu)

    def spread(self, bias: Tensor) -> Tensor:
        """Return the exact operator's."""
        return self.exact.spread(bias)

    def columns(self, z: Tensor, weight: Tensor) -> Tensor:
        """Return the exact operator's."""
        return self.exact.columns(z, weight)
