"""The step length: its function against the cost, its root, and every way a search can end."""

import math

import pytest
import torch

from robustode.training.cost import Cost
from robustode.training.steplength import LinearisedCost, Outcome, StepLength, backtrack, find_root, minimise
from tests.training.problems import batch

ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4)
PATH = (0.3, 0.2)


def line(cost, *, sign=-1.0, seed=5):
    """A linearised cost along a direction that descends (sign −1): ξ = −λ + noise."""
    state, y = batch()
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tangent = sign * 8 * cost.terminal_gradient(state, y, classes=3, rest=0.25) + 0.05 * noise
    values = LinearisedCost(cost, state, tangent, y, classes=3, rest=0.25, path=PATH)

    def phi(eta):
        weights = cost.mu4 * (PATH[0] * eta + PATH[1] * eta**2 / 2)
        return float(cost.terminal(state + eta * tangent, y, classes=3, rest=0.25).sum()) + weights

    return values, phi


@pytest.mark.parametrize("cost", [Cost(mu1=0.7, mu2=0), Cost(mu2=1.3), Cost(mu2=1e-3, mu3=0.9), ALL])
def test_derivatives_of_the_linearised_cost(cost):
    values, phi = line(cost)
    for eta in (0.0, 0.8, 3.0):
        first, second = values(eta)
        assert first == pytest.approx((phi(eta + 1e-5) - phi(eta - 1e-5)) / 2e-5, rel=1e-6, abs=1e-9)
        assert second == pytest.approx((values(eta + 1e-5)[0] - values(eta - 1e-5)[0]) / 2e-5, rel=1e-6, abs=1e-9)
        assert second >= 0


@pytest.mark.parametrize("cost", [Cost(mu1=0.7, mu2=0), Cost(mu1=0.5, mu2=1.3), ALL])
def test_the_step_minimises_the_linearised_cost(cost):
    values, phi = line(cost)
    step = minimise(values)
    assert step.outcome is Outcome.MINIMUM
    assert step.slope == values(0.0)[0] < 0
    for other in (0.0, 0.9 * step.eta, 1.1 * step.eta):
        assert phi(step.eta) < phi(other)


def test_closed_form_equals_the_root_finder():
    values, _ = line(Cost(mu1=0.7, mu2=0, mu3=0.2, mu4=0.3))
    assert values.quadratic
    assert find_root(values, *values(0.0)).eta == pytest.approx(minimise(values).eta, rel=1e-12)


@pytest.mark.parametrize("root", [1e-6, 0.3, 7.0, 1e5])
@pytest.mark.parametrize("shape", ["concave", "convex", "step"])
def test_root_finder(root, shape):
    def function(eta):
        if shape == "concave":
            return math.atan(5 * eta / root) - math.atan(5), 5 / root / (1 + (5 * eta / root) ** 2)
        if shape == "convex":
            return (eta / root) ** 5 - 1, 5 * eta**4 / root**5
        return (1.0, 0.0) if eta > root else (-1.0, 0.0)  # no derivative to go by

    step = find_root(function, *function(0.0))
    assert step.outcome is Outcome.MINIMUM
    assert step.eta == pytest.approx(root, rel=1e-6)


def test_no_root_goes_to_the_flat_tail():
    # one sample, and the direction raises its margin for ever: F(η) = −p_wrong(η) Δ, no root
    state, tangent = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    values = LinearisedCost(Cost(), state, tangent, torch.tensor([0]), classes=2)
    step = minimise(values)
    assert step.outcome is Outcome.TAIL
    assert 0 < -values(step.eta)[0] <= 1e-8 * -step.slope
    assert step.eta < 40


def test_not_a_descent_direction_and_not_finite():
    values, _ = line(ALL, sign=+1.0)
    step = minimise(values)
    assert (step.eta, step.outcome) == (0.0, Outcome.ASCENT)
    assert step.slope > 0
    state, tangent = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[math.nan, 0.0]], dtype=torch.float64)
    for cost in (Cost(), Cost(mu1=1.0, mu2=0.0)):
        broken = minimise(LinearisedCost(cost, state, tangent, torch.tensor([0]), classes=2))
        assert (broken.eta, broken.outcome) == (0.0, Outcome.NON_FINITE)
    assert find_root(lambda eta: (math.nan, 0.0), -1.0, 1.0).outcome is Outcome.NON_FINITE


def test_backtracking_halves_until_the_cost_falls():
    step = StepLength(8.0, Outcome.MINIMUM, -1.0)
    seen = []

    def evaluate(eta):
        seen.append(eta)
        return (math.nan if eta > 4 else (eta - 0.5) ** 2), f"point {eta}"

    accepted = backtrack(evaluate, step, 0.25)
    assert accepted is not None
    assert seen == [8.0, 4.0, 2.0, 1.0, 0.5]  # 1.0 gives exactly the old cost: not a decrease
    assert (accepted.eta, accepted.point) == (0.5, "point 0.5")
    assert backtrack(lambda eta: (1.0 + eta, None), step, 1.0) is None
