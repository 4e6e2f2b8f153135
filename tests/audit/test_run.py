"""The audit in a run: findings, what checks broke in records and points, resuming, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import robustode as ro
from robustode.audit.check import Check, Found, above
from robustode.audit.checks import CHECKS, more_effort, transfer
from robustode.audit.finding import Verdict
from robustode.audit.run import Audit, audit_of
from robustode.errors import ModelError, OptionError
from robustode.evaluation.examination import claimed
from robustode.evaluation.records import best_distance
from robustode.evaluation.rundir import read_run
from robustode.evaluation.runner import examine_again
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.evaluation.problem import Noisy, affine, plan_of, refused
from tests.evaluation.runs import contents, run
from tests.problems import Affine

BUDGETS = {"l2": [0.1], "linf": [0.05]}
LENGTH = 0.09


def toward_boundary(case, length):
    """The exact step to the nearest boundary of an affine classifier."""
    weight, x, y = case.model.module.weight.detach(), case.shard.x, case.shard.y
    logits = case.model(x).detach()
    rows = weight[y][:, None] - weight
    reach = (logits.gather(1, y[:, None]) - logits) / rows.norm(dim=2).clamp_min(1e-9)
    reach[torch.arange(len(x)), y] = torch.inf
    row = rows[torch.arange(len(x)), reach.argmin(1)]
    return x - (length * row / row.norm(dim=1, keepdim=True)).reshape(x.shape)


def steps(case):
    """Break what is nearer than LENGTH."""
    rows = case.survivors("l2", 0.1)
    verdict = case.take("steps", "l2", 0.1, rows, toward_boundary(case, LENGTH)[rows])
    broken = rows[verdict.success]
    status = above(float(len(broken)), fail=case.slack, warn=case.slack / 2)
    return Found(status=status, value=float(len(broken)), threshold=case.slack, text="s", samples=case.samples(broken))


def draws(case):
    """Break what a draw of the global generator says, and answer with the draw."""
    rows = case.correct[torch.rand(len(case.correct)) < 0.5]
    case.take("draws", "linf", 0.05, rows, (case.shard.x[rows] - 0.02).clamp(0, 1))
    return Found(status=Verdict.PASS, value=float(torch.rand(1)), text="drawn")


def check(function, *, cheap=True):
    return Check(id=function.__name__, title="t", cheap=cheap, source="s", advice="Look.", run=function)


OWN = (check(steps), check(draws), check(lambda case: 1 / 0, cheap=False))


def own_audit(plan, scope="cheap", checks=OWN[:2]):
    return replace(audit_of(plan, scope=scope), checks=checks, _cases={})


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text("attacks = ['one-step-random-l2', 'one-step-random-linf']\n")
    return str(path)


@pytest.fixture
def plan(suite):
    """An affine classifier and 30 samples in two shards, attacked by what breaks few."""
    model, data = affine()
    return plan_of(model, data, attacks=suite, budgets=BUDGETS, shard=16)


def reach_of(plan):
    return exact_distance(plan.models[0].module.module, plan.data.x, plan.data.y, "l2").numpy()


def test_findings_and_facts_are_in_audit_json(plan, tmp_path):
    made = run(plan, tmp_path / "r", examine=own_audit(plan))
    audit = json.loads((tmp_path / "r" / "audit.json").read_text())
    assert made.audit == audit
    assert {key: audit[key] for key in ("schema", "scope", "adaptive_attack", "transfer")} == {
        "schema": 1,
        "scope": "cheap",
        "adaptive_attack": None,
        "transfer": [],
    }
    steps_, draws_ = audit["findings"]
    assert (steps_["check"], steps_["model"], steps_["advice"]) == ("steps", "Affine", "Look.")
    assert (draws_["check"], draws_["status"], draws_["advice"]) == ("draws", "pass", "")
    assert "audit.json" in made.meta["files"]


def test_what_a_check_breaks_is_in_records_points_and_worst_case(plan, tmp_path):
    made = run(plan, tmp_path / "r", examine=own_audit(plan))
    reach, records = reach_of(plan), made.records
    rows = records[records["attack"] == "audit-steps-l2"]
    assert len(rows) == len(reach)
    won = set(rows.loc[rows["status"] == "success", "sample"])
    before = claimed(records)
    lost = set(before.loc[(before["norm"] == "l2") & (before["status"] == "success"), "sample"])
    index = plan.data.index.numpy()
    correct = np.arange(len(reach)) >= 2
    assert won == set(index[(reach < LENGTH) & correct]) - lost
    assert len(won) > 3
    finding = made.audit["findings"][0]
    assert (finding["status"], finding["value"], set(finding["samples"])) == ("fail", len(won), won)
    points = load_file(tmp_path / "r" / "adversarials" / "Affine-l2.safetensors")
    assert won <= set(points["sample"].tolist())
    found = dict(zip(points["sample"].tolist(), points["distance"].tolist(), strict=True))
    best = {sample: found[sample] for sample in won}
    assert list(best.values()) == pytest.approx([LENGTH] * len(won), rel=1e-2)
    robust = [int((best_distance(part[part["norm"] == "l2"])["distance"] > 0.1).sum()) for part in (before, records)]
    assert robust[1] == robust[0] - len(won)


def test_without_an_audit_nothing_is_added_and_with_one_the_own_rows_stay(plan, tmp_path):
    plain = run(plan, tmp_path / "plain")
    audited = run(plan, tmp_path / "audited", examine=own_audit(plan))
    assert plain.audit is None
    assert not (tmp_path / "plain" / "audit.json").exists()
    assert claimed(audited.records).reset_index(drop=True).equals(plain.records)
    assert len(claimed(plain.records)) == len(plain.records) < len(audited.records)


class StopAt:
    """A listener that is interrupted after a number of checks."""

    def __init__(self, after):
        self.after = after

    def __call__(self, event):
        if event.kind == "check" and event.done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_between_checks_and_resumed_is_as_if_undisturbed(plan, tmp_path, after):
    run(plan, tmp_path / "whole", examine=own_audit(plan))
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", examine=own_audit(plan), listen=StopAt(after))
    assert not (tmp_path / "cut" / "records.parquet").exists()
    asked = []
    counted = tuple(replace(one, run=lambda case, one=one: asked.append(one.id) or one.run(case)) for one in OWN[:2])
    torch.rand(3)
    run(plan, tmp_path / "cut", examine=own_audit(plan, checks=counted), resume=True)
    assert asked == [one.id for one in OWN[:2]][after:]
    assert audit_bytes(tmp_path / "cut") == audit_bytes(tmp_path / "whole")


def test_interrupted_within_a_check_and_resumed_is_as_if_undisturbed(plan, tmp_path):
    def stops(case):
        rows = case.survivors("l2", 0.1)
        case.take("draws", "l2", 0.1, rows, toward_boundary(case, LENGTH)[rows])  # evidence of an unfinished check
        raise KeyboardInterrupt

    run(plan, tmp_path / "whole", examine=own_audit(plan))
    cut = (OWN[0], replace(OWN[1], run=stops))
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", examine=own_audit(plan, checks=cut))
    run(plan, tmp_path / "cut", examine=own_audit(plan), resume=True)
    assert audit_bytes(tmp_path / "cut") == audit_bytes(tmp_path / "whole")


def audit_bytes(path):
    """What a run wrote, apart from seconds."""
    found = contents(path)
    for name in [name for name in found if name.startswith("shards/") and name.endswith(".json")]:
        answer = json.loads(found[name])
        answer.pop("timings")
        found[name] = answer
    return found


def test_a_randomised_model_has_the_same_audit_again(suite, tmp_path):
    model, data = affine(wrong=0)
    noisy = Noisy(model, 0.05)
    made = []
    for name in ("a", "b"):
        plan = plan_of(noisy, data, attacks=suite, budgets=BUDGETS, shard=16, eot=4)
        torch.rand(len(made) + 1)
        made.append(run(plan, tmp_path / name, examine=own_audit(plan, checks=OWN[1:2])))
    assert made[0].records.equals(made[1].records)
    assert made[0].audit == made[1].audit


def test_a_check_that_raises_is_a_warning_and_the_audit_goes_on(plan, tmp_path):
    made = run(plan, tmp_path / "r", examine=own_audit(plan, scope="full", checks=OWN[::-1]))
    first, *others = made.audit["findings"]
    assert (first["status"], first["text"]) == ("warn", "the check did not end: ZeroDivisionError: division by zero")
    assert [one["check"] for one in others] == ["draws", "steps"]


def test_the_scope_selects_the_checks(plan):
    assert own_audit(plan, checks=OWN).names == ("steps", "draws")
    assert own_audit(plan, scope="full", checks=OWN).names == ("steps", "draws", "<lambda>")
    assert audit_of(plan, scope="full").names == tuple(one.id for one in CHECKS)
    assert not {"more-effort", "plateau", "black-box", "transfer", "loss-diversity"} & set(
        audit_of(plan, scope="cheap").names
    )


def test_an_audit_added_to_a_finished_run_gives_the_same_records(plan, tmp_path):
    run(plan, tmp_path / "at once", examine=own_audit(plan))
    run(plan, tmp_path / "later")
    with pytest.raises(KeyboardInterrupt):
        examine_again(plan, tmp_path / "later", own_audit(plan), listen=StopAt(1))
    assert read_run(tmp_path / "later").audit is None
    examine_again(plan, tmp_path / "later", own_audit(plan))
    assert audit_bytes(tmp_path / "later") == audit_bytes(tmp_path / "at once")
    other = own_audit(plan, checks=OWN[:1])
    again = examine_again(plan, tmp_path / "later", other)
    assert [one["check"] for one in again.audit["findings"]] == ["steps"]
    assert not (again.records["attack"] == "audit-draws-linf").any()


def test_real_checks_in_a_run_enter_the_records(tmp_path):
    model, x, y = boxed_affine((0.0, 1.0), classes=3, input_shape=(1, 6, 6), dtype=torch.float32, samples=40)
    twin = Affine(model.weight.detach(), model.bias.detach(), model.input_shape).eval()
    plan = plan_of(model, (x, y), attacks="one-step-random-l2", budgets={"l2": [0.15]})
    audit = Audit(
        cards=plan.attacks.cards,
        budgets=plan.budgets,
        scope="full",
        transfer=(("twin", twin),),
        checks=(more_effort.CHECK, transfer.CHECK),
    )
    made = run(plan, tmp_path / "r", examine=audit)
    effort, twins = made.audit["findings"]
    assert effort["status"] == "not applicable"
    assert twins["status"] == "fail"
    assert made.audit["transfer"] == ["twin"]
    rows = made.records[made.records["attack"] == "audit-transfer-l2"]
    assert int((rows["status"] == "success").sum()) == twins["value"] == len(twins["samples"])
    assert "audit-more-effort-l2" not in set(made.records["attack"])


def test_the_function_returns_findings_in_order(monkeypatch):
    model, data = affine()
    findings = ro.audit.run(
        model, data, attacks="one-step-random-l2", eps={"l2": [0.1]}, checks=["finite", "more-effort"]
    )
    assert [one.check for one in findings] == ["finite", "more-effort"]
    assert [one.status for one in findings] == [Verdict.PASS, Verdict.NOT_APPLICABLE]
    cheap = ro.audit.run(model, data, attacks="none", scope="cheap", checks=["finite", "more-effort"])
    assert [one.check for one in cheap] == ["finite"]


def test_bad_input(plan, tmp_path):
    model, data = affine()
    refused(OptionError, "got 'finit'. Did you mean 'finite'?", lambda: ro.audit.run(model, data, checks=["finit"]))
    message = "unknown audit: expected one of cheap, full, got 'deep'"
    refused(OptionError, message, lambda: ro.audit.run(model, data, attacks="none", scope="deep"))
    refused(ModelError, "missing.safetensors", lambda: audit_of(plan, scope="full", transfer=["missing.safetensors"]))
    message = (
        "model 'zoo:snode-digits' for transfer: expected bounds (0.0, 1.0), input shape (1, 3, 4) and 3 classes, "
        "got bounds (0.0, 1.0), input shape (1, 8, 8) and 10 classes. Name a model of the same task."
    )
    refused(ModelError, message, lambda: audit_of(plan, scope="full", transfer=["zoo:snode-digits"]))
