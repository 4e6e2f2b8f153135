"""plateau: a loss that still rises evenly at the end warns; paths that come to rest do not."""

import math

import pytest
import torch
from torch import Tensor, nn

from robustode.audit.checks.plateau import CHECK, last_rise
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case
from tests.audit.problems import EPS, Through, affine, distances, healthy_case


class Ripple(nn.Module):
    """Margin of class 0: 0.05 − 0.01 x₀ + ripples of no height in 29 more coordinates, with 40 times its slope."""

    bounds, classes, input_shape = (0.0, 1.0), 2, (30,)

    def forward(self, x: Tensor) -> Tensor:
        waves, slope = 2e5, 0.4 / math.sqrt(29 / 2)
        margin = 0.05 - 0.01 * x[:, 0] + slope / waves * torch.sin(waves * x[:, 1:]).sum(1)
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def ripple_case():
    x = 0.5 + 0.01 * torch.rand(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return make_case(Ripple(), x, torch.zeros(40, dtype=torch.int64), budgets={"l2": [0.4]}, full=True)


def test_a_ripple_that_turns_the_gradient_slows_pgd_so_that_the_loss_still_rises():
    found = CHECK(ripple_case())
    assert found.status is Verdict.WARN
    assert found.value == pytest.approx(0.1, abs=0.02)  # ten of a hundred almost even steps
    assert found.threshold == 0.05
    assert found.advice


def test_paths_of_an_honest_network_come_to_rest():
    found = CHECK(healthy_case())
    assert found.status is Verdict.PASS
    assert 0 <= found.value < 0.02


def test_an_affine_classifier_is_at_rest_in_linf_after_32_steps():
    model, x, y = affine()
    found = CHECK(make_case(model, x, y, budgets={"linf": [0.01]}, full=True))
    assert (found.status, found.value) == (Verdict.PASS, pytest.approx(0, abs=1e-6))


def test_what_its_pgd_breaks_enters_the_records():
    model, x, y = affine()
    case = make_case(model, x, y, budgets={"l2": [EPS]}, full=True)
    CHECK(case)
    broken = case.evidence.broken("plateau", "l2", EPS)
    sure = distances(model, x, y)[broken]
    assert len(broken) > 5
    assert sure.max() <= EPS * 1.001


def test_a_loss_that_cannot_rise_is_no_movement_and_no_survivors_are_not_applicable():
    model, x, y = affine()
    flat = Through(model, inputs=lambda point: 0 * point + x[:1])
    right = model(x[:1]).argmax(1).expand(len(x))
    found = CHECK(make_case(flat, x, right, budgets={"l2": [EPS]}, full=True))
    assert (found.status, found.value) == (Verdict.PASS, 0)
    found = CHECK(make_case(model, x, 1 - y, budgets={"l2": [EPS]}, full=True))
    assert found.status is Verdict.NOT_APPLICABLE


def test_the_last_rise_of_known_paths():
    steps = torch.arange(101, dtype=torch.float64)
    even = 3 + 2 * steps
    slowing = 1 - torch.exp(-steps / 20)
    up_and_down = torch.where(steps < 50, steps, -steps)  # the best so far stays at 49
    broken = torch.where(steps < 50, steps, torch.nan)
    constant = torch.full_like(steps, 7.0)
    expected = [0.1, (math.exp(-4.5) - math.exp(-5)) / (1 - math.exp(-5)), 0.0, 0.0, 0.0]
    paths = torch.stack([even, slowing, up_and_down, broken, constant], 1)
    torch.testing.assert_close(last_rise(paths, 10), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("rise", "verdict"), [(0.049, Verdict.PASS), (0.051, Verdict.WARN), (0.9, Verdict.WARN)])
def test_the_threshold(rise, verdict, monkeypatch):
    losses = torch.tensor([[0.0], [1 - rise], [1.0]], dtype=torch.float64)
    monkeypatch.setattr("robustode.audit.checks.plateau.LAST", 1)
    monkeypatch.setattr(
        "robustode.audit.checks.plateau.PGD.climb", lambda self, model, x, y, generator: (x, losses.expand(-1, len(x)))
    )
    found = CHECK(ripple_case())
    assert (found.status, found.value) == (verdict, pytest.approx(rise))
