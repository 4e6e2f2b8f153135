"""Adversarial data sets: written shard by shard, read back as data and as an attack."""

from __future__ import annotations

import gc
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.data import load_data, repair
from robustode.errors import AttackError, BudgetError, DataError, ModelError, RunError
from robustode.evaluation import records
from robustode.evaluation.clean import CleanAccuracy
from robustode.evaluation.generate import PROBE, generate
from robustode.evaluation.runner import execute
from robustode.evaluation.splits import generate_splits
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


def images(split="test", shard=12):
    """The affine problem in larger units, where rounding to 8 bits undoes what lies on the boundary."""
    model, data = affine()
    return plan_of(model, replace(data, split=split), attacks="sensitivity-l2", shard=shard)


def test_png_is_judged_again_after_rounding(tmp_path):
    plan = images()
    made = generate(plan, tmp_path / "adv", format="png")
    exact = generate(plan, tmp_path / "exact", format="npz")
    assert made.survivors is not None
    left = made.survivors["survive"]
    assert made.survivors["found"] == exact.status["success"] == 28
    assert left == 28  # on the boundary half of the nearest levels would be none; those beyond it are
    assert made.status == {"success": left, "misclassified": 2}
    index = json.loads(made.path.read_text())
    assert index["survivors"] == made.survivors
    assert f"of 28 adversarial inputs {left} are still adversarial" in (tmp_path / "adv/README.md").read_text()
    back = load_data(str(tmp_path / "adv"))
    assert back.caption.endswith(f"({left} adversarial)")
    assert torch.equal(back.x, back.x.mul(255).round().div(255))
    table = pd.read_csv(tmp_path / "adv/metadata.csv")
    pred = plan.models[0].module(back.x).argmax(1)
    assert table["adv_pred"].tolist() == pred.tolist()
    assert (table["survives"] == 1).tolist() == ((pred != back.y).numpy() & (table["survives"] >= 0)).tolist()
    assert (table["survives"] == -1).tolist() == [True] * 2 + [False] * 28
    assert table["distance_found"].tolist() == columns(tmp_path / "exact", "distance").tolist()
    alive = (table["status"] == "success").to_numpy()
    gap = (back.x - plan.data.x).double().flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(table["distance"].to_numpy()[alive], gap[alive], rtol=1e-12)
    assert np.isinf(table["distance"][table["survives"] == 0]).all()


def test_rounding_may_leave_the_ball(tmp_path):
    """A ball smaller than a level holds no image at all; in a larger one, rounding towards the clean input stays."""
    model, data = affine()
    generate(plan_of(model, data, attacks="sensitivity-l2"), tmp_path / "near", format="npz")
    close = torch.lerp(data.x, load_data(str(tmp_path / "near")).x, 0.999)  # a thousandth of the way from the boundary
    eps = 0.1 / 255
    small = plan_of(model, as_data(close, data.y), attacks="fgm-l2", budgets={"l2": [eps]})
    made = generate(small, tmp_path / "small", format="png")
    assert made.survivors is not None
    assert made.survivors["survive"] == 0
    lost = pd.read_csv(tmp_path / "small/metadata.csv").query("survives == 0")
    assert len(lost) == made.survivors["found"] > 0
    assert set(lost["status"]) == {"failed"}
    assert np.isinf(lost["distance"]).all()
    assert (lost["distance_found"] <= 1.01 * eps).all()
    plan = plan_of(model, data, attacks="fgm-l2", budgets={"l2": [0.3]})
    made = generate(plan, tmp_path / "adv", format="png")
    assert made.survivors is not None
    nearest = nearest_survivors(plan, tmp_path)
    assert nearest < made.survivors["survive"] <= made.survivors["found"]
    table = pd.read_csv(tmp_path / "adv/metadata.csv")
    assert table["distance"][table["survives"] == 1].max() <= 0.3 * (1 + 1e-6) + 1e-6


def nearest_survivors(plan, folder):
    """How many successes on the sphere are still in the ball when every channel goes to its nearest level."""
    generate(plan, folder / "exact", format="npz")
    x = load_data(str(folder / "exact")).x
    gap = (x.mul(255).round().div(255) - plan.data.x).double().flatten(1).norm(dim=1).numpy()
    found = np.array(columns(folder / "exact", "status")) == 1
    return int((found & (gap <= 0.3 * (1 + 1e-6) + 1e-6)).sum())


