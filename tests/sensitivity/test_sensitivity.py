"""Tangent, adjoint and Jacobian: against finite differences, each other, and the autograd path."""

import pytest
import torch
from torch import nn

from robustode import sensitivity
from robustode.errors import OptionError
from robustode.sensitivity.linearise import AutogradLinearisation, FusedLinearisation, linearise
from robustode.solvers.tableau import TABLEAUX
from tests.problems import random_affine, random_points, random_snode


def finite_jacobian(model, x, h=1e-5):
    flat = x.flatten(1)
    columns = []
    for i in range(flat.shape[1]):
        e = torch.zeros_like(flat)
        e[:, i] = h
        up, down = ((flat + s * e).reshape(x.shape) for s in (1, -1))
        columns.append((model(up) - model(down)) / (2 * h))
    return torch.stack(columns, -1).reshape(len(x), -1, *x.shape[1:])


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus"])
def test_jacobian_against_finite_differences(method, activation):
    model = random_snode(method=method, activation=activation)
    x = random_points(model.input_shape, 3)
    with torch.no_grad():
        expected = finite_jacobian(model, x)
    got = sensitivity.jacobian(model, x)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    assert torch.allclose(got, AutogradLinearisation(model, x).vjp(torch.eye(4).double().expand(3, -1, -1)), atol=1e-12)


@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "softplus"])
def test_adjoint_identity(method, activation):
    model = random_snode(method=method, activation=activation)
    g = torch.Generator().manual_seed(5)
    x = random_points(model.input_shape, 6)
    delta = torch.randn(x.shape, generator=g, dtype=torch.float64)
    w = torch.randn(6, 4, generator=g, dtype=torch.float64)
    left = (sensitivity.tangent(model, x, delta) * w).sum(1)
    right = (delta * sensitivity.adjoint(model, x, w)).flatten(1).sum(1)
    assert ((left - right).abs() <= 1e-12 * left.abs().clamp_min(1e-2)).all()
    assert left.abs().min() > 1e-4


@pytest.mark.parametrize("method", TABLEAUX)
def test_weight_tangent_against_finite_differences_and_the_adjoint(method):
    model = random_snode(method=method)
    g = torch.Generator().manual_seed(2)
    x = random_points(model.input_shape, 3)
    dw = torch.randn(model.weight.shape, generator=g, dtype=torch.float64)
    db = torch.randn(model.bias.shape, generator=g, dtype=torch.float64)
    got = sensitivity.weight_tangent(model, x, dw, db)
    h = 1e-6
    with torch.no_grad():
        states = []
        for s in (h, -h):
            shifted = {"weight": model.weight + s * dw, "bias": model.bias + s * db}
            for name, value in shifted.items():
                getattr(model, name).copy_(value)
            states.append(model.final_state(x).clone())
            model.weight.sub_(s * dw)
            model.bias.sub_(s * db)
    expected = (states[0] - states[1]) / (2 * h)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    w = torch.randn(got.shape, generator=g, dtype=torch.float64)
    gw, gb = torch.autograd.grad((model.final_state(x) * w).sum(), (model.weight, model.bias))
    left, right = (got * w).sum(), (gw * dw).sum() + (gb * db).sum()
    assert abs(left - right) <= 1e-12 * abs(left)


class Smooth(nn.Module):
    """A module that is no sNODE."""

    bounds, classes, input_shape = (0.0, 1.0), 3, (2, 3)

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 6, generator=g, dtype=torch.float64))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.w.t()) ** 2


def test_any_module_by_autograd():
    model, x = Smooth(), random_points((2, 3), 4)
    with torch.no_grad():
        expected = finite_jacobian(model, x)
    got = sensitivity.jacobian(model, x)
    assert (got - expected).norm() <= 1e-8 * expected.norm()
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pushed = (got * delta[:, None]).flatten(2).sum(2)
    assert torch.allclose(sensitivity.tangent(model, x, delta), pushed, atol=1e-12)
    assert torch.allclose(AutogradLinearisation(model, x)._central_difference(delta), pushed, atol=1e-8)


