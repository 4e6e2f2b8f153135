"""Solves are seen and done again without a change to the model: a linear ODE, whose flow is the matrix exponential."""

import importlib

import pytest
import torch
import torchode
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from robustode.errors import OptionError
from robustode.solvers.observe import DeployedForward, Replay, Replayed, observing, replaying

A = torch.tensor([[-0.4, 1.1, 0.0], [-0.9, -0.2, 0.3], [0.2, 0.0, -0.6]], dtype=torch.float64)
FLOW = torch.linalg.matrix_exp(2.0 * A)
X = torch.tensor([[0.3, -0.5, 0.8], [1.0, 0.2, -0.4]], dtype=torch.float64)
W = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)


class Linear(nn.Module):
    """x' = A x from 0 to 2, as a user writes it; counts its own evaluations."""

    bounds, classes, input_shape = (-1.0, 1.0), 3, (3,)

    def __init__(self, method="dopri5", tol=1e-6, solve=odeint, options=None) -> None:
        super().__init__()
        self.matrix = nn.Parameter(A.clone())
        self.method, self.tol, self.solve, self.options, self.count = method, tol, solve, options, 0
        self.field = Field(self)

    def forward(self, x):
        t = torch.tensor([0.0, 2.0], dtype=x.dtype)
        return self.solve(self.field, x, t, rtol=self.tol, atol=self.tol, method=self.method, options=self.options)[-1]


class Field(nn.Module):
    def __init__(self, owner) -> None:
        super().__init__()
        self.owner = (owner,)

    def forward(self, t, x):
        self.owner[0].count += 1
        return x @ self.owner[0].matrix.to(x).T


class ByTorchode(Linear):
    def forward(self, x):
        term = torchode.ODETerm(lambda t, y: y @ self.matrix.T)
        loop = torchode.AutoDiffAdjoint(
            torchode.Dopri5(term), torchode.IntegralController(self.tol, self.tol, term=term)
        )
        start = x.new_zeros(len(x))
        return loop.solve(torchode.InitialValueProblem(x, start, start + 2.0)).ys[:, -1]


def gradient(model):
    x = X.clone().requires_grad_()
    return torch.autograd.grad((model(x) @ W).sum(), x)[0]


@torch.no_grad()
def error(how, model=None):
    return float((Replayed(model or Linear(), how)(X) - X @ FLOW.T).abs().max())


def test_an_adaptive_solve_is_seen():
    model = Linear()
    with observing() as seen:
        model(X)
    (one,) = seen
    assert (one.backend, one.method, one.rtol, one.atol, one.adaptive) == ("torchdiffeq", "dopri5", 1e-6, 1e-6, True)
    assert (one.depths, one.outputs, one.batch, one.adjoint) == ((0.0, 2.0), 2, (2, 3), False)
    assert one.evaluations == model.count > 0
    assert one.accepted == len(one.steps) > 0
    assert sum(float(h) for _, _, h in one.steps) >= 2.0


def test_rejected_steps_are_counted():
    model = Linear(tol=1e-8, options={"first_step": 2.0})
    with observing() as seen:
        model(X)
    assert seen[0].rejected > 0
    assert seen[0].evaluations == model.count


def test_the_adjoint_is_told_from_plain_differentiation():
    with observing() as seen:
        Linear()(X)
        Linear(solve=odeint_adjoint)(X)
    assert [one.adjoint for one in seen] == [False, True]


def test_torchode_is_seen_and_tightened():
    model = ByTorchode(tol=1e-3)
    with observing() as seen:
        model(X)
    (one,) = seen
    assert (one.backend, one.method, one.adaptive) == ("torchode", "dopri5", True)
    assert one.rtol == pytest.approx(1e-3)
    assert one.accepted > 0
    assert error(Replay(tolerance=1e-10), model) < 1e-8 < 1e-5 < error(Replay(), model)


def test_everything_is_as_it_was_after_an_exception():
    table = importlib.import_module("torchdiffeq._impl.odeint").SOLVERS
    adjoint = importlib.import_module("torchdiffeq._impl.adjoint")
    before = (dict(table), adjoint.OdeintAdjointMethod, torchode.AutoDiffAdjoint.solve)
    how = Replay(method="rk4", steps=3, tolerance=1e-3, gradient="discrete")
    with pytest.raises(ZeroDivisionError), observing(), replaying(how):
        raise ZeroDivisionError
    assert (dict(table), adjoint.OdeintAdjointMethod, torchode.AutoDiffAdjoint.solve) == before


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_a_frozen_grid_has_the_order_of_its_method(method, order):
    coarse, fine = (error(Replay(method=method, steps=steps)) for steps in (20, 40))
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_tolerances_are_tightened():
    assert error(Replay(tolerance=1e-10), Linear(tol=1e-1)) < 1e-8
    assert error(Replay(), Linear(tol=1e-1)) > 1e-4


