"""Bounds of the discrete map by step constants: nothing is broken within them, and linear fields are exact."""

from __future__ import annotations

import dataclasses
import gc

import pytest
import torch

from robustode.certificates import cache, certify
from robustode.certificates.problem import make_problem
from robustode.certificates.search import largest_radii
from robustode.certificates.tube import constants, lipschitz_radii, tube_radii
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.solvers.activations import ACTIVATIONS
from robustode.solvers.tableau import TABLEAUX
from tests.certificates.breaking import lowest_margins
from tests.problems import random_affine, random_conv_snode, random_points, random_snode

NORMS = ("l1", "l2", "linf")
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.0}


def sampled(model, n=6, seed=1):
    x = random_points(model.input_shape, n, seed=seed, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        return x, model(x).argmax(1)


def multiple(factors, method="euler", **config):
    """An sNODE whose field is linear: x' = c(t) x, c at the knots, so that each ball stays one in every norm."""
    config = {"input_shape": (1, 2, 3), "classes": 3, "steps": 6, "knots": len(factors), "horizon": 1.5} | config
    model = random_snode(activation="identity", method=method, **config)
    with torch.no_grad():
        model.weight.copy_(
            torch.tensor(factors, dtype=torch.float64)[:, None, None] * torch.eye(6, dtype=torch.float64)
        )
    return model


def exact_distances(model, x, y, norm):
    """Distances of an affine classifier, (batch, classes)."""
    points = torch.cat([torch.zeros_like(x[:1]), torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])])
    with torch.no_grad():
        jacobian = (model(points)[1:] - model(points)[:1]).t()
    rows = jacobian[y][:, None] - jacobian
    size = torch.linalg.vector_norm(rows, ord={"l1": torch.inf, "l2": 2, "linf": 1}[norm], dim=-1)
    with torch.no_grad():
        z = model(x)
    return ((z.gather(1, y[:, None]) - z) / size).scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize("method", sorted(TABLEAUX))
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_nothing_is_broken_within_the_radius(activation, method):
    j = sorted(ACTIVATIONS).index(activation)
    norm = NORMS[(j + sorted(TABLEAUX).index(method)) % 3]
    model = random_snode(scale=1.0 + 2 * (j % 2), seed=j, activation=activation, method=method, **SMALL)
    x, y = sampled(model)
    found = {name: certify(model, x, y, norm=norm, methods=[name]).radius for name in ("lipschitz", "tube")}
    assert (found["tube"] >= found["lipschitz"] * (1 - 1e-9)).all()
    assert (found["lipschitz"] > 0).all()
    assert (lowest_margins(model, x, y, found["tube"] * (1 - 1e-9), norm) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_is_broken_in_a_convolutional_net(norm):
    model = random_conv_snode(scale=0.7, steps=4, knots=2, horizon=1.0)
    x, y = sampled(model, 4)
    found = certify(model, x, y, norm=norm, methods=["tube"]).radius
    assert (found > 0).all()
    assert (found >= certify(model, x, y, norm=norm, methods=["lipschitz"]).radius * (1 - 1e-9)).all()
    assert (lowest_margins(model, x, y, found, norm) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_is_broken_in_the_twin(norm):
    model = Layered(input_shape=(6,), classes=3, steps=4, horizon=1.0).double().eval()
    with torch.no_grad():
        model.weight.mul_(8.0)
    x, y = sampled(model)
    assert (lowest_margins(model, x, y, certify(model, x, y, norm=norm).radius, norm) > 0).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("method", ["lipschitz", "tube"])
def test_exact_where_balls_stay_balls(method, norm):
    model = multiple([0.8, -0.5, 0.3])
    x, y = sampled(model)
    found = certify(model, x, y, norm=norm, methods=[method])
    exact = exact_distances(model, x, y, norm)
    others = exact.isfinite()
    assert ((found.class_radius / exact)[others] - 1).abs().max() < 1e-6
    assert (lowest_margins(model, x, y, found.radius * (1 - 1e-6), norm) > 0).all()
    assert (lowest_margins(model, x, y, found.radius * 1.01, norm) < 0).all()  # an inflated radius is caught


@pytest.mark.parametrize("method", ["lipschitz", "tube"])
def test_exact_in_linf_where_every_component_moves_alike(method):
    model = multiple([0.8, -0.5, 0.3])
    x, y = sampled(model)
    found = certify(model, x, y, norm="linf", methods=[method])
    assert (found.radius / exact_distances(model, x, y, "linf").amin(1) - 1).abs().max() < 1e-6
    assert (lowest_margins(model, x, y, found.radius * 1.01, "linf") < 0).all()


def test_signed_encoding_and_bounds_enter_the_radius():
    plain = multiple([0.4])
    scaled = multiple([0.4], bounds=(0.0, 10.0), background=1.0, foreground=3.0)
    for model, factor in ((plain, 1.0), (scaled, 0.2)):
        x, y = sampled(model)
        with torch.no_grad():
            z = model(x)
        margin = z.gather(1, y[:, None])[:, 0] - z.scatter(1, y[:, None], -torch.inf).amax(1)
        growth = (1 + 0.25 * 0.4) ** 6
        expected = margin / (2**0.5 * growth * factor)
        found = certify(model, x, y, norm="l2", methods=["tube"]).radius
        assert torch.allclose(found, expected, rtol=1e-6, atol=0)


def test_slopes_within_the_tube_give_more_than_all_slopes():
    model = random_snode(scale=4.0, steps=8, knots=4)
    x, y = sampled(model, 8)
    for norm in NORMS:
        local = certify(model, x, y, norm=norm, methods=["tube"]).radius
        assert (local > 1.5 * certify(model, x, y, norm=norm, methods=["lipschitz"]).radius).all()


def test_a_sample_is_certified_alone_as_in_its_batch():
    model = random_snode(scale=2.0, **SMALL)
    x, y = sampled(model, 3)
    for norm in ("l2", "linf"):
        for radii in (lipschitz_radii, tube_radii):
            with torch.no_grad():
                together = radii(make_problem(model, x, y, norm)).radius
                alone = torch.cat(
                    [radii(make_problem(model, x[k : k + 1], y[k : k + 1], norm)).radius for k in range(3)]
                )
            assert torch.allclose(together, alone, rtol=1e-6, atol=0)


def test_constants_are_remembered_until_the_weights_change():
    model = random_snode(**SMALL)
    x, y = sampled(model)
    first = make_problem(model, x, y, "l2")
    before = constants(first, first.exact.flow, "l2")
    assert constants(first, first.exact.flow, "l2") is before
    with torch.no_grad():
        model.weight.mul_(2.0)
    changed = make_problem(model, x, y, "l2")
    assert (constants(changed, changed.exact.flow, "l2") > before).all()
    kept = len(cache._KEPT)
    del model, first, changed
    gc.collect()
    assert len(cache._KEPT) < kept


def test_the_search_finds_the_largest_ball_of_a_known_rate():
    batch = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    found = largest_radii(lambda eps: torch.stack([batch * (-eps).exp(), batch * torch.inf], 1), batch, 6)[:, 0]
    assert torch.allclose(found, batch * (-found).exp(), rtol=1e-6, atol=0)
    steep = largest_radii(lambda eps: batch[:, None] / (1 + (20 * eps[:, None]).exp()), batch, 8)[:, 0]
    assert ((batch / (1 + (20 * steep * 1.03).exp())) < steep * 1.03).all()
    nothing = largest_radii(lambda eps: 0 * eps[:, None], batch, 3)
    assert (nothing == 0).all()


def test_refusals_name_the_reason():
    adaptive = random_snode(**SMALL).with_solver(method="dopri5")
    x, y = torch.rand(2, 1, 2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(OptionError, match=r"adaptive .* chooses its steps by the input.*with_solver"):
        certify(adaptive, x, y, methods=["tube"])
    affine = random_affine(input_shape=(1, 2, 3))
    with pytest.raises(OptionError, match="tube: Affine: no sNODE"):
        certify(affine, x, y, methods=["tube"])


def test_a_net_that_overflows_is_not_certified():
    model = multiple([1e30], steps=12)
    x, y = sampled(model)
    assert not model(x).isfinite().all()
    for norm in NORMS:
        found = certify(model, x, y, norm=norm, methods=["lipschitz", "tube"])
        assert (found.radius == 0).all()
        assert not found.class_radius.isnan().any()


def test_arithmetic_too_coarse_for_a_bound_certifies_nothing():
    model = random_snode(**SMALL)
    x, y = sampled(model)
    problem = make_problem(model, x, y, "l2")
    deployed = random_snode(dtype=torch.bfloat16, **SMALL)
    with torch.no_grad():
        fine = tube_radii(problem).radius
        coarse = tube_radii(dataclasses.replace(problem, deployed=deployed)).radius
    assert (coarse < fine)[fine.isfinite()].all()
