"""What a linear relaxation needs to know of an activation: value, slope, and where it has a given slope."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from robustode.solvers.activations import ACTIVATIONS, LEAK, SMOOTHING

Points = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An activation σ, for bounds over intervals, elementwise in float64.

    Attributes:
        name: for messages.
        value: σ(a).
        slope: σ'(a); at a kink, one of the two.
        level: abscissae at which σ' = α, all of them, for given α; inf or NaN where there is none.
        kinks: abscissae at which σ' jumps.
        bend: σ is convex below and concave above it; None: convex everywhere.
        curvature: sup |σ''| of a σ without `level`, whose extrema are found on a grid; None for the others.
        flat: |a| beyond which such a σ is within 1e-13 of 0 (left) or a (right) and has no extremum.
        rises: whether σ is nondecreasing.
        deviation: by how much the formula that is deployed may differ from `value`, apart from rounding.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    level: Callable[[Tensor], Points] = lambda alpha: ()
    kinks: tuple[float, ...] = ()
    bend: float | None = None
    curvature: float | None = None
    flat: float = 0.0
    rises: bool = True
    deviation: float = 0.0


def _tanh_level(alpha: Tensor) -> Points:
    root = (1 - alpha).clamp(min=0).sqrt()
    point = torch.log((1 + root) / alpha.sqrt())
    return point, -point


def _sigmoid_level(alpha: Tensor) -> Points:
    root = (1 - 4 * alpha).clamp(min=0).sqrt()
    point = 2 * torch.log((1 + root) / (2 * alpha.sqrt()))
    return point, -point


def _step(a: Tensor) -> Tensor:
    return (a > 0).to(a)


def _bent(alpha: Tensor) -> Points:
    """Where srelu has the slope α."""
    return (SMOOTHING * (2 * alpha - 1),)


def _srelu_slope(a: Tensor) -> Tensor:
    return ((a + SMOOTHING) / (2 * SMOOTHING)).clamp(0, 1)


def leaky(slope: float, name: str = "leaky_relu") -> Curve:
    """Return a for a > 0, `slope` a below, with 0 ≤ slope ≤ 1."""
    return Curve(
        name=name,
        value=lambda a: functional.leaky_relu(a, slope),
        slope=lambda a: slope + (1 - slope) * _step(a),
        kinks=(0.0,),
    )


def exponential(alpha: float, name: str = "elu") -> Curve:
    """Return a for a > 0, α (eᵃ − 1) below, with 0 < α ≤ 1: convex."""
    return Curve(
        name=name,
        value=lambda a: functional.elu(a, alpha),
        slope=lambda a: torch.where(a > 0, 1.0, alpha * torch.exp(a.clamp(max=0))),
        level=lambda s: (torch.log(s / alpha).clamp(max=0),),
        kinks=(0.0,),
    )


def softplus(beta: float = 1.0, threshold: float = math.inf) -> Curve:
    """Return log(1 + e^{βa})/β, deployed as a where βa > `threshold`."""
    return Curve(
        name="softplus",
        value=lambda a: ACTIVATIONS["softplus"].apply(a * beta) / beta,
        slope=lambda a: torch.sigmoid(a * beta),
        level=lambda s: ((torch.log(s) - torch.log1p(-s)) / beta,),
        deviation=math.exp(-threshold) / beta,
    )


def _gelu_slope(a: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-a / math.sqrt(2)) + a * torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)


def _silu_slope(a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s * (1 + a * (1 - s))


def _gelu(a: Tensor) -> Tensor:
    """a Φ(a), without cancellation on the left."""
    return 0.5 * a * torch.erfc(-a / math.sqrt(2))


TANH = Curve(name="tanh", value=torch.tanh, slope=lambda a: 1 - torch.tanh(a) ** 2, level=_tanh_level, bend=0.0)
SIGMOID = Curve(
    name="sigmoid",
    value=torch.sigmoid,
    slope=lambda a: torch.sigmoid(a) * torch.sigmoid(-a),
    level=_sigmoid_level,
    bend=0.0,
)
RELU = Curve(name="relu", value=torch.relu, slope=_step, kinks=(0.0,))
GELU = Curve(name="gelu", value=_gelu, slope=_gelu_slope, curvature=0.8, flat=9.0, rises=False)
SILU = Curve(name="silu", value=functional.silu, slope=_silu_slope, curvature=0.5001, flat=40.0, rises=False)

CURVES: dict[str, Curve] = {  # of the sNODE's activations
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "relu": RELU,
    "leaky_relu": leaky(LEAK),
    "srelu": Curve(name="srelu", value=ACTIVATIONS["srelu"].apply, slope=_srelu_slope, level=_bent),
    "slrelu": Curve(
        name="slrelu",
        value=ACTIVATIONS["slrelu"].apply,
        slope=lambda a: LEAK + (1 - LEAK) * _srelu_slope(a),
        level=lambda s: _bent((s - LEAK) / (1 - LEAK)),
    ),
    "elu": exponential(0.2),
    "selu": exponential(1.0, "selu"),
    "softplus": softplus(),
    "identity": Curve(name="identity", value=lambda a: a, slope=torch.ones_like),
}
