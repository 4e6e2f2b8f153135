"""How far the deployed arithmetic can be from the exact map: rounding errors of a sweep, bounded step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.certificates.linear import UNIT, Linear, linear
from robustode.certificates.network import network
from robustode.certificates.problem import Problem
from robustode.certificates.slopes import slope_range
from robustode.solvers.flow import Flow

ACTIVATION_ULPS = 16  # of max(1, |σ|): error of the vectorised functions that σ is made of, with its own operations
BOUNDED = ("tanh", "sigmoid")  # |σ| ≤ 1
TF32 = 2.0**-11  # unit roundoff of the factors
TRANSFORM = 2.0**-16  # relative error of a convolution by Winograd's minimal filtering
HOPELESS = 1e100  # in place of γ where u is so large that there is none
MARGIN = 1.01  # for terms of second order in u


def input_error(problem: Problem, reach: Tensor, unit: float | None = None) -> Tensor:
    """Return a bound of the error of the encoding of an input, componentwise for |x(0)| ≤ reach, (batch, *state).

    Four roundings (that of the scale included) of numbers no larger than reach + |background| + |lo| · |scale|; of the
    deployed arithmetic and the float64 copy together, or with a unit roundoff of its own.
    """
    model = network(problem)
    config = model.config
    offset = abs(config["background"]) + abs(model.bounds[0] * model.encoding_scale)
    return 8 * (units(problem) if unit is None else unit) * (reach + offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What the error of the encoding does in the first step, bounded componentwise, (batch, *state) each.

    Attributes:
        stages: to the pre-activations of its stages.
        step: to its result.
    """

    stages: tuple[Tensor, ...]
    step: Tensor


def encoded(problem: Problem, flow: Flow, reach: Tensor) -> Encoded:
    """Return what an error of x(0) within `input_error` does in the first step, whatever the slopes; as for that."""
    error, slope, h = input_error(problem, reach), _steepest(flow), flow.step
    stages: list[Tensor] = []
    for i in range(flow.tableau.stages):
        size = error + h * slope * sum(abs(a) * stage for a, stage in zip(flow.tableau.a[i], stages, strict=True))
        part = linear(flow, 0, i)
        stages.append(part.rows(size) + part.diagonal.abs() * size)
    out = error + h * slope * sum(abs(b) * stage for b, stage in zip(flow.tableau.b, stages, strict=True))
    return Encoded(stages=tuple(stages), step=out * MARGIN)


def step_error(problem: Problem, flow: Flow, n: int, reach: Tensor) -> Tensor:
    """Return a bound of the rounding error of step n, componentwise, (batch, *state) float64.

    It holds for the deployed arithmetic and the float64 copy together.

    Args:
        problem: names the arithmetic.
        flow: in float64.
        n: number of the step.
        reach: (batch, *state), a bound of |x_n| of all states that are computed.

    Source: `stage_errors`.
    """
    return stage_errors(flow, n, reach, units(problem), _factor_error(problem, flow))[1]


def stage_errors(
    flow: Flow, n: int, reach: Tensor, unit: float = 2 * UNIT, factors: float = 0.0
) -> tuple[list[Tensor], Tensor]:
    """Return bounds of the errors of the pre-activations of every stage of step n, and of its result, componentwise.

    Of a pre-activation: γ_{m+8} (|K| |z| + |b|) for the sum of m products and the interpolation of the weights, and
    |K| times the error of its input. Of a value: the largest slope times that, and `ACTIVATION_ULPS` u for σ. A few u
    for the sums that make a stage's input and the next state.

    Args:
        flow, n, reach: as for `step_error`.
        unit: unit roundoff.
        factors: relative error of the factors of a product.

    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.5.
    """
    h, slope = flow.step, _steepest(flow)
    offs: list[Tensor] = []
    errors: list[Tensor] = []
    values: list[Tensor] = []
    for i in range(flow.tableau.stages):
        size, off = _summed(reach, flow.tableau.a[i], h, values, errors, unit)
        part = linear(flow, n, i)
        size = pre_size(flow, part, n, i, size)
        offs.append((_gamma(part.terms + 8, unit) + factors) * size + part.rows(off) + part.diagonal.abs() * off)
        value = flow.activation.at_zero + slope * size
        values.append(value.clamp(max=1.0) if flow.activation.name in BOUNDED else value)
        rough = 0.0 if flow.activation.name == "identity" else ACTIVATION_ULPS * unit
        errors.append(slope * offs[-1] + rough * values[-1].clamp(min=1.0))
    return offs, _summed(reach, flow.tableau.b, h, values, errors, unit)[1] * MARGIN


def _summed(
    reach: Tensor, shares: Sequence[float], h: float, values: list[Tensor], errors: list[Tensor], unit: float
) -> tuple[Tensor, Tensor]:
    """Return bounds of x + h Σ c_j k_j and of its error: one rounding a sum, two a product, and k's own."""
    size, off, terms = reach, torch.zeros_like(reach), 0
    for c, value, error in zip(shares, values, errors, strict=True):
        if c:
            size, off = size + h * abs(c) * value, off + h * abs(c) * (error + 2 * unit * value)
            terms += 1
    return size, off + terms * unit * size


def pre_size(flow: Flow, part: Linear, n: int, i: int, size: Tensor) -> Tensor:
    """Return Σ_j |K_ij| v_j + |b_i| of stage i of step n for v ≥ 0, at least, with the sizes of the knots as weights.

    The interpolation of two knots may cancel, and its rounding error goes with their sizes.
    """
    k, w = flow.positions[n][i]
    ends = (k,) if w == 0.0 else (k, k + 1)
    total = torch.zeros_like(size)
    for knot, share in zip(ends, (1 - w, w), strict=False):
        whole = Linear(operator=part.operator, weight=flow.weight[knot].detach())
        total = total + share * (whole.rows(size) + whole.diagonal.abs() * size)
        total = total + share * flow.operator.spread(flow.bias[knot].detach().abs())
    return total * (1 + part.slack)


def readout_error(problem: Problem, reach: Tensor) -> Tensor:
    """Return a bound of the rounding error of a difference of two logits, for |x(T)| ≤ reach, (batch,)."""
    terms = 0 if network(problem).operator.dims == 1 else reach[0, 0].numel()
    return 2 * _gamma(terms + 4, units(problem)) * reach.flatten(1).amax(1)


def units(problem: Problem) -> float:
    """Return the unit roundoff of the deployed model plus that of its float64 copy."""
    return problem.unit + UNIT


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit) if terms * unit < 0.5 else HOPELESS


def _factor_error(problem: Problem, flow: Flow) -> float:
    """What a GPU takes from the factors of a product in float32: tensor cores, and transforms before convolutions."""
    if not problem.x.is_cuda or problem.unit < 2.0**-30:
        return 0.0
    if flow.operator.dims == 1:
        return 4 * TF32 if torch.backends.cuda.matmul.allow_tf32 else 0.0
    return 4 * TF32 if torch.backends.cudnn.allow_tf32 else TRANSFORM


def _steepest(flow: Flow) -> float:
    ends = torch.tensor([torch.inf], dtype=torch.float64)
    low, high = slope_range(flow.activation.name, -ends, ends)
    return float(torch.maximum(low.abs(), high.abs()))


def _length(error: Tensor) -> Tensor:
    return torch.linalg.vector_norm(error.flatten(1), dim=1) * (1 + 2.0**-40)
