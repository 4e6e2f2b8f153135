"""The smoothness of a path in depth: exact where it is linear, convergent where it is smooth."""

import math

import pytest
import torch

from robustode.solvers.depth import interpolate, knot_depths, smoothness
from tests.problems import random_snode


@pytest.mark.parametrize("knots", [2, 5, 16])
def test_smoothness_of_a_linear_path_is_exact(knots):
    # θ(t) = c + s t between the outer knots, which are T (1 − 1/knots) apart
    horizon, slope = 3.0, torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64)
    values = 7.0 + knot_depths(knots, horizon)[:, None, None] * slope
    expected = float(slope.square().sum()) * horizon * (1 - 1 / knots)
    assert float(smoothness(values, horizon)) == pytest.approx(expected, rel=1e-12)


def test_smoothness_is_the_integral_of_the_interpolated_path():
    horizon = 2.0
    values = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    depths = torch.linspace(0, horizon, 1001, dtype=torch.float64)  # knots lie on this grid
    path = torch.stack([interpolate(values, float(t), horizon) for t in depths])
    integral = float(path.diff(dim=0).square().sum()) / (horizon / 1000)
    assert float(smoothness(values, horizon)) == pytest.approx(integral, rel=1e-9)


def test_smoothness_converges_for_a_smooth_path():
    # θ = cos(πt/T): ∫θ'² = π²/(2T); θ' vanishes at both ends, so that the order is two
    horizon, errors = 3.0, []
    for knots in (16, 32, 64):
        values = torch.cos(math.pi / horizon * knot_depths(knots, horizon))[:, None]
        errors.append(abs(float(smoothness(values, horizon)) - math.pi**2 / (2 * horizon)))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2.0, abs=0.1)


def test_smoothness_of_one_knot_and_of_a_constant_path_is_zero():
    assert float(smoothness(torch.ones(1, 4), 3.0)) == 0.0
    assert float(smoothness(torch.ones(6, 4), 3.0)) == 0.0


def test_smoothness_of_a_model_is_that_of_weight_and_bias_on_every_grid():
    model = random_snode(steps=12, knots=4, horizon=2.0)
    expected = sum(float((p[1:] - p[:-1]).detach().square().sum()) / 0.5 for p in (model.weight, model.bias))
    assert model.smoothness == pytest.approx(expected, rel=1e-12)
    assert model.at_steps(5, "rk4").smoothness == model.smoothness > 1.0
