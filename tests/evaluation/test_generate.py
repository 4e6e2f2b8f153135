"""Adversarial data sets: written shard by shard, read back as data and as an attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from robustode.data import load_data
from robustode.errors import AttackError, BudgetError, DataError, ModelError, RunError
from robustode.evaluation import records
from robustode.evaluation.clean import CleanAccuracy
from robustode.evaluation.generate import PROBE, generate
from robustode.evaluation.runner import execute
from tests.attacks.adapter_problems import exact_distance
from tests.evaluation.problem import Noisy, affine, as_data, forms, plan_of, refused
from tests.problems import random_affine


@pytest.fixture
def plan():
    model, data = affine()
    return plan_of(model, data, attacks="sensitivity-l2", shard=12)


def columns(folder, name):
    index = json.loads((folder / "dataset.json").read_text())
    parts = []
    for shard in index["shards"]:
        with np.load(folder / shard["file"]) as archive:
            parts.append(archive[name])
    return np.concatenate(parts)


def bytes_of(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("format", ["npz", "safetensors", "parquet", "huggingface"])
def test_read_back_as_data_and_as_an_attack(plan, tmp_path, format):
    made = generate(plan, tmp_path / "adv", format=format, command="robustode generate ...")
    assert made.path == tmp_path / "adv" / "dataset.json"
    assert made.status == {"success": 28, "misclassified": 2}
    assert (made.made, made.survivors) == (made.status, None)
    assert made.errors == ""
    back = load_data(str(tmp_path / "adv"))
    assert torch.equal(back.y, plan.data.y)
    assert torch.equal(back.index, plan.data.index)
    assert (back.bounds, back.classes, back.split) == ((0.0, 1.0), 3, "test")
    assert back.caption.endswith("(28 adversarial)")
    model = plan.models[0].module
    assert torch.equal(back.x[:2], plan.data.x[:2])  # misclassified: as they were
    assert (model(back.x).argmax(1) != back.y).all()
    model, data = affine()
    stored = plan_of(model, data, also=[str(tmp_path / "adv")], budgets={"l2": [0.1]})
    judged = execute(stored, tmp_path / "run", command="test").records
    direct = execute(plan, tmp_path / "direct", command="test").records
    assert judged["distance"].tolist() == direct["distance"].tolist()
    assert judged["status"].tolist() == direct["status"].tolist()


def test_columns_and_header(plan, tmp_path):
    generate(plan, tmp_path / "adv", command="robustode generate ...")
    distance = columns(tmp_path / "adv", "distance")
    exact = exact_distance(plan.models[0].module.module, plan.data.x, plan.data.y, "l2").numpy()
    assert distance[:2].tolist() == [0, 0]
    np.testing.assert_allclose(distance[2:], exact[2:], rtol=1e-3)
    assert (columns(tmp_path / "adv", "adv_pred") != plan.data.y.numpy()).all()
    clean = columns(tmp_path / "adv", "clean_pred") == plan.data.y.numpy()
    assert clean.tolist() == [False] * 2 + [True] * 28
    meta = json.loads((tmp_path / "adv" / "dataset.json").read_text())["meta"]
    assert (meta["attack"], meta["norm"], meta["eps"], meta["seed"]) == ("sensitivity-l2", "l2", None, 0)
    assert meta["attack_card"]["params"] == {"setting": "fast"}
    assert meta["command"] == "robustode generate ..."
    assert meta["model_hash"] == plan.models[0].hash


def test_an_eps_makes_a_minimal_card_search_its_ball(tmp_path):
    model, data = affine()
    exact = exact_distance(model, data.x, data.y, "l2")[2:]
    eps = 1.001 * float(exact.median())
    plan = plan_of(model, data, attacks="sensitivity-l2", budgets={"l2": [eps]})
    made = generate(plan, tmp_path / "adv")
    inside = int((exact < eps).sum())
    assert made.status == {"success": inside, "failed": 28 - inside, "misclassified": 2}
    distance = columns(tmp_path / "adv", "distance")
    assert np.isinf(distance).sum() == 28 - inside
    assert distance[np.isfinite(distance)].max() <= eps * (1 + 1e-6) + 1e-6
    failed = np.isinf(distance)
    assert torch.equal(load_data(str(tmp_path / "adv")).x[failed], data.x[failed])  # clean where none was found
    assert json.loads(made.path.read_text())["meta"]["eps"] == eps
    assert made.path.parent == tmp_path / "adv"


def test_a_budget_card_has_points_on_its_ball(tmp_path):
    model, data = affine()
    made = generate(plan_of(model, data, attacks="fgm-l2", budgets={"l2": [0.2]}), tmp_path / "adv")
    distance = columns(tmp_path / "adv", "distance")[2:]
    found = np.isfinite(distance)
    assert found.sum() == made.status["success"] > 10
    np.testing.assert_allclose(distance[found], 0.2, rtol=1e-5)


@pytest.mark.parametrize("after", [1, 2])
def test_resume_goes_on_and_gives_the_same_files(plan, tmp_path, after):
    generate(plan, tmp_path / "whole", command="generate")
    seen = []

    def stop(done, total):
        seen.append((done, total, len(list((tmp_path / "cut").glob("data-?????.npz")))))
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(plan, tmp_path / "cut", command="generate", listen=stop)
    assert seen == [(k, 3, k) for k in range(1, after + 1)]  # each shard is on disk before the next begins
    refused(DataError, "unfinished data set", lambda: load_data(str(tmp_path / "cut")))
    refused(RunError, "Use --resume or --force.", lambda: generate(plan, tmp_path / "cut", command="generate"))
    kept = (tmp_path / "cut" / "data-00000.npz").stat().st_mtime_ns
    rest = generate(plan, tmp_path / "cut", command="generate --resume", resume=True)
    assert (tmp_path / "cut" / "data-00000.npz").stat().st_mtime_ns == kept
    assert sum(rest.made.values()) == 30 - 12 * after
    assert rest.status == {"success": 28, "misclassified": 2}
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_resume_refuses_another_set(plan, tmp_path):
    generate(plan, tmp_path / "adv")
    model, data = affine()
    for other in ({"seed": 1}, {"attacks": "deepfool-l2"}, {"budgets": {"l2": [0.1]}}):
        changed = plan_of(model, data, **{"attacks": "sensitivity-l2", "shard": 12, **other})
        refused(RunError, "got other meta", lambda changed=changed: generate(changed, tmp_path / "adv", resume=True))
    before = bytes_of(tmp_path / "adv")
    assert generate(plan, tmp_path / "adv", resume=True).made == {}
    assert bytes_of(tmp_path / "adv") == before


def test_exactly_one_model_one_card_and_one_eps(tmp_path):
    model, data = affine()

    def plan(modules, **values):
        return lambda: generate(plan_of(modules, data, **values), tmp_path / "adv")

    message = "generate: expected one model and one attack card, got "
    refused(AttackError, message + "1 models and 8 attacks", plan(model, attacks="standard-linf"))
    refused(AttackError, message + "2 models and 1 attacks", plan([model, affine()[0]], attacks="fgm-l2"))
    refused(AttackError, message + "1 models and 0 attacks", plan(model, attacks="none"))
    refused(BudgetError, "eps of attack 'fgm-l2': expected exactly one value, got none", plan(model, attacks="fgm-l2"))
    budgets = {"l2": [0.1, 0.2]}
    refused(BudgetError, "expected exactly one value, got 0.1, 0.2", plan(model, attacks="fgm-l2", budgets=budgets))
    refused(
        DataError,
        "data set format",
        lambda: generate(plan_of(model, data, attacks="sensitivity-l2"), tmp_path / "adv", format="csv"),
    )
    assert not (tmp_path / "adv").exists()


def test_an_attack_that_raises_leaves_clean_rows(tmp_path):
    folder = forms(tmp_path / "forms")
    model, data = affine()
    values = {"attacks": f"python:{folder}/forms.py:raises", "norms": ["l2"], "budgets": {"l2": [0.1]}}
    made = generate(plan_of(model, data, **values), tmp_path / "adv")
    assert made.status == {"error": 28, "misclassified": 2}
    assert made.errors == "ValueError: no luck today"
    assert torch.equal(load_data(str(tmp_path / "adv")).x, data.x)
    assert set(columns(tmp_path / "adv", "adv_pred")[2:]) == {-1}


def test_the_clean_gate_looks_at_samples_of_all_the_data(tmp_path, monkeypatch):
    """Data sorted by class, more of them than are looked at: the accuracy is that of all, not of the first class."""
    seen = []
    monkeypatch.setattr("robustode.evaluation.generate.check_clean", lambda plan, model, x, clean: seen.append(clean))
    model = random_affine(3, dtype=torch.float32)
    n = 3 * PROBE
    x = torch.rand(n, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    order = y.argsort()
    x, y = x[order], y[order]
    wrong = torch.arange(n) >= n // 2
    y = torch.where(wrong, (y + 1) % 3, y)
    plan = plan_of(model, as_data(x, y), attacks="fgm-l2", budgets={"l2": [0.01]})
    generate(plan, tmp_path / "adv")
    assert seen == [CleanAccuracy(correct=PROBE // 2, n=PROBE)]


def test_the_clean_gate_stops_before_anything_is_written(tmp_path):
    """Also where the data are many more than the samples looked at."""
    _, data = affine()
    x = data.x.repeat(100, 1, 1, 1)
    many = as_data(x, data.y.repeat(100))
    bad = plan_of(random_affine(3, seed=5, dtype=torch.float32), many, attacks="sensitivity-l2")
    share = float(torch.bincount(data.y).max()) / 30
    refused(ModelError, f"no better than chance ({share:.1%})", lambda: generate(bad, tmp_path / "adv"))
    noisy = plan_of(Noisy(affine()[0], 1.0), data, attacks="sensitivity-l2")
    refused(ModelError, "answers differently when asked again", lambda: generate(noisy, tmp_path / "adv"))
    assert not (tmp_path / "adv").exists()


def test_the_rows_are_those_of_the_records(plan, tmp_path):
    generate(plan, tmp_path / "adv")
    frame = execute(plan, tmp_path / "run", command="test").records
    assert columns(tmp_path / "adv", "distance").tolist() == frame["distance"].tolist()
    assert columns(tmp_path / "adv", "adv_pred").tolist() == frame["adv_pred"].tolist()
    assert set(records.rows(frame, status="success")["sample"]) == set(plan.data.index[2:].tolist())
