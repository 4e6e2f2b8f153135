"""Measures of robustness from the linear method's own sweep: sensitivity, its direction, effective margin, ranking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.uncertainty.gaussian import Uncertainty
from robustode.uncertainty.linear import first_order
from robustode.uncertainty.problem import Problem, double


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures(Uncertainty):
    """The linear uncertainty of each sample with what else its Jacobian J = ∂logits/∂input says.

    Attributes:
        sensitivity: largest singular value of J, (batch,) float64: how far the logits move (L2) for one unit of the
            input (L2), at the most.
        direction: the unit vector of inputs that moves them so far, the right singular vector, (batch, *input_shape)
            float64; its sign is free.
        sensitivity_along: the largest singular value of the derivative, with respect to the input, of the components of
            the state that are the logits at the end, at every depth, (batch, N + 1) float64; or None.
    """

    sensitivity: Tensor
    direction: Tensor
    sensitivity_along: Tensor | None = None


def measured(problem: Problem, x: Tensor) -> Measures:
    """Return the measures of one chunk; see `measure`."""
    found = first_order(problem, x)
    cov = found.covariance(problem)
    rows = double(found.rows.flatten(3)).nan_to_num(0.0, 0.0, 0.0)
    right = torch.linalg.svd(rows[:, -1], full_matrices=False)
    along = torch.linalg.svdvals(rows)[..., 0] if problem.along else None
    return Measures(
        mean=found.logits[:, -1],
        cov=cov[:, -1],
        along=problem.along_depth(found.logits, cov),
        sensitivity=right.S[:, 0],
        direction=right.Vh[:, 0].unflatten(1, x.shape[1:]),
        sensitivity_along=along,
    )
