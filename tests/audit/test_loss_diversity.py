"""loss-diversity: saturated logits hide from the cross-entropy alone; other losses break what is near."""

import importlib.util

import pytest

from robustode.audit.checks.loss_diversity import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case
from tests.audit.problems import EPS, Through, affine, clear_of, distances, healthy_case

ALL = ("PGD-margin", "APGD-CE", "APGD-DLR", "APGD-T", "sensitivity")


def saturated_case(scale: float, classes: int = 4, norm: str = "l2", attack: str = "pgd-l2"):
    """Logits times a scale, of samples whose distance is not too near to ε."""
    model, x, y = affine(classes=classes, n=60)
    sure = clear_of(distances(model, x, y), EPS, 0.02)
    loud = Through(model, logits=lambda z: scale * z)
    return model, make_case(loud, x[sure], y[sure], attacks=[attack], budgets={norm: [EPS]}, full=True)


def test_saturated_logits_are_broken_exactly_where_the_boundary_is_near():
    model, case = saturated_case(1e5)
    survivors = case.survivors("l2", EPS)
    near = distances(model, case.shard.x, case.shard.y)[survivors] < EPS
    found = CHECK(case)
    assert int(near.sum()) > 10
    assert (found.status, found.value) == (Verdict.FAIL, int(near.sum()))
    assert set(found.samples) == set(case.samples(survivors[near]))
    by = found.details["radii"][0]["by"]
    assert tuple(by) == ALL
    assert by["PGD-margin"] > 0.9 * found.value
    assert by["APGD-CE"] == 0


def test_the_same_logits_at_a_scale_of_one_pass():
    _, case = saturated_case(1.0)
    found = CHECK(case)
    assert found.status is Verdict.PASS
    assert found.value <= 1


def test_an_honest_network_passes():
    found = CHECK(healthy_case())
    assert (found.status, found.value) == (Verdict.PASS, 0)
    assert [tuple(cell["by"]) for cell in found.details["radii"]] == [ALL]


@pytest.mark.parametrize(("classes", "missing"), [(2, {"APGD-DLR": 3, "APGD-T": 4}), (3, {"APGD-T": 4})])
def test_losses_that_need_more_classes_are_left_out_with_a_word(classes, missing):
    _, case = saturated_case(1e5, classes=classes)
    found = CHECK(case)
    assert found.status is Verdict.FAIL
    for name, least in missing.items():
        assert f"{name} left out (its loss: expected at least {least} classes, got {classes})" in found.text
    assert set(found.details["left_out"]) == set(missing)


def test_in_l1_what_the_library_lacks_is_left_out():
    _, case = saturated_case(1e5, norm="l1", attack="none")
    found = CHECK(case)
    assert set(found.details["left_out"]) == {"APGD-CE", "APGD-DLR", "APGD-T"}
    assert "expected linf or l2, got l1" in found.text
    assert set(found.details["radii"][0]["by"]) == {"PGD-margin", "sensitivity"}


def test_without_torchattacks_the_others_run(monkeypatch):
    _, case = saturated_case(1e5)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *r: None if name == "torchattacks" else find(name, *r)
    )
    found = CHECK(case)
    assert found.status is Verdict.FAIL
    assert "torchattacks is not installed" in found.text
