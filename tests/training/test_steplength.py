"""The step length: its function against the cost, its root, and every way a search can end."""

import math
from itertools import pairwise

import pytest
import torch

from robustode.training.cost import Cost
from robustode.training.steplength import LinearisedCost, Outcome, StepLength, backtrack, find_root, minimise
from tests.training.problems import batch

ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)
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


@pytest.mark.parametrize("margin", [0.0, 40.0, 800.0])
def test_a_tail_behind_a_plateau_is_entered_where_it_starts(margin):
    # the wrong class leads by `margin`, and a step η reduces that by 2η: F(η) = −2 p(wrong), flat until η = margin / 2,
    # where Newton's first guess, −F(0)/F'(0) = eᵐ/2, is far beyond. F = 1e-8 F(0) at η = (margin + 8 log 10) / 2.
    state = torch.tensor([[0.0, margin]], dtype=torch.float64)
    tangent = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    values = LinearisedCost(Cost(), state, tangent, torch.tensor([0]), classes=2)
    step = minimise(values)
    start = (margin + 8 * math.log(10)) / 2
    assert step.outcome is Outcome.TAIL
    assert 0.9 * start < step.eta <= 2 * start
    assert abs(values(step.eta)[0]) <= 1e-8 * -step.slope


def test_a_minimum_behind_a_plateau_is_found():
    # as above, and a second sample that the same direction spoils: F changes its sign at 200
    state = torch.tensor([[0.0, 400.0], [400.0, 0.0]], dtype=torch.float64)
    tangent = torch.tensor([[1.0, -1.0], [-0.9, 1.0]], dtype=torch.float64)
    values = LinearisedCost(Cost(), state, tangent, torch.tensor([0, 0]), classes=2)
    step = minimise(values)
    assert step.outcome is Outcome.MINIMUM
    assert abs(values(step.eta)[0]) <= 1e-8 * -step.slope
    assert step.eta == pytest.approx(205.2, abs=5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost", [Cost(mu2=1.3), Cost(mu1=0.7, mu2=0), ALL])
def test_the_function_is_nondecreasing_along_any_direction(cost, seed):
    state, y = batch()
    g = torch.Generator().manual_seed(seed)
    tangent = 10 ** (2 * seed - 4.0) * torch.randn(state.shape, generator=g, dtype=torch.float64)
    values = LinearisedCost(cost, state, tangent, y, classes=3, rest=0.25, path=PATH)
    first, second = zip(*(values(float(eta)) for eta in torch.logspace(-8, 8, 200, dtype=torch.float64)), strict=True)
    scale = max(map(abs, first))
    assert all(b - a >= -1e-14 * scale for a, b in pairwise(first))
    assert first[-1] > first[0]
    assert min(second) >= 0


# nondecreasing functions that Newton's method alone does not survive, F(0) = −1, and their roots
ADVERSARIAL = {
    "wall": (lambda x: (-1.0, 0.0) if x < 3 else (1e300, 1e300), 0.0, 3.0),
    "infinite wall": (lambda x: (-1.0, 0.0) if x < 3 else (math.inf, math.inf), 0.0, 3.0),
    "far beyond": (lambda x: (x / 7 - 1, 1 / 7), 1e-290, 7.0),  # F'(0) is wrong: the first guess is 1e290
    "far below": (lambda x: (x * 1e200 - 1, 1e200), 1e-3, 1e-200),
    "slow Newton": (lambda x: (min(x, 1e60) ** 5 - 1, 5 * min(x, 1e60) ** 4), 1e-55, 1.0),
    "cycling Newton": (
        lambda x: (math.copysign(abs(x - 1) ** 0.25, x - 1), 0.25 / (abs(x - 1) + 1e-300) ** 0.75),
        1.0,
        1.0,
    ),
    "wrong derivative": (lambda x: (math.tanh(x - 5) / math.tanh(5), 1e-30), 0.0, 5.0),
    "huge slope": (lambda x: (1e300 * (x - 2) if x > 2 else -1.0, 1e300 if x > 2 else 0.0), 0.0, 2.0),
    "stairs": (lambda x: (math.floor(x) - 8.5, 0.0), 0.0, 9.0),
    "overflow": (lambda x: ((x - 2) / 2 if x < 1e3 else math.nan, 0.5), 1e-9, 2.0),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_root_finder_ends_at_the_root_of_adversarial_functions(name):
    function, curvature, root = ADVERSARIAL[name]
    seen = []

    def counted(eta):
        seen.append(eta)
        return function(eta)

    step = find_root(counted, function(0.0)[0], curvature)
    assert step.outcome is Outcome.MINIMUM
    assert step.eta == pytest.approx(root, rel=1e-6)
    assert len(seen) <= 201
    assert all(math.isfinite(eta) and eta > 0 for eta in seen)


def test_a_step_is_short_of_a_jump():
    # F jumps from −1 to 1 at 3, the cost has a kink: η is the last number before it
    step = find_root(lambda eta: (-1.0 if eta < 3 else 1.0, 0.0), -1.0, 0.0)
    assert step.eta < 3 == math.nextafter(step.eta, math.inf)


@pytest.mark.parametrize(("curvature", "eta"), [(0.0, 1.0), (0.25, 4.0), (1e-320, 1.0)])
@pytest.mark.parametrize("level", [-1.0, -1e-7])
def test_without_end_the_step_is_the_first_guess(level, curvature, eta):
    step = find_root(lambda eta: (level, 0.0), -1.0, curvature)
    assert (step.eta, step.outcome, step.slope) == (eta, Outcome.UNBOUNDED, -1.0)


@pytest.mark.parametrize("power", [1, 3])
def test_the_tail_of_a_rational_function(power):
    step = find_root(lambda eta: (-((1 + eta) ** -power), power * (1 + eta) ** (-power - 1)), -1.0, power)
    start = 1e8 ** (1 / power)
    assert step.outcome is Outcome.TAIL
    assert 0.9 * start < step.eta <= 2.1 * start


def test_a_quadratic_whose_minimum_overflows():
    # μ₂ = 0 and a tangent whose square underflows: F' = 0, F = F(0) as far as numbers go
    state, tangent = torch.ones(1, 2, dtype=torch.float64), torch.full((1, 2), -1e-170, dtype=torch.float64)
    values = LinearisedCost(Cost(mu1=1.0, mu2=0.0), state, tangent, torch.tensor([0]), classes=2)
    step = minimise(values)
    assert values(0.0) == (pytest.approx(-1e-170), 0.0)
    assert (step.eta, step.outcome) == (1.0, Outcome.UNBOUNDED)


def test_a_direction_that_changes_nothing_is_not_one_of_descent():
    state, y = batch()
    step = minimise(LinearisedCost(ALL, state, torch.zeros_like(state), y, classes=3))
    assert (step.eta, step.outcome, step.slope) == (0.0, Outcome.ASCENT, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_or_a_tangent_that_is_not_finite(value):
    for cost in (Cost(), Cost(mu1=1.0, mu2=0.0), ALL):
        for broken in range(2):
            state, y = batch()
            tangent = -cost.terminal_gradient(state, y, classes=3)
            (state, tangent)[broken][3, 1] = value
            step = minimise(LinearisedCost(cost, state, tangent, y, classes=3))
            assert (step.eta, step.outcome) == (0.0, Outcome.NON_FINITE)


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


def test_backtracking_gives_up_after_twenty_halvings():
    seen = []

    def evaluate(eta):
        seen.append(eta)
        return math.inf, None

    assert backtrack(evaluate, StepLength(1.0, Outcome.MINIMUM, -1.0), 1.0) is None
    assert seen == [2.0**-k for k in range(21)]
    assert backtrack(evaluate, StepLength(0.0, Outcome.ASCENT, 1.0), 1.0) is None
    assert len(seen) == 21  # no step, nothing to try


def test_backtracking_wants_a_part_of_the_predicted_decrease():
    step = StepLength(1.0, Outcome.MINIMUM, -1.0)
    for decrease, accepted in ((0.99e-4, False), (1.01e-4, True)):
        result = backtrack(lambda eta, d=decrease: (1.0 - d * eta, None), step, 1.0)
        assert (result is not None) is accepted
