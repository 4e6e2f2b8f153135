"""silent-success: an attack that asks about an adversarial and returns another point is caught."""

import pytest
import torch

from robustode.audit.checks.silent_success import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case, own_card

# Asks about the adversarial, and returns the clean point; of samples farther away it asks about nothing.
LAST = "model((x + 0.09).clamp(0, 1))\nmodel(x)\nreturn x"
BEST = "out = x + 0.09\nmodel(x)\nreturn out"
OUTSIDE = "model((x + 0.4).clamp(0, 1))\nreturn x"


# The same, one sample after the other and each twice, so that rows of a pass cannot be told by their place.
ALONE = "for one in x.split(1):\n    model((one + 0.09).clamp(0, 1).repeat(2, 1))\nreturn x"


def case_of(folder, body, near, n=50, kind="budget"):
    gaps = torch.full((n,), 0.2)
    gaps[:near] = 0.05
    x, y = at_distances(gaps)
    card = own_card(folder, body, kind=kind)
    return make_case(Lines(), x, y, attacks=[card], budgets={"linf": [0.1]})


@pytest.mark.parametrize("body", [LAST, ALONE])
@pytest.mark.parametrize(("near", "status"), [(1, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_what_was_passed_through_is_counted_and_kept(tmp_path, body, near, status):
    case = case_of(tmp_path, body, near)
    found = CHECK(case)
    assert (found.status, found.value, found.threshold) == (status, near, 2.0)
    assert found.samples == tuple(range(near))
    (unit,) = [unit for _, unit in case.evidence.units(case, "silent-success")]
    assert unit.distance.tolist() == pytest.approx([0.09] * near, abs=1e-6)


def test_a_minimal_norm_attack_of_the_user_is_looked_at_too(tmp_path):
    assert CHECK(case_of(tmp_path, LAST, 3, kind="minimal")).status is Verdict.FAIL


def test_points_outside_the_ball_are_no_success(tmp_path):
    found = CHECK(case_of(tmp_path, OUTSIDE, 10))
    assert (found.status, found.value) == (Verdict.PASS, 0.0)


def test_attacks_that_return_what_they_find_pass(tmp_path):
    assert CHECK(case_of(tmp_path, BEST, 10)).status is Verdict.PASS
    assert CHECK(case_of(tmp_path, "return x", 10)).status is Verdict.PASS  # it never asks
    x, y = at_distances(torch.linspace(0.05, 0.3, 20))
    case = make_case(Lines(), x, y, attacks=["pgd-foolbox-linf"], budgets={"linf": [0.1]})
    assert (CHECK(case).status, CHECK(case).value) == (Verdict.PASS, 0.0)


def test_s_is_taken_in_proportion_to_the_survivors_looked_at(tmp_path):
    found = CHECK(case_of(tmp_path, LAST, 640, n=640))  # s = 6.4 of 640; 64 are looked at
    assert (found.value, found.threshold) == (64.0, 2.0)


def test_own_attacks_are_not_looked_at():
    x, y = at_distances([0.2, 0.3])
    case = make_case(Lines(), x, y, attacks=["sensitivity-linf", "fgm-linf"], budgets={"linf": [0.1]})
    assert CHECK(case).status is Verdict.NOT_APPLICABLE
