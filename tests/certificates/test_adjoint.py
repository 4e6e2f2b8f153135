"""The adjoint with its remainder: exact on linear fields, above every true loss, and the formula itself by hand."""

from __future__ import annotations

import math

import pytest
import torch

from robustode.certificates import certify
from robustode.certificates.bracket import largest_balls
from robustode.certificates.first_order import first_order
from robustode.certificates.network import network
from robustode.certificates.problem import make_problem
from robustode.certificates.remainder import remainder
from robustode.certificates.slopes import has_curvature
from robustode.certificates.step_norms import spectral_norms, step_norms
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.models.snode import SNODE
from robustode.solvers.activations import ACTIVATIONS
from robustode.solvers.tableau import TABLEAUX
from tests.certificates.breaking import lowest_margins, unit_vectors
from tests.problems import random_conv_snode, random_points, random_snode

NORMS = ("l1", "l2", "linf")
SMOOTH = sorted(name for name in ACTIVATIONS if has_curvature(name))
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.0}
CONV = {"steps": 3, "knots": 2, "horizon": 1.0}


def sampled(model, n=4, seed=1):
    x = random_points(model.input_shape, n, seed=seed, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        return x, model(x).argmax(1)


def margins(model, x, y):
    z = model(x)
    return z.gather(1, y[:, None]) - z


def losses(model, x, y, norm, eps, whole=True):
    """The bound (linear part and remainder) of what margins lose, (batch, classes), and the problem."""
    problem = make_problem(model, x, y, norm)
    with torch.no_grad():
        first = first_order(problem, whole=whole)
        radii = torch.full((len(x),), eps, dtype=torch.float64)
        return first.linear * eps + remainder(problem, network(problem).flow, first, radii)


def others(y, classes=3):
    return torch.arange(classes) != y[:, None]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", sorted(TABLEAUX))
def test_exact_on_a_linear_field(method, norm):
    model = random_snode(activation="identity", method=method, bounds=(-50.0, 50.0), foreground=1.0, **SMALL)
    x, y = sampled(model, 8)
    with torch.no_grad():
        points = torch.cat([torch.zeros(1, 6), torch.eye(6)]).double().reshape(-1, 1, 2, 3)
        jacobian = (model(points)[1:] - model(points)[:1]).t()
        size = torch.linalg.vector_norm(
            jacobian[y][:, None] - jacobian, ord={"l1": math.inf, "l2": 2, "linf": 1}[norm], dim=2
        )
        exact = (margins(model, x, y) / size).scatter(1, y[:, None], torch.inf)
    found = certify(model, x, y, norm=norm, methods=["adjoint"])
    assert (found.radius / exact.amin(1) - 1).abs().max() < 1e-6
    assert (found.class_radius <= exact * (1 + 1e-6)).all()


@pytest.mark.parametrize("method", sorted(TABLEAUX))
@pytest.mark.parametrize("activation", SMOOTH)
def test_nothing_is_broken_within_the_radius(activation, method):
    j, k = SMOOTH.index(activation), sorted(TABLEAUX).index(method)
    norm, scale = NORMS[(j + k) % 3], (1.0, 5.0)[(j + k) % 2]
    model = random_snode(scale=scale, seed=j, activation=activation, method=method, **SMALL)
    x, y = sampled(model)
    found = certify(model, x, y, norm=norm, methods=["adjoint"]).radius
    assert (found > 0).all()
    assert (lowest_margins(model, x, y, found, norm, model.bounds) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_losses_are_above_those_of_sampled_points(method, norm):
    """Far beyond what is certified, too, with steep slopes, and inputs at the ends of the box."""
    generator = torch.Generator().manual_seed(3)
    for model in (
        random_snode(scale=6.0, seed=4, method=method, **SMALL),
        random_conv_snode(scale=1.5, seed=5, method=method, **CONV),
    ):
        x, y = sampled(model, 4)
        x = x.round(decimals=1).clamp(0.2, 0.8) * 5 / 3 - 1 / 3  # some at 0 and at 1
        x = x.clamp(*model.bounds)
        before = margins(model, x, y).detach()
        for eps in (0.01, 0.1, 0.5):
            bound = losses(model, x, y, norm, eps, whole=model.arch == "snode")
            worst = torch.full_like(bound, -torch.inf)
            for _ in range(30):
                delta = unit_vectors((len(x), x[0].numel()), norm, generator).reshape(x.shape) * eps
                point = (x + delta).clamp(*model.bounds)
                worst = torch.maximum(worst, before - margins(model, point, y).detach())
            assert (worst <= bound).all()
            assert (bound[others(y, model.classes)] < 1e3 * eps + 1e4 * eps**2).all() or eps > 0.01


def two_steps(u, v):
    """x₁' = tanh(u x₁ + 0.3), then tanh(v x₁ + 0.9), in two Euler steps of ½; x₂ stays."""
    model = SNODE(input_shape=(2,), classes=2, steps=2, knots=2, horizon=1.0, foreground=1.0).double().eval()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
        model.weight[0, 0, 0], model.weight[1, 0, 0] = u, v
        model.bias[0, 0], model.bias[1, 0] = 0.3, 0.9
    return model


def test_the_formula_of_two_steps_by_hand():
    """λ(0)·δ + h Σ μ ½ σ'' (K δx)² to second order, where it takes from the margin, and nothing where it adds."""
    (u, v), h, eps = (0.8, -0.6), 0.5, 1e-4
    model, x = two_steps(u, v), torch.tensor([[0.6, 0.2]], dtype=torch.float64)
    one = u * 0.6 + 0.3
    two = v * (0.6 + h * math.tanh(one)) + 0.9
    slopes = [1 - math.tanh(a) ** 2 for a in (one, two)]
    bends = [-2 * math.tanh(a) * s for a, s in zip((one, two), slopes, strict=True)]  # negative: both a > 0
    late, early = 1 + h * slopes[1] * v, 1 + h * slopes[0] * u  # ∂x₁(T)/∂x₁(h), ∂x₁(h)/∂x₁(0)
    second = h * late * bends[0] / 2 * (u * eps) ** 2 + h * bends[1] / 2 * (v * early * eps) ** 2
    assert bends[0] < 0 < two
    for label, lost in ((0, -second), (1, 0.0)):
        problem = make_problem(model, x, torch.tensor([label]), "l2")
        with torch.no_grad():
            first = first_order(problem, whole=True)
            found = remainder(problem, network(problem).flow, first, torch.full((1,), eps).double())
        other = 1 - label
        assert float(first.linear[0, other]) == pytest.approx(math.hypot(late * early, 1.0), rel=1e-9)
        assert float(found[0, other]) == pytest.approx(lost, rel=1e-3, abs=-second / 1e3)


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_is_broken_in_a_convolutional_net(norm):
    model = random_conv_snode(scale=0.7, method="midpoint", **CONV)
    x, y = sampled(model, 4)
    found = certify(model, x, y, norm=norm, methods=["adjoint"]).radius
    assert (found > 2 * certify(model, x, y, norm=norm, methods=["tube"]).radius).all()
    assert (lowest_margins(model, x, y, found, norm, model.bounds) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_is_broken_in_the_twin_in_float32(norm):
    model = Layered(input_shape=(6,), classes=3, steps=4, horizon=1.0).eval()
    with torch.no_grad():
        model.weight.mul_(8.0)
    x, y = sampled(model)
    found = certify(model, x, y, norm=norm, methods=["adjoint"]).radius
    assert (lowest_margins(lambda v: model(v.float()), x.double(), y, found, norm, model.bounds) > 0).all()


def test_rounding_of_float32_is_counted():
    model = random_snode(scale=2.0, **SMALL).float()
    x, y = sampled(model)
    single, double = losses(model, x, y, "l2", 0.0), losses(model.double(), x.double(), y, "l2", 0.0)
    assert ((double > 0) & (double < 1e-12)).all()
    assert ((single > 1e-7) & (single < 1e-3)).all()
    with torch.no_grad():
        off = (model.float()(x.float()).double() - model.double()(x.double())).abs().amax(1)
    assert (single.amin(1) >= off).all()


def test_the_better_of_all_bounds_is_never_below_the_tube():
    for scale in (1.0, 6.0):
        model = random_snode(scale=scale, seed=1, **SMALL | {"steps": 8})
        x, y = sampled(model)
        tube = certify(model, x, y, methods=["tube"]).class_radius
        both = certify(model, x, y, methods=["adjoint", "tube"]).class_radius
        assert (both >= tube).all()
        assert (both[others(y)] > tube[others(y)]).any()


def test_norms_of_steps_are_those_of_their_jacobians():
    """Also where they are verified by a factorisation and not computed."""
    generator = torch.Generator().manual_seed(0)
    for size in (5, 260):
        matrix = torch.eye(size) + torch.randn(2, size, size, generator=generator, dtype=torch.float64) / size**0.5
        exact = torch.linalg.matrix_norm(matrix, ord=2)
        assert ((spectral_norms(matrix) / exact >= 1) & (spectral_norms(matrix) / exact < 1.05)).all()
    assert spectral_norms(torch.full((3, 3), 1e200, dtype=torch.float64)).isinf()
    for method in sorted(TABLEAUX):
        flow = random_snode(scale=3.0, method=method, **SMALL).flow
        slopes = tuple(
            torch.rand(2, 6, generator=generator, dtype=torch.float64).detach() for _ in range(flow.tableau.stages)
        )
        with torch.no_grad():
            formed, bounded = (step_norms(flow, 1, slopes, whole=whole) for whole in (True, False))
            values = []
            for i, row in enumerate(flow.tableau.a):
                inner = torch.eye(6).double() + sum(flow.step * a * v for a, v in zip(row, values, strict=True))
                pre = flow.parameters(1, i)[0] @ inner
                torch.testing.assert_close(formed.rows[i].expand(2, 6), pre.norm(dim=-1).expand(2, 6))
                assert (bounded.rows[i] >= pre.norm(dim=-1)).all()
                values.append(slopes[i][:, :, None] * pre)
            whole = torch.eye(6).double() + sum(flow.step * b * v for b, v in zip(flow.tableau.b, values, strict=True))
        torch.testing.assert_close(formed.whole, torch.linalg.matrix_norm(whole, ord=2))
        assert (bounded.whole >= formed.whole * (1 - 1e-9)).all()


def test_the_bracket_finds_the_largest_ball():
    top = torch.tensor([[torch.inf, 1.0, 4.0], [torch.inf, 2.0, 0.5], [torch.inf, -1.0, 3.0]], dtype=torch.float64)
    linear = torch.full((3, 3), 0.5, dtype=torch.float64)
    found = largest_balls(lambda eps: eps[:, None] ** 3 + 0 * linear, top, linear, 10)
    root = torch.tensor([0.8352, 0.5898])  # ε/2 + ε³ = 1, 0.5
    torch.testing.assert_close(found.amin(1)[:2].float(), root, rtol=0.01, atol=0)
    assert (found.amin(1)[:2].float() <= root * 1.0001).all()
    assert found[2, 1] == 0
    steep = largest_balls(lambda eps: (200 * eps[:, None]).exp() - 1 + 0 * linear, top.abs(), linear, 12).amin(1)
    value = (200 * steep).exp() - 1 + steep / 2
    least = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
    assert ((value < least * (1 + 1e-9)) & (value > 0.8 * least)).all()
    nothing = largest_balls(lambda eps: torch.full((3, 3), torch.nan, dtype=torch.float64), top, linear, 4)
    assert (nothing[:, 1:] == 0).all()


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_what_overflows_is_not_certified(activation):
    for scale in (1e20, 1e60, 1e160):
        model = random_snode(scale=scale, activation=activation, **SMALL | {"steps": 6})
        x, _ = sampled(model)
        for y in (torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)):
            found = certify(model, x, y, methods=["adjoint"])
            assert not found.class_radius.isnan().any()
            assert (found.radius < 1e-6).all()


def test_refused_with_the_bounds_that_remain(monkeypatch):
    model = random_snode(activation="relu", **SMALL)
    x, y = sampled(model)
    with pytest.raises(OptionError, match=r"'relu': its slope jumps.*bounded curvature.*remain: .*tube"):
        certify(model, x, y, methods=["adjoint"])
    model = random_snode(**SMALL)
    whole = certify(model, x, y, methods=["adjoint"]).radius
    monkeypatch.setattr("robustode.certificates.tube.CHUNK_BYTES", 1)
    torch.testing.assert_close(certify(model, x, y, methods=["adjoint"]).radius, whole)  # one sample at a time
    monkeypatch.setattr("robustode.certificates.adjoint.MEMORY", 1000)
    with pytest.raises(OptionError, match=r"needs .* GiB for one sample"):
        certify(model, x, y, methods=["adjoint"])


def test_what_is_covered_is_left_out_without_a_change():
    model = random_snode(scale=2.0, **SMALL)
    x, y = sampled(model)
    found = certify(model, x, y)
    everything = certify(model, x, y, methods=["affine", "adjoint", "lipschitz", "tube"])
    assert torch.equal(found.class_radius, everything.class_radius)
    assert (found.passes < everything.passes).all()
    assert "lipschitz" not in found.left_out
    assert (certify(model, x, y, methods=["lipschitz"]).radius > 0).all()
