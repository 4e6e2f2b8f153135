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
FARTHEST = 2.0**60  # times the first guess: no root is sought beyond
LARGEST = 2.0**1000  # likewise, whatever the first guess
ARMIJO = 1e-4  # part of the predicted decrease that an accepted step must bring
HALVINGS = 20

Point = TypeVar("Point")


class Outcome(StrEnum):
    """How the search for the root η of the nondecreasing F, the derivative of the cost along a direction, ended."""

    MINIMUM = "minimum"  # F(η) = 0, to TOLERANCE of F(0) or to the last bit of η
    TAIL = "tail"  # no root, F rises to 0: η is where F has just risen to TOLERANCE of F(0), at most twice too far
    UNBOUNDED = "unbounded"  # no root, F stays below that as far as one can see: η is the first guess, −F(0)/F'(0) or 1
    ASCENT = "ascent"  # F(0) ≥ 0, not a direction of descent: η = 0
    NON_FINITE = "non-finite"  # F(0) or F'(0) is not finite, or F is NaN from before its root on: η = 0


@dataclass(frozen=True)
class StepLength:
    """η ≥ 0 (finite, whatever the outcome), how it was found, and the slope F(0) of the cost along the direction."""

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
        log_norms: (Σ μ μ', Σ μ'²) T/knots over the knots with μ > 0, which μ₅ multiplies: each μ is linearised in η.
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
        log_norms: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        x, xi = state.double(), tangent.double()
        pull = cost.quadratic_gradient(x, labels, rest=rest)
        self._constant = cost.mu4 * path[0] + cost.mu5 * log_norms[0] + float((pull * xi).sum())
        self._linear = cost.mu4 * path[1] + cost.mu5 * log_norms[1]
        self._linear += (cost.mu1 + cost.mu3) * float(xi.square().sum()) / len(x)
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
    """Return the minimiser η ≥ 0 of a linearised cost: −F(0)/F' if it is quadratic, else the bracketed root of F.

    Source: Jaroudi et al., arXiv 2205.13933, step length from the sensitivity problem.
    """
    slope, curvature = cost(0.0)
    if not (math.isfinite(slope) and math.isfinite(curvature)):
        return StepLength(0.0, Outcome.NON_FINITE, slope)
    if slope >= 0:
        return StepLength(0.0, Outcome.ASCENT, slope)
    eta = _newton(0.0, slope, curvature)
    if cost.quadratic and math.isfinite(eta):
        return StepLength(eta, Outcome.MINIMUM, slope)
    return find_root(cost, slope, curvature)


def find_root(function: Callable[[float], tuple[float, float]], slope: float, curvature: float) -> StepLength:
    """Return the root of a nondecreasing F with F(0) = `slope` < 0 and F'(0) = `curvature`, by Newton's method in a
    bracket.

    While no upper end is known, a step goes at least twice and at most sixteen times as far as the last. Inside the
    bracket it is Newton's; the middle where Newton leaves it or did not halve |F|, or |F| is far above |F(0)|. F may
    jump, overflow or be flat: after `EVALUATIONS` at the latest the lower end is taken.

    Args:
        function: returns F(η) and F'(η) for η > 0; NaN is taken for "too far".
        slope, curvature: F(0) and F'(0), finite.
    """
    first = _newton(0.0, slope, curvature)
    first = first if math.isfinite(first) else 1.0
    bracket, eta, last, halving = _Bracket(), first, -slope, True
    for _ in range(EVALUATIONS):
        value, derivative = function(eta)
        if abs(value) <= TOLERANCE * -slope:
            return _settle(function, bracket, eta, slope)
        bracket.take(eta, value)
        newton = _newton(eta, value, derivative)
        if math.isinf(bracket.high):
            if bracket.low > min(FARTHEST * first, LARGEST):
                return StepLength(first, Outcome.UNBOUNDED, slope)
            eta = min(max(newton, 2 * bracket.low), 16 * bracket.low)
            continue
        halving = (not halving or 2 * abs(value) <= last) and abs(value) <= 10 * -slope and newton in bracket
        eta, last = newton if halving else bracket.middle(), abs(value)
        if eta not in bracket:  # which is one rounding wide
            break
    if bracket.broken:
        return StepLength(0.0, Outcome.NON_FINITE, slope)
    return StepLength(bracket.low or bracket.high, Outcome.MINIMUM, slope)


def _newton(eta: float, value: float, derivative: float) -> float:
    """Newton's next point; infinity if there is none."""
    return eta - value / derivative if derivative > 0 and math.isfinite(value) else math.inf


def _settle(
    function: Callable[[float], tuple[float, float]], bracket: _Bracket, eta: float, slope: float
) -> StepLength:
    """Tell a root at η from a tail; go back in a tail until F falls below the tolerance before half of η."""
    tolerance = TOLERANCE * -slope
    above = math.isfinite(bracket.high) and not bracket.broken
    if above or function(2 * eta)[0] > tolerance:
        return StepLength(eta, Outcome.MINIMUM, slope)
    back = _Bracket(bracket.low, eta)
    while back.high > 2 * back.low:
        middle = back.middle()
        if middle not in back:
            break
        back.take(middle, function(middle)[0] + tolerance)
    return StepLength(back.high, Outcome.TAIL, slope)


@dataclass
class _Bracket:
    """An interval in which a nondecreasing function changes sign, and how it is halved.

    Attributes:
        low, high: the ends; the value is negative at `low`, and is not at `high`.
        broken: whether the value at `high` is NaN.
        shrink: by how much `high` is divided next while `low` is 0; squared each time, so that 1e300 is soon 1e-300.
    """

    low: float = 0.0
    high: float = math.inf
    broken: bool = False
    shrink: float = 2.0

    def __contains__(self, eta: float) -> bool:
        return self.low < eta < self.high

    def take(self, eta: float, value: float) -> None:
        """Move the end of the value's sign to η."""
        if value < 0:
            self.low = eta
        else:
            self.high, self.broken = eta, math.isnan(value)

    def middle(self) -> float:
        """The geometric mean of ends far apart, else the arithmetic mean; an end itself if nothing is between."""
        if self.low == 0:
            eta = self.high / self.shrink
            self.shrink = min(self.shrink, 2.0**256) ** 2
            return eta
        if self.high > 4 * self.low:
            return math.sqrt(self.low) * math.sqrt(self.high)
        return self.low + (self.high - self.low) / 2


@dataclass(frozen=True)
class Accepted(Generic[Point]):
    """A step that lowers the true cost, and the point it leads to."""

    eta: float
    point: Point


def backtrack(
    evaluate: Callable[[float], tuple[float, Point]], step: StepLength, cost: float
) -> Accepted[Point] | None:
    """Halve η until the true cost falls: E(η) ≤ E(0) + 1e-4 η F(0); None after 20 halvings, or if η is 0.

    A cost that is not finite is a cost that did not fall.

    Args:
        evaluate: returns E(η) and whatever the caller wants to keep of that point.
        step: first η and the slope F(0) < 0.
        cost: E(0).
    """
    eta = step.eta
    for _ in range(HALVINGS + 1 if eta > 0 else 0):
        value, point = evaluate(eta)
        if math.isfinite(value) and value <= cost + ARMIJO * eta * step.slope:
            return Accepted(eta, point)
        eta /= 2
    return None
