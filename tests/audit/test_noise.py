"""noise: draws are uniform in the ball, and break what is near."""

import math

import pytest
import torch

from robustode.audit.checks.noise import CHECK, uniform_in_ball
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case


@pytest.mark.parametrize(("norm", "order"), [("linf", math.inf), ("l2", 2), ("l1", 1)])
def test_draws_are_uniform_in_the_ball(norm, order):
    d, n, eps = 5, 20_000, 0.3
    delta = uniform_in_ball(torch.zeros(n, d, dtype=torch.float64), norm, eps, torch.Generator().manual_seed(0))
    size = torch.linalg.vector_norm(delta, ord=order, dim=1) / eps
    assert float(size.max()) <= 1 + 1e-12
    # ‖δ‖/ε has the density d r^{d−1}: mean d/(d+1), variance d/((d+1)²(d+2)); four standard errors
    error = math.sqrt(d / ((d + 1) ** 2 * (d + 2)) / n)
    assert float(size.mean()) == pytest.approx(d / (d + 1), abs=4 * error)
    assert float((size**d).mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / n))
    assert float(delta.mean(0).abs().max()) < 5 * eps / math.sqrt(n)
    spread = delta.square().mean(0)
    assert float(spread.max() / spread.min()) < 1.1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(("near", "status"), [(1, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_samples_within_nine_tenths_of_the_radius_are_broken(norm, near, status):
    gaps = torch.full((20,), 0.1001)  # beyond ε = 0.1; in one coordinate a draw passes 0.09 once in twenty
    gaps[:near] = 0.09
    x, y = at_distances(gaps)
    case = make_case(Lines(), x, y, budgets={norm: [0.1]})
    found = CHECK(case)
    assert (found.status, found.value, found.threshold) == (status, near, 2.0)
    assert found.samples == tuple(range(near))
    rows = case.evidence.units(case, "noise")[0][1].records
    assert (rows["status"] == "failed").sum() == 20 - near
    assert (rows.loc[rows["status"] == "success", "distance"] >= 0.09 - 1e-6).all()


def test_what_attacks_broke_is_not_drawn_again():
    x, y = at_distances(torch.full((20,), 0.05))
    case = make_case(Lines(), x, y, attacks=["pgd-foolbox-linf"], budgets={"linf": [0.1]})
    assert CHECK(case).status is Verdict.NOT_APPLICABLE
