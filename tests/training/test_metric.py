"""The inner product of training: gradients in it, its matrix, the moment that it learns, and what it is good for."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from robustode.training.cost import Cost
from robustode.training.metric import Metric
from robustode.training.ncg import NCGConfig
from robustode.training.sobolev import Sobolev
from tests.problems import random_conv_snode, random_points, random_snode
from tests.training.problems import snode

KNOTS, ROWS, INPUTS = 3, 2, 4
ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)
SQUARES = Cost(mu1=1.0, mu2=0.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states(n=30, seed=5):
    """Inputs of W far from white: shifted, and of unequal size."""
    return draw(n, INPUTS, seed=seed) * torch.tensor([3.0, 1.0, 0.2, 0.5], dtype=torch.float64) + 0.7


def second_moment(inputs):
    """The mean of z zᵀ over depths and samples, z = (x, 1), written out."""
    total = torch.zeros(INPUTS + 1, INPUTS + 1, dtype=torch.float64)
    for x in inputs:
        for row in x:
            z = torch.cat([row, torch.ones(1, dtype=torch.float64)])
            total += torch.outer(z, z) / len(x) / len(inputs)
    return total


def metric(whitening, length=0.6):
    made = Metric(Sobolev(KNOTS, 2.0, length), ROWS, whitening)
    made.observe([states(), states(20, seed=6)])
    return made


def path(seed=0):
    return draw(KNOTS, ROWS * INPUTS + ROWS, seed=seed)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_represents_the_derivative_in_the_inner_product(whitening, seed):
    g, u = path(seed), path(seed + 10)
    made = metric(whitening)
    assert made.inner(made.gradient(g), u) == pytest.approx(float((g * u).sum()), rel=1e-12)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 0.9])
def test_symmetric_positive_definite(whitening):
    made, size = metric(whitening), KNOTS * (ROWS * INPUTS + ROWS)
    basis = torch.eye(size, dtype=torch.float64).view(size, KNOTS, -1)
    gram = torch.tensor([[made.inner(u, v) for v in basis] for u in basis], dtype=torch.float64)
    assert torch.allclose(gram, gram.t(), rtol=0, atol=1e-14)
    least = torch.linalg.eigvalsh(gram).min()
    assert least >= (1 - whitening) * 2.0 / KNOTS - 1e-12  # the shrinkage times the eigenvalue of a constant in depth
    inverse = torch.stack([made.gradient(u).flatten() for u in basis])
    assert torch.allclose(gram @ inverse, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)


def test_without_whitening_it_is_the_sobolev_inner_product_to_the_bit():
    made, sobolev, u, v = metric(0.0), Sobolev(KNOTS, 2.0, 0.6), path(), path(1)
    assert made.moment is None
    assert torch.equal(made.gradient(u), sobolev.gradient(u))
    assert made.inner(u, v) == sobolev.inner(u, v)
    unseen = Metric(sobolev, ROWS, 0.9)  # before the first mini-batch
    assert torch.equal(unseen.gradient(u), sobolev.gradient(u))


def test_the_inner_product_is_the_trace_written_out():
    made, u, v = metric(0.9), path(), path(1)
    moment = second_moment([states(), states(20, seed=6)])
    c = 0.9 * moment / moment.diagonal().mean() + 0.1 * torch.eye(INPUTS + 1, dtype=torch.float64)
    depth, total = Sobolev(KNOTS, 2.0, 0.6).matrix, 0.0

    def joined(values, k):
        weight, bias = values[k, : ROWS * INPUTS].view(ROWS, INPUTS), values[k, ROWS * INPUTS :]
        return torch.cat([weight, bias[:, None]], dim=1)

    for j in range(KNOTS):
        for k in range(KNOTS):
            total += float(depth[j, k] * torch.trace(joined(u, j) @ c @ joined(v, k).t()))
    assert made.inner(u, v) == pytest.approx(total, rel=1e-12)


def test_the_moment_is_the_mean_of_one_mini_batch_and_a_running_mean_of_two():
    made = metric(0.9)
    first, second = second_moment([states(), states(20, seed=6)]), second_moment([states(seed=8)])
    assert torch.allclose(made.moment, first, rtol=1e-12)
    made.observe([states(seed=8)])
    assert torch.allclose(made.moment, 0.9 * first + 0.1 * second, rtol=1e-12)
    assert not torch.allclose(first, second, rtol=0.05)


def test_restored_from_its_moment_it_is_the_same_to_the_bit():
    made, other = metric(0.9), Metric(Sobolev(KNOTS, 2.0, 0.6), ROWS, 0.9)
    other.restore(made.moment)
    assert torch.equal(made.gradient(path()), other.gradient(path()))
    assert made.inner(path(), path(1)) == other.inner(path(), path(1))
    assert not torch.equal(made.gradient(path()), metric(0.0).gradient(path()))
    other.restore(made.moment.float())  # of another dtype, or from another device: it takes its own
    assert torch.allclose(made.gradient(path()), other.gradient(path()), rtol=1e-4)
    other.restore(None)
    assert torch.equal(other.gradient(path()), metric(0.0).gradient(path()))


def test_a_moment_that_is_not_finite_leaves_the_plain_inner_product():
    made = metric(0.9)
    made.observe([torch.full((3, INPUTS), torch.inf, dtype=torch.float64)])
    assert torch.equal(made.gradient(path()), metric(0.0).gradient(path()))


@pytest.mark.parametrize("make", [random_snode, random_conv_snode], ids=["dense", "convolutional"])
@pytest.mark.parametrize("whitening", [0.0, 0.5, 0.9])
def test_slope_along_a_direction_is_the_inner_product_with_the_gradient(make, whitening):
    model = make()
    x, y = random_points(model.input_shape, 12), torch.arange(12) % model.classes
    cost = replace(ALL, mu5=0.0) if make is random_conv_snode else ALL
    config = NCGConfig(cost=cost, whitening=whitening, averaging=0)
    trainer = config.trainer(model, 4)
    trainer.step(x, y)
    made = Metric(Sobolev(len(model.bias), model.horizon, config.length), model.bias.shape[1], whitening)
    made.restore(trainer.state()["moment"])
    point = trainer.at(model.encode(x), y)
    v = made.gradient(trainer.gradient(point, y))
    d = draw(*v.shape, seed=3)
    slope, _ = trainer.line(point, d, y)(0.0)
    assert made.inner(v, d) == pytest.approx(slope, rel=1e-10)
    assert made.inner(v, v) > 0
    assert abs(slope) > 1e-3
    assert (made.moment is None) == (whitening == 0)


def test_training_shows_it_the_states_at_the_depths_of_the_mini_batch():
    model, x = random_snode(steps=4, input_shape=(INPUTS,)), random_points((INPUTS,), 9)
    seen, state = [], model.encode(x)
    for n in range(4):
        seen.append(state)
        weight, bias = model.flow.parameters(n, 0)
        state = state + model.flow.step * torch.tanh(state @ weight.t() + bias)
    trainer = NCGConfig(averaging=0).trainer(model, 1)
    expected = second_moment([z.detach() for z in seen])
    trainer.step(x, torch.arange(9) % 4)
    assert torch.allclose(trainer.state()["moment"], expected, rtol=1e-10)


def test_training_shows_it_the_patches_of_a_convolution():
    model = random_conv_snode()
    x = random_points(model.input_shape, 5)
    trainer = NCGConfig(averaging=0).trainer(model, 1)
    trainer.step(x, torch.arange(5) % model.classes)
    moment = trainer.state()["moment"]
    assert moment.shape == (4 * 9 + 1, 4 * 9 + 1)
    assert float(moment[-1, -1]) == pytest.approx(1.0, rel=1e-12)
    assert torch.linalg.eigvalsh(moment).min() > -1e-12


def least_squares(whitening, iterations):
    """Excess of the cost over its minimum, as a share of that before, of x(1) = x + W x + b fitted to targets."""
    model = snode(horizon=1.0, steps=1, knots=1, activation="identity")
    x, y = random_points((6,), 60) * torch.tensor([1, 0.5, 0.1, 0.9, 0.3, 0.7], dtype=torch.float64), None
    y = torch.arange(60) % 3
    x0 = model.encode(x)
    z, target = torch.cat([x0, torch.ones(60, 1, dtype=torch.float64)], 1), torch.eye(6, dtype=torch.float64)[y]
    residual = target - x0 - z @ torch.linalg.lstsq(z, target - x0).solution
    least = float(residual.square().sum()) / 2 / 60
    config = NCGConfig(whitening=whitening, iterations=iterations, cost=SQUARES, averaging=0, direction="steepest")
    report = config.trainer(model, 1).step(x, y)
    assert report.final >= least - 1e-12
    return (report.final - least) / (report.terms.total - least)


def test_whitened_steepest_descent_solves_linear_least_squares_in_one_iteration():
    assert least_squares(1 - 1e-10, 1) < 1e-6
    assert least_squares(0.0, 1) > 0.05


def test_the_less_shrinkage_the_nearer():
    excess = [least_squares(1 - shrinkage, 1) for shrinkage in (1.0, 1e-1, 1e-2, 1e-3, 1e-4)]
    assert all(after < before for before, after in pairwise(excess))
    assert least_squares(0.9, 3) < 0.3 * least_squares(0.0, 3)
