"""Adaptive solvers against closed forms and fine fixed grids; batches, failures and counts."""

import builtins

import pytest
import torch

from robustode.errors import MissingDependency, ModelError, SolverError
from robustode.sensitivity import adjoint, jacobian, tangent
from robustode.sensitivity.linearise import AutogradLinearisation, linearise
from robustode.solvers import activations, adaptive, torchdiffeq_backend, torchode_backend
from robustode.solvers.adaptive import BACKENDS, AdaptiveSolver
from robustode.solvers.field import Field
from tests.problems import random_points, random_snode

ALL = [(backend, method) for backend, methods in BACKENDS.items() for method in methods]
SLOW_ORDER = {"heun", "fehlberg2", "adaptive_heun"}  # orders 2: coarser tolerances for the time they take
TOLERANCE = 1e-6
FACTORS = {"fehlberg2": 500}  # largest error in units of the tolerance; its estimate is that of an Euler step


def allowed(method):
    return FACTORS.get(method, 20)


def deployed(backend="torchode", method="dopri5", tol=TOLERANCE, **config):
    model = random_snode(**({"knots": 4, "scale": 0.5} | config))
    return model.with_solver(method=method, backend=backend, rtol=tol, atol=tol)


def fine(model):
    return model.with_solver(method="rk4", steps=512)


@pytest.mark.parametrize(("backend", "method"), ALL)
@pytest.mark.parametrize("knots", [1, 4])
def test_error_falls_with_the_tolerance(backend, method, knots):
    x = random_points((1, 3, 4), 5)
    model = deployed(backend, method, knots=knots)
    with torch.no_grad():
        truth = fine(model).final_state(x)
        tolerances = (1e-3, 1e-5) if method in SLOW_ORDER else (1e-4, 1e-8)
        errors = []
        for tol in tolerances:
            errors.append(float((model.with_solver(rtol=tol, atol=tol).final_state(x) - truth).abs().max()))
    assert errors[0] > 5 * errors[1] or errors[0] < tolerances[0] / 1000  # steps that must end at knots may do
    assert errors[1] < allowed(method) * tolerances[1]
    assert (truth - model.encode(x)).abs().max() > 0.1


@pytest.mark.parametrize(("backend", "method"), ALL)
def test_linear_field_is_the_matrix_exponential(backend, method):
    tol = 1e-5 if method in SLOW_ORDER else 1e-9
    config = {"activation": "relu", "knots": 1, "horizon": 1.0, "input_shape": (4,), "classes": 2}
    model = deployed(backend, method, tol, **config)
    with torch.no_grad():
        model.weight.abs_()
        model.bias.fill_(2.0)  # pre-activations stay positive, where relu is linear
        x = random_points((4,), 3)
        block = torch.zeros(5, 5, dtype=torch.float64)
        block[:4, :4], block[:4, 4] = model.weight[0], model.bias[0]
        start = torch.cat([model.encode(x), torch.ones(3, 1, dtype=torch.float64)], 1)
        exact = (start @ torch.linalg.matrix_exp(block).t())[:, :4]
        error = (model.final_state(x) - exact).abs().max()
    assert error < allowed(method) * tol


