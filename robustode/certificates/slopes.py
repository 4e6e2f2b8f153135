"""Ranges of an activation's slope and curvature over intervals of its pre-activation, for every σ of the sNODE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.errors import OptionError, unknown
from robustode.solvers.activations import LEAK, SMOOTHING

ULPS = 8 * 2.0**-53  # of the values of σ' and σ'', below 1 in size but for a factor
PARTS = 4  # of an interval in `mean_curvature_range`


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How σ bends: what is needed to enclose σ' and σ'' over an interval.

    Attributes:
        slope: σ' as a function of a, float64.
        curvature: σ'', or None where σ' jumps.
        turns: abscissae at which σ' changes between rising and falling (extrema of σ').
        bends: the same for σ''.
    """

    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor] | None
    turns: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()


def slope_range(name: str, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (min σ', max σ') over [low, high], elementwise in float64, both sides of a kink included.

    Rounding is allowed for: the range is wider than the true one by at most 1e-15 on each side.

    Args:
        name: of the activation.
        low, high: ends of the intervals, low ≤ high, of one shape.

    Raises:
        OptionError: the activation has no known range of slopes.
    """
    return _widened(_range(_shape(name).slope, _shape(name).turns, low, high))


def curvature_range(name: str, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (inf σ'', sup σ'') over [low, high], elementwise in float64; arguments and errors as for `slope_range`.

    Raises:
        OptionError: σ' jumps, so that σ'' is not bounded.
    """
    shape = _shape(name)
    if shape.curvature is None:
        raise OptionError("curvature", expected="an activation with a continuous slope", got=f"'{name}'")
    return _widened(_range(shape.curvature, shape.bends, low, high))


def has_curvature(name: str) -> bool:
    """Return whether σ'' is bounded."""
    return name in SHAPES and SHAPES[name].curvature is not None


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise unknown("activation with a known range of slopes", name, SHAPES, OptionError)
    return SHAPES[name]


def _widened(bounds: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return bounds[0] - ULPS, bounds[1] + ULPS


def _range(function: Callable[[Tensor], Tensor], turns: tuple[float, ...], low: Tensor, high: Tensor):
    """Range of a function that is monotone between its turns; where it jumps, `turns` name both sides of the jump."""
    low, high = low.double(), high.double()
    first, last = function(low), function(high)
    least, most = torch.minimum(first, last), torch.maximum(first, last)
    for turn in turns:
        value = function(low.new_tensor(turn))
        inside = (low <= turn) & (turn <= high)
        least = torch.where(inside, torch.minimum(least, value), least)
        most = torch.where(inside, torch.maximum(most, value), most)
    return least, most


def _tanh_slope(a: Tensor) -> Tensor:
    return 1 - torch.tanh(a) ** 2


def _tanh_curvature(a: Tensor) -> Tensor:
    value = torch.tanh(a)
    return -2 * value * (1 - value**2)


def _sigmoid_slope(a: Tensor) -> Tensor:
    value = torch.sigmoid(a)
    return value * (1 - value)


def _sigmoid_curvature(a: Tensor) -> Tensor:
    value = torch.sigmoid(a)
    return value * (1 - value) * (1 - 2 * value)


def _step(a: Tensor) -> Tensor:
    return (a > 0).double()


def _elu_slope(alpha: float) -> Callable[[Tensor], Tensor]:
    return lambda a: torch.where(a > 0, 1.0, alpha * torch.exp(a.clamp(max=0)))


def _selu_curvature(a: Tensor) -> Tensor:
    return torch.where(a > 0, 0.0, torch.exp(a.clamp(max=0)))


def _srelu_slope(a: Tensor) -> Tensor:
    return ((a + SMOOTHING) / (2 * SMOOTHING)).clamp(0, 1)


def _srelu_curvature(a: Tensor) -> Tensor:
    return (a.abs() <= SMOOTHING).double() / (2 * SMOOTHING)


_TINY = 5e-324  # the next number after 0: the other side of a kink at 0
_PAST = math.nextafter(SMOOTHING, 1)  # and after the ends of the bend of srelu
_EDGES = (-_PAST, -SMOOTHING, SMOOTHING, _PAST)
_TANH_BEND = math.log(2 + math.sqrt(3)) / 2  # tanh'' is extremal where tanh² = 1/3
_SIGMOID_BEND = math.log(2 + math.sqrt(3))  # σ'' of the sigmoid likewise

SHAPES: dict[str, Shape] = {
    "tanh": Shape(slope=_tanh_slope, curvature=_tanh_curvature, turns=(0.0,), bends=(-_TANH_BEND, _TANH_BEND)),
    "sigmoid": Shape(
        slope=_sigmoid_slope, curvature=_sigmoid_curvature, turns=(0.0,), bends=(-_SIGMOID_BEND, _SIGMOID_BEND)
    ),
    "relu": Shape(slope=_step, curvature=None, turns=(0.0, _TINY)),
    "leaky_relu": Shape(slope=lambda a: LEAK + (1 - LEAK) * _step(a), curvature=None, turns=(0.0, _TINY)),
    "elu": Shape(slope=_elu_slope(0.2), curvature=None, turns=(0.0, _TINY)),
    "selu": Shape(slope=_elu_slope(1.0), curvature=_selu_curvature, turns=(0.0,), bends=(0.0, _TINY)),
    "srelu": Shape(slope=_srelu_slope, curvature=_srelu_curvature, bends=_EDGES),
    "slrelu": Shape(
        slope=lambda a: LEAK + (1 - LEAK) * _srelu_slope(a),
        curvature=lambda a: (1 - LEAK) * _srelu_curvature(a),
        bends=_EDGES,
    ),
    "softplus": Shape(slope=torch.sigmoid, curvature=_sigmoid_slope, bends=(0.0,)),
    "identity": Shape(slope=torch.ones_like, curvature=torch.zeros_like),
}


def mean_curvature_range(name: str, a: Tensor, below: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of c in σ(a + Δ) = σ(a) + σ'(a) Δ + ½ c Δ² for all −below ≤ Δ ≤ above, elementwise in float64.

    c = ∫₀¹ 2 (1 − s) σ''(a + s Δ) ds is a mean of σ'' with more weight near a: the interval is cut in parts, and each
    contributes the range of σ'' up to its end with its weight.

    Args:
        name: of the activation.
        a: pre-activations.
        below, above: ≥ 0, of the shape of `a`.

    Raises:
        OptionError: the activation has no bounded curvature.
    """
    least, most = torch.zeros_like(a), torch.zeros_like(a)
    for part in range(1, PARTS + 1):
        share = part / PARTS
        weight = (1 - (part - 1) / PARTS) ** 2 - (1 - share) ** 2
        low, high = curvature_range(name, a - share * below, a + share * above)
        least, most = least + weight * low, most + weight * high
    return least, most
