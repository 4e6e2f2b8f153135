"""Certificates in a run: the exact radii of an affine classifier, kept, resumed, refused and read back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.api import run_protocol
from robustode.audit.finished import audit_run
from robustode.errors import OptionError, ProtocolError, RunError
from robustode.evaluation import certificate_rows as certificate_file
from robustode.evaluation.certificate_rows import DTYPES
from robustode.evaluation.certified_case import certified_case
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.records import rows
from robustode.evaluation.rundir import read_run
from tests.attacks.adapter_problems import SmallNet, exact_distance
from tests.evaluation.problem import Noisy, affine, as_data, plan_of, refused
from tests.evaluation.runs import contents, run
from tests.standin import bound, exact_radii, only

WRONG = 2


@pytest.fixture(autouse=True)
def exact():
    with only(bound(), bound("half", lambda problem: exact_radii(problem, 0.5)), bound("flow", certifies="flow")):
        yield


def plan(attacks="none", **values):
    model, data = affine(n=30, wrong=WRONG)
    entry = values.pop("certificates", {"norms": ["l2", "linf"]})
    values = {"audit": "none", "shard": 12, **values}
    return plan_of(model, data, attacks=attacks, certificates=entry, **values)


def test_rows_are_the_exact_radii_in_the_order_of_model_norm_and_sample(tmp_path):
    made = plan()
    found = run(made, tmp_path / "r").certificates
    assert dict(found.dtypes.astype(str)) == DTYPES
    assert found["norm"].tolist() == ["l2"] * 30 + ["linf"] * 30
    model, data = made.models[0].module.module, made.data
    right = model(data.x).argmax(1) == data.y
    assert int(right.sum()) == 30 - WRONG
    for norm in ("l2", "linf"):
        own = rows(found, norm=norm)
        assert own["sample"].tolist() == data.index.tolist()
        truth = torch.where(right, exact_distance(model, data.x, data.y, norm), 0.0).numpy()
        np.testing.assert_allclose(own["radius"], truth, rtol=1e-5)
        assert own["status"].tolist() == ["certified" if ok else "misclassified" for ok in right.tolist()]
        assert own["method"].tolist() == ["affine" if ok else "" for ok in right.tolist()]  # the better of two
        assert own["passes"].tolist() == [4.0 if ok else 0.0 for ok in right.tolist()]
        assert own["nearest"].isna().tolist() == (~right).tolist()
        assert (own["nearest"].dropna() != own.loc[own["nearest"].notna(), "label"]).all()
    meta = json.loads((tmp_path / "r" / "run.json").read_text())
    assert meta["files"].keys() >= {"certificates.parquet"}
    assert list(meta["certified"]) == ["l2", "linf"]
    assert meta["models"][0]["left_out"]["l2"] == {"flow": "certifies the flow map"}
    timings = pd.read_parquet(tmp_path / "r" / "timings.parquet")
    assert set(timings["attack"]) == {"certificate:discrete"}
    assert timings.groupby("norm")["samples"].sum().tolist() == [28, 28]


def test_methods_and_map_are_those_asked_for(tmp_path):
    half = run(plan(certificates={"norms": "l2", "methods": "half"}), tmp_path / "half").certificates
    whole = run(plan(certificates={"norms": ["l2"]}), tmp_path / "whole").certificates
    np.testing.assert_allclose(2 * half["radius"], whole["radius"], rtol=1e-12)
    flow = run(plan(certificates={"norms": ["l2"], "map": "flow"}), tmp_path / "flow").certificates
    assert set(flow["map"]) == {"flow"}
    assert set(flow["method"]) == {"flow", ""}


def test_norms_follow_the_attacks_else_the_default_budgets(tmp_path):
    assert list(plan(certificates={}).certified) == ["linf", "l2"]
    attacked = plan(attacks="sensitivity-l2", certificates={}, budgets={"l2": [0.1]})
    assert attacked.certified == attacked.budgets == {"l2": (0.1,)}
    both = plan(attacks="sensitivity-l2", certificates={"norms": ["linf"]}, budgets={"l2": [0.1], "linf": [0.2]})
    assert (both.budgets, both.certified) == ({"l2": (0.1,)}, {"linf": (0.2,)})
    with pytest.raises(ProtocolError, match=r"norms of the run \(l2, linf\), got 'l1'"):
        plan(attacks="sensitivity-l2", certificates={"norms": ["linf"]}, budgets={"l1": [0.1]})


def test_the_hash_is_of_the_attacks_alone():
    with_, without = (plan(attacks="sensitivity-l2", certificates=one) for one in ({"norms": ["linf"]}, None))
    assert with_.hash == without.hash


def test_an_interrupted_run_goes_on_and_is_the_same_to_the_bit(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    run(plan(), whole)
    calls = []
    original = certificate_file.certificate_rows

    def stop(*arguments):
        if len(calls) == 4:  # of 3 shards in 2 norms
            raise KeyboardInterrupt
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(certificate_file, "certificate_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        run(plan(), tmp_path / "cut")
    calls.clear()
    run(plan(), tmp_path / "cut", resume=True)
    assert len(calls) == 2
    assert contents(tmp_path / "cut") == contents(whole)
    other = plan(certificates={"norms": ["l2", "linf"], "methods": ["half"]})
    refused(RunError, 'certificates.methods: ["auto"] then, ["half"] now', lambda: run(other, whole, resume=True))


def test_a_run_without_certificates_has_nothing_of_them(tmp_path):
    found = run(plan(certificates=None), tmp_path / "r")
    assert found.certificates is None
    assert not {"certified", "smoothed"} & set(found.meta)
    assert "left_out" not in found.meta["models"][0]


def test_the_judge_decides_what_is_misclassified(tmp_path, monkeypatch):
    """A bound's batch may answer otherwise by rounding: nothing is then certified, and nothing is misclassified."""
    made = plan()
    certify = certificate_file.certify
    monkeypatch.setattr(certificate_file, "certify", lambda model, x, y, **o: certify(model, x, (y + 1) % 3, **o))
    found = run(made, tmp_path / "r").certificates
    assert set(found["status"]) == {"misclassified", "nothing"}
    assert (found["radius"] == 0).all()