def test_tangent_of_a_module_whose_backward_is_not_differentiable():
    model = random_snode()
    x = random_points(model.input_shape, 4)
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fused = FusedLinearisation(model, x).jvp(delta)
    assert torch.allclose(AutogradLinearisation(model, x).jvp(delta), fused, atol=1e-8)


class AdjointWithSkip(Smooth):
    """A block whose backward is not differentiable, and a skip connection whose backward is."""

    def forward(self, x):
        from torchdiffeq import odeint_adjoint

        flat = x.flatten(1)
        times = torch.tensor([0.0, 1.0], dtype=x.dtype)
        field = Field().to(x.dtype)
        final = odeint_adjoint(field, flat, times, method="rk4", options={"step_size": 0.05})[-1]
        return (final + flat) @ self.w.t().to(x.dtype)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(4)
        self.a = nn.Parameter(torch.randn(6, 6, generator=g, dtype=torch.float64))

    def forward(self, t, y):
        return torch.tanh(y @ self.a.t())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 5e-3)])
def test_tangent_of_a_module_of_which_a_part_is_not_twice_differentiable(dtype, tolerance):
    model, x = AdjointWithSkip(), random_points((2, 3), 4)
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected = (model(x + 1e-5 * delta) - model(x - 1e-5 * delta)) / 2e-5
    got = sensitivity.tangent(model, x.to(dtype), delta.to(dtype))
    assert (got - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_right_double_backward_is_not_replaced(monkeypatch, dtype):
    monkeypatch.setattr(AutogradLinearisation, "_central_difference", lambda *_: pytest.fail("not needed"))
    model = Smooth().to(dtype)
    x = random_points((2, 3), 4, dtype=dtype)
    rows = sensitivity.jacobian(model, x)
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    delta[0] = 0
    pushed = (rows * delta[:, None]).flatten(2).sum(2)
    assert torch.allclose(sensitivity.tangent(model, x, delta), pushed, atol=100 * torch.finfo(dtype).eps)


def test_out_of_memory_is_not_hidden():
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, *grads):
            raise torch.OutOfMemoryError("no memory")

    class Greedy(Smooth):
        def forward(self, x):
            return Full.apply(super().forward(x))

    x = random_points((2, 3), 2)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        sensitivity.tangent(Greedy(), x, x)


def test_affine_jacobian_is_its_matrix():
    model = random_affine()
    x = random_points(model.input_shape, 5)
    got = sensitivity.jacobian(model, x).flatten(2)
    assert torch.allclose(got, model.weight.expand(5, -1, -1), atol=1e-14)


def test_an_output_without_graph_has_the_zero_jacobian():
    class Detached(Smooth):
        def forward(self, x):
            return super().forward(x).detach()

    x = random_points((2, 3), 2)
    linear = linearise(Detached(), x)
    assert not linear.vjp(torch.ones(2, 3, dtype=torch.float64)).any()
    assert not linear.jvp(x).any()


def test_jacobian_in_chunks(monkeypatch):
    import importlib

    module = importlib.import_module("robustode.sensitivity.jacobian")
    model = random_snode()
    x = random_points(model.input_shape, 7)
    whole = sensitivity.jacobian(model, x)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 4 * 12 * 8)
    assert torch.allclose(sensitivity.jacobian(model, x), whole, atol=1e-14)


def test_shapes_are_checked():
    model = random_snode()
    x = random_points(model.input_shape, 2)
    with pytest.raises(OptionError, match=r"cotangent: expected shape \(2, 4\)"):
        sensitivity.adjoint(model, x, torch.zeros(2, 5))
    with pytest.raises(OptionError, match="delta: expected shape"):
        sensitivity.tangent(model, x, x[:1])
    with pytest.raises(OptionError, match="weight perturbation"):
        sensitivity.weight_tangent(model, x, torch.zeros(1), torch.zeros(1))
    with pytest.raises(OptionError, match="expected an sNODE"):
        sensitivity.weight_tangent(random_affine(), x, torch.zeros(1), torch.zeros(1))
