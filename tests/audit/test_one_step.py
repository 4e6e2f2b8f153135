"""one-step: on an affine margin FGSM breaks exactly the samples nearer than ε."""

import pytest
import torch

from robustode.audit.checks.one_step import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case, own_card

NEAR = {"linf": "fgm-linf", "l2": "fgm-l2"}


def case_of(folder, near, attacks=(), norm="linf", n=50):
    """`near` samples within ε = 0.1 of the other class, the rest beyond; an attack that does nothing."""
    gaps = torch.full((n,), 0.11)
    gaps[:near] = 0.09
    x, y = at_distances(gaps)
    idle = own_card(folder, "return x", name="idle", norm=norm)
    return make_case(Lines(), x, y, attacks=[idle, *attacks], budgets={norm: [0.05, 0.1]})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(("near", "status"), [(1, Verdict.PASS), (2, Verdict.WARN), (3, Verdict.FAIL)])
def test_what_fgsm_breaks_is_counted_and_kept(tmp_path, norm, near, status):
    case = case_of(tmp_path, near, norm=norm)
    found = CHECK(case)
    assert (found.status, found.value, found.threshold) == (status, near, 2.0)
    assert found.samples == tuple(range(near))
    assert case.evidence.broken("one-step", norm, 0.1).tolist() == list(range(near))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rows_of_fgsm_are_used_where_the_run_has_them(tmp_path, norm):
    case = case_of(tmp_path, 3, [NEAR[norm], f"one-step-random-{norm}"], norm=norm)
    found = CHECK(case)
    assert (found.status, found.value) == (Verdict.FAIL, 3.0)
    assert found.samples == (0, 1, 2)
    assert case.evidence.units(case, "one-step") == []


def test_an_attack_in_many_steps_leaves_nothing(tmp_path):
    found = CHECK(case_of(tmp_path, 30, ["pgd-foolbox-linf"]))
    assert (found.status, found.value) == (Verdict.PASS, 0.0)


def test_a_run_of_single_steps_has_nothing_to_compare(tmp_path):
    x, y = at_distances([0.05, 0.2])
    case = make_case(Lines(), x, y, attacks=["fgm-linf", "one-step-margin-linf"], budgets={"linf": [0.1]})
    assert CHECK(case).status is Verdict.NOT_APPLICABLE