def test_a_fixed_grid_is_refined_and_coarsened():
    model = Linear(method="euler", options={"step_size": 0.05})
    plain = error(Replay(), model)
    assert plain / error(Replay(refine=2), model) == pytest.approx(2, rel=0.1)
    assert error(Replay(refine=0.5), model) / plain == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("solve", [odeint, odeint_adjoint])
@pytest.mark.parametrize("way", ["discrete", "continuous"])
def test_gradients_are_those_of_the_flow(solve, way):
    exact = (W @ FLOW).expand(2, -1)
    how = Replay(tolerance=1e-9, gradient=way)
    assert torch.allclose(gradient(Replayed(Linear(solve=solve), how)), exact, atol=1e-6)


def test_the_discrete_gradient_is_that_of_the_steps():
    steps = 4
    step = torch.eye(3, dtype=torch.float64) + 2.0 / steps * A
    exact = (W @ torch.linalg.matrix_power(step, steps)).expand(2, -1)
    for solve in (odeint, odeint_adjoint):
        how = Replay(method="euler", steps=steps, gradient="discrete")
        assert torch.allclose(gradient(Replayed(Linear(solve=solve), how)), exact, atol=1e-12)


def test_deployed_forward_and_fine_backward():
    deployed = Linear(method="euler", options={"step_size": 1.0})
    fine = Replayed(deployed, Replay(method="rk4", steps=64))
    both = DeployedForward(deployed, fine)
    assert torch.allclose(both(X), deployed(X), atol=1e-12)
    assert torch.allclose(gradient(both), (W @ FLOW).expand(2, -1), atol=1e-6)
    assert not torch.allclose(gradient(deployed), (W @ FLOW).expand(2, -1), atol=1e-2)


def test_float64_of_a_float32_model():
    model = Linear(tol=1e-1).float()
    found = Replayed(model, Replay(tolerance=1e-9), double=True)(X.float())
    assert found.dtype == torch.float32
    assert torch.allclose(
        found.double(), X.float().double() @ torch.linalg.matrix_exp(2 * A.float().double()).T, atol=1e-6
    )
    assert model.matrix.dtype == torch.float32


def test_stiffness_of_a_linear_field_is_the_step_times_its_norm():
    with observing() as seen:
        Linear(method="euler", options={"step_size": 0.25})(X)
    assert seen[0].stiffness(40) == pytest.approx(0.25 * float(torch.linalg.matrix_norm(A, 2)), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient": "none"}, "gradient"),
        ({"tolerance": 0.0}, "expected a number > 0, got 0"),
        ({"steps": 4}, "expected steps ≥ 1 of euler"),
        ({"refine": 3}, "expected 2 or 0.5, got 3"),
    ],
)
def test_bad_replays(options, said):
    with pytest.raises(OptionError, match=said):
        Replay(**options)


def test_a_solve_to_an_event_is_seen_and_tightened():
    """x' = 1 from x₀ until x = 2: the depth is 2 − x₀."""

    def solve(tol):
        event = lambda t, x: (x - 2.0).reshape(())  # noqa: E731
        start, depths = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
        return odeint(lambda t, x: x * 0 + 1, start, depths, event_fn=event, method="dopri5", rtol=tol, atol=tol)

    with observing() as seen:
        end, _ = solve(1e-9)
    (one,) = seen
    assert (one.event, one.outputs, one.adaptive) == (True, 0, True)
    assert one.depths == (0.0, pytest.approx(1.5, abs=1e-6))
    with replaying(Replay(tolerance=1e-10, gradient="continuous")), observing() as seen:
        end, _ = solve(1e-1)
    assert float(end) == pytest.approx(1.5, abs=1e-8)
    assert seen[0].rtol == pytest.approx(1e-1)  # what the model asks for, as seen outside the replay


@pytest.mark.parametrize("outer", ["observing", "replaying"])
def test_a_replayed_solve_is_seen_under_the_name_of_its_replay(outer):
    how, model = Replay(method="rk4", steps=5), Linear()
    if outer == "observing":
        with observing() as seen:
            Replayed(model, how)(X)
    else:
        with replaying(how), observing() as seen:
            model(X)
    (one,) = seen
    assert (one.method, one.adaptive, one.evaluations) == ("rk4", False, 20)


def test_frozen_steps_of_torchode_have_the_order_of_its_method():
    model = ByTorchode(tol=1e-1)
    coarse, fine = (error(Replay(method="rk4", steps=steps), model) for steps in (8, 16))
    assert coarse / fine == pytest.approx(2**5, rel=0.3)
    exact = (W @ FLOW).expand(2, -1)
    assert torch.allclose(gradient(Replayed(model, Replay(method="rk4", steps=64))), exact, atol=1e-8)
    assert error(Replay(), model) > 1e-5  # its own controller is back


def test_a_tightened_solve_may_take_more_steps_than_the_model_allows_itself():
    assert error(Replay(tolerance=1e-9), Linear(tol=1e-1, options={"max_num_steps": 4})) < 1e-7
