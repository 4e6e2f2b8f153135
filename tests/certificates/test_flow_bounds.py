"""Bounds of the flow: the followed path is enclosed, nothing is broken within radii, linear fields are exact."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from robustode.certificates import certify, enclosure
from robustode.certificates.enclosure import enclose, stretches
from robustode.errors import OptionError
from robustode.models.layered import Layered
from robustode.solvers.activations import ACTIVATIONS
from tests.certificates.breaking import lowest_margins
from tests.certificates.test_tube import exact_distances, multiple, sampled
from tests.problems import random_conv_snode, random_snode

NORMS = ("l1", "l2", "linf")
SMALL = {"input_shape": (1, 2, 3), "classes": 3, "steps": 4, "knots": 2, "horizon": 1.0}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    monkeypatch.setattr(enclosure, "PIECES", 64)
    monkeypatch.setattr(enclosure, "WINDOWS", 8)


def fine(model, steps=96):
    """The flow itself, nearly: kinks of θ at ends of steps, error far below every margin."""
    return model.with_solver(method="rk4", steps=steps)


def test_windows_cover_the_depth_and_break_at_knots():
    model = random_snode(steps=5, knots=3, horizon=2.0)
    parts = list(stretches(model))
    assert sum(length for length, _ in parts) == pytest.approx(2.0)
    assert all(b[0] == a[1] for (_, a), (_, b) in pairwise(parts))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@torch.no_grad()
def test_the_defect_bounds_the_distance_to_the_solution(activation):
    model = random_snode(scale=1.5, activation=activation, **SMALL)
    x, _ = sampled(model)
    path = enclose(model, x)
    true = fine(model, 1536).final_state(x)
    weight = max(float(torch.linalg.matrix_norm(w, ord=2)) for w in model.weight)
    allowed = math.exp(weight) * sum(window.defect.norm(dim=1) for window in path.windows)
    apart = (path.final - true).norm(dim=1)
    assert (apart <= allowed + 1e-7).all()
    assert allowed.max() < (0.05 if ACTIVATIONS[activation].smooth or "relu" in activation else 0.5)


@torch.no_grad()
def test_the_defect_falls_with_the_square_of_the_pieces(monkeypatch):
    model = random_snode(scale=1.5, **SMALL)
    x, _ = sampled(model)
    sizes = []
    for pieces in (96, 192, 384):
        monkeypatch.setattr(enclosure, "PIECES", pieces)
        sizes.append(float(sum(window.defect.sum() for window in enclose(model, x).windows)))
    for coarse, finer in pairwise(sizes):
        assert math.log2(coarse / finer) == pytest.approx(2, abs=0.15)


@torch.no_grad()
def test_pre_activations_of_the_path_lie_in_the_windows():
    model = random_snode(scale=1.5, **SMALL)
    x, _ = sampled(model)
    path, start = enclose(model, x), 0.0
    states = list(fine(model, 960).flow.states(model.encode(x)))
    for window in path.windows:
        n = round((start + window.length / 2) * 960)
        weight, bias = fine(model, 960).flow.parameters(min(n, 959), 0)
        pre = states[n] @ weight.t() + bias
        assert (pre >= window.low - 1e-2).all()
        assert (pre <= window.high + 1e-2).all()
        start += window.length


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_nothing_is_broken_within_the_radius(activation):
    k = sorted(ACTIVATIONS).index(activation)
    norm = NORMS[k % 3]
    model = random_snode(scale=1.5, seed=k, activation=activation, **SMALL)
    x, y = sampled(fine(model))
    found = {
        name: certify(model, x, y, norm=norm, methods=[name], certifies="flow").radius
        for name in ("lognorm-global", "lognorm-tube")
    }
    assert (found["lognorm-tube"] >= found["lognorm-global"]).all()
    assert found["lognorm-tube"].max() > 0
    assert (lowest_margins(fine(model, 12), x, y, found["lognorm-tube"] * 0.999, norm) > -1e-4).all()


@pytest.mark.parametrize("norm", NORMS)
def test_convolutional(norm):
    model = random_conv_snode(scale=0.5, steps=4, knots=2, horizon=1.0)
    x, y = sampled(fine(model), 3)
    found = certify(model, x, y, norm=norm, methods=["lognorm-tube"], certifies="flow").radius
    assert (found > 0).all()
    assert (lowest_margins(fine(model, 12), x, y, found * 0.999, norm) > -1e-4).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_exact_where_balls_stay_balls(norm, monkeypatch):
    monkeypatch.setattr(enclosure, "PIECES", 2000)
    model = multiple([0.8, -0.5, 0.3])
    x, y = sampled(fine(model))
    exact = exact_distances(fine(model, 240), x, y, norm)
    found = certify(model, x, y, norm=norm, methods=["lognorm-tube"], certifies="flow")
    assert ((found.class_radius / exact)[exact.isfinite()] - 1).abs().max() < 1e-4
    assert (found.radius <= exact.amin(1) * (1 + 1e-9)).all()


def test_an_adaptive_model_has_a_flow_and_independent_layers_have_none():
    model = random_snode(scale=1.0, **SMALL)
    x, y = sampled(fine(model), 3)
    plain = certify(model, x, y, certifies="flow").radius
    adaptive = model.with_solver(method="dopri5", rtol=1e-8, atol=1e-8)
    assert torch.allclose(certify(adaptive, x, y, certifies="flow").radius, plain)
    twin = Layered(input_shape=(1, 2, 3), classes=3, steps=4).double()
    with pytest.raises(OptionError, match="layered: independent layers"):
        certify(twin, x, y, certifies="flow")
