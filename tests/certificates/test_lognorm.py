"""Log norms and step constants over boxes of slopes, against every vertex."""

from __future__ import annotations

import itertools

import pytest
import torch

from robustode.certificates.balance import best_scales
from robustode.certificates.linear import Linear
from robustode.certificates.lognorm import log_norm, rows_log_norm
from robustode.certificates.spectral import Form, largest
from robustode.certificates.steps import euler_norm, moved, slope_norm, step_constants
from robustode.errors import BudgetError
from robustode.solvers.operators import Convolution, Dense
from tests.problems import random_snode

NORMS = ("l1", "l2", "linf")
ORDER = {"l1": 1, "l2": 2, "linf": torch.inf}
EXACT = 1e-12


def box(n: int, seed: int, kind: str = "random"):
    """A matrix, the ranges of its slopes, and the Jacobians of all vertices."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, n, generator=g, dtype=torch.float64) * 2 / n**0.5
    low = torch.rand(n, generator=g, dtype=torch.float64) * 0.5
    high = low + torch.rand(n, generator=g, dtype=torch.float64)
    if kind == "all":
        low, high = torch.zeros_like(low), torch.ones_like(high)
    if kind == "point":
        high = low
    corners = torch.tensor(list(itertools.product((False, True), repeat=n)))
    return Linear(operator=Dense(), weight=weight), low, high, torch.where(corners, high, low)[..., None] * weight


def exact_log_norm(matrices, norm):
    if norm == "l2":
        return torch.linalg.eigvalsh((matrices + matrices.mT) / 2)[..., -1].max()
    rows = matrices if norm == "linf" else matrices.mT
    own = rows.diagonal(dim1=-2, dim2=-1)
    return (own + rows.abs().sum(-1) - own.abs()).max()


def exact_norm(matrices, norm):
    return torch.linalg.matrix_norm(matrices, ord=ORDER[norm]).max()


@pytest.mark.parametrize("kind", ["random", "all"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [1, 2, 5, 10, 12])
def test_above_every_vertex_and_near_the_highest(n, norm, kind):
    part, low, high, jacobians = box(n, n, kind)
    bound, exact = log_norm(part, low, high, norm), exact_log_norm(jacobians, norm)
    assert exact <= bound
    assert bound - exact < (EXACT if norm != "l2" or n == 1 else 0.05 * exact_norm(jacobians, "l2"))
    for h in (0.05, 0.7):
        bound = euler_norm(part, low, high, h, norm)
        exact = exact_norm(torch.eye(n, dtype=torch.float64) + h * jacobians, norm)
        assert exact <= bound
        assert bound - exact < (EXACT if norm != "l2" or n == 1 else 0.02 * exact)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_where_the_slopes_are_known(norm):
    part, low, _, jacobians = box(5, 3, "point")
    assert float(log_norm(part, low, low, norm) - exact_log_norm(jacobians[:1], norm)) == pytest.approx(0, abs=EXACT)
    stepped = torch.eye(5, dtype=torch.float64) + 0.3 * jacobians[:1]
    assert float(euler_norm(part, low, low, 0.3, norm) - exact_norm(stepped, norm)) == pytest.approx(0, abs=EXACT)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_a_batch_are_bounded_each(seed, norm):
    part, low, high, _ = box(5, seed)
    narrow = torch.stack([low, low + 0.3 * (high - low), high]), torch.stack([high, high - 0.3 * (high - low), high])
    corners = torch.tensor(list(itertools.product((False, True), repeat=5)))
    for h in (None, 0.4):
        found = log_norm(part, *narrow, norm) if h is None else euler_norm(part, *narrow, h, norm)
        for k in range(3):
            jacobians = torch.where(corners, narrow[1][k], narrow[0][k])[..., None] * part.weight
            stepped = torch.eye(5, dtype=torch.float64) + (h or 0) * jacobians
            exact = exact_log_norm(jacobians, norm) if h is None else exact_norm(stepped, norm)
            assert exact <= found[k] <= exact + 1.0
    assert (slope_norm(part, *narrow, norm)[[0, 2]] - exact_norm(high[:, None] * part.weight, norm)).abs().max() < EXACT


@pytest.mark.parametrize("seed", range(5))
def test_optimised_scales_are_never_worse_than_the_fixed_ones(seed):
    part, low, high, _ = box(9, seed)
    weight, centre, radius = part.weight, (low + high) / 2, (high - low) / 2

    def form(scales):
        return Form(own=radius * scales, cross=centre, square=radius / scales)

    best, scales = best_scales(weight, form, torch.eye(9, dtype=torch.float64))
    rows = weight.norm(dim=1)
    for fixed in (rows, torch.linalg.matrix_norm(weight, ord=2).expand(9)):
        assert best <= largest(form(fixed), weight) + EXACT
    assert float(best) == pytest.approx(float(largest(form(scales), weight)), abs=1e-10)
    assert log_norm(part, low, high, "l2") <= best / 2 + EXACT


def test_weights_improve_the_row_bound_and_are_a_change_of_scale():
    part = Linear(operator=Dense(), weight=torch.tensor([[-1.0, 4.0], [0.1, -1.0]], dtype=torch.float64))
    low, high = torch.full((2,), 0.5, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    weights = torch.tensor([6.0, 1.0], dtype=torch.float64)  # nearly the Perron vector of the slopes' worst matrix
    weighted = rows_log_norm(part, low, high, weights)
    assert weighted < rows_log_norm(part, low, high) - 1
    scaled = Linear(operator=Dense(), weight=part.weight * weights[None] / weights[:, None])
    assert float(weighted) == pytest.approx(float(rows_log_norm(scaled, low, high)), abs=EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_a_convolution_is_the_matrix_that_it_is(norm):
    g = torch.Generator().manual_seed(0)
    kernel = torch.randn(2, 2, 3, 3, generator=g, dtype=torch.float64)
    eye = torch.eye(24, dtype=torch.float64)
    matrix = Convolution().product(eye.reshape(24, 2, 3, 4), kernel).reshape(24, 24).T
    low = torch.rand(2, 3, 4, generator=g, dtype=torch.float64)
    high = low + 0.4
    conv, dense = Linear(operator=Convolution(), weight=kernel), Linear(operator=Dense(), weight=matrix)
    assert (conv.row_norms(norm).expand(2, 3, 4).reshape(-1) >= dense.row_norms(norm) - EXACT).all()
    flat = low.reshape(-1), high.reshape(-1)
    for found, exact in (
        (log_norm(conv, low, high, norm), log_norm(dense, *flat, norm)),
        (euler_norm(conv, low, high, 0.3, norm), euler_norm(dense, *flat, 0.3, norm)),
        (slope_norm(conv, low, high, norm), slope_norm(dense, *flat, norm)),
    ):
        assert float(found - exact) == pytest.approx(0, abs=EXACT) or (norm == "l2" and found > exact)
    size = torch.rand(3, 2, 3, 4, generator=g, dtype=torch.float64)
    spread = moved(dense, size.reshape(3, -1), *flat, 0.3).reshape(size.shape)
    assert torch.allclose(moved(conv, size, low, high, 0.3), spread, rtol=0, atol=EXACT)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_no_step_expands_more_than_its_constant(norm, method):
    model = random_snode(scale=1.5, steps=3, knots=2, horizon=1.5, method=method)
    flow = model.flow
    constants = step_constants(flow, norm)
    g = torch.Generator().manual_seed(1)
    for n, state in enumerate(flow.states(torch.randn(200, 12, generator=g, dtype=torch.float64))):
        if n == flow.steps:
            break
        other = state + 0.1 * torch.randn(state.shape, generator=g, dtype=torch.float64)
        ends = (flow._advance(v.clone(), n, None, False) for v in (state, other))
        before = torch.linalg.vector_norm(other - state, ord=ORDER[norm], dim=1)
        after = torch.linalg.vector_norm(next(ends) - next(ends), ord=ORDER[norm], dim=1)
        assert (after <= constants[n] * before).all()
        if norm == "l2" and method == "euler":
            assert (after / before).max() > 0.4 * constants[n]


def test_unknown_norm():
    part, low, high, _ = box(2, 0)
    with pytest.raises(BudgetError, match="l3"):
        log_norm(part, low, high, "l3")
