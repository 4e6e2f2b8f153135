"""zero-gradient: the share of samples without a gradient is exact, and so is its threshold."""

import pytest
import torch

from robustode.audit.checks.zero_gradient import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Frozen, at_distances, make_case


@pytest.mark.parametrize(("frozen", "status"), [(0, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_more_than_one_percent_fails(frozen, status):
    x, y = at_distances(torch.full((200,), 0.1), dimension=2)
    x[50 : 50 + frozen, 1] = 0.9
    found = CHECK(make_case(Frozen(2), x, y))
    assert found.status is status
    assert found.value == frozen / 200
    assert found.samples == tuple(range(50, 50 + frozen))


def test_misclassified_samples_do_not_count():
    x, y = at_distances(torch.full((20,), 0.1), dimension=2)
    x[:5, 1] = 0.9
    y[:5] = 1
    assert CHECK(make_case(Frozen(2), x, y)).value == 0.0


def test_a_gradient_that_all_logits_share_is_no_gradient_of_the_margin():
    class Shift(Frozen):
        def forward(self, x):
            return super().forward(x) + x[:, :1]  # z_y − z_k does not see it

    x, y = at_distances(torch.full((20,), 0.1), dimension=2)
    x[:, 1] = 0.9
    assert CHECK(make_case(Shift(2), x, y)).value == 1.0