def test_certified_at_a_radius_leaves_room_for_the_tolerance_of_attacks(tmp_path):
    found = run(plan(), tmp_path / "r")
    case = certified_case(found.certificates, found.meta["models"][0], "l2")
    radius = case.radius[case.right].min()
    assert case.certified(0.0).sum() == 30 - WRONG
    assert case.certified(radius * 0.999).sum() == 30 - WRONG
    assert case.certified(radius).sum() == 30 - WRONG - 1  # the ball is closed
    assert case.certified(radius - 1e-8).sum() == 30 - WRONG - 1  # and an attack may leave it by τ


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norms": ["l3"]}, "certificates.norms: expected one of l1, l2, linf, got 'l3'"),
        ({"norms": ["l2", "l2"]}, "expected different norms, got l2, l2"),
        ({"methods": "afine"}, "Did you mean 'affine'?"),
        ({"methods": "auto,half"}, "expected different methods, or auto alone, got auto, half"),
        ({"methods": ["half", "half"]}, "expected different methods, or auto alone, got half, half"),
        ({"map": "discreet"}, "Did you mean 'discrete'?"),
        ({"mehtods": ["half"]}, "Did you mean 'methods'?"),
    ],
)
def test_mistakes_in_a_protocol(change, message):
    refused(ProtocolError, message, lambda: build_protocol({"models": ["a"], "certificates": change}))


def test_a_model_without_bounds_is_named_with_what_remains():
    data = as_data(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), classes=4)
    with pytest.raises(OptionError) as caught:
        plan_of(SmallNet((0.0, 1.0)), data, certificates={})
    message = str(caught.value)
    assert message.startswith("model 'SmallNet' (SmallNet): ")
    assert "SmallNet is not affine" in message
    assert "randomised smoothing" in message


def test_a_norm_that_a_named_bound_does_not_take():
    with only(bound(), bound("round", norms=("l2",))), pytest.raises(OptionError) as caught:
        plan(certificates={"norms": ["linf"], "methods": ["round"]})
    assert "round: takes l2" in str(caught.value)
    assert "Bounds that remain: affine" in str(caught.value)


def test_a_model_whose_answers_depend_on_the_batch(monkeypatch):
    model, data = affine()
    original = type(model).forward
    shift = torch.tensor([1.0, -1.0, 0.0])
    monkeypatch.setattr(type(model), "forward", lambda self, x: original(self, x) + 9 * x.mean() * shift)
    with pytest.raises(OptionError) as caught:
        plan_of(model, data, certificates={})
    assert "expected a model whose answers do not depend on the batch" in str(caught.value)
    assert "robustode deploy" in str(caught.value)
    plan_of(model, data, certificates={"map": "flow"})  # says nothing of the discrete map


def test_a_random_model():
    model, data = affine()
    with pytest.raises(OptionError, match="expected a model that answers a repeat alike"):
        plan_of(Noisy(model, 1.0), data, certificates={})


def test_a_run_is_read_back_and_audited_again(tmp_path):
    np.savez(tmp_path / "d.npz", x=affine()[1].x.numpy(), y=affine()[1].y.numpy(), bounds=np.array([0.0, 1.0]))
    (tmp_path / "m.py").write_text(
        "from tests.evaluation.problem import affine\n\ndef make():\n    return affine()[0]\n"
    )
    values = {
        "models": [{"model": f"python:{tmp_path}/m.py:make", "bounds": [0, 1], "classes": 3, "input_shape": [1, 3, 4]}],
        "data": str(tmp_path / "d.npz"),
        "attacks": "sensitivity-l2",
        "certificates": {"norms": ["linf"]},
        "budgets": {"l2": [0.1], "linf": [0.05]},
        "audit": "cheap",
        "outputs": ["tables"],
    }

    first = run_protocol(build_protocol(values), tmp_path / "r")
    again = audit_run(tmp_path / "r", scope="cheap")
    assert again.certificates.equals(first.certificates)
    assert again.meta["certified"] == {"linf": [0.05]}
    assert read_run(tmp_path / "r").certificates.equals(first.certificates)
