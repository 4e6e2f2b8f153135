"""certificate: exact radii pass, and one that is too large is named."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from robustode.attacks.norms import ball_tolerance
from robustode.audit.checks.certificate import CHECK
from robustode.audit.finding import Verdict
from robustode.audit.run import audit_of
from robustode.evaluation.certificate_rows import DTYPES
from tests.attacks.adapter_problems import boxed_affine
from tests.audit.cases import make_case
from tests.audit.problems import affine, distances
from tests.evaluation.problem import as_data, plan_of
from tests.evaluation.runs import run
from tests.standin import bound, exact_radii, only

ATTACKS = {"l2": "sensitivity-l2", "linf": "sensitivity-linf"}
WRONG = 2


def case_of(norms=("l2",), *, attacks=("l2",), factor=1.0, certifies="discrete"):
    """A case of an affine classifier, its first samples labelled wrongly, certified at `factor` times its distances."""
    model, x, y = affine(classes=3)
    reach = {norm: distances(model, x, y, norm).numpy() for norm in norms}
    y[:WRONG] = (y[:WRONG] + 1) % 3
    budgets = {norm: [0.1] for norm in attacks}
    case = make_case(model, x, y, attacks=[ATTACKS[norm] for norm in attacks], budgets=budgets)
    wrong = (case.shard.clean_pred != case.shard.y).numpy()
    parts = [
        {
            "model": "model",
            "sample": case.shard.index.numpy(),
            "label": y.numpy(),
            "clean_pred": case.shard.clean_pred.numpy(),
            "norm": norm,
            "map": certifies,
            "status": np.where(wrong, "misclassified", "certified"),
            "radius": np.where(wrong, 0.0, factor * reach[norm]),
            "nearest": 0,
            "method": "affine",
            "passes": 1.0,
        }
        for norm in norms
    ]
    return replace(case, certificates=pd.concat([pd.DataFrame(part) for part in parts]).astype(DTYPES))


def planted(case, row, radius):
    """The case with one certified radius replaced."""
    frame = case.certificates.reset_index(drop=True)
    frame.loc[row, "radius"] = radius
    return replace(case, certificates=frame)


def test_exact_radii_are_below_every_distance_found():
    found = CHECK(case_of(("l2", "linf"), attacks=("l2", "linf"), factor=0.999))
    assert (found.status, found.value, found.threshold, found.samples) == (Verdict.PASS, 0, 0, ())
    for norm in ("l2", "linf"):
        assert 0.99 < found.details[norm]["largest_ratio"] < 1  # the attack is that good
        assert found.details[norm]["samples"] == 40


def test_inflated_radii_fail_and_name_every_correct_sample():
    found = CHECK(case_of(factor=1.01))
    assert found.status is Verdict.FAIL
    assert found.samples == tuple(range(WRONG, 40))
    assert found.value == 40 - WRONG
    assert found.advice.startswith("A soundness bug")


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_one_planted_radius_is_named(norm):
    case = case_of((norm,), attacks=(norm,), factor=0.9)
    at = case.distances(norm)[7]
    found = CHECK(planted(case, 7, 1.5 * at))
    assert (found.status, found.value, found.samples) == (Verdict.FAIL, 1, (7,))
    assert f"sample 7: 'affine' certifies {1.5 * at:.6g} in {norm}, and an adversarial is at {at:.6g}" in found.text


def test_the_tolerance_is_that_of_the_ball():
    case = case_of(factor=0.5)
    at = case.distances("l2")[9]
    slack = ball_tolerance(at, (0.0, 1.0), 36, "l2")
    assert CHECK(planted(case, 9, at + 0.9 * slack)).status is Verdict.PASS
    assert CHECK(planted(case, 9, at + 1.1 * slack)).samples == (9,)


@pytest.mark.parametrize("radius", [np.nan, np.inf, -0.1])
def test_what_is_no_radius_fails(radius):
    found = CHECK(planted(case_of(factor=0.5), 11, radius))
    assert (found.status, found.samples) == (Verdict.FAIL, (11,))


def test_a_misclassified_sample_has_no_radius():
    assert CHECK(planted(case_of(factor=0.5), 0, 0.01)).samples == (0,)


def test_an_adversarial_that_a_check_found_counts():
    case = case_of(factor=0.9)
    assert CHECK(case).status is Verdict.PASS
    row = case.records[case.records["sample"] == 5].assign(attack="audit-noise-l2")
    near = row.assign(distance=0.5 * row["distance"])
    found = CHECK(replace(case, audited=near))
    assert (found.status, found.samples) == (Verdict.FAIL, (5,))


def test_unbroken_samples_and_larger_radii_are_not_contradicted():
    case = case_of(factor=0.9)
    lost = case.records.assign(distance=np.inf, status="failed")
    case = replace(case, records=lost)
    assert CHECK(planted(case, 8, 1e3)).status is Verdict.PASS
    assert CHECK(planted(case, 8, np.inf)).status is Verdict.PASS


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"certifies": "flow", "factor": 5.0}, "of the flow"),
        ({"norms": ("linf",)}, "no attack was run in the norms of the certificates"),
    ],
)
def test_not_applicable(options, reason):
    found = CHECK(case_of(**options))
    assert found.status is Verdict.NOT_APPLICABLE
    assert reason in found.text


def test_without_certificates():
    found = CHECK(replace(case_of(), certificates=None))
    assert (found.status, found.text) == (Verdict.NOT_APPLICABLE, "the run has no certificates")


@pytest.mark.parametrize(("factor", "status"), [(1.0, "pass"), (1.05, "fail")])
def test_in_a_run_the_audit_reads_the_certificates(tmp_path, factor, status):
    model, x, y = boxed_affine((0.0, 1.0), classes=3, samples=20)
    data = as_data(x.float(), y)
    with only(bound(radii=lambda problem: exact_radii(problem, factor))):
        options = {"attacks": "sensitivity-l2", "budgets": {"l2": [0.1]}, "certificates": {}}
        plan = plan_of(model.float(), data, **options)
        audit = audit_of(plan, scope="cheap")
        found = run(plan, tmp_path / "r", examine=audit)
        again = run(plan, tmp_path / "r", examine=audit_of(plan, scope="cheap"), resume=True)
    (one,) = [one for one in found.audit["findings"] if one["check"] == "certificate"]
    assert one["status"] == status
    assert one["samples"] == ([] if status == "pass" else list(range(20)))
    assert again.audit == found.audit
