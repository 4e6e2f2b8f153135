"""The cost against its formula, finite differences and other grids."""

import math

import pytest
import torch

from robustode.errors import TrainingError
from robustode.solvers.activations import ACTIVATIONS, activation
from robustode.training.cost import Cost, terms
from robustode.training.log_norm import DepthLogNorm
from robustode.training.measure import measure, rest_point
from robustode.training.ncg import NCGConfig
from tests.problems import random_points, random_snode
from tests.training.problems import batch

SINGLE = [
    Cost(mu1=0.7, mu2=0),
    Cost(mu2=1.3),
    Cost(mu2=1e-3, mu3=0.9),
    Cost(mu2=1e-3, mu4=0.4),
    Cost(mu2=1e-3, mu5=0.4),
]
ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)


def test_values_are_the_formula():
    state, y = batch()
    rest = 0.25
    values = terms(ALL.terminal(state, y, classes=3, rest=rest), torch.zeros(2))
    onehot = torch.eye(6, dtype=torch.float64)[y]
    logp = state[:, :3].log_softmax(1)
    assert values.mismatch == pytest.approx(0.35 * float((state - onehot).square().sum()) / 8, rel=1e-14)
    assert values.cross_entropy == pytest.approx(-1.3 * float(sum(logp[i, y[i]] for i in range(8))) / 8, rel=1e-14)
    assert values.drift == pytest.approx(0.45 * float((state - rest).square().sum()) / 8, rel=1e-14)
    assert values.total == values.mismatch + values.cross_entropy + values.drift
    assert values.as_dict()["total"] == values.total


@pytest.mark.parametrize("cost", [*SINGLE, ALL])
def test_terminal_gradient_is_that_of_autograd(cost):
    state, y = batch()
    state.requires_grad_(True)
    (expected,) = torch.autograd.grad(cost.terminal(state, y, classes=3, rest=0.3).sum(), state)
    actual = cost.terminal_gradient(state.detach(), y, classes=3, rest=0.3)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-15)
    assert expected.abs().max() > 1e-5


@pytest.mark.parametrize("cost", [*SINGLE, ALL])
@pytest.mark.parametrize(("method", "name"), [("euler", "sigmoid"), ("midpoint", "selu"), ("rk4", "softplus")])
@pytest.mark.parametrize("knots", [1, 5, 12])
def test_gradient_in_the_knots_against_finite_differences(cost, method, name, knots):
    model = random_snode(method=method, activation=name, knots=knots, steps=12, input_shape=(6,))
    x, y = random_points((6,), 7), torch.arange(7) % 4
    trainer = NCGConfig(cost=cost).trainer(model, 1)
    with torch.no_grad():
        gradient = trainer.gradient(trainer.at(model.encode(x), y), y)
        d = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        path, h = trainer.path(), 1e-5
        values = []
        for step in (-h, h):
            trainer.move(path + step * d)
            values.append(trainer.at(model.encode(x), y).terms.total)
    difference = (values[1] - values[0]) / (2 * h)
    assert float((gradient * d).sum()) == pytest.approx(difference, rel=1e-6)
    assert abs(difference) > 1e-3


def test_drift_and_weights_do_not_depend_on_steps_or_solver():
    model = random_snode(steps=8, knots=4, activation="sigmoid")
    cost = Cost(mu3=2.0, mu4=0.5, mu5=0.3)
    with torch.no_grad():
        weights = 0.25 * model.horizon / 4 * float(model.weight.square().sum() + model.bias.square().sum())
        growth = 0.15 * model.horizon / 4 * float(DepthLogNorm("sigmoid")(model.weight).values.square().sum())
    x, y = random_points(model.input_shape, 5), torch.zeros(5, dtype=torch.int64)
    for view in (model, model.at_steps(64), model.at_steps(16, "rk4"), model.at_steps(3, "midpoint")):
        assert rest_point(view) == model.horizon * 0.5
        with torch.no_grad():
            state, terminal, path = measure(view, cost, x, y)
            assert torch.equal(path, measure(model, cost, x, y)[2])
        assert float(path[0]) == pytest.approx(weights, rel=1e-12)
        assert float(path[1]) == pytest.approx(growth, rel=1e-9)
        assert float(terminal[2]) == pytest.approx(float((state - 1.0).square().sum(1).mean()), rel=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_drift_vanishes_for_zero_weights_at_the_origin(name, method):
    model = random_snode(activation=name, method=method, scale=0.0)
    origin = torch.zeros(2, *model.input_shape, dtype=torch.float64)  # encoded as 0, the background
    with torch.no_grad():
        _, terminal, path = measure(model, Cost(mu3=1.0, mu4=1.0, mu5=1.0), origin, torch.tensor([0, 1]))
    assert float(terminal[2]) == pytest.approx(0.0, abs=1e-28)
    assert rest_point(model) == model.horizon * activation(name).at_zero
    assert float(terminal[1]) == pytest.approx(math.log(4), rel=1e-14)
    assert path.tolist() == [0.0, 0.0]


def test_the_trainer_reports_each_term_of_its_mini_batch():
    model = random_snode(input_shape=(6,))
    x, y = random_points((6,), 7), torch.arange(7) % 4
    with torch.no_grad():
        _, terminal, path = measure(model, ALL, x, y)
    report = NCGConfig(cost=ALL).trainer(model, 1).step(x, y)  # of the weights before they move
    assert report.terms.as_dict() == pytest.approx(terms(terminal, path).as_dict(), rel=1e-14)
    assert min(report.terms.as_dict().values()) > 1e-3
    with torch.no_grad():
        _, terminal, path = measure(model, ALL, x, y)
    assert report.final == pytest.approx(terms(terminal, path).total, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mu1": -1.0}, r"cost factor mu1: expected a finite number ≥ 0, got -1.0"),
        ({"mu4": math.inf}, r"cost factor mu4: expected a finite number ≥ 0, got inf"),
        ({"mu5": -0.1}, r"cost factor mu5: expected a finite number ≥ 0, got -0.1"),
        ({"mu2": "1"}, r"cost factor mu2: expected a finite number ≥ 0, got '1'"),
        ({"mu2": 0.0, "mu3": 1.0}, r"expected a positive mu1 or mu2, got mu1 = mu2 = 0"),
    ],
)
def test_factors_out_of_range(values, message):
    with pytest.raises(TrainingError, match=message):
        Cost(**values)
