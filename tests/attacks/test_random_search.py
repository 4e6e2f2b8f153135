"""Random search: exact where the distance is known, needs no gradient, stays inside, draws for each sample."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustode.attacks.base import Status
from robustode.attacks.random_search import RandomSearch
from robustode.errors import AttackError, BudgetError
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.problems import Affine, random_points

SHAPES = [(20,), (1, 4, 5), (5, 2)]


def generators(n, seed=0):
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(n)]


def each(attack, eps, model, x, y):
    """Run the attack on each sample at its own radius."""
    runs = [
        replace(attack, eps=float(eps[i]))(model, x[i : i + 1], y[i : i + 1], generator=generators(1, i))
        for i in range(len(x))
    ]
    return [run.status[0] for run in runs], torch.cat([run.forwards for run in runs])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_an_affine_model_of_two_classes_it_succeeds_just_above_the_distance_and_never_below(shape, norm):
    model, x, y = boxed_affine((-2.0, 6.0), input_shape=shape, samples=2)
    exact = exact_distance(model, x, y, norm)
    attack = RandomSearch(norm=norm, eps=1.0, queries=1500)
    above, spent = each(attack, 1.05 * exact, model, x, y)
    assert above == [Status.SUCCESS] * len(x)
    assert (spent < 1500).all()
    below, spent = each(replace(attack, queries=200), 0.999 * exact, model, x, y)
    assert below == [Status.FAILED] * len(x)
    assert (spent == 200).all()


def test_l1_fills_the_coordinates_of_the_largest_weights():
    weight = torch.tensor([[3.0, -1.0, 0.5, 2.0, 0.1, 0.0], [0.0] * 6], dtype=torch.float64)
    model = Affine(weight, torch.tensor([-1.5, 0.0], dtype=torch.float64), (6,)).eval()
    x = torch.full((1, 6), 0.5, dtype=torch.float64)
    x[0, 0] = 0.3  # the first coordinate can give 3 · 0.3, then the fourth gives 2 for each unit
    margin = float(model(x).detach()[0, 0])
    exact = margin / 3 if margin <= 0.9 else 0.3 + (margin - 0.9) / 2
    attack = RandomSearch(norm="l1", eps=1.0, queries=1500)
    assert each(attack, torch.tensor([1.05 * exact]), model, x, model(x).argmax(1))[0] == [Status.SUCCESS]
    assert each(attack, torch.tensor([0.999 * exact]), model, x, model(x).argmax(1))[0] == [Status.FAILED]


class Staircase(nn.Module):
    """An affine model whose inputs are rounded down to a grid: every gradient is zero."""

    def __init__(self, model, cells):
        super().__init__()
        self.model, self.cells = model, cells
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x):
        return self.model((x * self.cells).floor() / self.cells)


def test_a_model_without_gradients_is_broken():
    affine, x, y = boxed_affine((0.0, 1.0), input_shape=(16,))
    model = Staircase(affine, 64)
    y = model(x).argmax(1)
    leaf = x.clone().requires_grad_()
    assert not torch.autograd.grad(model(leaf).sum(), leaf)[0].any()
    exact = exact_distance(affine, x, affine(x).argmax(1), "linf")
    assert each(RandomSearch(eps=1.0, queries=2000), 1.1 * exact + 2 / 64, model, x, y)[0] == [Status.SUCCESS] * len(x)


class Pocket(nn.Module):
    """Class 1 inside a disc of radius `size` round `centre`, class 0 elsewhere: away from the surface of the ball."""

    bounds, classes, input_shape = (0.0, 1.0), 2, (2,)

    def __init__(self, centre, size):
        super().__init__()
        self.centre, self.size = torch.tensor(centre), size

    def forward(self, x):
        inside = self.size - (x - self.centre).norm(dim=1)
        return torch.stack([torch.zeros_like(inside), inside], 1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_inside_of_the_ball_is_searched(norm):
    model, x = Pocket((0.52, 0.53), 0.01), torch.full((1, 2), 0.5)
    attack = RandomSearch(norm=norm, eps=0.2, queries=1000)
    assert attack(model, x, torch.zeros(1, dtype=torch.long), generator=generators(1)).status == (Status.SUCCESS,)
    surface = replace(attack, inner=0.0)
    assert surface(model, x, torch.zeros(1, dtype=torch.long), generator=generators(1)).status == (Status.FAILED,)


class Watch(nn.Module):
    """Keeps every point that it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x):
        self.seen.append(x)
        return self.model(x)


