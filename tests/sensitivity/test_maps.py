"""Sensitivity maps: closed forms of a linear field, the exact pairing, finite differences, definitions, errors."""

import importlib
import math

import pytest
import torch

import robustode as ro
from robustode.errors import BudgetError, ModelError, OptionError
from robustode.solvers.tableau import TABLEAUX
from robustode.solvers.tape import ROWS
from tests.problems import random_affine, random_conv_snode, random_points, random_snode

MODELS = {"dense": random_snode, "convolutional": random_conv_snode}


def linear_snode(method, steps):
    """x' = W x + b."""
    config = {"input_shape": (4,), "classes": 3, "horizon": 1.0, "knots": 1, "background": 0.2, "foreground": 1.7}
    return random_snode(activation="identity", method=method, steps=steps, scale=2.0, **config).requires_grad_(False)


def closed_form(model, found):
    """‖ξ(t)‖ and ‖λ(t)‖ of x' = W x + b: ξ(t) = e^{tW} ξ(0), λ(t) = e^{(T−t)Wᵀ} λ(T)."""
    weight, eye = model.weight[0], torch.eye(4, dtype=torch.float64)
    xi, lam = model.encoding_scale * found.delta, eye[found.own] - eye[found.other]
    exp = torch.linalg.matrix_exp
    tangent = [(xi @ exp(t * weight).t()).norm(dim=1) for t in found.along.depth]
    adjoint = [(lam @ exp((model.horizon - t) * weight)).norm(dim=1) for t in found.along.depth]
    return torch.stack(tangent, 1), torch.stack(adjoint, 1)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_sizes_of_a_linear_field_converge_to_the_matrix_exponential(method, order):
    x = random_points((4,), 3)
    errors = []
    for steps in (32, 64):
        model = linear_snode(method, steps)
        found = ro.sensitivity.maps(model, x)
        sizes = (found.along.tangent, found.along.adjoint)
        errors.append([float((a - b).abs().max()) for a, b in zip(sizes, closed_form(model, found), strict=True)])
        for size in sizes:
            assert (size.amax(1) > 1.2 * size.amin(1)).all()
    for coarse, fine in zip(*errors, strict=True):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def test_sizes_of_a_linear_field_under_euler():
    """(I + h W)ⁿ, to rounding, at every depth."""
    model, x = linear_snode("euler", 6), random_points((4,), 3)
    found = ro.sensitivity.maps(model, x)
    step = torch.eye(4, dtype=torch.float64) + model.weight[0] / 6
    xi, lam, state = model.encoding_scale * found.delta, torch.zeros(3, 4).double(), model.encode(x)
    lam[range(3), found.own], lam[range(3), found.other] = 1.0, -1.0
    for n in range(7):
        power, back = torch.linalg.matrix_power(step, n), torch.linalg.matrix_power(step, 6 - n)
        assert torch.allclose(found.along.tangent[:, n], (xi @ power.t()).norm(dim=1), rtol=1e-13)
        assert torch.allclose(found.along.adjoint[:, n], (lam @ back).norm(dim=1), rtol=1e-13)
        assert torch.allclose(found.along.state[:, n], state.norm(dim=1), rtol=1e-13)
        state = state @ step.t() + model.bias[0] / 6
    assert found.along.depth.tolist() == pytest.approx([n / 6 for n in range(7)], abs=1e-15)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_pairing_is_the_same_at_every_depth(kind, method, norm):
    model = MODELS[kind](method=method, scale=2.0)
    x = random_points(model.input_shape, 5)
    found = ro.sensitivity.maps(model, x, norm=norm)
    expected = (found.saliency * found.delta).flatten(1).sum(1)
    assert found.along.pairing.shape == (5, model.steps + 1)
    assert torch.allclose(found.along.pairing, expected[:, None].expand(-1, model.steps + 1), rtol=1e-12, atol=0)
    assert (expected < -1e-3).all()
    for sizes in (found.along.tangent, found.along.adjoint, found.along.state):
        assert (sizes.amax(1) > 1.02 * sizes.amin(1)).all()  # while everything else changes


