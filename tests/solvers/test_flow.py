"""The fused sweep against torchdiffeq, autograd, finite differences and closed forms."""

import dataclasses
import itertools
import math

import pytest
import torch
from torchdiffeq import odeint

from robustode.errors import ModelError
from robustode.models.layered import Layered
from robustode.models.snode import SNODE
from robustode.solvers import flow as flow_module
from robustode.solvers.depth import interpolate, knot_depths, knot_position
from robustode.solvers.solve import Solve
from robustode.solvers.tableau import TABLEAUX, Tableau
from robustode.solvers.tape import ROWS
from tests.problems import random_points, random_snode

SMOOTH = ("tanh", "sigmoid", "softplus")
FUNCTIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
}


def reference(model: SNODE, x: torch.Tensor) -> torch.Tensor:
    """x(T) by torchdiffeq with the same method and grid; Euler's weights are those of the middle of its step."""
    config, function = model.config, FUNCTIONS[model.config["activation"]]
    shift = model.horizon / model.steps / 2 if config["method"] == "euler" else 0.0

    def field(t, state):
        depth = float(t) + shift
        weight = interpolate(model.weight, depth, model.horizon)
        bias = interpolate(model.bias, depth, model.horizon)
        return function(state @ weight.t() + bias)

    times = torch.linspace(0.0, model.horizon, model.steps + 1, dtype=torch.float64)
    return odeint(field, model.encode(x), times, method=config["method"])[-1]


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("knots", [1, 4, 12])
def test_agrees_with_torchdiffeq(method, activation, knots):
    model = random_snode(method=method, activation=activation, knots=knots)
    x = random_points(model.input_shape, 5)
    with torch.no_grad():
        expected = reference(model, x)
        assert torch.allclose(model.final_state(x), expected, rtol=0, atol=1e-12)
        assert (expected - model.encode(x)).abs().max() > 0.1  # the flow is not the identity


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_order_of_convergence(method, order):
    model = random_snode(method=method, knots=2, steps=8)
    x = random_points(model.input_shape, 3)
    with torch.no_grad():
        truth = model.at_steps(4096, "rk4").final_state(x)
        errors = [(model.at_steps(n).final_state(x) - truth).norm() for n in (32, 64, 128)]
    observed = [math.log2(float(a / b)) for a, b in itertools.pairwise(errors)]
    assert observed[-1] == pytest.approx(order, abs=0.1)


def test_linear_regime_is_the_matrix_exponential():
    # softplus' inverse is not needed: relu stays linear while its pre-activations are positive.
    model = random_snode(activation="relu", method="rk4", knots=1, steps=400, horizon=1.0, input_shape=(4,), classes=2)
    with torch.no_grad():
        model.weight.abs_()
        model.bias.fill_(2.0)
    x = random_points((4,), 3)
    weight, bias = model.weight[0].detach(), model.bias[0].detach()
    block = torch.zeros(5, 5, dtype=torch.float64)
    block[:4, :4], block[:4, 4] = weight, bias
    start = torch.cat([model.encode(x), torch.ones(3, 1, dtype=torch.float64)], 1)
    exact = (start @ torch.linalg.matrix_exp(block).t())[:, :4]
    assert torch.allclose(model.final_state(x), exact, rtol=1e-9)


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("knots", [3, 12])
def test_gradients_pass_gradcheck(method, activation, knots):
    model = random_snode(method=method, activation=activation, knots=knots, input_shape=(5,), classes=3)
    x = random_points((5,), 2).requires_grad_(True)

    def run(x, weight, bias):
        return torch.func.functional_call(model, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, model.weight, model.bias), rtol=1e-6, atol=1e-8)