def test_what_a_format_cannot_hold_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    def computed(*arguments):
        raise AssertionError("the model was asked")

    model, data = affine()
    monkeypatch.setattr("robustode.evaluation.generate._subject", computed)
    flat = as_data(data.x.flatten(1), data.y)
    plan = replace(plan_of(model, data, attacks="sensitivity-l2"), data=flat)
    refused(DataError, "format png: expected images of shape", lambda: generate(plan, tmp_path / "a", format="png"))
    refused(
        DataError,
        "unknown data set format: expected one of huggingface, npz, parquet, png, safetensors, got 'hugingface'. "
        "Did you mean 'huggingface'?",
        lambda: generate(plan, tmp_path / "a", format="hugingface"),
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("format", ["npz", "huggingface", "png"])
def test_splits_are_one_set(tmp_path, format):
    plans = {split: images(split) for split in ("train", "test")}
    steps = []
    out = tmp_path / "adv"
    made = generate_splits(plans, out, format=format, command="generate", listen=lambda *step: steps.append(step))
    assert steps == [(k, 6) for k in range(1, 7)]
    assert [sum(one.status.values()) for one in made.values()] == [30, 30]
    for split in plans:
        data = load_data(out, split=split)
        assert (data.split, len(data), data.name) == (split, 30, str(out))
        alone = load_data(out / split, split="test")
        assert (alone.split, alone.fingerprint) == (split, data.fingerprint)  # a single split says which it is
        assert not (out / split / "README.md").exists()
    listed = (out / "SHA256SUMS").read_text()
    assert "  train/dataset.json\n" in listed
    assert "  test/dataset.json\n" in listed
    text = (out / "README.md").read_text()
    assert "- train (folder `train`): 30 samples in 3 shards" in text
    assert "60 samples" in text
    before = bytes_of(out)
    refused(RunError, "Use --resume or --force.", lambda: generate_splits(plans, out, format=format))
    again = generate_splits(plans, out, format=format, command="generate --resume", resume=True)
    assert all(one.made == {} for one in again.values())
    generate_splits(plans, out, format=format, command="generate", force=True)
    assert bytes_of(out) == before


def test_splits_of_one_load_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    plans = {split: images(split) for split in ("train", "test")}
    generate_splits(plans, tmp_path / "adv", format="huggingface")
    sets = datasets.load_dataset(str(tmp_path / "adv"), cache_dir=str(tmp_path / "cache"))
    assert sorted(sets) == ["test", "train"]
    for split, data in sets.items():
        assert torch.equal(data.with_format("torch")[:]["x"], load_data(tmp_path / "adv", split=split).x)


def test_a_split_that_is_not_there(tmp_path):
    generate_splits({"train": images("train")}, tmp_path / "adv")
    fix = f"Ask for it, or name {tmp_path}/adv/train."
    message = f"split of data set '{tmp_path / 'adv'}': expected train, got 'test'. {fix}"
    refused(DataError, message, lambda: load_data(tmp_path / "adv", split="test"))
    message = "expected a split test, got samples of the split 'all'. Leave out --split, or give it once."
    refused(DataError, message, lambda: generate_splits({"test": images("all")}, tmp_path / "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/mine.txt").write_text("mine")
    for options in ({}, {"resume": True}, {"force": True}):
        refused(RunError, "Choose another", lambda o=options: generate_splits({"test": images()}, tmp_path / "c", **o))
    assert not (tmp_path / "b").exists()


def test_stored_points_of_splits_are_those_of_the_run(tmp_path):
    model, data = affine()
    generate_splits({split: images(split) for split in ("train", "test")}, tmp_path / "adv")
    plan = plan_of(model, data, also=[str(tmp_path / "adv")], budgets={"l2": [0.1]})
    assert plan.attacks.stored[0].data.split == "test"


def test_a_broken_shard_alone_is_made_again(plan, tmp_path):
    generate(plan, tmp_path / "adv", command="generate", format="parquet")
    whole = bytes_of(tmp_path / "adv")
    (tmp_path / "adv/data-00001.parquet").write_bytes(b"broken")
    message = "Or use the 18 samples of the other shards: robustode data repair"
    refused(DataError, message, lambda: load_data(tmp_path / "adv"))
    assert repair(tmp_path / "adv").lost == 12
    assert len(load_data(tmp_path / "adv")) == 18
    made = generate(plan, tmp_path / "adv", command="again", format="parquet", resume=True)
    assert sum(made.made.values()) == 12
    assert bytes_of(tmp_path / "adv") == whole


def test_memory_does_not_grow_with_the_samples(tmp_path):
    """What a shard allocated is gone when the next one begins: tensors and frames counted at equal moments."""
    model, data = affine()
    x, y = data.x.repeat(20, 1, 1, 1), data.y.repeat(20)
    plan = plan_of(model, as_data(x, y), attacks="fgm-l2", budgets={"l2": [0.2]}, shard=50)
    seen = []

    def look(done, total):
        gc.collect()
        kinds = (torch.Tensor, pd.DataFrame, pd.Series)
        seen.append(Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds)))

    generate(plan, tmp_path / "adv", format="parquet", listen=look)
    assert len(seen) == 12
    assert seen[2] == seen[-1]
