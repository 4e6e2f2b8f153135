"""Whole runs: the same bytes whenever they are made, and what they say of themselves."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from robustode.data import export
from robustode.errors import DataError, RobustODEError, RunError
from robustode.evaluation import records, shards
from robustode.evaluation.judge import Judge
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.rundir import read_run
from robustode.evaluation.worst_case import worst_case
from tests.evaluation.problem import affine, as_data, forms, plan_of, refused
from tests.evaluation.runs import BUDGETS, CARD, contents, run, units


def test_twice_the_same_bytes(plan, tmp_path):
    torch.manual_seed(5)
    first = run(plan, tmp_path / "a")
    torch.rand(100)
    run(plan, tmp_path / "b")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a == b
    assert {"records.parquet", "run.json", "adversarials/Affine-l2.safetensors"} <= set(a)
    assert len([name for name in a if name.startswith("shards/") and name.endswith(".parquet")]) == 6 * 2
    assert first.meta["status"] == "complete"
    points = {f"adversarials/{name}" for name in ("Affine-l2.safetensors", "Affine-linf.safetensors", "verify.py")}
    assert set(first.meta["files"]) == points | {"records.parquet", "timings.parquet"}
    assert not list(tmp_path.rglob(".*"))


def test_records_have_one_row_for_each_model_sample_attack_and_budget(plan, tmp_path):
    found = run(plan, tmp_path / "a").records
    assert len(found) == 30 * (3 * 2 + 2 + 1 + 1)
    assert not found.duplicated(records.KEY).any()
    assert set(found["sample"]) == set(plan.data.index.tolist())
    assert set(found["protocol"]) == {plan.hash}
    assert set(found["data"]) == {"toy"}
    assert set(found["model_hash"]) == {plan.models[0].hash}
    assert (found["status"] == "success").sum() > 60
    pd.testing.assert_frame_equal(records.sort(found), found)


def test_the_manifest_says_what_was_run(plan, tmp_path):
    meta = run(plan, tmp_path / "a").meta
    assert meta["protocol"]["budgets"] == BUDGETS | {"l2": [0.1, 0.2]}
    assert [card["name"] for card in meta["protocol"]["attacks"]][:3] == ["noise", "within", "push"]
    assert len(meta["protocol"]["attacks"][0]["code"]) == 16
    (model,) = meta["models"]
    assert (model["clean_correct"], model["n"], model["arch"], model["parameters"]) == (28, 30, "Affine", 39)
    assert meta["data"]["fingerprint"] == plan.data.fingerprint
    assert meta["tolerances"]["linf"]["0.05"] == pytest.approx(1e-6 * 0.05 + 2.0**-22)
    assert {"torch", "python", "foolbox"} <= set(meta["versions"])
    assert (meta["seeds"], meta["eot"], meta["errors"], meta["skipped"]) == ({"run": 0}, None, [], [])
    assert meta["machine"]["device"] == "cpu"


def test_best_adversarials_are_the_smallest_over_all_attacks_and_hold(plan, tmp_path):
    made = run(plan, tmp_path / "a")
    judge = Judge(plan.models[0].module)
    place = {sample: row for row, sample in enumerate(plan.data.index.tolist())}
    for norm in ("l2", "linf"):
        stored = load_file(made.path / "adversarials" / f"Affine-{norm}.safetensors")
        best = records.rows(made.records, norm=norm, status="success").groupby("sample")["distance"].min()
        assert stored["sample"].tolist() == best.index.tolist()
        assert stored["found"].tolist() == best.tolist()
        rows = [place[sample] for sample in stored["sample"].tolist()]
        x, y = plan.data.x[rows], plan.data.y[rows]
        verdict = judge.judge(x, stored["x_adv"], y, norm=norm, eps=None)
        assert verdict.success.all()
        assert torch.equal(verdict.distance, stored["distance"])
        assert torch.equal(verdict.pred, stored["pred"])


def test_robust_accuracy_never_rises_with_eps(plan, tmp_path):
    made = run(plan, tmp_path / "a")
    for norm in ("l2", "linf"):
        for attack in (None, *set(records.rows(made.records, norm=norm)["attack"])):
            case = worst_case(made.records, made.meta["models"][0], norm, attack=attack)
            curve = [case.robust(0.01 * k).mean() for k in range(60)]
            assert curve == sorted(curve, reverse=True)
            assert curve[0] == 28 / 30
        assert worst_case(made.records, made.meta["models"][0], norm).robust(0.5).mean() < 0.5


def test_order_of_models_does_not_matter(suite, tmp_path):
    model, data = affine()
    other = affine()[0]
    other.bias.data += 0.01
    frames = []
    for k, modules in enumerate(([model, other], [other, model])):
        made = plan_of(modules, data, attacks=suite, budgets=BUDGETS, shard=16)
        assert [one.label for one in made.models] == ["Affine", "Affine#2"]
        frames.append(run(made, tmp_path / str(k)).records.drop(columns="model"))
    first, second = (frame.sort_values([*frame.columns[:1], *records.KEY[1:]], ignore_index=True) for frame in frames)
    assert first["model_hash"].nunique() == 2
    pd.testing.assert_frame_equal(first, second)


def test_labels_that_look_alike_as_file_names_keep_apart(tmp_path):
    names = ["a b", "a_b", "a/b", ".a_b", "a_b#2"]
    assert len({shards.safe(name) for name in names}) == len(names)
    assert shards.safe("a_b#2") == "a_b#2"
    assert not any(set(shards.safe(name)) & set(" /") or shards.safe(name).startswith(".") for name in names)


def test_attacks_none(tmp_path):
    model, data = affine()
    made = run(plan_of(model, data), tmp_path / "a")
    assert len(made.records) == 0
    assert made.meta["status"] == "complete"
    assert made.meta["models"][0]["clean_accuracy"] == 28 / 30
    assert made.meta["protocol"]["budgets"] == {}


def test_without_adversarials_no_points_are_kept(suite, tmp_path):
    model, data = affine()
    made = run(plan_of(model, data, attacks=suite, budgets=BUDGETS, outputs=["tables"]), tmp_path / "a")
    assert not (made.path / "adversarials").exists()
    assert not list(made.path.rglob("*.safetensors"))
    assert len(made.records) > 0


def test_a_stored_set_beside_the_attacks(plan, suite, tmp_path):
    made = run(plan, tmp_path / "a")
    best = load_file(made.path / "adversarials" / "Affine-l2.safetensors")
    place = {sample: row for row, sample in enumerate(plan.data.index.tolist())}
    y = plan.data.y[[place[sample] for sample in best["sample"].tolist()]]
    export(tmp_path / "adv", as_data(best["x_adv"], y, index=best["sample"]), meta={"norm": "l2"})
    model, data = affine()
    alone = run(plan_of(model, data, also=[str(tmp_path / "adv")], budgets={"l2": [0.1]}), tmp_path / "b")
    found = records.rows(alone.records, status="success")
    assert found["distance"].tolist() == best["distance"].tolist()
    assert set(alone.records["attack"]) == {"stored-adv"}
    assert alone.meta["protocol"]["attacks"][0]["implementation"] == "stored"


def test_an_attack_that_raises_does_not_stop_the_run(tmp_path):
    folder = forms(tmp_path / "forms")
    (folder / "raises.toml").write_text(
        CARD.format(name="raises", norm="l2", kind="budget") + "[params]\nabove = 0.15\n"
    )
    model, data = affine()
    values = {"attacks": str(folder / "raises.toml"), "also": ["fgm-l2"], "budgets": {"l2": [0.1, 0.2]}, "shard": 12}
    made = run(plan_of(model, data, **values), tmp_path / "a")
    assert made.meta["status"] == "partial"
    message = "ValueError: no luck today"
    assert made.meta["errors"] == [{"model": "Affine", "attack": "raises", "count": 28, "message": message}]
    broken = records.rows(made.records, status="error")
    assert set(broken["eps"]) == {0.2}
    assert set(broken["message"]) == {message}
    assert (broken["distance"] == math.inf).all()
    assert (records.rows(made.records, attack="fgm-l2")["status"] == "success").sum() > 10
    case = worst_case(made.records, made.meta["models"][0], "l2")
    assert case.incomplete(0.2).sum() + (~case.robust(0.2)).sum() == 30


@pytest.mark.usefixtures("no_torchattacks")
def test_without_torchattacks_the_run_is_partial(tmp_path):
    model, data = affine()
    values = {"attacks": "fgm-l2", "also": ["pgd-linf"], "norms": [], "budgets": {"l2": [0.1]}}
    events = []
    made = run(plan_of(model, data, **values), tmp_path / "a", listen=events.append)
    assert made.meta["status"] == "partial"
    assert made.meta["skipped"] == [{"attack": "pgd-linf", "reason": "not installed (torchattacks)"}]
    assert set(made.records["attack"]) == {"fgm-l2"}
    assert [e.text for e in events if e.kind == "skipped"] == ["pgd-linf: skipped: not installed (torchattacks)"]


def test_nothing_is_created_when_validation_fails(tmp_path):
    out = tmp_path / "run"
    model, data = affine()
    bad = [
        lambda: make_plan(build_protocol({"models": [str(tmp_path / "none.safetensors")], "data": "digits"})),
        lambda: plan_of(model, str(tmp_path / "none.npz")),
        lambda: plan_of(model, data, attacks="standrd"),
        lambda: plan_of(model, (data.x + 5, data.y)),
    ]
    for make in bad:
        with pytest.raises(RobustODEError):
            run(make(), out)
        assert not out.exists()
    with pytest.raises(DataError):
        plan_of(model, (data.x[:0], data.y[:0]))


def test_publishing_comes_before_the_hashes(plan, tmp_path):
    def publish(unfinished):
        assert unfinished.meta["status"] == "complete"
        assert len(unfinished.records) == 300
        (unfinished.path / "tables").mkdir()
        (unfinished.path / "tables" / "a.csv").write_text("1")
        (unfinished.path / "report.html").write_text("<p>")

    made = run(plan, tmp_path / "a", publish=publish)
    assert {"tables/a.csv", "report.html"} <= set(made.meta["files"])
    (tmp_path / "a" / "tables" / "a.csv").write_text("2")
    refused(RunError, "tables/a.csv has other bytes", lambda: read_run(tmp_path / "a"))


def test_events(plan, tmp_path):
    events = []
    run(plan, tmp_path / "a", listen=events.append)
    assert events[0].kind == "clean"
    assert (events[0].clean.correct, events[0].clean.n, events[0].clean.accuracy) == (28, 30, 28 / 30)
    assert units(events) == [("unit", k) for k in range(1, 13)]
    assert {event.total for event in events if event.kind == "unit"} == {12}
    assert [event.text for event in events[1:]][::2] == [card.name for card in plan.attacks.cards]
