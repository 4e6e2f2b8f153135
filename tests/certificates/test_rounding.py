"""Bounds of rounding against the rounding that occurs."""

from __future__ import annotations

import pytest
import torch

from robustode.certificates.network import network, state_shape
from robustode.certificates.problem import make_problem
from robustode.certificates.rounding import input_error, readout_error, stage_errors, step_error
from robustode.certificates.steps import step_constants
from robustode.errors import OptionError
from robustode.solvers.activations import ACTIVATIONS
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


def deployed_and_reach(make, **config):
    model = make(dtype=torch.float32, **config)
    x = random_points(model.input_shape, 32, dtype=torch.float32)
    problem = make_problem(model, x, torch.zeros(32, dtype=torch.int64), "l2")
    exact = problem.exact
    with torch.no_grad():
        states = torch.stack(list(exact.flow.states(exact.encode(problem.x))))
        apart = model(x).double() - problem.logits
    return problem, states.abs().amax(0).flatten(1).amax(1) * 1.001, apart


def carried(problem, reach):
    """The bounds of all steps, carried to a difference of two logits by the steps' Lipschitz constants: (batch,)."""
    flow, shape = network(problem).flow, state_shape(problem)
    size = reach.reshape(*reach.shape, *(1,) * (len(shape) + 1 - reach.dim())).expand(-1, *shape)
    error = input_error(problem, size).flatten(1).norm(dim=1)
    for n, constant in enumerate(step_constants(flow, "l2", shape)):
        error = constant * error + step_error(problem, flow, n, size).flatten(1).norm(dim=1)
    difference = flow.weight.new_zeros(1, shape[0])
    difference[0, :2] = 1.0
    width = network(problem).read_transposed(difference).norm()
    return (width * error + readout_error(problem, size)).detach()


@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_above_the_error_of_float32_and_not_absurd(activation, method):
    problem, reach, apart = deployed_and_reach(random_snode, activation=activation, method=method, steps=6, scale=0.7)
    slack = carried(problem, reach)
    error = (apart[:, :1] - apart).abs().amax(1)
    assert (error <= slack).all()
    assert error.max() > 0
    assert slack.median() < 3e-3  # with a worst case for every sum and every expansion of every step


def test_convolutional():
    problem, reach, apart = deployed_and_reach(random_conv_snode, scale=0.5, steps=4)
    assert ((apart[:, :1] - apart).abs().amax(1) <= carried(problem, reach)).all()


def test_negligible_in_float64():
    model = random_snode(scale=0.5)
    x = random_points(model.input_shape, 3)
    problem = make_problem(model, x, torch.zeros(3, dtype=torch.int64), "l2")
    assert carried(problem, torch.full((3,), 3.0, dtype=torch.float64)).max() < 1e-10


def test_grows_with_reach_and_holds_for_a_reach_by_component():
    problem, reach, _ = deployed_and_reach(random_snode, steps=4)
    assert (carried(problem, 2 * reach) > carried(problem, reach)).all()
    whole = reach[:, None].expand(-1, 12)
    assert torch.allclose(carried(problem, whole), carried(problem, reach))


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_errors_of_one_step(method):
    model = random_snode(dtype=torch.float32, method=method, steps=4, scale=3.0)
    exact = make_problem(model, torch.zeros(1, 1, 3, 4), torch.zeros(1, dtype=torch.int64), "l2").exact
    x = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = next(v for n, v in enumerate(model.flow.states(x)) if n == 1).double()
        true = next(v for n, v in enumerate(exact.flow.states(x.double())) if n == 1)
    bound = stage_errors(exact.flow, 0, x.double().abs(), 2.0**-24)[1]
    assert ((ours - true).abs() <= bound).all()
    assert (ours - true).abs().max() > bound.max() / 400


def test_other_models_are_refused():
    model = random_affine()
    x = random_points(model.input_shape, 2)
    problem = make_problem(model, x, torch.zeros(2, dtype=torch.int64), "l2")
    with pytest.raises(OptionError, match="expected an sNODE"):
        input_error(problem, torch.ones(2, 12, dtype=torch.float64))
