"""Step lengths from the sensitivity problem: the minimiser of the cost of the linearised output, then backtracking."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import torch
from torch import Tensor

from robustode.training.cost import Cost

TOLERANCE = 1e-8  # |F(η)| relative to |F(0)| at which η is taken
EVALUATIONS = 200
ARMIJO = 1e-4  # part of the predicted decrease that an accepted step must bring
HALVINGS = 20

Point = TypeVar("Point")


class Outcome(StrEnum):
    """How the search for η ended."""

    MINIMUM = "minimum"
    TAIL = "tail"  # the infimum lies at infinity; η is where the derivative has fallen to TOLERANCE of F(0)
    ASCENT = "ascent"  # F(0) ≥ 0: not a direction of descent
    NON_FINITE = "non-finite"


@dataclass(frozen=True)
class StepLength:
    """η ≥ 0, how it was found, and the slope F(0) of the cost along the direction."""

    eta: float
    outcome: Outcome
    slope: float


class LinearisedCost:
    """The cost φ(η) of the linearised output x(T) + η ξ(T) with weights θ + η d: convex in η.

    Its derivative F is nondecreasing: F(η) = a + b η + μ₂ mean[Σ_k (p_k(η) − y_k) ξ_k], p = softmax of the logits.
    F(0) is the derivative of the true cost along d.

    Args:
        cost: the factors μ.
        state: x(T), (batch, features).
        tangent: ξ(T) for the direction d, (batch, features).
        labels: (batch,) int64.
        classes, rest: as for `Cost.terminal`.
        path: ((T/knots) ⟨θ, d⟩, (T/knots) ⟨d, d⟩), which μ₄ multiplies.
    """

    def __init__(
        self,
        cost: Cost,
        state: Tensor,
        tangent: Tensor,
        labels: Tensor,
        *,
        classes: int,
        rest: float = 0.0,
        path: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        x, xi = state.double(), tangent.double()
        pull = cost.quadratic_gradient(x, labels, rest=rest)
        self._constant = cost.mu4 * path[0] + float((pull * xi).sum())
        self._linear = cost.mu4 * path[1] + (cost.mu1 + cost.mu3) * float(xi.square().sum()) / len(x)
        self._mu2, self._labels = cost.mu2, labels
        self._logits, self._slopes = x[:, :classes], xi[:, :classes]

    def __call__(self, eta: float) -> tuple[float, float]:
        """Return F(η) and F'(η)."""
        first, second = self._constant + self._linear * eta, self._linear
        if self._mu2:
            p = torch.add(self._logits, self._slopes, alpha=eta).softmax(1)
            mean = (p * self._slopes).sum(1)
            first += self._mu2 * float((mean - self._slopes.gather(1, self._labels[:, None])[:, 0]).mean())
            second += self._mu2 * float((p * (self._slopes - mean[:, None]).square()).sum(1).mean())
        return first, second

    @property
    def quadratic(self) -> bool:
        """Whether the minimiser has a closed form (μ₂ = 0)."""
        return self._mu2 == 0


def minimise(cost: LinearisedCost) -> StepLength:
    """Return the minimiser η of a linearised cost: −F(0)/F' if it is quadratic, else the bracketed root of F.

    Source: Jaroudi et al., arXiv 2205.13933, step length from the sensitivity problem.
    """
    slope, curvature = cost(0.0)
    if not (math.isfinite(slope) and math.isfinite(curvature)):
        return StepLength(0.0, Outcome.NON_FINITE, slope)
    if slope >= 0:
        return StepLength(0.0, Outcome.ASCENT, slope)
    if cost.quadratic and curvature > 0:
        return StepLength(-slope / curvature, Outcome.MINIMUM, slope)
    return find_root(cost, slope, curvature)


def find_root(function: Callable[[float], tuple[float, float]], slope: float, curvature: float) -> StepLength:
    """Return the root of a nondecreasing F with F(0) = `slope` < 0 and F'(0) = `curvature`, by Newton's method in a
    bracket.

    While no upper end is known, a step goes at least twice and at most sixteen times as far as the last; inside the
    bracket it is Newton's, or the middle where Newton leaves it.
    """
    low, high = 0.0, math.inf
    eta = -slope / curvature if curvature > 0 else 1.0
    for _ in range(EVALUATIONS):
        value, derivative = function(eta)
        if not math.isfinite(value):
            return StepLength(0.0, Outcome.NON_FINITE, slope)
        if abs(value) <= TOLERANCE * -slope:
            break
        low, high = (eta, high) if value < 0 else (low, eta)
        newton = eta - value / derivative if derivative > 0 else math.inf
        if math.isinf(high):
            eta = min(max(newton, 2 * low), 16 * low)
        else:
            eta = newton if low < newton < high else (low + high) / 2
        if not low < eta < high:  # the bracket is one rounding wide
            break
    else:
        eta = low
    tail = math.isinf(high) and abs(function(2 * eta)[0]) <= TOLERANCE * -slope
    return StepLength(eta, Outcome.TAIL if tail else Outcome.MINIMUM, slope)


@dataclass(frozen=True)
class Accepted(Generic[Point]):
    """A step that lowers the true cost, and the point it leads to."""

    eta: float
    point: Point


def backtrack(
    evaluate: Callable[[float], tuple[float, Point]], step: StepLength, cost: float
) -> Accepted[Point] | None:
    """Halve η until the true cost falls: E(η) ≤ E(0) + 1e-4 η F(0); None after 20 halvings.

    A cost that is not finite is a cost that did not fall.

    Args:
        evaluate: returns E(η) and whatever the caller wants to keep of that point.
        step: first η and the slope F(0) < 0.
        cost: E(0).
    """
    eta = step.eta
    for _ in range(HALVINGS + 1):
        value, point = evaluate(eta)
        if math.isfinite(value) and value <= cost + ARMIJO * eta * step.slope:
            return Accepted(eta, point)
        eta /= 2
    return None
