"""Verification believes the points that are stored, and nothing else of a run."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robustode.data import load_data
from robustode.errors import ModelError, RunError
from robustode.evaluation import records
from robustode.evaluation.rundir import hash_files, read_run
from robustode.evaluation.runner import execute
from robustode.evaluation.shards import save_tensors
from robustode.evaluation.verify import verify
from robustode.models import model_hash
from tests.evaluation.problem import Noisy, affine, plan_of, refused, save_npz

ATTACKS = {"attacks": "sensitivity", "norms": ["l2", "linf"], "also": ["fgm-l2"]}
BUDGETS = {"l2": [0.05, 0.1, 0.2], "linf": [0.02, 0.05]}


@pytest.fixture
def data(tmp_path):
    _, data = affine()
    return save_npz(tmp_path / "points.npz", data)


@pytest.fixture
def run(tmp_path, data):
    plan = plan_of(affine()[0], data, **ATTACKS, budgets=BUDGETS, shard=12, limit=24)
    return execute(plan, tmp_path / "run", command="test")


def check(run, model=None, **options):
    module = plan_of(model or affine()[0], affine()[1]).models[0].module
    return verify(run, module, model_hash(module), **options)


def rewrite(run, change, norm="l2"):
    """Change the stored points of a run, and its hashes with them."""
    path = run.path / "adversarials" / f"Affine-{norm}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_tensors(tensors, path, {"model": "Affine", "model_hash": run.meta["models"][0]["hash"], "norm": norm})
    meta = json.loads((run.path / "run.json").read_text())
    meta["files"] = hash_files(run.path)
    (run.path / "run.json").write_text(json.dumps(meta))
    return read_run(run.path)


def test_it_holds_on_the_same_model(run):
    found = check(run)
    assert (found.label, found.same_model) == ("Affine", True)
    assert found.points == found.held == 2 * 22
    assert found.worst == 0
    frame = found.frame
    assert frame["norm"].tolist() == ["l2"] * 4 + ["linf"] * 3 or frame["norm"].tolist() == ["linf"] * 3 + ["l2"] * 4
    assert (frame["claimed"] == frame["rescored"]).all()
    assert (frame["n"] == 24).all()
    l2 = frame[frame["norm"] == "l2"]
    assert l2["eps"].tolist() == [0.0, 0.05, 0.1, 0.2]
    assert l2["claimed"].iloc[0] == 22 / 24
    assert l2["claimed"].is_monotonic_decreasing
    assert l2["claimed"].iloc[-1] < l2["claimed"].iloc[0]


def test_another_model_is_a_transfer(run):
    other = affine()[0]
    other.bias.data[0] += 0.05
    refused(ModelError, "expected one of Affine (", lambda: check(run, other))
    found = check(run, other, label="Affine")
    assert not found.same_model
    assert found.points == 44
    assert 0 < found.held < 44  # some of the points are now on the near side of a boundary
    refused(ModelError, "got Afine", lambda: check(run, label="Afine"))


def test_points_that_were_replaced_are_found(run):
    data = affine()[1]
    place = {sample: row for row, sample in enumerate(data.index.tolist())}

    def clean(tensors):
        for row in range(5):
            tensors["x_adv"][row] = data.x[place[int(tensors["sample"][row])]]

    found = check(rewrite(run, clean))
    assert (found.points, found.held) == (44, 39)
    frame = found.frame[found.frame["norm"] == "l2"]
    assert (frame["rescored"] - frame["claimed"]).iloc[-1] == pytest.approx(5 / 24)


def test_points_that_were_moved_away_are_found(run):
    def further(tensors):
        rows = tensors["sample"].tolist()
        clean = dict(zip(affine()[1].index.tolist(), affine()[1].x, strict=True))
        origin = torch.stack([clean[sample] for sample in rows])
        tensors["x_adv"] = origin + 1.01 * (tensors["x_adv"] - origin)

    found = check(rewrite(run, further))
    assert found.held == 22  # those of the other norm
    assert found.worst == pytest.approx(0.01, rel=1e-3)


def test_points_that_were_left_out_are_found(run):
    def fewer(tensors):
        for name, value in tensors.items():
            tensors[name] = value[3:]

    found = check(rewrite(run, fewer))
    assert (found.points, found.held) == (44, 41)


def test_distances_in_the_records_that_were_shrunk_are_found(run):
    """The claim is that of the records: a smaller distance there has no point that bears it out."""
    frame = run.records.copy()
    rows = ((frame["norm"] == "linf") & (frame["status"] == "success")).to_numpy().nonzero()[0][:4]
    frame.loc[rows, "distance"] /= 2
    records.write(frame, run.path / "records.parquet")
    refused(RunError, "records.parquet has other bytes", lambda: read_run(run.path))
    found = check(rewrite(run, lambda tensors: None))
    assert (found.points, found.held) == (44, 40)
    assert found.worst == pytest.approx(1.0, abs=1e-3)  # and the push


def test_a_file_changed_by_hand_is_refused_on_reading(run):
    path = run.path / "adversarials" / "Affine-l2.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    refused(RunError, "adversarials/Affine-l2.safetensors has other bytes", lambda: read_run(run.path))


def test_points_of_samples_that_the_run_does_not_have(run):
    def strange(tensors):
        tensors["sample"] = tensors["sample"] + 1000

    refused(RunError, "expected samples of the run, got sample 1", lambda: check(rewrite(run, strange)))


def test_nothing_stored(tmp_path, data):
    values = {"attacks": "fgm-l2", "budgets": {"l2": [0.1]}, "outputs": ["report"]}
    bare = execute(plan_of(affine()[0], data, **values), tmp_path / "bare", command="test")
    message = "expected stored adversarials, got none. Evaluate it without --no-store, and with attacks."
    refused(RunError, message, lambda: check(bare))
    none = execute(plan_of(affine()[0], data), tmp_path / "none", command="test")
    refused(RunError, message, lambda: check(none))


def test_data_that_changed(run, data):
    with np.load(data) as archive:
        arrays = dict(archive)
    arrays["x"][3] += 1e-3
    np.savez(data, **arrays)
    refused(RunError, f"data '{data}': expected fingerprint {run.meta['data']['fingerprint'][:16]}", lambda: check(run))


def test_data_that_were_an_object(tmp_path):
    """Data without a name are given again; a subset that was drawn before the run is found by its indices."""
    model, data = affine()
    values = {**ATTACKS, "budgets": BUDGETS}
    unnamed = execute(plan_of(model, (data.x, data.y), **values), tmp_path / "a", command="test")
    assert check(unnamed, data=(data.x, data.y)).held == 56
    subset = load_data(save_npz(tmp_path / "all.npz", data), limit=10)
    drawn = execute(plan_of(model, subset, **values, allow_low_accuracy=True), tmp_path / "b", command="test")
    found = check(drawn)
    assert found.held == found.points > 10
    assert set(found.frame["n"]) == {10}


def test_several_models(tmp_path, data):
    other = affine()[0]
    other.bias.data[0] += 0.02
    plan = plan_of([affine()[0], other], data, attacks="sensitivity-l2", budgets={"l2": [0.1]})
    both = execute(plan, tmp_path / "both", command="test")
    assert check(both).label == "Affine"
    found = check(both, copy.deepcopy(other))
    assert (found.label, found.same_model) == ("Affine#2", True)
    assert found.held == found.points


def test_a_run_of_a_random_model_is_scored_by_the_mean_of_as_many_draws(tmp_path, data):
    noisy = Noisy(affine()[0], 1e-3)
    values = {"attacks": "fgm-l2", "budgets": {"l2": [0.2]}, "eot": 8, "allow_low_accuracy": True}
    made = execute(plan_of(noisy, data, **values), tmp_path / "noisy", command="test")
    module = plan_of(noisy, data).models[0].module
    calls = []
    noisy.register_forward_hook(lambda *a: calls.append(1))
    found = verify(made, module, model_hash(module))
    assert found.same_model
    assert found.held > 0.8 * found.points > 5
    assert len(calls) % 8 == 0
