"""Directions of nonlinear conjugate gradients: each γ a small pure function in one inner product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from robustode.errors import TrainingError, unknown

Inner = Callable[[Tensor, Tensor], float]
Gamma = Callable[[Tensor, Tensor, Tensor, Inner], float]  # of v, v₋, d₋ and ⟨·,·⟩


@dataclass(frozen=True)
class Previous:
    """What an iteration leaves to the next: its gradient v₋ and its direction d₋."""

    gradient: Tensor
    direction: Tensor


def steepest(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = 0: steepest descent."""
    return 0.0


def fletcher_reeves(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = ⟨v, v⟩ / ⟨v₋, v₋⟩. Source: Fletcher and Reeves, Comput. J. 7 (1964)."""
    return _ratio(inner(v, v), inner(v_, v_))


def polak_ribiere_plus(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = max(0, ⟨v, v − v₋⟩ / ⟨v₋, v₋⟩). Source: Gilbert and Nocedal, SIAM J. Optim. 2 (1992)."""
    return max(0.0, _ratio(inner(v, v - v_), inner(v_, v_)))


def fr_pr(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = Polak–Ribière's ⟨v, v − v₋⟩ / ⟨v₋, v₋⟩, clipped to [−γ_FR, γ_FR] with γ_FR that of Fletcher–Reeves.

    Source: Gilbert and Nocedal, SIAM J. Optim. 2 (1992), eq. (3.3).
    """
    limit = fletcher_reeves(v, v_, d_, inner)
    return min(max(_ratio(inner(v, v - v_), inner(v_, v_)), -limit), limit)


def hestenes_stiefel(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = ⟨v, v − v₋⟩ / ⟨d₋, v − v₋⟩. Source: Hestenes and Stiefel, J. Res. Nat. Bur. Stand. 49 (1952)."""
    change = v - v_
    return _ratio(inner(v, change), inner(d_, change))


def dai_yuan(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = ⟨v, v⟩ / ⟨d₋, v − v₋⟩. Source: Dai and Yuan, SIAM J. Optim. 10 (1999)."""
    return _ratio(inner(v, v), inner(d_, v - v_))


DIRECTIONS: dict[str, Gamma] = {
    "fletcher-reeves": fletcher_reeves,
    "polak-ribiere+": polak_ribiere_plus,
    "fr-pr": fr_pr,
    "hestenes-stiefel": hestenes_stiefel,
    "dai-yuan": dai_yuan,
    "steepest": steepest,
}


def gamma(name: str) -> Gamma:
    """Return the formula of that name; raise `TrainingError` with the nearest name if there is none."""
    if name not in DIRECTIONS:
        raise unknown("direction", name, DIRECTIONS, TrainingError)
    return DIRECTIONS[name]


def direction(name: str, gradient: Tensor, previous: Previous | None, inner: Inner) -> Tensor:
    """Return d = −v + γ d₋, or −v where there is nothing before (restart).

    d descends for Fletcher–Reeves, FR-PR and Dai–Yuan under conditions on the line search, for the others it may not:
    the caller looks at the slope.

    Args:
        name: key of `DIRECTIONS`.
        gradient: v, the gradient in the inner product `inner`.
        previous: of the iteration before, on the same mini-batch; None restarts.
        inner: the inner product that defines v.
    """
    if previous is None:
        return -gradient
    factor = gamma(name)(gradient, previous.gradient, previous.direction, inner)
    return previous.direction.mul(factor).sub_(gradient)


def _ratio(numerator: float, denominator: float) -> float:
    """The quotient; 0, which restarts, where the denominator is 0 or so small that the quotient overflows."""
    quotient = numerator / denominator if denominator else 0.0
    return quotient if math.isfinite(quotient) else 0.0
