"""The pieces of the search one by one: rays, distinct rows, classes, far points; on models whose boundary is known."""

import math

import pytest
import torch
from torch import nn

from robustode.attacks.base import Status
from robustode.attacks.explore import distinct, far_points, nearest_classes
from robustode.attacks.search import Search
from robustode.attacks.sensitivity import SensitivityAttack
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.problems import random_affine, random_points


class Bent(nn.Module):
    """Two classes, parted where the mean of x is 0.5; the margin bends strongly along any ray."""

    bounds, input_shape, classes = (0.0, 1.0), (4,), 2

    def forward(self, x):
        bent = torch.tanh(8 * (0.5 - x.mean(1)))
        return torch.stack([bent, torch.zeros_like(bent)], 1)


def started(model, x):
    search = Search.of(model, x, torch.zeros(len(x), dtype=torch.int64), None, "l2")
    search.evaluate(search.every, x)
    return search


@pytest.mark.parametrize("end", [0.56, 0.7, 1.0])
def test_a_ray_that_begins_beyond_the_boundary_finds_it(end):
    """From margins that are saturated, too, and with no pass for a point whose margin is known."""
    x = torch.full((3, 4), 0.1, dtype=torch.float64)
    search = started(Bent(), x)
    point = torch.full_like(x, end)
    search.evaluate(search.every, point)
    spent = search.passes.forwards.clone()
    search.ray(search.every, point, evaluations=16)
    truth = 0.4 * 2.0  # 0.4 in each of four coordinates
    assert torch.allclose(search.best, torch.full_like(search.best, truth), rtol=1.2e-4)
    assert (search.best >= truth).all()
    assert (search.passes.forwards - spent <= 16).all()
    known = search.passes.forwards.clone()
    search.ray(search.every, search.best_x, evaluations=0)
    assert torch.equal(search.passes.forwards, known)


def test_a_ray_that_ends_before_the_boundary_goes_outwards_and_no_further_than_the_best():
    x = torch.full((2, 4), 0.1, dtype=torch.float64)
    search = started(Bent(), x)
    search.ray(search.every, torch.full_like(x, 0.495), evaluations=12)
    assert torch.isfinite(search.best).all()
    assert (search.best <= 0.8 * 1.03).all()


def test_of_rows_beside_each_other_the_nearest_is_kept():
    x = torch.zeros(4, 2, dtype=torch.float64)
    search = started(Misled(), x)
    points = torch.tensor([[1.0, 0.0], [0.99, 0.01], [0.0, 2.0], [0.0, 1.5]], dtype=torch.float64)
    reach = torch.tensor([1.0, 0.99, 2.0, math.inf], dtype=torch.float64)
    kept = distinct(search, search.every, points, reach, per=4, count=3, apart=0.1)
    assert kept.tolist() == [1, 2]  # row 0 lies beside row 1, row 3 reaches nothing
    assert distinct(search, search.every, points, reach, per=4, count=1, apart=0.1).tolist() == [1]
    assert distinct(search, search.every, points, reach, per=2, count=1, apart=0.1).tolist() == [1, 2]


class Misled(nn.Module):
    bounds, input_shape, classes = (0.0, 2.0), (2,), 2

    def forward(self, x):
        return torch.stack([1 + 0 * x[:, 0], 0 * x[:, 0]], 1)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1), ("l1", math.inf)])
def test_the_nearest_classes_of_an_affine_model_are_exact(norm, order):
    model = random_affine(classes=5, bounds=(-9.0, 9.0))
    x = random_points(model.input_shape, 12)
    logits = model(x).detach()
    y = logits.argmax(1)
    search = Search.of(model, x, y, None, norm)
    plane, classes = nearest_classes(search, x, pool=9, count=3)
    weight = model.weight.detach()
    gap = logits.gather(1, y[:, None]) - logits
    size = torch.linalg.vector_norm(weight[y][:, None] - weight, ord=order, dim=2)
    truth = (gap / size).masked_fill(torch.arange(5) == y[:, None], math.inf)
    assert classes.reshape(12, 3).tolist() == truth.argsort(1)[:, :3].tolist()
    assert torch.allclose(plane.length.reshape(12, 3), truth.sort(1).values[:, :3], rtol=1e-6)
    assert (search.passes.forwards == 1).all()
    assert (search.passes.backwards == 5).all()


def test_far_points_stay_in_the_box_and_find_what_saturation_hides():
    x = torch.full((2, 4), 0.1, dtype=torch.float64)
    search = started(Bent(), x)
    far_points(search, search.every, evaluations=12)
    assert torch.isfinite(search.best).all()
    assert ((search.best_x >= 0) & (search.best_x <= 1)).all()
    assert (Bent()(search.best_x).argmax(1) == 1).all()
    assert (search.best < 1.2).all()  # the corner is 1.8 away, the boundary 0.8


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("setting", ["fast", "thorough"])
def test_points_hold_when_a_sample_is_asked_alone_in_float32(classes, norm, setting):
    """The two logits of two classes are equal on the boundary: a margin in proportion to their spread there is none."""
    model, x, y = boxed_affine((0.0, 1.0), classes=classes, input_shape=(40,), dtype=torch.float32, samples=60)
    result = SensitivityAttack(norm=norm, setting=setting)(model, x, y)
    alone = torch.cat([model(row) for row in result.x_adv.split(1)])
    assert all(status is Status.SUCCESS for status in result.status)
    assert (alone.argmax(1) != y).all()
    exact = exact_distance(model, x, y, norm)
    assert torch.allclose(result.distance, exact.double(), rtol=1e-3)