def test_relu_gradient_matches_autograd_of_the_unfused_network():
    model = random_snode(activation="relu", method="rk4")
    x = random_points(model.input_shape, 4).requires_grad_(True)
    w = torch.randn(4, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fused = torch.autograd.grad((model.final_state(x) * w).sum(), (x, model.weight, model.bias))
    plain = torch.autograd.grad((reference(model, x) * w).sum(), (x, model.weight, model.bias))
    for a, b in zip(fused, plain, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
        assert b.abs().max() > 1e-3


@pytest.mark.parametrize("method", TABLEAUX)
def test_segments_change_nothing_but_memory(method, monkeypatch):
    model = random_snode(method=method, steps=17, knots=5)
    x = random_points(model.input_shape, 3).requires_grad_(True)

    def gradients():
        return torch.autograd.grad(model.final_state(x).square().sum(), (x, model.weight, model.bias))

    whole = gradients()
    stage_bytes = ROWS * 12 * 8 * 2 * TABLEAUX[method].stages
    monkeypatch.setattr(flow_module, "TAPE_BYTES", 4 * stage_bytes)
    _, tape = model.flow.record(model.encode(x).detach())
    assert len(tape.starts) == 3  # 8, 8 and 1 steps
    for a, b in zip(whole, gradients(), strict=True):
        assert torch.equal(a, b)


def test_layered_is_the_snode_with_a_knot_for_each_step():
    layered = Layered(input_shape=(6,), classes=3, steps=7, seed=3).double()
    x = random_points((6,), 4)
    state = layered.encode(x)
    for weight, bias in zip(layered.weight, layered.bias, strict=True):
        state = state + layered.horizon / 7 * torch.tanh(state @ weight.t() + bias)
    assert torch.allclose(layered.final_state(x), state, rtol=0, atol=1e-13)
    with pytest.raises(ModelError, match="cannot be re-discretised"):
        layered.at_steps(3)


def test_at_steps_shares_weights_and_changes_the_grid():
    model = random_snode(steps=64, knots=4)
    view = model.at_steps(16)
    assert view.weight is model.weight
    assert (view.steps, view.nfe, model.nfe) == (16, 16, 64)
    x = random_points(model.input_shape, 3)
    coarse = (view(x) - model(x)).abs().max()
    assert 1e-6 < coarse < 0.2
    assert view.config == model.config | {"steps": 16}
    with pytest.raises(ModelError, match="steps: expected at least 1 step, got 0"):
        model.at_steps(0)


def test_knot_positions():
    assert [knot_position((n + 0.5) / 6, 6) for n in range(6)] == [(n, 0.0) for n in range(6)]
    assert knot_position(0.0, 4) == (0, 0.0)
    assert knot_position(1.0, 4) == (3, 0.0)
    assert knot_position(0.5, 4) == (1, pytest.approx(0.5))
    assert torch.allclose(knot_depths(3, 3.0), torch.tensor([0.5, 1.5, 2.5], dtype=torch.float64))


def test_encoding_and_bounds():
    model = random_snode(bounds=(-1.0, 3.0), background=0.5, foreground=-1.5)
    x = torch.full((1, 1, 3, 4), 3.0, dtype=torch.float64)
    assert torch.equal(model.encode(x), torch.full((1, 12), -1.5, dtype=torch.float64))
    assert model.bounds == (-1.0, 3.0)


def test_spline_initialisation_has_the_stated_spread():
    model = SNODE(input_shape=(100,), classes=2, horizon=3.0, steps=6, knots=6)
    again = SNODE(input_shape=(100,), classes=2, horizon=3.0, steps=6, knots=6)
    other = SNODE(input_shape=(100,), classes=2, horizon=3.0, steps=6, knots=6, seed=1)
    assert torch.equal(model.weight, again.weight)
    assert not torch.equal(model.weight, other.weight)
    layered = Layered(input_shape=(100,), classes=2, steps=6)
    assert float(layered.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    smooth, rough = (m.weight.detach().diff(dim=0).norm() for m in (model, layered))
    assert rough > 1.5 * smooth  # the spline is smooth in depth, independent layers are not


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steps": 3, "knots": 4}, r"at least as many steps as knots \(4\), got 3"),
        ({"horizon": 0.0}, "horizon: Input should be greater than 0"),
        ({"classes": 99}, "expected at most 12"),
        ({"activation": "tahn"}, "Did you mean 'tanh'"),
        ({"method": "rk5"}, "Did you mean 'rk4'"),
        ({"depth": 3}, "depth: Extra inputs are not permitted"),
        ({"bounds": (1.0, 0.0)}, "lo < hi"),
    ],
)
def test_bad_configuration(config, message):
    with pytest.raises(ModelError, match=message):
        random_snode(**config)


def test_wrong_input_shape():
    with pytest.raises(ModelError, match=r"expected shape \(batch, 1, 3, 4\), got \(2, 5\)"):
        random_snode()(torch.zeros(2, 5, dtype=torch.float64))


def test_tableau_checks_itself():
    with pytest.raises(ModelError, match="condition of order 2"):
        Tableau("wrong", a=((), (0.4,)), b=(0.0, 1.0), depth=(0.0, 0.4), order=2)


def test_without_grad_nothing_is_recorded(monkeypatch):
    model = random_snode()
    x = random_points(model.input_shape, 3)
    expected = model(x).detach()

    def refuse(*_args, **_options):
        raise RuntimeError("recorded")

    monkeypatch.setattr(flow_module.Flow, "record", refuse)
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    with pytest.raises(RuntimeError, match="recorded"):
        model(x)


@pytest.mark.parametrize("method", TABLEAUX)
def test_tangents_and_adjoints_at_every_depth_are_those_of_the_parts_of_the_flow(method, monkeypatch):
    """ξ(t) and λ(t) against the first and the last steps alone, with weights given at their very depths."""
    model = random_snode(method=method, steps=10, knots=1)  # θ is constant: parts are flows
    model.requires_grad_(False)
    x, draw = model.encode(random_points(model.input_shape, 3)), torch.Generator().manual_seed(0)
    xi, w = (torch.randn(3, 12, generator=draw, dtype=torch.float64) for _ in range(2))
    monkeypatch.setattr(flow_module, "TAPE_BYTES", 4 * ROWS * 12 * 8 * TABLEAUX[method].stages)
    _, tape = model.flow.record(x)
    assert len(tape.starts) == 3
    tangents = [tangent.clone() for tangent in model.flow.tangents(tape, xi)]
    adjoints = [adjoint.clone() for adjoint in model.flow.adjoints(tape, w)][::-1]
    states = list(model.flow.states(x))
    assert len(tangents) == len(adjoints) == len(states) == 11
    assert torch.equal(tangents[0], xi)
    assert torch.equal(adjoints[-1], w)
    for n in range(1, 10):
        first, last = (dataclasses.replace(model.flow, steps=k, horizon=k * model.flow.step) for k in (n, 10 - n))
        assert torch.allclose(tangents[n], first.tangent(first.record(x)[1], xi), rtol=0, atol=1e-13)
        assert torch.allclose(adjoints[n], last.adjoint(last.record(states[n])[1], w), rtol=0, atol=1e-13)
    assert torch.equal(tangents[-1], model.flow.tangent(tape, xi))
    assert torch.equal(adjoints[0], model.flow.adjoint(tape, w))
    assert (tangents[-1] - xi).norm() > 0.1 * xi.norm()


WEIGHTS = ("weight", "bias")


@pytest.mark.parametrize(
    ("asked", "computed"),
    [(("x",), False), (WEIGHTS, True), (("x", "weight"), True), (("bias",), True)],
    ids=["inputs", "weights", "both", "bias"],
)
@pytest.mark.parametrize("leaf", [True, False], ids=["leaf", "inner"])
def test_gradients_that_nobody_asks_for_are_not_computed(asked, computed, leaf, monkeypatch):
    flow, calls = random_snode(method="rk4").flow, []
    x0 = random_points((12,), 3).requires_grad_(True)
    leaves = {"x": x0, "weight": flow.weight.detach().requires_grad_(), "bias": flow.bias.detach().requires_grad_()}
    given = leaves if leaf else {name: 1.0 * value for name, value in leaves.items()}
    whole = torch.autograd.grad(Solve.apply(*given.values(), flow).square().sum(), list(leaves.values()))
    accumulate = flow_module.Flow._accumulate
    monkeypatch.setattr(flow_module.Flow, "_accumulate", lambda *a: calls.append(1) or accumulate(*a))
    given = leaves if leaf else {name: 1.0 * value for name, value in leaves.items()}
    cost = Solve.apply(*given.values(), flow).square().sum()
    got = torch.autograd.grad(cost, [leaves[name] for name in asked])
    assert bool(calls) is computed
    for name, gradient in zip(asked, got, strict=True):
        assert torch.equal(gradient, dict(zip(leaves, whole, strict=True))[name])


@pytest.mark.parametrize("only_inputs", [True, False])
def test_backward_fills_the_gradients_asked_for(only_inputs):
    model, x = random_snode(), random_points((1, 3, 4), 3).requires_grad_(True)
    model(x).square().sum().backward(inputs=[x] if only_inputs else None)
    assert x.grad.abs().max() > 1e-3
    assert (model.weight.grad is None) is only_inputs
