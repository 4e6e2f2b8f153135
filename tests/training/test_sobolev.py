"""The Sobolev gradient: its operator, eigenfunctions, the slope it represents, and the smoothness it brings."""

import math
from itertools import pairwise

import pytest
import torch

from robustode.solvers.depth import knot_depths, smoothness
from robustode.training.cost import Cost
from robustode.training.ncg import NCGConfig
from robustode.training.sobolev import Sobolev
from tests.problems import random_points, random_snode
from tests.training.problems import data, snode


def random_path(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 10.0])
def test_symmetric_positive_definite(length):
    sobolev = Sobolev(9, 3.0, length)
    assert torch.equal(sobolev.matrix, sobolev.matrix.t())
    assert torch.linalg.eigvalsh(sobolev.matrix).min() == pytest.approx(3.0 / 9, rel=1e-12)  # of the constant
    inverse = sobolev.gradient(torch.eye(9, dtype=torch.float64))
    assert torch.allclose(inverse, inverse.t(), rtol=0, atol=1e-14)
    assert torch.allclose(sobolev.matrix @ inverse, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(inverse).min() > 0


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(5))
def test_minus_the_gradient_always_descends(length, seed):
    g = random_path(9, 5, seed=seed)
    assert float((g * Sobolev(9, 3.0, length).gradient(g)).sum()) > 0


def test_the_operator_is_the_differential_equation():
    # (M + ℓ² K) v = spacing (v − ℓ² v''), v'' by second differences, with a mirrored knot beyond each end (v' = 0)
    v, spacing, length = random_path(7, 2), 2.0 / 7, 0.6
    mirrored = torch.cat([v[:1], v, v[-1:]])
    second = (mirrored[2:] - 2 * v + mirrored[:-2]) / spacing**2
    assert torch.allclose(Sobolev(7, 2.0, length).matrix @ v, spacing * (v - length**2 * second), rtol=1e-12)


def test_the_inner_product_is_the_integral_of_values_and_derivatives():
    u, v, spacing, length = random_path(7, 2, 3), random_path(7, 2, 3, seed=1), 2.0 / 7, 0.6
    exact = spacing * (u * v).sum() + length**2 / spacing * (u.diff(dim=0) * v.diff(dim=0)).sum()
    sobolev = Sobolev(7, 2.0, length)
    assert sobolev.inner(u, v) == pytest.approx(float(exact), rel=1e-12)
    squares = spacing * u.square().sum() + length**2 * smoothness(u, 2.0)
    assert sobolev.inner(u, u) == pytest.approx(float(squares), rel=1e-12)


def test_gradient_represents_the_derivative_in_the_inner_product():
    sobolev = Sobolev(7, 2.0, 0.6)
    g = torch.Generator().manual_seed(1)
    u, w = (torch.randn(7, 4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    assert sobolev.inner(sobolev.gradient(u), w) == pytest.approx(float((u * w).sum()), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_eigenfunctions_to_order_two(k):
    horizon, length = 3.0, 0.7
    exact = 1 / (1 + (length * k * math.pi / horizon) ** 2)
    errors = []
    for knots in (16, 32, 64):
        mode = torch.cos(k * math.pi / horizon * knot_depths(knots, horizon))[:, None]
        v = Sobolev(knots, horizon, length).gradient(mode * horizon / knots)  # Euclidean gradient of the L2 gradient
        errors.append(float((v - exact * mode).abs().max()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2.0, abs=0.1)


def test_constants_and_length_zero():
    ones = torch.full((6, 2), 0.25, dtype=torch.float64)
    assert torch.allclose(Sobolev(6, 3.0, 2.0).gradient(ones * 0.5), ones, rtol=1e-13)
    u = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(Sobolev(6, 3.0, 0.0).gradient(u * 0.5), u, rtol=1e-13)


def test_one_knot():
    assert Sobolev(1, 4.0, 1.0).gradient(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[0.25, 0.25]]


@pytest.mark.parametrize("length", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_slope_is_the_inner_product_of_gradient_and_direction(length, method):
    # F(0) = ⟨v, d⟩ = the derivative of the true cost along d
    model = random_snode(method=method, input_shape=(6,))
    x0, y = model.encode(random_points((6,), 7)), torch.arange(7) % 4
    trainer = NCGConfig(cost=Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4)).trainer(model, 1)
    sobolev = Sobolev(4, model.horizon, length)
    point, path, h = trainer.at(x0, y), trainer.path(), 1e-5
    v = sobolev.gradient(trainer.gradient(point, y))
    d = random_path(*v.shape)
    slope, _ = trainer.line(point, d, y)(0.0)
    values = []
    for step in (-h, h):
        trainer.move(path + step * d)
        values.append(trainer.at(x0, y).terms.total)
    assert sobolev.inner(v, d) == pytest.approx(slope, rel=1e-12)
    assert (values[1] - values[0]) / (2 * h) == pytest.approx(slope, rel=1e-6)
    assert abs(slope) > 1e-3


def test_longer_is_smoother():
    g = random_path(16, 4)
    gradients = [Sobolev(16, 3.0, length).gradient(g) for length in (0.0, 0.2, 0.5, 1.0, 2.0)]
    rough = [float(smoothness(v, 3.0)) for v in gradients]
    assert all(after < before / 2 for before, after in pairwise(rough))
    means = [v.mean(0) for v in gradients]  # what is constant in depth, every length leaves as it is
    assert all(torch.allclose(m, means[0], rtol=1e-12) for m in means)


def trained_to(target, length, seed):
    """A model trained by NCG in W^{1,2} of that length until its cost is `target`, to 1e-6.

    It starts from weights that are constant in depth, so that what is rough has been learnt.
    """
    model, samples = snode(seed=seed, steps=16, knots=16), data(n=90, seed=seed)
    with torch.no_grad():
        for part in (model.weight, model.bias):
            part.copy_(part.mean(0, keepdim=True).expand_as(part).clone())
    trainer = NCGConfig(length=length, iterations=5, averaging=0).trainer(model, 1)
    x, y = samples.x.double(), samples.y
    for _ in range(100):
        before = trainer.path()
        if trainer.step(x, y).final <= target:
            break
    after, low, high = trainer.path(), 0.0, 1.0
    while high - low > 1e-9:  # along the last move, to the very cost
        middle = (low + high) / 2
        trainer.move(torch.lerp(before, after, middle))
        low, high = (middle, high) if trainer.at(model.encode(x), y).terms.total > target else (low, middle)
    assert trainer.at(model.encode(x), y).terms.total == pytest.approx(target, abs=1e-6)
    return model


@pytest.mark.parametrize("seed", range(3))
def test_training_in_w12_gives_smoother_weights_than_in_l2_at_the_same_cost(seed):
    smooth, rough = (trained_to(0.1, length, seed).smoothness for length in (1.0, 0.0))
    assert smooth < 0.5 * rough