@pytest.mark.parametrize("kind", MODELS)
def test_a_disturbance_of_the_state_moves_the_margin_by_the_adjoint(kind):
    """‖λ(t)‖ is the largest derivative of the margin with respect to the state at depth t."""
    model = MODELS[kind](method="rk4", scale=2.0)
    x = random_points(model.input_shape, 2)
    found = ro.sensitivity.maps(model, x)
    states = list(model.flow.states(model.encode(x)))
    for n in (0, 5, 11):
        state = states[n].detach().requires_grad_(True)
        end = state
        for later in range(n, model.steps):  # the same stages, unfused
            values = []
            for i in range(model.flow.tableau.stages):
                z = end
                for a, value in zip(model.flow.tableau.a[i], values, strict=True):
                    z = z + model.flow.step * a * value
                weight, bias = model.flow.parameters(later, i)
                values.append(torch.tanh(model.operator.product(z, weight) + model.operator.spread(bias)))
            for b, value in zip(model.flow.tableau.b, values, strict=True):
                end = end + model.flow.step * b * value
        logits = model.read(end)[:, : model.classes]
        margin = (logits.gather(1, found.own[:, None]) - logits.gather(1, found.other[:, None])).sum()
        (gradient,) = torch.autograd.grad(margin, state)
        assert torch.allclose(found.along.adjoint[:, n], gradient.flatten(1).norm(dim=1), rtol=1e-11)


@pytest.mark.parametrize("kind", MODELS)
def test_saliency_is_the_finite_difference_of_the_margin(kind):
    model = MODELS[kind](scale=2.0)
    x = random_points(model.input_shape, 3)
    found = ro.sensitivity.maps(model, x)

    @torch.no_grad()
    def margin(points):
        z = model(points)
        return (z.gather(1, found.own[:, None]) - z.gather(1, found.other[:, None])).squeeze(1)

    expected = torch.zeros_like(x)
    for i in range(x[0].numel()):
        e = torch.zeros(x[0].numel(), dtype=x.dtype)
        e[i] = 1e-5
        shift = e.reshape(model.input_shape)
        expected.flatten(1)[:, i] = (margin(x + shift) - margin(x - shift)) / 2e-5
    assert found.saliency.shape == x.shape
    assert (found.saliency - expected).norm() <= 1e-6 * expected.norm()
    assert torch.allclose(found.margin, margin(x), atol=1e-13)


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1), ("l1", math.inf)])
def test_classes_direction_and_distance_of_an_affine_classifier(norm, dual):
    model = random_affine(classes=5)
    x = random_points(model.input_shape, 20)
    z, weight = model(x).detach(), model.weight.detach()
    y = torch.arange(20) % 5
    found = ro.sensitivity.maps(model, x, y, norm=norm)
    reach = z.gather(1, y[:, None]) - z
    reach = reach / torch.linalg.vector_norm(weight[y][:, None] - weight, ord=dual, dim=2)
    reach = reach.scatter(1, y[:, None], math.inf)
    assert torch.equal(found.other, reach.argmin(1))
    assert torch.allclose(found.distance, reach.amin(1), rtol=1e-12)
    assert torch.allclose(found.saliency.flatten(1), weight[y] - weight[found.other], atol=1e-13)
    assert torch.equal(found.delta, ro.attacks.direction(model, x, "margin", norm, y=y))
    assert torch.equal(ro.sensitivity.maps(model, x).own, z.argmax(1))
    right = found.own == z.argmax(1)
    assert 0 < right.sum() < 20
    assert torch.equal(found.margin > 0, right)
    assert (found.along, found.reason) == (None, "Affine is no sNODE")


def test_target_and_own_direction():
    model = random_snode()
    x = random_points(model.input_shape, 3)
    y, target = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3])
    step = ro.attacks.direction(model, x, "singular")
    found = ro.sensitivity.maps(model, x, y, target=target, delta=2 * step)
    rows = ro.sensitivity.jacobian(model, x)
    assert torch.allclose(found.saliency, rows[range(3), y] - rows[:, 3], atol=1e-13)
    assert torch.equal(found.delta, 2 * step)
    grown = found.along.tangent[:, -1]
    _, tape = model.flow.record(model.encode(x))
    expected = model.flow.tangent(tape, model.lift(2 * step) * model.encoding_scale).norm(dim=1)
    assert torch.allclose(grown, expected, rtol=1e-12)
    assert torch.allclose(found.along.tangent[:, 0], torch.full((3,), 2 * abs(model.encoding_scale)).double())


