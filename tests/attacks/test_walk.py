"""The walk along a boundary whose nearest point is known."""

import math

import pytest
import torch
from torch import nn

from robustode.attacks.norms import distance
from robustode.attacks.search import Search
from robustode.attacks.walk import Walk
from tests.problems import random_points, random_snode


class Quadric(nn.Module):
    """Two classes, parted by the ellipsoid (x − c)ᵀ A (x − c) = 1 in a large box: inside is class 0."""

    bounds, classes = (-50.0, 50.0), 2

    def __init__(self, axes, centre):
        super().__init__()
        self.axes, self.centre = axes, centre
        self.input_shape = (len(axes),)

    def forward(self, x):
        inside = 1 - ((x - self.centre) * self.axes).square().sum(1)
        return torch.stack([inside, torch.zeros_like(inside)], 1)


def walked(model, x, start, norm, steps):
    search = Search.of(model, x, torch.zeros(len(x), dtype=torch.int64), None, norm)
    walk = Walk(search, start.clone(), search.distance(search.every, start))
    walk.advance(search.every, steps)
    return search, walk


def test_a_sphere_seen_from_inside():
    """The nearest point of a sphere lies on the ray from its centre; its curvature makes plain projection diverge."""
    model = Quadric(torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    unit = nn.functional.normalize(torch.randn(20, 6, generator=draw, dtype=torch.float64), dim=1)
    x = 0.4 * unit
    start = nn.functional.normalize(unit + 0.8 * torch.randn(20, 6, generator=draw, dtype=torch.float64), dim=1)
    search, walk = walked(model, x, start, "l2", 25)
    assert walk.done.all()
    assert torch.allclose(walk.reach, torch.full_like(walk.reach, 0.6), atol=1e-5)
    assert (walk.kkt < 1e-4).all()
    assert (walk.x - unit).norm(dim=1).max() < 5e-3
    assert (search.passes.forwards <= 25).all()
    assert search.passes.forwards.mean() < 15


def nearest_of_ellipsoid(axes, x):
    """Distance from inside to Σ (a_i z_i)² = 1: z_i = x_i / (1 + 2 μ a_i²), μ < 0 by bisection."""
    low, high = -0.5 / float(axes.max()) ** 2 * (1 - 1e-14), 0.0
    for _ in range(200):
        mu = (low + high) / 2
        z = x / (1 + 2 * mu * axes.square())
        low, high = (mu, high) if float((axes * z).square().sum()) > 1 else (low, mu)
    return float((z - x).norm())


def test_an_ellipsoid_from_starts_in_the_right_basin():
    axes = torch.tensor([1.0, 0.7, 0.5, 0.4], dtype=torch.float64)
    model = Quadric(axes, torch.zeros(4, dtype=torch.float64))
    draw = torch.Generator().manual_seed(1)
    x = 0.3 * torch.randn(20, 4, generator=draw, dtype=torch.float64)
    x[:, 0] = x[:, 0].abs() + 0.3
    x = x[(x * axes).square().sum(1) < 0.8]
    start = x.clone()
    start[:, 0] = (1 - (x[:, 1:] * axes[1:]).square().sum(1)).clamp_min(0.01).sqrt()
    truth = torch.tensor([nearest_of_ellipsoid(axes, row) for row in x], dtype=torch.float64)
    _, walk = walked(model, x, start, "l2", 40)
    assert len(x) >= 10
    assert walk.done.all()
    assert ((walk.reach / truth - 1).abs() < 1e-4).all()


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_an_arrival_is_a_kkt_point(norm):
    """At an arrival no feasible direction that keeps to the boundary, to first order, shortens the perturbation."""
    model = random_snode(scale=2.0)
    x = random_points(model.input_shape, 20)
    y = model(x).argmax(1)
    search = Search.of(model, x, y, None, norm)
    plane = search.plane(search.every, x, temperature=0.05)
    walk = Walk(search, plane.point, search.distance(search.every, plane.point))
    walk.advance(search.every, 60)
    rows = walk.done.nonzero().squeeze(1)
    assert len(rows) >= 10
    again = search.plane(rows, walk.x[rows])
    assert (again.value.abs() < 1e-2 * model(x[rows]).abs().amax(1)).all()
    gap = distance(x[rows], walk.x[rows], norm)
    assert (again.length >= gap * (1 - 0.02)).all()
    assert torch.isfinite(walk.x).all()


def test_flat_and_broken_models_do_not_move_it_to_nowhere():
    class Flat(Quadric):
        def forward(self, x):
            return torch.stack([0 * x[:, 0] + math.nan, 0 * x[:, 0]], 1)

    model = Flat(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    x = random_points((3,), 4)
    _, walk = walked(model, x, x + 1, "l2", 3)
    assert torch.isfinite(walk.x).all()
    assert not torch.isnan(walk.reach).any()
