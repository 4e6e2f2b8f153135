"""Randomised smoothing: a linear classifier's smoothed radius is known, and the confidence is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from robustode.certificates import smooth
from robustode.certificates.smoothing import lower_confidence
from robustode.errors import OptionError
from tests.problems import Affine, random_affine, random_points

SIGMA = 0.5


def two_classes() -> Affine:
    """z = (w·x + b, −w·x − b): the smoothed classifier is the classifier, and its radius is |w·x + b| / ‖w‖."""
    w = torch.tensor([[1.0, -2.0, 0.5, 1.5]])
    return Affine(torch.cat([w, -w]), torch.tensor([0.1, -0.1]), (4,), (-1.0, 1.0)).double().eval()


def distance(model: Affine, x: Tensor) -> Tensor:
    z = model(x).detach()[:, 0]
    return z.abs() / model.weight.detach()[0].norm()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_radius_of_a_linear_classifier_is_approached_from_below():
    """p_A = Φ(d/σ) for the distance d, so that σ Φ⁻¹(p_A) = d."""
    model = two_classes()
    x = random_points((4,), 8, lo=-1, hi=1)
    d = distance(model, x)
    gaps = []
    for draws in (500, 50_000):
        found = smooth(model, x, sigma=SIGMA, draws=draws, generator=generator(), batch=10_000)
        sure = found.prediction >= 0
        assert bool((found.prediction == model(x).argmax(1))[sure].all())
        assert bool((found.radius <= d).all())
        gaps.append((d - found.radius)[d < 2 * SIGMA])
    assert len(gaps[0]) >= 5
    assert bool((gaps[1] < gaps[0] / 3).all())
    p = torch.special.ndtr(d[d < 2 * SIGMA] / SIGMA)
    error = (
        SIGMA
        * (p * (1 - p) / 50_000).sqrt()
        / torch.exp(torch.distributions.Normal(0.0, 1.0).log_prob(d[d < 2 * SIGMA] / SIGMA))
    )
    assert bool((gaps[1] < 8 * error).all())  # the bound lies 3.1 standard errors below the share, which has its own


def test_counts_are_those_of_the_gaussian():
    model = two_classes()
    x = random_points((4,), 4, lo=-1, hi=1)
    n = 20_000
    found = smooth(model, x, sigma=SIGMA, draws=n, generator=generator(3))
    p = torch.special.ndtr(distance(model, x) / SIGMA)
    assert bool(((found.counts - n * p).abs() < 4 * (n * p * (1 - p)).sqrt() + 1).all())


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("n", [1, 20, 1000])
def test_the_confidence_bound_covers(n, alpha):
    """P[bound > p] ≤ alpha for every p, computed from the binomial distribution and not drawn."""
    bounds = lower_confidence(torch.arange(n + 1), n, alpha).numpy()
    assert bounds[0] == 0
    assert bool((np.diff(bounds) > 0).all())
    worst = 0.0
    for p in np.concatenate([np.linspace(0.001, 0.999, 211), bounds[1:] * (1 - 1e-12)]):
        too_large = binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum()
        worst = max(worst, too_large)
    assert worst <= alpha
    assert worst > alpha * 0.5  # not trivially small: at p just below a bound it is nearly alpha


def test_the_confidence_bound_covers_by_simulation():
    draws = np.random.default_rng(0).binomial(200, 0.7, size=20_000)
    share = float((lower_confidence(torch.from_numpy(draws), 200, 0.05) > 0.7).double().mean())
    assert 0.02 < share <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 20_000)


def test_all_draws_of_one_class():
    """p_A ≥ alpha^(1/n): the radius that n draws can give at most."""
    found = smooth(two_classes(), torch.full((1, 4), 50.0).double(), sigma=SIGMA, draws=1000, generator=generator())
    assert found.p_lower[0].item() == pytest.approx(0.001 ** (1 / 1000), rel=1e-8)
    assert int(found.counts[0]) == 1000


def test_it_abstains_on_a_coin_flip():
    """At w·x + b = 0 either class has half of the draws; so has a class that is right only just above half of them."""
    model = two_classes()
    x = torch.tensor([[-0.1, 0.0, 0.0, 0.0]]).double().repeat(50, 1)
    found = smooth(model, x, sigma=SIGMA, draws=400, generator=generator(1))
    assert bool((found.prediction == -1).all())
    assert bool((found.radius == 0).all())
    few = smooth(model, torch.ones(1, 4).double(), sigma=0.01, draws=9, generator=generator())  # 0.001^(1/9) < 1/2
    assert int(few.prediction) == -1
    assert int(smooth(model, torch.ones(1, 4).double(), sigma=0.01, draws=10, generator=generator()).prediction) == 0


def test_draws_depend_neither_on_the_batch_nor_on_neighbours():
    model = random_affine(dtype=torch.float32)
    x = random_points((1, 3, 4), 5, dtype=torch.float32)

    def counts(points, **options):
        return smooth(model, points, sigma=1.0, draws=700, generator=generator(5), **options).counts

    reference = counts(x)
    assert len(set(reference.tolist())) > 1
    for batch in (1, 100, 701):
        assert torch.equal(counts(x, batch=batch), reference)
    assert torch.equal(counts(x[:2]), reference[:2])
    again = smooth(model, x, sigma=1.0, draws=700, generator=generator(6)).counts
    assert not torch.equal(again, reference)


class Counting(nn.Module):
    """Answers NaN on half of the inputs, and counts what it is given."""

    bounds, classes, input_shape = (0.0, 1.0), 3, (2,)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        z = torch.stack([torch.ones(len(x)), torch.zeros(len(x)), torch.zeros(len(x))], dim=1)
        return torch.where(x[:, :1] > 0, z, torch.nan)


def test_answers_with_nan_count_for_no_class():
    model = Counting()
    found = smooth(model, torch.zeros(1, 2), sigma=1.0, draws=1000, selection=50, generator=generator())
    assert int(found.prediction) == -1
    assert 400 < int(found.counts) < 600
    seen = torch.cat(model.seen)
    assert len(seen) == 1050
    assert seen.min() < -1  # not clipped to the box
    assert seen.max() > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected a finite number > 0, got 0.0"),
        ({"sigma": math.nan}, "sigma: expected a finite number > 0, got nan"),
        ({"sigma": math.inf}, "sigma: expected a finite number > 0, got inf"),
        ({"alpha": 0.0}, "alpha: expected a probability between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "alpha: expected a probability between 0 and 1, got 1.0"),
        ({"draws": 0}, "draws: expected a whole number ≥ 1, got 0"),
        ({"selection": 0}, "selection: expected a whole number ≥ 1, got 0"),
        ({"batch": 2.5}, "batch: expected a whole number ≥ 1, got 2.5"),
        ({"x": torch.zeros(2, 3)}, "x: expected floating-point samples (batch, 4), got torch.float32 (2, 3)"),
        ({"x": torch.zeros(2, 4, dtype=torch.int64)}, "got torch.int64 (2, 4)"),
        ({"x": torch.full((1, 4), math.nan)}, "x: expected finite values, got NaN or infinity"),
    ],
)
def test_bad_input(changes, message):
    options = {"x": torch.zeros(1, 4), "sigma": 0.5, "draws": 10, "generator": generator()} | changes
    with pytest.raises(OptionError) as error:
        smooth(two_classes(), **options)
    assert message in str(error.value)
