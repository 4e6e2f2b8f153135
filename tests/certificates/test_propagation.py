"""IBP and CROWN: exact where they must be, equal to loops written out, and what comes out of `certify`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustode.certificates import certify
from robustode.certificates.propagate import bounds
from robustode.certificates.propagate.curves import CURVES
from robustode.certificates.propagate.relax import lines
from robustode.errors import OptionError
from robustode.models.wrap import wrap
from robustode.sensitivity.norms import dual
from tests.certificates.networks import CONV, NORMS, SMALL, case, margins_at
from tests.problems import random_affine, random_conv_snode, random_points, random_snode


def exact_radii(weight, z, y, norm):
    """Distances to z_y = z_k of logits that are affine in the input, with rows `weight`; inf for k = y."""
    rows = weight[y][:, None] - weight[None]
    gaps = z.gather(1, y[:, None]) - z
    return (gaps / dual(rows, norm).clamp_min(1e-300)).scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_affine_classifiers_are_exact(method, norm):
    model = random_affine()
    x = random_points((1, 3, 4), 6)
    y = model(x).argmax(1)
    found = certify(model, x, y, norm=norm, methods=[method])
    exact = exact_radii(model.weight.detach(), model(x).detach(), y, norm)
    ratio = found.radius / exact.min(1).values
    assert bool(((ratio > 1 - 1e-6) & (ratio <= 1)).all())
    assert bool((found.class_radius <= exact).all())
    if method == "ibp":  # CROWN looks for the nearest class only
        ratio = found.class_radius[exact.isfinite()] / exact[exact.isfinite()]
        assert bool((ratio > 1 - 1e-6).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model", ["euler", "midpoint", "rk4", "conv"])
def test_linear_fields_are_exact(model, norm):
    if model == "conv":
        net = random_conv_snode(activation="identity", **CONV)
    else:
        net = random_snode(activation="identity", method=model, **SMALL)
    x = random_points(tuple(net.input_shape), 4)
    y = net(x).argmax(1)
    jacobian = torch.autograd.functional.jacobian(lambda p: net(p[None])[0], x[0]).flatten(1)
    exact = exact_radii(jacobian, net(x).detach(), y, norm).min(1).values
    ratio = certify(net, x, y, norm=norm, methods=["crown"]).radius / exact
    assert bool(((ratio > 1 - 1e-6) & (ratio <= 1)).all())


def test_intervals_of_two_layers_by_hand():
    """z = V relu(W x) with W = [[1, −2], [3, 1]], V = [[1, 1], [−1, 2]] at x = (1, 0), L∞ ε = 0.1.

    W x = (1, 3) ± (0.3, 0.4): relu in [0.7, 1.3] × [2.6, 3.4]; z_1 − z_0 = −2 h_0 + h_1 ≥ −2.6 + 2.6 = 0, z_0 − z_1 ≥
    2 · 0.7 − 3.4 = −2. In L2 the rows have the norms √5 and √10.
    """
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 1.0]]))
        module[2].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 2.0]]))
    model = wrap(module, bounds=(-2.0, 2.0), input_shape=(2,))
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    y = torch.tensor([0, 1])
    found = margins_at(model, x, y, 0.1, "linf", lines=False)
    expected = torch.tensor([[torch.inf, -2.0], [0.0, torch.inf]]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    r = 0.1 * torch.tensor([5.0, 10.0]).double().sqrt()
    found = margins_at(model, x, y, 0.1, "l2", lines=False)
    by_hand = torch.stack([2 * (1 - r[0]) - (3 + r[1]), (3 - r[1]) - 2 * (1 + r[0])])
    torch.testing.assert_close(found[[0, 1], [1, 0]], by_hand, rtol=0, atol=1e-12)


@torch.no_grad()
def crown_by_loops(model, x, eps):
    """Lower bounds of all z_i − z_j of one sample by L∞ CROWN, written out: one Euler step, one neuron at a time.

    Every pre-activation is bounded by carrying its row back through the steps before it, with lines for every
    activation; intervals forward are intersected with that, as the bound does, and the margins with those of
    x_N = x_0 + h Σ σ for σ in their intervals.
    """
    flow = model.flow
    h, steps = flow.step, flow.steps
    weights = [flow.parameters(n, 0) for n in range(steps)]
    x0, radius = model.encode(x[None])[0], eps * abs(model.encoding_scale)
    found: list = []
    moved: list = []

    def back(row, constant, n):
        """The least of ⟨row, x_n⟩ + constant."""
        for step in reversed(range(n)):
            pulled = row.clone()
            weight, bias = weights[step]
            for i, c in enumerate((h * row).tolist()):
                slope = found[step].lower_slope[i] if c > 0 else found[step].upper_slope[i]
                constant = constant + c * (found[step].lower[i] if c > 0 else found[step].upper[i])
                constant = constant + c * slope * bias[i]
                pulled = pulled + c * slope * weight[i]
            row = pulled
        return row @ x0 + constant - radius * row.abs().sum()

    low, high = x0 - radius, x0 + radius
    for n, (weight, bias) in enumerate(weights):
        middle, spread = weight @ ((low + high) / 2) + bias, weight.abs() @ ((high - low) / 2)
        ends = torch.stack([torch.stack([back(w, b, n), -back(-w, -b, n)]) for w, b in zip(weight, bias, strict=True)])
        pre_low, pre_high = torch.maximum(middle - spread, ends[:, 0]), torch.minimum(middle + spread, ends[:, 1])
        found.append(lines(CURVES[flow.activation.name], pre_low, pre_high))
        low = low + h * flow.activation.apply(pre_low)
        high = high + h * flow.activation.apply(pre_high)
        moved += [(h * flow.activation.apply(pre_low), h * flow.activation.apply(pre_high))]

    def by_intervals(row):
        least = row @ x0 - radius * row.abs().sum()
        return least + sum(row.clamp(min=0) @ down + row.clamp(max=0) @ up for down, up in moved)

    eye = torch.eye(len(x0), dtype=x.dtype)[: model.classes]
    rows = [[a - b for b in eye] for a in eye]
    return torch.tensor(
        [[max(float(back(r, 0.0, steps)), float(by_intervals(r))) for r in line] for line in rows], dtype=x.dtype
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_crown_equals_loops(activation):
    model = random_snode(activation=activation, scale=1.5, **SMALL | {"steps": 3, "knots": 3})
    x = random_points((1, 2, 3), 2)
    for eps in (0.01, 0.1):
        for point in x:
            expected = crown_by_loops(model, point, eps)
            y = torch.arange(3)
            found = margins_at(model, point.expand(3, -1, -1, -1), y, eps, "linf", lines=True)
            off = ~torch.eye(3, dtype=torch.bool)
            torch.testing.assert_close(found[off], expected[off], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_samples_do_not_depend_on_each_other(method, monkeypatch):
    model, x, y = case("snode tanh", 5)
    y = y.clone()
    y[2] = (y[2] + 1) % 3  # misclassified
    together = certify(model, x, y, methods=[method])
    monkeypatch.setattr(bounds, "SAMPLES", 2)
    chunked = certify(model, x, y, methods=[method])
    torch.testing.assert_close(chunked.class_radius, together.class_radius, rtol=1e-9, atol=0)
    assert together.status == ("certified", "certified", "misclassified", "certified", "certified")
    assert together.radius[2] == 0
    assert bool((together.class_radius.gather(1, y[:, None]) == torch.inf).all())
    assert bool((together.passes > 0).all())
    assert together.method[0] == method


def test_without_a_name_ibp_is_for_models_with_no_other_bound():
    model, x, y = case("resnet")
    found = certify(model, x, y)
    assert set(found.method) == {"ibp"}
    assert "tube" in found.left_out
    model, x, y = case("snode tanh")
    found = certify(model, x, y)
    assert "ibp" not in found.method
    assert torch.equal(found.passes, certify(model, x, y, methods=["affine", "adjoint", "tube"]).passes)


def test_memory_is_refused_before_it_is_taken(monkeypatch):
    model, x, y = case("conv-snode")
    monkeypatch.setattr(bounds, "MEMORY", 2**10)
    with pytest.raises(OptionError) as error:
        certify(model, x, y, methods=["crown"])
    assert "one sample needs" in str(error.value)
    assert "72 rows of 36 coefficients" in str(error.value)
    assert "Bounds that remain: " in str(error.value)


def test_adaptive_methods_are_refused():
    model = random_snode(**SMALL).with_solver(method="dopri5")
    x = random_points((1, 2, 3), 1)
    with pytest.raises(OptionError, match=r"the steps of the adaptive method of a snode depend on the input"):
        certify(model, x, torch.tensor([0]), methods=["ibp"])


def test_a_flow_is_not_certified():
    model, x, y = case("snode tanh")
    with pytest.raises(OptionError, match="certifies the discrete map"):
        certify(model, x, y, methods=["crown"], certifies="flow")


def test_weights_that_are_not_finite_certify_nothing():
    model = random_snode(**SMALL)
    with torch.no_grad():
        model.weight[0, 0, 0] = torch.nan
    found = certify(model, random_points((1, 2, 3), 2), torch.tensor([0, 0]), methods=["ibp"])
    assert bool((found.radius == 0).all())