def test_where_no_gradient_differs_the_nearest_is_the_smallest_margin():
    model = random_affine()
    with torch.no_grad():
        model.weight.zero_()
    x = random_points(model.input_shape, 2)
    found = ro.sensitivity.maps(model, x, torch.tensor([0, 1]))
    expected = model(x).detach()[0].clone()
    for row, own in enumerate((0, 1)):
        z = expected.clone()
        z[own] = -math.inf
        assert int(found.other[row]) == int(z.argmax())
    assert not found.delta.any()
    assert not torch.isfinite(found.distance).any()


@pytest.mark.parametrize("kind", MODELS)
def test_chunks_and_segments_change_nothing_but_memory(kind, monkeypatch):
    model = MODELS[kind](method="rk4")
    x = random_points(model.input_shape, 7)
    y = torch.arange(7) % 3
    whole = ro.sensitivity.maps(model, x, y)
    state = model.encode(x[:1]).numel() * 8
    along, flow = (importlib.import_module(f"robustode.{name}") for name in ("sensitivity.along", "solvers.flow"))
    monkeypatch.setattr(along, "ALONG_BYTES", 2 * 13 * state)  # two samples at a time
    monkeypatch.setattr(flow, "TAPE_BYTES", 5 * ROWS * 4 * state)  # five steps a segment
    _, tape = model.flow.record(model.encode(x[:2]).detach())
    assert (along.samples_at_once(model, x), len(tape.starts)) == (2, 3)
    parts = ro.sensitivity.maps(model, x, y)
    assert torch.equal(parts.own, y)
    assert torch.equal(parts.other, whole.other)
    assert torch.allclose(parts.saliency, whole.saliency, rtol=0, atol=1e-13)
    for name in ("depth", "state", "tangent", "adjoint", "pairing"):
        assert torch.allclose(getattr(parts.along, name), getattr(whole.along, name), rtol=1e-12)


def test_an_adaptive_solver_has_no_depths_but_its_fixed_view_has():
    pytest.importorskip("torchode")
    model = random_snode(steps=30).with_solver(method="dopri5", rtol=1e-7, atol=1e-9)
    x = random_points(model.input_shape, 2)
    found = ro.sensitivity.maps(model, x)
    assert found.along is None
    assert "adaptive solver" in found.reason
    assert "with_solver(method='rk4', steps=N)" in found.reason
    fixed = ro.sensitivity.maps(model.with_solver(method="rk4", steps=200), x)
    assert torch.allclose(found.saliency, fixed.saliency, rtol=1e-4, atol=1e-5)
    assert fixed.along.tangent.shape == (2, 201)


def test_errors():
    model = random_snode()
    x = random_points(model.input_shape, 2)
    with pytest.raises(BudgetError, match="Did you mean 'linf'"):
        ro.sensitivity.maps(model, x, norm="linff")
    with pytest.raises(OptionError, match="x: expected at least one sample, got none"):
        ro.sensitivity.maps(model, x[:0])
    with pytest.raises(OptionError, match=r"y: expected int64 of shape \(2,\), got torch.int64 \(1,\)"):
        ro.sensitivity.maps(model, x, torch.tensor([1]))
    with pytest.raises(OptionError, match=r"y: expected int64 of shape \(2,\), got torch.float32"):
        ro.sensitivity.maps(model, x, torch.zeros(2))
    with pytest.raises(OptionError, match="target: expected classes 0 to 3, got 0 to 4"):
        ro.sensitivity.maps(model, x, target=torch.tensor([0, 4]))
    with pytest.raises(OptionError, match=r"expected a class other than the one .* got the same in sample 1"):
        ro.sensitivity.maps(model, x, torch.tensor([0, 1]), target=torch.tensor([1, 1]))
    with pytest.raises(OptionError, match=r"delta: expected shape \(2, 1, 3, 4\), got \(1, 1, 3, 4\)"):
        ro.sensitivity.maps(model, x, delta=x[:1])
    with pytest.raises(ModelError, match="input of snode model"):
        ro.sensitivity.maps(model, x[:, 0])