@pytest.mark.parametrize("shape", [(7,), (2, 4, 3)])
@pytest.mark.parametrize(("norm", "order"), [("linf", math.inf), ("l2", 2), ("l1", 1)])
def test_no_point_leaves_the_ball_or_the_box(shape, norm, order):
    model, x = (
        Affine(torch.zeros(2, math.prod(shape)), torch.tensor([1.0, 0.0]), shape),
        random_points(shape, 1).float(),
    )
    x[0].view(-1)[:3] = torch.tensor([0.0, 1.0, 0.01])
    watch = Watch(model)
    RandomSearch(norm=norm, eps=0.3, queries=400)(watch, x, torch.zeros(1, dtype=torch.long), generator=generators(1))
    points = torch.cat(watch.seen[:400])
    assert points.min() >= 0
    assert points.max() <= 1
    length = (points - x).flatten(1).norm(p=order, dim=1)
    assert length.max() <= 0.3 * (1 + 1e-6)
    assert (length > 0.29).float().mean() > 0.3
    assert len(points.unique(dim=0)) > 40


def test_draws_are_the_samples_own_and_spent_passes_are_counted():
    model, x, y = boxed_affine((0.0, 1.0), input_shape=(9,), samples=5)
    y[0] = 1 - y[0]
    attack = RandomSearch(norm="l2", eps=0.08, queries=150)
    whole, part = attack(model, x, y, generator=generators(5)), attack(model, x[2:], y[2:], generator=generators(5)[2:])
    assert whole.forwards is not None
    assert part.forwards is not None
    assert torch.equal(whole.returned[2:], part.returned)
    assert torch.equal(whole.forwards[2:], part.forwards)
    assert whole.forwards[0] == 1
    assert whole.status[0] is Status.MISCLASSIFIED
    assert not torch.equal(attack(model, x, y, generator=generators(5, 1)).returned, whole.returned)
    assert len(attack(model, x[:0], y[:0], generator=[]).status) == 0


def test_a_target_is_reached_or_nothing_is():
    model, x, y = boxed_affine((0.0, 1.0), classes=4, input_shape=(10,), samples=5)
    target = (y + 1) % 4
    exact = exact_distance(model, x, y, "linf", target)
    attack = RandomSearch(eps=float(exact.max()) * 2, queries=2000)
    result = attack(model, x, y, target=target, generator=generators(5))
    assert result.success.all()
    assert torch.equal(result.adv_pred, target)
    own = attack(model, x, y, target=y, generator=generators(5))
    assert own.status == (Status.FAILED,) * 5


def test_an_answer_that_is_not_finite_is_never_kept():
    model, x = Pocket((0.52, 0.53), 0.01), torch.full((1, 2), 0.5)

    class Holes(Pocket):
        def forward(self, x):
            logits = super().forward(x)
            return torch.where((x[:, :1] > 0.51), torch.nan, logits)

    result = RandomSearch(eps=0.2, queries=200)(Holes((0.52, 0.53), 0.01), x, torch.zeros(1, dtype=torch.long))
    assert result.status == (Status.FAILED,)
    assert model(result.returned).isfinite().all()
    assert (result.returned[:, 0] <= 0.51).all()


@pytest.mark.parametrize(
    ("options", "message", "error"),
    [
        ({}, "eps of a random search: expected a positive number, got None", BudgetError),
        ({"eps": -1.0}, "expected a positive number, got -1.0", BudgetError),
        ({"eps": 1.0, "queries": 1}, "expected queries ≥ 2, 0 < block ≤ 1, 0 ≤ inner ≤ 1, got queries 1,", AttackError),
        ({"eps": 1.0, "block": 0.0}, "block 0, inner 0.25", AttackError),
        ({"eps": 1.0, "inner": 1.5}, "block 0.8, inner 1.5", AttackError),
    ],
)
def test_parameters_out_of_range(options, message, error):
    with pytest.raises(error) as caught:
        RandomSearch(**options)
    assert message in str(caught.value)
