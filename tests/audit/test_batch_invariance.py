"""batch-invariance: what batch-mates change is measured, and known reasons are named."""

import pytest
import torch
from torch import nn

import robustode as ro
from robustode.audit.checks.batch_invariance import CHECK
from robustode.audit.finding import Verdict
from robustode.evaluation.eot import Averaged
from tests.audit.cases import Lines, at_distances, make_case
from tests.problems import random_points, random_snode


class Coupled(Lines):
    """Adds to both logits `size` times the share of samples above ½ in the second coordinate among the others."""

    def __init__(self, size: float) -> None:
        super().__init__(2)
        self.size = size

    def forward(self, x):
        high = (x[:, 1:] > 0.5).to(x)
        return super().forward(x) + self.size * (high.sum() - high) / len(x)


def case_of(model, n=32):
    x, y = at_distances(torch.full((n,), 0.4), dimension=2)
    x[:, 1] = 1.0
    return make_case(model, x, y)


@pytest.mark.parametrize(
    ("size", "status"),
    [(0.0, Verdict.PASS), (3e-4, Verdict.PASS), (6e-4, Verdict.WARN), (6e-3, Verdict.FAIL)],
)
def test_the_change_alone_is_measured(size, status):
    found = CHECK(case_of(Coupled(size)))  # together: size · 31/32; alone: nothing; the largest logit is 4
    assert found.status is status
    assert found.details["alone"] == pytest.approx(size * 31 / 32 / 4, rel=2e-2, abs=1e-9)
    assert found.details["permuted"] == 0.0


def test_a_label_that_changes_at_a_margin_fails_however_small_the_change():
    class Tip(Lines):
        def forward(self, x):
            return super().forward(x) + torch.tensor([0.0, 8e-4]) * (len(x) == 1)

    x, y = at_distances(torch.full((32,), 4e-5))  # the margin is 4e-4, and the largest logit 1
    x[0] = 0.4
    small = CHECK(make_case(Tip(), x, y))
    assert small.status is Verdict.WARN  # a margin below 1e-3 may tip
    assert "0 labels change" in small.text

    class Topple(Lines):
        def forward(self, x):
            z = super().forward(x)
            return torch.where(torch.tensor(len(x) == 1), z.flip(1) * 0.999, z) if x[0, 0] > 0.4 else z

    x, y = at_distances(torch.full((32,), 0.05))
    assert CHECK(make_case(Topple(), x, y)).status is Verdict.FAIL


def test_batch_statistics_are_named():
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(12, 3))
    model = ro.wrap(net, bounds=(0, 1), sample=torch.rand(1, 1, 3, 4, generator=torch.Generator().manual_seed(0)))
    x = random_points((1, 3, 4), 40, dtype=torch.float32)
    found = CHECK(make_case(model, x, model(x).argmax(1)))
    assert found.status is Verdict.FAIL
    assert "batch normalisation uses the statistics of the batch" in found.text


@pytest.mark.parametrize("backend", ["torchdiffeq", None])
def test_an_adaptive_torchdiffeq_model_fails_by_design_and_a_fixed_step_passes(backend):
    model = random_snode(scale=2.0, dtype=torch.float32, knots=1, horizon=4.0)
    if backend is not None:
        model = model.with_solver(method="dopri5", rtol=1e-2, atol=1e-2, backend=backend)
    x = random_points((1, 3, 4), 32, dtype=torch.float32)
    found = CHECK(make_case(model, x, model(x).argmax(1)))
    assert found.status is (Verdict.PASS if backend is None else Verdict.FAIL)
    assert ("torchdiffeq" in found.text) == (backend is not None)


def test_averages_of_a_randomised_model_cannot_be_compared():
    class Noisy(Lines):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 2)

    assert CHECK(case_of(Averaged(Noisy(2), 2))).status is Verdict.NOT_APPLICABLE
    assert CHECK(case_of(Averaged(Lines(2), 2))).status is Verdict.PASS