@pytest.mark.parametrize(("backend", "method"), ALL)
@pytest.mark.parametrize(("tol", "horizon"), [(1e-2, 2.0), (1e-5, 0.7), (1e-8, 2.0)])  # 0.7 / 8 is no float32
def test_no_step_crosses_a_knot(backend, method, tol, horizon, monkeypatch):
    """Whatever the steps are; dopri8 at 1e-8 once ended one at a knot by itself and crossed the others."""
    tol = max(tol, 1e-5) if method in SLOW_ORDER else tol
    model = deployed(backend, method, tol, knots=4, horizon=horizon)
    depths = []
    for name in ("shared", "each"):
        own = getattr(Field, name)
        monkeypatch.setattr(Field, name, lambda self, *args, own=own: depths.append(args[-2]) or own(self, *args))
    with torch.no_grad():
        model(random_points((1, 3, 4), 5))
    ends = horizon * torch.tensor([1, 3, 5, 7], dtype=torch.float64) / 8
    t = torch.tensor([float(t.flatten()[0]) for t in depths], dtype=torch.float64)
    first, last = torch.bucketize(t, ends + 1e-12), torch.bucketize(t, ends - 1e-12)  # a knot is of both its segments
    assert (last >= first.cummax(0).values).all()
    assert first[-1] == 4
    assert t.max() <= horizon + 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_within_ten_tolerances(backend):
    model, tol = deployed(backend), TOLERANCE
    x = random_points(model.input_shape, 3).requires_grad_(True)
    w = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = (x, model.weight, model.bias)
    got = torch.autograd.grad((model.final_state(x) * w).sum(), inputs)
    expected = torch.autograd.grad((fine(model).final_state(x) * w).sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() < 10 * tol * b.abs().max()
        assert b.abs().max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_sensitivities(backend):
    model = deployed(backend)
    x = random_points(model.input_shape, 3)
    delta = torch.randn(3, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert isinstance(linearise(model, x), AutogradLinearisation)
    reference = fine(model)
    for got, expected in (
        (jacobian(model, x), jacobian(reference, x)),
        (tangent(model, x, delta), tangent(reference, x, delta)),
        (adjoint(model, x, w), adjoint(reference, x, w)),
    ):
        assert (got - expected).abs().max() < 10 * TOLERANCE * expected.abs().max()
    forward = (tangent(model, x, delta) * w).sum()
    backward = (delta * adjoint(model, x, w)).sum()
    assert abs(float(forward - backward)) < 1e-12 * float(forward.abs())


def test_only_torchode_gives_a_sample_the_same_answer_in_every_batch():
    x = random_points((1, 3, 4), 21)
    gaps = {}
    with torch.no_grad():
        for backend in BACKENDS:
            model = deployed(backend, tol=1e-3, scale=2.0, knots=1)
            together = model(x)
            counts = model.last_nfe
            alone = torch.cat([model(x[i : i + 1]) for i in range(5)])
            assert (model.last_nfe == counts[4]) or backend == "torchdiffeq"
            gaps[backend] = float((together[:5] - alone).abs().max())
    assert gaps["torchode"] < 1e-12
    assert gaps["torchdiffeq"] > 1e-5


@pytest.mark.parametrize(("backend", "method"), ALL)
@pytest.mark.parametrize("knots", [1, 4])
def test_evaluations_are_those_that_were_made(backend, method, knots, monkeypatch):
    model = deployed(backend, method, tol=1e-3, knots=knots, scale=2.0)
    calls = []
    for name in ("each", "shared"):
        own = getattr(adaptive.Field, name)
        monkeypatch.setattr(adaptive.Field, name, lambda *args, own=own: (calls.append(1), own(*args))[1])
    x = random_points(model.input_shape, 6)
    counts = []
    with torch.no_grad():
        for i in range(6):
            calls.clear()
            model(x[i : i + 1])
            counts.append(len(calls))
            assert model.last_nfe.tolist() == [len(calls)]
        calls.clear()
        model(x)
    if backend == "torchode":
        assert model.last_nfe.tolist() == counts
        assert len(calls) >= max(counts)
    else:
        assert model.last_nfe.tolist() == [len(calls)] * 6
    assert (model.nfe, fine(model).last_nfe) == (None, None)


def test_samples_of_one_batch_have_counts_of_their_own():
    model = deployed(tol=1e-6, scale=2.0)
    model(random_points(model.input_shape, 20))
    assert model.last_nfe.shape == (20,)
    assert len(set(model.last_nfe.tolist())) > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sample_that_is_not_finite_is_nan_and_leaves_the_others_alone(backend):
    model = deployed(backend)
    x = random_points(model.input_shape, 6)
    bad = x.clone()
    bad[1, 0, 0, 0], bad[4] = torch.nan, torch.inf
    with torch.no_grad():
        out = model(bad)
        others = torch.tensor([0, 2, 3, 5])
        assert out.isnan().all(1).tolist() == [False, True, False, False, True, False]
        torch.testing.assert_close(out[others], model(x[others]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_solution_that_blows_up_is_nan_not_an_endless_loop(backend):
    model = deployed(backend, activation="relu", knots=1, horizon=1e3)
    with torch.no_grad():
        model.weight.fill_(40.0)
        model.bias.fill_(1.0)
        out = model(torch.zeros(2, 1, 3, 4, dtype=torch.float64))
    assert not out.isfinite().any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_a_state_that_is_not_finite_has_no_slope(activation):
    """relu(-inf) = 0 and tanh(inf) = 1 would let a solver go on from a state that does not exist."""
    model = deployed(activation=activation, knots=2)
    x = torch.zeros(3, 12, dtype=torch.float64)
    sigma = activations.activation(activation)
    field = Field(model.weight, model.bias, model.horizon, sigma, model.operator, (12,))
    x[1, 5], x[2, 5] = -torch.inf, torch.nan
    shared = field.shared(torch.tensor(1.0), x)
    zeros = torch.zeros(3, dtype=torch.float64)
    outer, between = field.each(0, zeros, x), field.each(1, zeros + 1.0, x)
    for slope in (shared, outer, between):
        assert slope.isfinite().all(1).tolist() == [True, False, False]
        assert slope[1:].isnan().any(1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_many_steps(backend, monkeypatch):
    monkeypatch.setattr(adaptive, "MAX_STEPS", 5)
    model = deployed(backend, tol=1e-9)
    with pytest.raises(SolverError, match=r"Loosen the tolerances, choose a method of higher order"):
        model(random_points(model.input_shape, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batches(backend):
    model = deployed(backend)
    assert model(torch.zeros(0, 1, 3, 4, dtype=torch.float64)).shape == (0, 4)
    assert model.last_nfe.shape == (0,)


def test_torchdiffeq_refuses_options_that_it_would_only_warn_of():
    solver, x, options = AdaptiveSolver(backend="torchdiffeq"), torch.ones(1, 2), {"max_stepz": 3}
    with pytest.raises(SolverError, match=r"expected options that it knows, got .*max_stepz"):
        torchdiffeq_backend.integrate(lambda t, x: -x, x, (0.0, 1.0), solver, options)


def test_the_table_of_methods_is_torchode_s():
    assert tuple(torchode_backend.METHODS) == BACKENDS["torchode"]


def test_torchode_missing(monkeypatch):
    own = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torchode") or (args and args[2:3] == (("torchode_backend",),)):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return own(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r'torchode is not installed. .* pip install "robustode\[torchode\]"'):
        deployed()(random_points((1, 3, 4), 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rtol": 0.0}, "rtol: expected a finite number > 0, got 0.0"),
        ({"atol": float("inf")}, "atol: expected a finite number > 0, got inf"),
        ({"backend": "torchdiffeqq"}, "Did you mean 'torchdiffeq'?"),
        ({"method": "dopri6"}, "unknown adaptive solver: expected one of dopri5, heun, tsit5, got 'dopri6'"),
        ({"method": "dopri8"}, "method of torchode: expected one of dopri5, tsit5, heun, got 'dopri8'"),
        ({"method": "tsit5", "backend": "torchdiffeq"}, "The backend 'torchode' has it."),
    ],
)
def test_wrong_solvers(values, message):
    with pytest.raises(ModelError) as error:
        AdaptiveSolver(**values)
    assert message in str(error.value)
