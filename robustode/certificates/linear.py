"""The linear part K of one stage as bounds need it: its diagonal, the sizes of the rest, the norms of its rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robustode.sensitivity.norms import dual
from robustode.solvers.flow import Flow
from robustode.solvers.operators import Dense, Operator

UNIT = 2.0**-53


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """K, in float64, as a matrix of absolute values with its diagonal apart.

    Every size is rounded upwards. States are (..., *state), with any axes before.

    Attributes:
        operator: what K does to a state.
        weight: of one depth, (out, in, ...) float64.
    """

    operator: Operator
    weight: Tensor

    @property
    def dense(self) -> bool:
        """Whether K is a matrix."""
        return isinstance(self.operator, Dense)

    @property
    def terms(self) -> int:
        """Terms of the sum that gives one component of K z."""
        return math.prod(self.weight.shape[1:])

    @property
    def slack(self) -> float:
        """Relative error allowed for a sum of as many nonnegative terms, and a few operations more."""
        return (self.terms + 16) * 2 * UNIT

    @cached_property
    def diagonal(self) -> Tensor:
        """K_ii, broadcastable against states."""
        if self.dense:
            return self.weight.diagonal()
        middle = self.weight.shape[-1] // 2
        return self.weight[..., middle, middle].diagonal()[:, None, None]

    @cached_property
    def beside(self) -> Tensor:
        """|K| with zeros on the diagonal, shaped as the weight."""
        sizes = self.weight.abs()
        middle = () if self.dense else (sizes.shape[-1] // 2,) * 2
        index = torch.arange(len(sizes), device=sizes.device)
        sizes[(index, index, *middle)] = 0.0
        return sizes

    def rows(self, size: Tensor) -> Tensor:
        """Return Σ_{j≠i} |K_ij| v_j for v ≥ 0, at least."""
        return self._along(self.operator.product, size)

    def columns(self, size: Tensor) -> Tensor:
        """Return Σ_{i≠j} |K_ij| v_i for v ≥ 0, at least."""
        return self._along(self.operator.transposed, size)

    def _along(self, product, size: Tensor) -> Tensor:
        flat = size.reshape(-1, *size.shape[-self.operator.dims :])
        return product(flat, self.beside).reshape(size.shape) * (1 + self.slack)

    def row_norms(self, norm: str) -> Tensor:
        """Return the dual norm of every row of K, at least, broadcastable against states: |K_i δ| ≤ it · ‖δ‖."""
        norms = dual(self.weight.flatten(1), norm) * (1 + self.slack)
        return norms if self.dense else norms[:, None, None]


def linear(flow: Flow, n: int, i: int) -> Linear:
    """Return K of stage i of step n of a flow in float64."""
    return Linear(operator=flow.operator, weight=flow.parameters(n, i)[0].detach())
