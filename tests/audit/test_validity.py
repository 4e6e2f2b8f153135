"""validity: refused points and false claims are counted from the records."""

import pytest
import torch

from robustode.audit.checks.validity import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case, own_card


def found_of(folder, body, kind="budget", **budgets):
    x, y = at_distances(torch.full((200,), 0.2))
    case = make_case(Lines(), x, y, attacks=[own_card(folder, body, kind=kind)], budgets=budgets or {"linf": [0.1]})
    return CHECK(case), case.records


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("out = x.clone()\nout[3] = float('nan')\nreturn out", 1),
        ("out = x.clone()\nout[3] = -0.01\nreturn out", 1),
        ("out = x.clone()\nout[3:5] += 0.11\nreturn out", 2),
    ],
)
def test_points_that_are_refused_fail(tmp_path, body, count):
    found, _ = found_of(tmp_path, body)
    assert (found.status, found.value) == (Verdict.FAIL, count)
    assert found.samples == tuple(range(3, 3 + count))
    assert "own" in found.text


@pytest.mark.parametrize(("claims", "status"), [(0, Verdict.PASS), (2, Verdict.PASS), (3, Verdict.FAIL)])
def test_more_than_one_percent_of_false_claims_fail(tmp_path, claims, status):
    found, records = found_of(tmp_path, f"return x, torch.arange(len(x)) < {claims}")
    assert found.status is status
    assert found.details["claims_wrong"] == {"own": claims / 200}
    assert (records["message"] == "the attack claims success").sum() == claims


def test_a_true_claim_is_no_false_one_and_a_refused_point_may_be_claimed(tmp_path):
    found, _ = found_of(tmp_path, "return x + 0.25, torch.ones(len(x)).bool()", linf=[0.3])
    assert found.status is Verdict.PASS
    found, records = found_of(tmp_path, "return x + 0.25, torch.ones(len(x)).bool()")
    assert found.value == 200
    assert found.details["claims_wrong"] == {"own": 1.0}
    assert set(records["message"]) == {"the attack returned a point at distance 0.25, outside the ball; " + CLAIM}


CLAIM = "the attack claims success"


def test_a_minimal_norm_attack_has_no_ball(tmp_path):
    found, _ = found_of(tmp_path, "return x + 0.25", kind="minimal")
    assert (found.status, found.value) == (Verdict.PASS, 0.0)


def test_library_attacks_pass():
    x, y = at_distances(torch.linspace(0.01, 0.4, 40))
    case = make_case(Lines(), x, y, attacks=["pgd-foolbox-linf", "sensitivity-linf"], budgets={"linf": [0.1, 0.2]})
    assert (CHECK(case).status, CHECK(case).value) == (Verdict.PASS, 0.0)
