"""The affine form in depth: exact on affine fields, above every true loss, and right to second order."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch.autograd.functional import hessian

from robustode.certificates import certify, expand
from robustode.certificates.affine_form import AffineForm, affine_form
from robustode.certificates.box import support
from robustode.certificates.fit import fit, left
from robustode.certificates.problem import make_problem
from robustode.certificates.slopes import SHAPES, curvature_range, has_curvature, mean_curvature_range, slope_range
from robustode.certificates.trials import search
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.solvers.activations import ACTIVATIONS, activation
from tests.certificates.breaking import lowest_margins
from tests.problems import random_conv_snode, random_points, random_snode

NORMS = ("l1", "l2", "linf")
ORDER = {"l1": 1, "l2": 2, "linf": math.inf}
SMOOTH = sorted(name for name in ACTIVATIONS if has_curvature(name))
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.0}


def sampled(model, n=6, seed=1):
    x = random_points(model.input_shape, n, seed=seed, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        return x, model(x).argmax(1)


def plain(model, x):
    """The logits in plain operations, for derivatives of any order."""
    flow, z = model.flow, model.encode(x)
    for n in range(flow.steps):
        weight, bias = flow.parameters(n, 0)
        z = z + flow.step * torch.tanh(z @ weight.t() + bias)
    return z[:, : model.classes]


def margin(model, label, k, x):
    z = plain(model, x[None])[0]
    return z[label] - z[k]


def tangents(model, x, y) -> AffineForm:
    return affine_form(make_problem(model, x, y, "l2"), torch.zeros(len(x), dtype=torch.float64))


def ball(generator, batch, d, eps, norm):
    """Draws of ‖δ‖ = ε, (draws, batch, d)."""
    draws = torch.randn(200, batch, d, generator=generator, dtype=torch.float64)
    draws = draws.sign() if norm == "linf" else draws ** (3 if norm == "l1" else 1)
    return draws * (eps / torch.linalg.vector_norm(draws, ord=ORDER[norm], dim=2, keepdim=True))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_ranges_of_slopes_and_curvatures_hold_on_a_grid(name):
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(300, generator=generator, dtype=torch.float64) * 2
    width = torch.rand(300, generator=generator, dtype=torch.float64) ** 3 * 4 + 0.01
    low, high = centre - width, centre + width
    points = low[:, None] + torch.linspace(0, 1, 101, dtype=torch.float64) * (2 * width)[:, None]
    value = activation(name).apply(points)
    least, most = slope_range(name, low, high)
    chords = value.diff(dim=1) / points.diff(dim=1)
    assert (chords >= least[:, None] - 1e-9).all()
    assert (chords <= most[:, None] + 1e-9).all()
    # attained: the range is not wider than what the finest chords of it show
    inside = width > 0.05
    if activation(name).smooth:
        assert (chords.amin(1) - least)[inside].max() < 0.15
        assert (most - chords.amax(1))[inside].max() < 0.15
    if has_curvature(name):
        slope = activation(name).slope(value)
        second = slope.diff(dim=1) / points.diff(dim=1)
        least, most = curvature_range(name, low, high)
        assert (second >= least[:, None] - 1e-6).all()
        assert (second <= most[:, None] + 1e-6).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_mean_curvature_encloses_the_remainder_of_the_tangent(name):
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(400, generator=generator, dtype=torch.float64) * 1.5
    below, above = torch.rand(2, 400, generator=generator, dtype=torch.float64) * 3
    low, high = mean_curvature_range(name, a, below, above)
    delta = -below[:, None] + torch.linspace(0, 1, 61, dtype=torch.float64) * (below + above)[:, None]
    sigma = activation(name)
    at = sigma.apply(a)
    rest = sigma.apply(a[:, None] + delta) - at[:, None] - sigma.slope(at)[:, None] * delta
    assert (rest >= low[:, None] * delta.square() / 2 - 1e-12).all()
    assert (rest <= high[:, None] * delta.square() / 2 + 1e-12).all()
    assert (high - low <= torch.sub(*curvature_range(name, a - below, a + above)[::-1]) + 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_support_is_above_every_point_of_the_ball_in_the_box(norm):
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    high = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    low = torch.where(torch.rand(5, 6, generator=generator) < 0.5, 0.0, -1.0).double()
    found = support(rows, low, high, norm)
    for eps in (0.1, 0.5):
        delta = ball(generator, 5, 6, eps, norm)
        delta = torch.minimum(torch.maximum(delta, low), high)  # clipping shortens
        assert (torch.einsum("brd,nbd->nbr", rows, delta) <= eps * found + 1e-12).all()
    assert (found < torch.linalg.vector_norm(rows, ord={"l1": math.inf, "l2": 2, "linf": 1}[norm], dim=2) + 1e-12).all()
    free = support(rows, torch.full_like(low, -1.0), high + 1, norm)
    steepest = {
        "l2": rows / rows.norm(dim=2, keepdim=True),
        "linf": rows.sign(),
        "l1": torch.nn.functional.one_hot(rows.abs().argmax(2), 6) * rows.sign(),
    }[norm]
    torch.testing.assert_close((rows * steepest).sum(2), free)  # attained where there is room


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_exact_on_a_linear_field(method, norm):
    model = random_snode(activation="identity", method=method, bounds=(-50.0, 50.0), foreground=1.0, **SMALL)
    x, y = sampled(model, 8)
    with torch.no_grad():
        points = torch.cat([torch.zeros(1, 6), torch.eye(6)]).double().reshape(-1, 1, 2, 3)
        jacobian = (model(points)[1:] - model(points)[:1]).t()
    rows = jacobian[y][:, None] - jacobian
    size = torch.linalg.vector_norm(rows, ord={"l1": math.inf, "l2": 2, "linf": 1}[norm], dim=2)
    with torch.no_grad():
        z = model(x)
    exact = (z.gather(1, y[:, None]) - z) / size
    exact = exact.scatter(1, y[:, None], torch.inf)
    found = certify(model, x, y, norm=norm, methods=["affine"])
    ratio = found.radius / exact.amin(1)
    assert ((ratio <= 1) & (ratio > 1 - 1e-6)).all()
    assert (found.nearest == exact.argmin(1)).all()


METHODS = ("euler", "midpoint", "rk4")
CASES = [(method, name, NORMS[(j + k) % 3], 4) for j, name in enumerate(SMOOTH) for k, method in enumerate(METHODS)]
# In blocks of three steps, the last of one; of two, the last of one.
CASES += [("euler", "tanh", "l2", 7), ("midpoint", "srelu", "linf", 5), ("rk4", "softplus", "l2", 5)]


@pytest.mark.parametrize(("method", "name", "norm", "steps"), CASES)
def test_the_loss_is_above_that_of_every_point_of_the_ball(method, name, norm, steps, monkeypatch):
    monkeypatch.setattr(expand, "BLOCKS", 3 if steps > 4 else expand.BLOCKS)
    j = SMOOTH.index(name)
    model = random_snode(scale=3.0, seed=j, activation=name, method=method, **SMALL | {"steps": steps})
    x, y = sampled(model, 3)
    problem = make_problem(model, x, y, norm)
    generator = torch.Generator().manual_seed(j)
    used = 0.0
    for eps, fitted in ((0.01, 0.0), (0.1, 0.0), (0.1, 0.1), (0.5, 0.4), (0.2, 0.5)):
        form = affine_form(problem, torch.full((3,), fitted, dtype=torch.float64))
        with torch.no_grad():
            bound = form.loss(torch.full((3,), eps, dtype=torch.float64))
            moved = (x.flatten(1) + ball(generator, 3, 6, eps, norm)).clamp(0, 1)
            z = model(moved.reshape(-1, 1, 2, 3)).unflatten(0, moved.shape[:2])
            margins = z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z
        others = problem.margins.isfinite()
        lost = (form.margins - margins).amax(0)[others]
        assert (lost <= bound[others]).all()
        used = max(used, float((lost / bound[others]).detach().max()))
    assert used > 0.3  # the bound is of the size of what it bounds


def test_the_second_order_is_that_of_the_hessian():
    """For one group the bound in Frobenius norm is the norm of the Hessian; for more it is not below it."""
    for steps, share in ((1, 1.0), (5, 0.2)):
        model = random_snode(scale=4.0, seed=3, **SMALL | {"steps": steps, "knots": 1})
        x, y = sampled(model, 2)
        form = tangents(model, x, y)
        found = sum(arrival.frobenius for arrival in form.expansion.outputs)
        for s in range(2):
            for k in range(3):
                if k == y[s]:
                    continue
                second = hessian(partial(margin, model, int(y[s]), k), x[s])
                exact = second.flatten().norm()
                assert found[s, k] >= exact * (1 - 1e-6)
                assert exact >= share * found[s, k] * (1 - 1e-5)


def test_blocks_change_nothing_that_is_exact(monkeypatch):
    """Gradients, forms and the arrival of a block: the same whether steps are taken one by one or in blocks."""
    model = random_snode(scale=3.0, seed=2, method="midpoint", **SMALL | {"steps": 12})
    x, y = sampled(model, 2)
    fine = tangents(model, x, y)
    monkeypatch.setattr(expand, "BLOCKS", 3)
    coarse = tangents(model, x, y)
    assert len(coarse.expansion.groups) != len(fine.expansion.groups)
    torch.testing.assert_close(coarse.expansion.linear, fine.expansion.linear)
    for one, other in zip(fine.expansion.sites, coarse.expansion.sites, strict=True):
        torch.testing.assert_close(one.fit.pre, other.fit.pre)
        torch.testing.assert_close(one.forms, other.forms)
    eps = torch.full((2,), 0.05, dtype=torch.float64)
    ratio = (coarse.loss(eps) / fine.loss(eps))[problem_others(y)]
    assert ((ratio > 0.8) & (ratio < 1.2)).all()


def problem_others(y, classes=3):
    return torch.arange(classes) != y[:, None]


@pytest.mark.parametrize(("j", "name"), list(enumerate(SMOOTH)))
@pytest.mark.parametrize(("k", "method"), list(enumerate(METHODS)))
def test_nothing_is_broken_within_the_radius(k, method, j, name):
    norm, scale = NORMS[(j + k + 1) % 3], (1.0, 5.0)[(j + k) % 2]
    model = random_snode(scale=scale, seed=j, activation=name, method=method, **SMALL)
    x, y = sampled(model, 4)
    found = certify(model, x, y, norm=norm, methods=["affine"])
    assert (found.radius > 0).all()
    assert (lowest_margins(model, x, y, found.radius, norm, model.bounds) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_is_broken_in_the_twin_in_float32(norm):
    model = Layered(input_shape=(6,), classes=3, steps=4, horizon=1.0).eval()
    with torch.no_grad():
        model.weight.mul_(8.0)
    x, y = sampled(model)
    found = certify(model, x, y, norm=norm, methods=["affine"])
    assert (lowest_margins(lambda v: model(v.float()), x.double(), y, found.radius, norm, model.bounds) > 0).all()


def test_rounding_of_float32_is_counted():
    """The same weights lose more in float32 than in float64, by about its unit, also at ε = 0."""
    model = random_snode(scale=2.0, **SMALL).float()
    x, y = sampled(model)
    zero = torch.zeros(len(x), dtype=torch.float64)
    single = tangents(model, x, y).loss(zero)
    double = tangents(model.double(), x.double(), y).loss(zero)
    assert (double > 0).all()
    assert (double < 1e-12).all()
    assert ((single > 1e-7) & (single < 1e-3)).all()
    with torch.no_grad():
        off = (model.float()(x.float()).double() - model.double()(x.double())).abs().amax(1)
    assert (single.amin(1) >= off).all()


def test_the_search_finds_where_the_loss_takes_all():
    margins = torch.tensor([[torch.inf, 1.0, 4.0], [torch.inf, 2.0, 0.5], [torch.inf, -1.0, 3.0]], dtype=torch.float64)
    root = torch.tensor([0.8352, 0.5898])  # ε/2 + ε³ = 1, 0.5
    zero = torch.zeros(3, dtype=torch.float64)
    for start in (0.1, 0.7, 50.0):
        found = search(lambda eps: (eps / 2 + eps**3)[:, None].expand(-1, 3), margins, zero, zero + start, 14)
        torch.testing.assert_close(found.amin(1)[:2].float(), root, rtol=0.02, atol=0)
        assert (found.amin(1)[:2].float() <= root).all()
        assert found[2, 1] == 0
    nothing = search(lambda eps: torch.full((3, 3), torch.inf, dtype=torch.float64), margins, zero, zero + 1, 5)
    assert (nothing[:, 1:] == 0).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_what_a_fit_leaves_is_enclosed(name):
    generator = torch.Generator().manual_seed(3)
    pre = torch.randn(2, 200, generator=generator, dtype=torch.float64) * 1.5
    forms, error = torch.rand(2, 2, 200, generator=generator, dtype=torch.float64) ** 2 * 2
    sigma = activation(name)
    fitted = fit(sigma, pre, forms, error)
    assert ((fitted.curvature == 0) | (fitted.offset == 0)).all()
    for factor in (0.1, 1.0, 2.0):
        down, up = factor * forms, factor * (forms + error)
        found = left(sigma, fitted, down, up)
        delta = -down[..., None] + torch.linspace(0, 1, 201, dtype=torch.float64) * (down + up)[..., None]
        t = sigma.apply(pre[..., None] + delta) - sigma.apply(pre)[..., None] - fitted.slope[..., None] * delta
        t = t - fitted.curvature[..., None] * delta.square() / 2
        assert (t >= found.low[..., None]).all()
        assert (t <= found.high[..., None]).all()
        assert (t.abs() <= found.rate[..., None] * delta.abs() + 1e-14).all()
        if name not in ("srelu", "slrelu"):  # whose σ'' jumps
            assert ((found.high - found.low) <= 2 * (t.amax(-1) - t.amin(-1)) + 0.02 * factor**2).all()


def test_tighter_than_the_tube():
    model = random_snode(scale=4.0, seed=1, **SMALL | {"steps": 12})
    x, y = sampled(model)
    tube = certify(model, x, y, methods=["tube"]).radius
    affine = certify(model, x, y, methods=["affine"]).radius
    assert (affine > tube).all()
    assert (certify(model, x, y).radius >= affine).all()


def test_refused_with_the_bounds_that_remain(monkeypatch):
    model = random_snode(activation="relu", **SMALL)
    x, y = sampled(model)
    with pytest.raises(OptionError, match=r"'relu': its slope jumps.*Bounds that remain: .*tube"):
        certify(model, x, y, methods=["affine"])
    assert "affine" in certify(model, x, y).left_out
    conv = random_conv_snode()
    x, y = sampled(conv, 2)
    with pytest.raises(OptionError, match="conv-snode: expects a dense state"):
        certify(conv, x, y, methods=["affine"])
    model = random_snode(**SMALL)
    x, y = sampled(model)
    whole = certify(model, x, y, methods=["affine"]).radius
    monkeypatch.setattr("robustode.certificates.affine.MEMORY", expand.expansion_bytes(model.flow))
    torch.testing.assert_close(certify(model, x, y, methods=["affine"]).radius, whole)  # one sample at a time
    monkeypatch.setattr("robustode.certificates.affine.MEMORY", 1000)
    with pytest.raises(OptionError, match=r"needs .* GiB for one sample"):
        certify(model, x, y, methods=["affine"])


def test_a_part_of_a_problem_has_the_same_radii():
    model = random_snode(scale=2.0, **SMALL)
    x, y = sampled(model, 10)
    whole = certify(model, x, y, methods=["affine"])
    parts = torch.cat([certify(model, x[k], y[k], methods=["affine"]).radius for k in (slice(0, 3), slice(3, None))])
    torch.testing.assert_close(whole.radius, parts)
    assert dataclasses.is_dataclass(whole)
