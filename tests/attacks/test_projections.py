"""Projections against a convex solver, on random instances with active boxes and degenerate normals."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from robustode.attacks.projections import furthest, project


def instance(seed: int, d: int = 7, degenerate: bool = False):
    rng = np.random.default_rng(seed)
    w, x = rng.normal(size=d), rng.uniform(size=d)
    if degenerate:
        w[: d // 2], x[-2:] = 0.0, (0.0, 1.0)
        w[-1] = w[-2]
    reach = np.where(w > 0, w * (1 - x), w * -x).sum()
    return w, x, reach


def solve(w, x, c, norm):
    """The minimal norm by a linear program (L1, L∞) or SLSQP (L2)."""
    d = len(w)
    if norm == "l2":
        start = np.where(w > 0, 1 - x, -x) * 0.99
        out = minimize(
            lambda z: z @ z,
            start,
            jac=lambda z: 2 * z,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints={"type": "ineq", "fun": lambda z: w @ z - c, "jac": lambda z: w},
            options={"ftol": 1e-16, "maxiter": 500},
        )
        return float(np.sqrt(out.fun))
    extra = 1 if norm == "linf" else d  # δ, then the bounds on |δ|
    bound = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    upper = np.block([[np.eye(d), -bound], [-np.eye(d), -bound], [-w[None], np.zeros((1, extra))]])
    right = np.concatenate([np.zeros(2 * d), [-c]])
    boxes = [*zip(-x, 1 - x, strict=True), *[(0, None)] * extra]
    return float(linprog(np.r_[np.zeros(d), np.ones(extra)], A_ub=upper, b_ub=right, bounds=boxes).fun)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("degenerate", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_against_a_convex_solver(norm, degenerate, share):
    order = {"l2": 2, "linf": np.inf, "l1": 1}[norm]
    for seed in range(8):
        w, x, reach = instance(seed, degenerate=degenerate)
        c = share * reach
        out = project(*(torch.tensor(v)[None] for v in (w, np.float64(c))), torch.tensor(x)[None], (0.0, 1.0), norm)
        delta = out.delta[0].numpy()
        assert bool(out.feasible)
        assert w @ delta == pytest.approx(c, rel=1e-12, abs=1e-13)
        assert (x + delta >= -1e-15).all()
        assert (x + delta <= 1 + 1e-15).all()
        assert np.linalg.norm(delta, order) == pytest.approx(solve(w, x, c, norm), rel=2e-6)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_unreachable_and_trivial_half_spaces(norm):
    w, x, reach = instance(3)
    rows = torch.tensor(np.stack([w, w, w * 0, w]))
    offset = torch.tensor([1.5 * reach, -1.0, 1.0, float("nan")])
    out = project(rows, offset, torch.tensor(x).expand(4, -1), (0.0, 1.0), norm)
    assert out.feasible.tolist() == [False, True, False, False]
    corner = np.where(w > 0, 1 - x, -x)
    assert np.allclose(out.delta[0].numpy(), corner)
    assert not out.delta[1].any()
    assert not out.delta[2:].any()


def test_rows_do_not_interact():
    rng = np.random.default_rng(0)
    w, x = torch.tensor(rng.normal(size=(20, 9))), torch.tensor(rng.uniform(size=(20, 9)))
    c = torch.tensor(rng.uniform(0.1, 1.0, size=20))
    together = project(w, c, x, (0.0, 1.0), "l2").delta
    alone = torch.cat([project(w[i : i + 1], c[i : i + 1], x[i : i + 1], (0.0, 1.0), "l2").delta for i in range(20)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_size_of_the_normal_does_not_matter(norm, scale):
    w, x, reach = instance(1)
    rows, offset = torch.tensor(w, dtype=torch.float32)[None], torch.tensor([0.5 * reach], dtype=torch.float32)
    point = torch.tensor(x, dtype=torch.float32)[None]
    plain = project(rows, offset, point, (0.0, 1.0), norm)
    scaled = project(rows * scale, offset * scale, point, (0.0, 1.0), norm)
    assert bool(scaled.feasible)
    assert plain.delta.abs().max() > 0.01
    assert torch.allclose(scaled.delta, plain.delta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("degenerate", [False, True])
def test_furthest_is_the_converse_of_project(norm, degenerate):
    order = {"l2": 2, "linf": np.inf, "l1": 1}[norm]
    for seed in range(8):
        w, x, reach = instance(seed, degenerate=degenerate)
        room = np.where(w == 0, 0, np.where(w > 0, 1 - x, x))
        largest = np.linalg.norm(room, order)
        normal, point = torch.tensor(w)[None], torch.tensor(x)[None]
        for share in (0.05, 0.5, 0.95, 1.5):
            delta = furthest(normal, share * largest, point, (0.0, 1.0), norm)
            gain = float(w @ delta[0].numpy())
            assert np.linalg.norm(delta[0].numpy(), order) == pytest.approx(min(1, share) * largest, rel=1e-12)
            assert ((point + delta >= -1e-15) & (point + delta <= 1 + 1e-15)).all()
            assert gain <= reach * (1 + 1e-12)
            nearest = project(normal, torch.tensor([gain * (1 - 1e-12)], dtype=torch.float64), point, (0.0, 1.0), norm)
            # no shorter step gets as far: what project finds for the same gain is as long
            assert np.linalg.norm(nearest.delta[0].numpy(), order) == pytest.approx(min(1, share) * largest, rel=1e-6)
        assert not furthest(torch.zeros_like(normal), 1.0, point, (0.0, 1.0), norm).any()
