"""The two line searches: one never raises the cost, the other takes the step of the linearised output as it is."""

from itertools import pairwise

import pytest
import torch

from robustode.training.cost import Cost
from robustode.training.directions import DIRECTIONS, Previous, direction
from robustode.training.ncg import NCGConfig
from robustode.training.sobolev import Sobolev
from robustode.training.steplength import Outcome, minimise
from tests.problems import random_points, random_snode

ALL = Cost(mu1=0.7, mu2=1.3, mu3=0.9, mu4=0.4, mu5=0.3)


def problem(seed, **config):
    """A rough model far from linear, encoded inputs and labels."""
    model = random_snode(seed=seed, input_shape=(6,), **config)
    x = random_points((6,), 20, seed=seed + 100)
    return model, x, torch.randint(4, (20,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cost", [Cost(), Cost(mu1=1.0, mu2=0.0), ALL])
def test_accepted_steps_never_raise_the_mini_batch_cost(name, seed, cost):
    scale, activation = ((1.0, "tanh"), (8.0, "tanh"), (3.0, "srelu"), (1.0, "elu"))[seed]
    model, x, y = problem(seed, scale=scale, activation=activation)
    trainer = NCGConfig(direction=name, iterations=1, length=0.3, cost=cost, averaging=0).trainer(model, 1)
    several = NCGConfig(direction=name, iterations=4, length=0.3, cost=cost, averaging=0).trainer(model, 1)
    costs = [trainer.at(model.encode(x), y).terms.total]
    for number in range(8):
        report = (several if number % 2 else trainer).step(x, y)
        assert report.terms.total == pytest.approx(costs[-1], rel=1e-13)
        assert report.final == pytest.approx(trainer.at(model.encode(x), y).terms.total, rel=1e-13)
        costs.append(report.final)
    assert all(after <= before * (1 + 1e-13) for before, after in pairwise(costs))
    assert costs[-1] < 0.95 * costs[0]


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("cost", [Cost(mu1=1.0, mu2=0.0), ALL])
def test_linearised_takes_the_step_as_it_is(name, cost):
    model, x, y = problem(0)
    twin = problem(0)[0]
    config = NCGConfig(direction=name, iterations=3, cost=cost, line_search="linearised", averaging=0, whitening=0)
    trainer, own = config.trainer(model, 1), config.trainer(twin, 1)
    sobolev, x0, previous = Sobolev(4, twin.horizon, config.length), twin.encode(x), None
    for _ in range(3):  # the paper's iteration, written out
        point = own.at(x0, y)
        v = sobolev.gradient(own.gradient(point, y))
        d = direction(name, v, previous, sobolev.inner)
        step = minimise(own.line(point, d, y))
        assert step.outcome is Outcome.MINIMUM
        assert step.eta > 0
        own.move(own.path() + step.eta * d)
        previous = Previous(v, d)
    trainer.step(x, y)
    assert torch.allclose(trainer.path(), own.path(), rtol=0, atol=1e-13)
    assert (trainer.path() - problem_path(0)).abs().max() > 1e-2


def problem_path(seed):
    return NCGConfig().trainer(problem(seed)[0], 1).path()


def test_linearised_moves_to_the_minimum_of_the_linearised_cost_to_the_bit():
    model, x, y = problem(1)
    trainer = NCGConfig(line_search="linearised", iterations=1, cost=ALL, averaging=0, whitening=0).trainer(model, 1)
    start, point = trainer.path(), trainer.at(model.encode(x), y)
    d = -Sobolev(4, model.horizon, 1.0).gradient(trainer.gradient(point, y))
    line = trainer.line(point, d, y)
    eta = minimise(line).eta
    assert abs(line(eta)[0]) <= 1e-8 * abs(line(0.0)[0])
    trainer.step(x, y)
    assert torch.equal(trainer.path(), torch.add(start, d, alpha=eta))
