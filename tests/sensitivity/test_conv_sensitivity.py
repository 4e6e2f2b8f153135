"""The sensitivity interface of the convolutional sNODE: the fused sweep against itself, autograd and differences."""

import importlib

import pytest
import torch

from robustode import sensitivity
from robustode.sensitivity.linearise import AutogradLinearisation, FusedLinearisation
from robustode.solvers.tableau import TABLEAUX
from tests.problems import random_conv_snode, random_points


def draw(*size, seed=5):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("config", [{}, {"patch": 2, "channels": 8}, {"kernel": 1}, {"activation": "relu"}])
def test_adjoint_identity(method, config):
    model = random_conv_snode(method=method, **config)
    x = random_points(model.input_shape, 6)
    delta, w = draw(*x.shape), draw(6, 3)
    left = (sensitivity.tangent(model, x, delta) * w).sum(1)
    right = (delta * sensitivity.adjoint(model, x, w)).flatten(1).sum(1)
    assert ((left - right).abs() <= 1e-12 * left.abs().clamp_min(1e-2)).all()
    assert left.abs().min() > 1e-4


@pytest.mark.parametrize("method", TABLEAUX)
def test_adjoint_identity_of_whole_states_and_of_several_directions(method):
    model = random_conv_snode(method=method).requires_grad_(False)
    _, tape = model.flow.record(model.encode(random_points(model.input_shape, 6)))
    xi, w = draw(6, 2, 4, 4, 6), draw(6, 2, 4, 4, 6, seed=6)
    pushed, pulled = model.flow.tangent(tape, xi), model.flow.adjoint(tape, w)
    left, right = ((a * b).flatten(2).sum(2) for a, b in ((pushed, w), (xi, pulled)))
    assert ((left - right).abs() <= 1e-12 * left.abs().clamp_min(1.0)).all()
    assert torch.allclose(model.flow.tangent(tape, xi[:, 1]), pushed[:, 1], rtol=0, atol=1e-13)
    assert torch.allclose(model.flow.adjoint(tape, w[:, 1]), pulled[:, 1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", TABLEAUX)
def test_jacobian_is_autograds_and_uses_the_fused_sweep(method, monkeypatch):
    model = random_conv_snode(method=method)
    x = random_points(model.input_shape, 4)
    expected = AutogradLinearisation(model, x).vjp(torch.eye(3).double().expand(4, -1, -1))
    assert isinstance(sensitivity.linearise(model, x), FusedLinearisation)
    got = sensitivity.jacobian(model, x)
    assert got.shape == (4, 3, *model.input_shape)
    assert torch.allclose(got, expected, rtol=0, atol=1e-13)
    assert got.abs().max() > 1e-3
    module = importlib.import_module("robustode.sensitivity.linearise")
    monkeypatch.setattr(module, "COTANGENT_BYTES", 2 * 4 * 4 * 24 * 8)  # two cotangents at a time
    assert torch.allclose(sensitivity.jacobian(model, x), got, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", TABLEAUX)
def test_weight_tangent_against_finite_differences_and_the_adjoint(method):
    model = random_conv_snode(method=method)
    x = random_points(model.input_shape, 3)
    dw, db = draw(*model.weight.shape), draw(*model.bias.shape, seed=6)
    got = sensitivity.weight_tangent(model, x, dw, db)

    def final(h):
        shifted = {"weight": model.weight + h * dw, "bias": model.bias + h * db}
        return torch.func.functional_call(model, shifted, (x,))

    with torch.no_grad():
        expected = (final(1e-6) - final(-1e-6)) / 2e-6
    assert (got[:, :3] - expected).norm() <= 1e-6 * expected.norm()
    w = draw(*got.shape, seed=7)
    gw, gb = torch.autograd.grad((model.final_state(x) * w).sum(), (model.weight, model.bias))
    left, right = (got * w).sum(), (gw * dw).sum() + (gb * db).sum()
    assert abs(left - right) <= 1e-12 * abs(left)
