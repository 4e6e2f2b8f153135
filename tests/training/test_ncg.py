"""Nonlinear conjugate gradients: slopes, descent, restarts, averages, and problems it must solve."""

import math
from itertools import pairwise

import pytest
import torch

from robustode.errors import TrainingError
from robustode.models.resnet import ResNet
from robustode.training import ncg
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.ncg import NCGConfig
from robustode.training.steplength import StepLength, minimise
from tests.problems import random_points, random_snode
from tests.training.problems import data, snode

ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)


def batch(model, n=20):
    """Inputs and labels for a model."""
    return random_points(model.input_shape, n), torch.arange(n) % model.classes


@pytest.mark.parametrize(("method", "knots"), [("euler", 8), ("euler", 3), ("rk4", 3)])
def test_slope_along_a_direction_is_the_gradient_times_the_direction(method, knots):
    model = random_snode(method=method, knots=knots, input_shape=(6,))
    x, y = batch(model)
    trainer = NCGConfig(cost=ALL).trainer(model, 1)
    point = trainer.at(model.encode(x), y)
    g = trainer.gradient(point, y)
    d = torch.randn(g.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope, _ = trainer.line(point, d, y)(0.0)
    assert slope == pytest.approx(float((g * d).sum()), rel=1e-12)
    assert abs(slope) > 1e-3


def test_line_is_the_cost_to_first_order_in_the_weights():
    model = random_snode(input_shape=(6,))
    x, y = batch(model)
    trainer = NCGConfig(cost=ALL).trainer(model, 1)
    x0 = model.encode(x)
    point, path = trainer.at(x0, y), trainer.path()
    d = -trainer.gradient(point, y)
    line = trainer.line(point, d, y)
    errors = []
    for eta in (1e-2, 5e-3):
        trainer.move(path + eta * d)
        # ∫ F by the trapezoidal rule, exact to third order
        predicted = point.terms.total + eta * (line(0.0)[0] + line(eta)[0]) / 2
        errors.append(abs(trainer.at(x0, y).terms.total - predicted))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("direction", ["polak-ribiere+", "steepest"])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_accepted_steps_never_raise_the_mini_batch_cost(direction, scale):
    model = random_snode(scale=scale, input_shape=(6,))
    x, y = batch(model)
    trainer = NCGConfig(direction=direction, iterations=4, cost=ALL, averaging=0).trainer(model, 1)
    costs = [trainer.at(model.encode(x), y).terms.total]
    for _ in range(8):
        report = trainer.step(x, y)
        assert report.terms.total == costs[-1]
        assert report.final == trainer.at(model.encode(x), y).terms.total
        costs.append(report.final)
    assert all(after <= before for before, after in pairwise(costs))
    assert costs[-1] < 0.9 * costs[0]


def test_a_step_that_overshoots_is_halved_only_in_the_accepted_mode(monkeypatch):
    def far(line):
        step = minimise(line)
        return StepLength(1000 * step.eta, step.outcome, step.slope)

    monkeypatch.setattr(ncg, "minimise", far)
    finals = {}
    for mode in ncg.LINE_SEARCHES:
        model = random_snode(activation="softplus", input_shape=(6,))
        x, y = batch(model)
        config = NCGConfig(line_search=mode, iterations=1, cost=Cost(mu1=1, mu2=0))
        report = config.trainer(model, 1).step(x, y)
        finals[mode] = report.final - report.terms.total
    assert finals["accepted"] < 0 < finals["linearised"]


def test_an_ascent_direction_restarts_with_steepest_descent(monkeypatch):
    taken = []

    def ascent(name, v, previous, inner):
        taken.append(previous is None)
        return -v if previous is None else v

    model = random_snode(input_shape=(6,))
    x, y = batch(model)
    with monkeypatch.context() as patch:
        patch.setattr(ncg, "direction", ascent)
        report = NCGConfig(iterations=3).trainer(model, 1).step(x, y)
    again = random_snode(input_shape=(6,))
    expected = NCGConfig(iterations=3, direction="steepest").trainer(again, 1).step(x, y)
    assert taken == [True, False, False]
    assert report.final == expected.final < report.terms.total


def test_a_stationary_point_is_left_alone():
    model = snode(activation="tanh", input_shape=(4,), classes=2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    x = torch.zeros(2, 4, dtype=torch.float64)  # the same input with both labels: zero weights are the optimum
    report = NCGConfig(averaging=0).trainer(model, 1).step(x, torch.tensor([0, 1]))
    assert report.final == report.terms.total == pytest.approx(math.log(2))
    assert model.weight.abs().max() < 1e-12
    assert model.bias.abs().max() < 1e-12


def test_average_is_the_exponential_mean_of_the_path():
    model = random_snode(input_shape=(6,))
    x, y = batch(model)
    trainer = NCGConfig(epochs=2, averaging=0.5).trainer(model, 8)  # 4 mini-batches an epoch: time constant 2
    assert torch.equal(trainer.export()["weight"], model.weight)  # nothing to average yet
    visited = []
    for _ in range(3):
        trainer.step(x, y)
        visited.append(model.weight.detach().clone())
    shares = [math.exp(-(2 - i) / 2) for i in range(3)]
    expected = sum(s * w for s, w in zip(shares, visited, strict=True)) / sum(shares)
    exported = trainer.export()["weight"]
    assert torch.allclose(exported, expected, rtol=1e-12)
    assert not torch.allclose(exported, visited[-1], rtol=1e-3)


def test_linear_least_squares_is_solved():
    # With relu kept positive and one knot and step, x(T) = x + h(Wx + b): a linear model with a squared error.
    model = snode(activation="relu", input_shape=(3,), classes=3, steps=1, knots=1, horizon=1.0)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.fill_(1.5)
    x, y = random_points((3,), 30), torch.arange(30) % 3
    x0, onehot = model.encode(x), torch.eye(3, dtype=torch.float64)[y]
    full = torch.cat([x0, torch.ones(30, 1, dtype=torch.float64)], 1)
    best = torch.linalg.lstsq(full, onehot).solution
    optimum = 0.5 * float((full @ best - onehot).square().sum()) / 30
    assert float((full @ best - x0).min()) > 0.1  # where the pre-activations of the solution are positive
    trainer = NCGConfig(iterations=40, cost=Cost(mu1=1, mu2=0), averaging=0).trainer(model, 1)
    assert trainer.step(x, y).final == pytest.approx(optimum, rel=1e-6)


@pytest.mark.parametrize(("line_search", "mu1"), [("accepted", 0.0), ("accepted", 1.0), ("linearised", 1.0)])
def test_learns_clusters(line_search, mu1):
    model = snode().float()
    config = NCGConfig(epochs=10, batch=30, line_search=line_search, averaging=0.5, cost=Cost(mu1=mu1, mu2=1 - mu1))
    result = fit(model, data(), recipe=config, test=data(seed=1))
    assert result.history[0]["loss"] > 0.8
    assert result.train_accuracy > 0.95
    assert result.test_accuracy is not None
    assert result.test_accuracy > 0.95


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "training option epochs: expected a whole number ≥ 1, got 0"),
        ({"batch": 2.5}, "training option batch: expected a whole number ≥ 1, got 2.5"),
        ({"iterations": True}, "training option iterations: expected a whole number ≥ 1, got True"),
        ({"length": -1.0}, "training option length: expected a finite number ≥ 0, got -1.0"),
        ({"averaging": math.nan}, "training option averaging: expected a finite number ≥ 0, got nan"),
        ({"direction": "polack"}, r"unknown direction: .* Did you mean 'polak-ribiere\+'"),
        ({"line_search": "linearized"}, "unknown line search: .* Did you mean 'linearised'"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(TrainingError, match=message):
        NCGConfig(**values)


def test_needs_an_snode_and_known_names():
    with pytest.raises(TrainingError, match=r"NCG: expected an sNODE or layered model, got ResNet. Train it with SGD"):
        NCGConfig().trainer(ResNet(input_shape=(1, 8, 8), classes=3), 1)
    with pytest.raises(TrainingError, match=r"unknown training option: .* got 'epoch'. Did you mean 'epochs'"):
        NCGConfig().replace(epoch=3)
