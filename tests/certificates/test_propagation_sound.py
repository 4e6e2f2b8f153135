"""IBP and CROWN: no input inside a radius has another answer, no node leaves its range, rounding is allowed for."""

from __future__ import annotations

import pytest
import torch

from robustode.certificates import certify
from robustode.certificates.problem import make_problem
from robustode.certificates.propagate import bounds
from robustode.certificates.propagate.ball import Ball
from robustode.certificates.propagate.enclose import Encloser
from robustode.certificates.propagate.roundoff import Roundoff
from tests.certificates.ball_search import least_margins
from tests.certificates.networks import MODELS, NORMS, SMALL, case, margins_at
from tests.problems import random_affine, random_points, random_snode

EVERY = ("snode tanh",)  # in every norm; the others in one, in turn
CASES = [(name, norm) for i, name in enumerate(MODELS) for j, norm in enumerate(NORMS) if name in EVERY or i % 3 == j]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_nothing_is_found_inside(name, norm):
    model, x, y = case(name)
    for method in ("ibp", "crown"):
        found = certify(model, x, y, norm=norm, methods=[method])
        assert bool((found.radius > 0).all())
        radius = found.class_radius.clamp(max=10.0)
        assert bool((least_margins(model, x, y, radius, norm) > 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_that_is_a_little_too_large_is_found_out(norm):
    """What the search of the tests is worth: 1.02 times the exact distance of a linear field."""
    net = random_snode(activation="identity", **SMALL)
    x = random_points((1, 2, 3), 4)
    y = net(x).argmax(1)
    found = certify(net, x, y, norm=norm, methods=["crown"])
    worst = least_margins(net, x, y, (1.02 * found.radius)[:, None].expand(-1, 3), norm)
    assert bool((worst.min(1).values < 0).all())


@pytest.mark.parametrize(
    ("name", "norm"),
    list(zip(["snode tanh", "snode rk4", "conv-snode", "resnet", "gelu", "max pooling"], 2 * NORMS, strict=True)),
)
def test_margins_are_below_what_is_found_and_fall(name, norm):
    model, x, y = case(name)
    clean = margins_at(model, x, y, 0.0, norm, lines=True)
    z = model(x).detach()
    exact = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf)
    torch.testing.assert_close(clean, exact, rtol=0, atol=1e-9)
    assert bool((clean <= exact).all())
    before = clean
    for eps in (0.003, 0.03, 0.3):
        found = margins_at(model, x, y, eps, norm, lines=True)
        plain = margins_at(model, x, y, eps, norm, lines=False)
        assert bool((found >= plain - 1e-12).all())  # CROWN is never looser than IBP
        assert bool((found <= before).all())
        radius = torch.full_like(found, eps)
        assert bool((found <= least_margins(model, x, y, radius, norm, draws=16, steps=6) + 1e-12).all())
        before = found


@pytest.mark.parametrize("name", ["snode tanh", "resnet", "max pooling"])
def test_every_node_stays_in_its_range(name):
    model, x, y = case(name)
    problem = make_problem(model, x, y, "linf")
    graph = bounds.graph_of(problem)
    assert not isinstance(graph, str)
    ball = Ball(x=x, eps=torch.full((len(x),), 0.1).double(), norm="linf", roundoff=graph.roundoff(problem.unit))
    for crown in (False, True):
        with torch.no_grad():
            ranges = Encloser(graph=graph, lines=crown).ranges(ball)
        for seed in range(20):
            noise = 0.2 * random_points(tuple(x.shape[1:]), len(x), seed=seed) - 0.1
            values = [x + (noise.sign() * 0.1 if seed % 2 else noise)]
            for node, own in zip(graph.nodes[1:], ranges[1:], strict=True):
                values.append(node.value([values[s] for s in node.sources]).detach())
                assert bool(((own.low <= values[-1]) & (values[-1] <= own.high)).all())


def test_sums_in_float32_are_within_the_allowance():
    g = torch.Generator().manual_seed(9)
    roundoff = Roundoff(unit=2.0**-24, own=300)
    for terms in (1, 10, 200):
        x, w = torch.randn(64, terms, generator=g), torch.randn(32, terms, generator=g) * 100
        off = (x @ w.t()).double() - x.double() @ w.double().t()
        allowed = roundoff.of_sum(terms, x.double().abs() @ w.double().abs().t())
        assert bool((off.abs() <= allowed).all())
        assert bool((allowed < 1e-3 * (x.double().abs() @ w.double().abs().t())).all())
    assert bool((roundoff.of_sum(0, torch.ones(1)) < 1e-12).all())


@pytest.mark.parametrize("name", ["snode tanh", "snode rk4", "conv-snode", "resnet", "relu", "gelu", "softplus"])
def test_the_deployed_model_is_allowed_for(name):
    """In float32, margins at ε = 0 are below those of the deployed and of the exact model, by little."""
    model = MODELS[name]().float()
    x = random_points(tuple(model.input_shape), 200, seed=11, dtype=torch.float32)
    with torch.no_grad():
        z = model(x).double()
    y = z.argmax(1)
    deployed = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf)
    exact = make_problem(model, x, y, "l2").margins
    assert bool((deployed != exact)[deployed.isfinite()].any())
    for lines_ in (False, True):
        found = margins_at(model, x, y, 0.0, "l2", lines=lines_)
        assert bool((found <= torch.minimum(deployed, exact)).all())
    assert bool((exact - found)[exact.isfinite()].max() < 2e-3)


def test_coarser_products_are_allowed_for(monkeypatch):
    model, x, y = random_affine(dtype=torch.float32), random_points((1, 3, 4), 2), torch.tensor([0, 1])
    problem = make_problem(model, x, y, "l2")
    assert bounds.unit_of(problem) == 2.0**-24
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert bounds.unit_of(problem) == 2.0**-8
    assert bounds.unit_of(make_problem(model.double(), x, y, "l2")) == 2.0**-53
