"""Orthant probabilities in a batch against scipy, closed forms and their own stated error."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal

from robustode.uncertainty.orthant import TOLERANCE, orthant


def problems(m, rank, n=25, seed=0):
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(n, m, rank, generator=g, dtype=torch.float64)
    return torch.randn(n, m, generator=g, dtype=torch.float64) * 2 - 1.5, factor @ factor.mT


@pytest.mark.parametrize(("m", "rank"), [(2, 2), (3, 3), (5, 5), (9, 9), (9, 8), (9, 2), (5, 3)])
def test_against_scipy(m, rank):
    """Full rank and singular, where the others determine some components."""
    centre, cov = problems(m, rank)
    value, error = orthant(centre, cov)
    options = {"allow_singular": True, "seed": 0, "maxpts": 20_000 * m, "abseps": 1e-5, "releps": 1e-5}
    expected = torch.tensor(
        [multivariate_normal(cov=c.numpy(), **options).cdf(-d.numpy()) for d, c in zip(centre, cov, strict=True)]
    )
    assert bool(((value - expected).abs() <= error + 2e-4).all())
    assert float(value.max()) > 0.1
    assert float(error.max()) < 4 * TOLERANCE


def test_rank_one_is_an_interval():
    g = torch.Generator().manual_seed(2)
    centre, factor = problems(4, 4)[0], torch.randn(25, 4, generator=g, dtype=torch.float64)
    value, error = orthant(centre, factor[:, :, None] * factor[:, None])
    bound = -centre / factor
    upper = torch.special.ndtr(bound.masked_fill(factor < 0, torch.inf).amin(1))
    lower = torch.special.ndtr(bound.masked_fill(factor > 0, -torch.inf).amax(1))
    assert torch.allclose(value, (upper - lower).clamp_min(0), atol=1e-14)
    assert float(value.max()) > 0.2
    assert float(error.max()) < 1e-14


def test_correlation_in_closed_form():
    """Two components: P = 1/4 + asin(ρ)/2π; equal correlation ½ of m components: 1/(m + 1)."""
    rho = torch.tensor([-0.9, -0.3, 0.0, 0.5, 0.99], dtype=torch.float64)
    cov = torch.stack([torch.ones(5), rho, rho, torch.ones(5)], 1).double().reshape(5, 2, 2)
    value, error = orthant(torch.zeros(5, 2).double(), cov)
    assert bool(((value - (0.25 + torch.asin(rho) / (2 * math.pi))).abs() <= error + 1e-12).all())
    for m in (3, 9):
        equal = (torch.eye(m) + 1).double()[None] / 2
        value, error = orthant(torch.zeros(1, m).double(), equal)
        assert abs(float(value) - 1 / (m + 1)) <= float(error) + 1e-12


def test_the_stated_error_covers_other_seeds():
    centre, cov = problems(9, 9, n=30, seed=3)
    runs = [orthant(centre, cov, seed=s) for s in range(1, 13)]
    values, errors = torch.stack([r.value for r in runs]), torch.stack([r.error for r in runs])
    off = (values - values.mean(0)).abs()
    assert float((off <= errors + 1e-12).double().mean()) > 0.97
    assert float(values.std(0).max()) > 1e-6  # the seed counts
    assert torch.equal(orthant(centre, cov, seed=2).value, runs[1].value)


def test_a_sample_does_not_depend_on_its_batch():
    centre, cov = problems(6, 6)
    together = orthant(centre, cov).value
    for i in (0, 7, 24):
        assert float(orthant(centre[i : i + 1], cov[i : i + 1]).value) == pytest.approx(float(together[i]), abs=1e-14)


def test_constants_and_one_component():
    cov = torch.zeros(4, 3, 3).double()
    cov[2:, 1, 1] = 4.0
    centre = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 0.0, -1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, -1.0]]).double()
    value, error = orthant(centre, cov)
    assert value.tolist() == pytest.approx([1.0, 0.0, 0.6914624612740131, 0.0], abs=1e-15)
    assert error.tolist() == [0.0] * 4


def test_more_points_for_a_smaller_error():
    centre, cov = problems(9, 9)
    loose, tight = (orthant(centre, cov, tolerance=t).error for t in (1.0, 0.0))
    assert float(tight.mean()) < 0.5 * float(loose.mean())


def test_no_samples():
    assert orthant(torch.zeros(0, 3).double(), torch.zeros(0, 3, 3).double()).value.shape == (0,)
