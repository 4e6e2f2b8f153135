"""determinism: the size of what changes between repeats is measured; forked random states hide nothing."""

import pytest
import torch

from robustode.audit.checks.determinism import CHECK
from robustode.audit.finding import Verdict
from robustode.evaluation.eot import Averaged
from tests.audit.cases import Lines, at_distances, make_case


class Alternating(Lines):
    """Adds `size` to both logits at every second call: the label stays."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size, self.calls = size, 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.size * (self.calls % 2)


class Noisy(Lines):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x):
        return super().forward(x) + self.size * torch.randn(len(x), 2)


def case_of(model, gap=0.4, n=100):
    x, y = at_distances(torch.full((n,), gap))
    return make_case(model, x, y)


def test_an_honest_model_does_not_differ():
    found = CHECK(case_of(Lines()))
    assert (found.status, found.value) == (Verdict.PASS, 0.0)


@pytest.mark.parametrize(("size", "status"), [(3e-4, Verdict.PASS), (5e-4, Verdict.FAIL)])
def test_differences_are_relative_to_the_largest_logit(size, status):
    found = CHECK(case_of(Alternating(size)))  # the largest logit is 4
    assert found.status is status
    assert found.value == pytest.approx(size / 4, rel=1e-2)


def test_noise_is_seen_although_the_check_forks_the_random_states():
    case, before = case_of(Noisy(0.1)), torch.get_rng_state()
    found = CHECK(case)
    assert found.status is Verdict.FAIL
    assert "0 of 64 labels change" in found.text
    assert torch.equal(before, torch.get_rng_state())
    again = CHECK(case_of(Noisy(0.1)))
    assert again.value == found.value


def test_a_label_that_changes_fails_however_small_the_change():
    class Offset(Noisy):
        def forward(self, x):
            return super().forward(x) + 10.0

    found = CHECK(case_of(Offset(1e-5), gap=0.0))
    assert found.status is Verdict.FAIL
    assert found.value is not None
    assert found.value < 1e-5
    assert found.samples


def test_averages_are_judged_by_their_labels_if_the_user_asked_for_averages():
    calm = CHECK(case_of(Averaged(Noisy(0.1), 8)))
    assert calm.status is Verdict.PASS
    assert "means of 8 draws (--eot 8)" in calm.text
    wild = CHECK(case_of(Averaged(Noisy(20.0), 2)))
    assert wild.status is Verdict.FAIL
    assert wild.value is not None
    assert wild.value > 0.5
    assert "larger N" in wild.advice
