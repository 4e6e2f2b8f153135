"""Lines around activations: they hold at every point of thousands of intervals, and are as tight as they can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustode.certificates.propagate.curves import CURVES, GELU, SILU, exponential, leaky, softplus
from robustode.certificates.propagate.relax import lines, remainder, value_range
from robustode.solvers.activations import ACTIVATIONS

OTHERS = {
    "gelu": GELU,
    "silu": SILU,
    "elu 0.7": exponential(0.7),
    "leaky 0.3": leaky(0.3),
    "softplus 5": softplus(5.0),
}
ALL = CURVES | OTHERS
SMOOTH = ["tanh", "sigmoid", "softplus", "softplus 5", "gelu", "silu", "identity"]


def intervals(n: int = 3000, seed: int = 0):
    """Ends of intervals of widths 0 and 1e-14 to 1e4, about 0 and far from it."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.randn(n, generator=g, dtype=torch.float64) * 10 ** (
        4 * torch.rand(n, generator=g, dtype=torch.float64) - 2
    )
    width = 10 ** (18 * torch.rand(n, generator=g, dtype=torch.float64) - 14)
    width[: n // 50] = 0
    low, high = centre - width / 2, centre + width / 2
    corners = torch.tensor(
        [[-1e300, 1e300], [-800, 800], [-1, 0], [0, 1], [-0.1, 0.1], [-1e-320, 1e-320], [-745, -740], [30, 45]],
        dtype=torch.float64,
    )
    return torch.cat([low, corners[:, 0]]), torch.cat([high, corners[:, 1]])


def grid(low, high, points: int = 400):
    """Points of every interval: even, and crowded at the ends and at 0."""
    even = torch.linspace(0, 1, points, dtype=torch.float64)
    crowded = 10.0 ** torch.linspace(-12, 0, points // 4, dtype=torch.float64)
    share = torch.cat([even, crowded, 1 - crowded])[:, None]
    near = 10.0 ** torch.linspace(-6, 2, points // 4, dtype=torch.float64)
    near = torch.cat([near, -near])[:, None].expand(-1, len(low))
    inside = low + (high - low) * share
    return torch.minimum(torch.maximum(torch.cat([inside, near]), low), high)


def crossed(curve, found, low, high) -> torch.Tensor:
    """Whether a line is crossed anywhere on the grid."""
    a = grid(low, high)
    value = curve.value(a)
    over = value > found.upper_slope * a + found.upper
    under = value < found.lower_slope * a + found.lower
    return (over | under).any(0)


@pytest.mark.parametrize("name", ALL)
def test_lines_hold(name):
    low, high = intervals()
    found = lines(ALL[name], low, high)
    assert bool(torch.stack([found.lower, found.upper, found.lower_slope, found.upper_slope]).isfinite().all())
    assert int(crossed(ALL[name], found, low, high).sum()) == 0


@pytest.mark.parametrize("name", CURVES)
def test_lines_hold_of_what_the_sweep_computes(name):
    """The activation of the solvers in float64 differs from the curve by rounding only, which the lines allow for."""
    low, high = intervals(seed=3)
    a = grid(low, high)
    value, size = ACTIVATIONS[name].apply(a), a.abs()
    assert bool(((value - CURVES[name].value(a)).abs() <= 2.0**-50 * (1 + size)).all())


def test_a_line_that_is_a_little_too_low_is_seen():
    low, high = intervals()
    wide = (high - low > 0.5) & (high - low < 1e3)
    found = lines(CURVES["tanh"], low, high)
    found = replace(found, upper=found.upper - 1e-3)
    assert int(wide.sum()) > 100
    assert bool(crossed(CURVES["tanh"], found, low, high)[wide].all())


@pytest.mark.parametrize("name", ALL)
def test_any_slope_has_its_intercepts(name):
    low, high = intervals(seed=1)
    g = torch.Generator().manual_seed(2)
    alpha = torch.rand(len(low), generator=g, dtype=torch.float64) * 1.2
    alpha[:300], alpha[300:600], alpha[600:700] = 0, 1, 1e-18
    least, most = remainder(ALL[name], alpha, low, high)
    a = grid(low, high)
    g = ALL[name].value(a) - alpha * a
    assert bool(((least <= g) & (g <= most)).all())


@pytest.mark.parametrize("name", ALL)
def test_ranges_hold_and_are_tight(name):
    low, high = intervals(seed=4)
    least, most = value_range(ALL[name], low, high)
    values = ALL[name].value(grid(low, high))
    assert bool((least <= values).all())
    assert bool((values <= most).all())
    size = 1 + values.abs().max(0).values
    slack = 1e-14 * size
    if (curvature := ALL[name].curvature) is not None:  # a grid of 65 points, both there and here
        slack = slack + 1.1e-12 + 2.02 * curvature * ((high - low).clamp(max=2 * ALL[name].flat) / 64) ** 2 / 8
    assert bool((values.min(0).values - least <= slack).all())
    assert bool((most - values.max(0).values <= slack).all())


@pytest.mark.parametrize("name", SMOOTH)
def test_the_gap_is_of_second_order(name):
    """Between the lines there is room of the order of width², which is what makes small radii exact."""
    g = torch.Generator().manual_seed(5)
    centre = 6 * torch.rand(2000, generator=g, dtype=torch.float64) - 3
    for width in (1e-1, 1e-2, 1e-3):
        low, high = centre - width / 2, centre + width / 2
        found = lines(ALL[name], low, high)
        gap = torch.stack(
            [(found.upper_slope - found.lower_slope) * a + found.upper - found.lower for a in (low, high)]
        )
        assert bool((gap <= 1.5 * width**2 + 1e-13).all())


def test_relu_has_its_triangle():
    """Above the chord, below the better of 0 and a."""
    low, high = torch.tensor([-1.0, -3.0, 1.0, -2.0], dtype=torch.float64), torch.tensor([3.0, 1.0, 2.0, -1.0]).double()
    found = lines(CURVES["relu"], low, high)
    close = {"rtol": 0.0, "atol": 1e-13}
    torch.testing.assert_close(found.upper_slope, torch.tensor([0.75, 0.25, 1.0, 0.0]).double(), **close)
    torch.testing.assert_close(found.upper, torch.tensor([0.75, 0.75, 0.0, 0.0]).double(), **close)
    torch.testing.assert_close(found.lower_slope, torch.tensor([1.0, 0.0, 1.0, 0.0]).double(), **close)
    torch.testing.assert_close(found.lower, torch.zeros(4).double(), **close)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_the_lines_of_an_s_shape_touch_it(name):
    """Across the bend, the tangents from the ends: each equal to σ there and at one more point."""
    low, high = torch.tensor([-2.0]).double(), torch.tensor([2.0]).double()
    found = lines(CURVES[name], low, high)
    a = torch.linspace(-2, 2, 100001, dtype=torch.float64)
    over = found.upper_slope * a + found.upper - CURVES[name].value(a)
    under = CURVES[name].value(a) - found.lower_slope * a - found.lower
    for gap, end, other in ((over, 0, a > 0), (under, -1, a < 0)):
        assert gap[end] < 1e-4
        assert gap[other].min() < 1e-4


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_nothing_is_known_over_an_infinite_interval(name):
    ends = torch.tensor([-torch.inf, 0.0, torch.nan]).double(), torch.tensor([0.0, torch.inf, 1.0]).double()
    found = lines(ALL[name], *ends)
    assert bool(found.lower.isnan().all())
    assert bool(found.upper.isnan().all())
