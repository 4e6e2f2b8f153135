"""unbounded: what PGD leaves in the whole box is known, and compared with a constant answer."""

import pytest
import torch

from robustode.audit.checks.unbounded import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Frozen, Lines, make_case
from tests.problems import random_affine, random_points


def halves(n=200):
    x = torch.zeros(n, 2)
    x[: n // 2, 0], x[n // 2 :, 0] = 0.25, 0.75
    return x, (x[:, 0] > 0.5).long()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("frozen", "status"), [(0, Verdict.PASS), (103, Verdict.PASS), (105, Verdict.FAIL)])
def test_two_points_above_the_largest_class_are_allowed(norm, frozen, status):
    x, y = halves()
    x[:frozen, 1] = 0.9
    case = make_case(Frozen(2), x, y, budgets={norm: [0.1]})
    found = CHECK(case)
    assert found.status is status
    assert found.value == frozen / 200
    assert found.threshold == pytest.approx(0.52)
    assert len(case.evidence.broken("unbounded", norm, 1.0 if norm == "linf" else 2**0.5)) == 200 - frozen


def test_an_affine_model_on_shifted_bounds_is_broken():
    model = random_affine(bounds=(-1.0, 3.0))
    x = random_points((1, 3, 4), 60, lo=-1.0, hi=3.0)
    found = CHECK(make_case(model, x, model(x).argmax(1), budgets={"linf": [0.1]}))
    assert found.status is Verdict.PASS
    assert "ε = 4" in found.text


def test_without_budgets_in_linf_or_l2_there_is_nothing_to_run():
    x, y = halves()
    assert CHECK(make_case(Lines(2), x, y, budgets={"l1": [0.1]})).status is Verdict.NOT_APPLICABLE
