"""Directions of nonlinear conjugate gradients: each γ a small pure function in one inner product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from robustode.errors import TrainingError, unknown

Inner = Callable[[Tensor, Tensor], float]
Gamma = Callable[[Tensor, Tensor, Tensor, Inner], float]


@dataclass(frozen=True)
class Previous:
    """What an iteration leaves to the next: its gradient v₋ and its direction d₋."""

    gradient: Tensor
    direction: Tensor


def steepest(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = 0: steepest descent."""
    return 0.0


def polak_ribiere_plus(v: Tensor, v_: Tensor, d_: Tensor, inner: Inner) -> float:
    """γ = max(0, ⟨v, v − v₋⟩ / ⟨v₋, v₋⟩). Source: Gilbert and Nocedal, SIAM J. Optim. 2 (1992)."""
    return max(0.0, inner(v, v - v_) / inner(v_, v_))


DIRECTIONS: dict[str, Gamma] = {"polak-ribiere+": polak_ribiere_plus, "steepest": steepest}


def gamma(name: str) -> Gamma:
    """Return the formula of that name; raise `TrainingError` with the nearest name if there is none."""
    if name not in DIRECTIONS:
        raise unknown("direction", name, DIRECTIONS, TrainingError)
    return DIRECTIONS[name]


def direction(name: str, gradient: Tensor, previous: Previous | None, inner: Inner) -> Tensor:
    """Return d = −v + γ d₋, or −v where there is nothing before (restart).

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
