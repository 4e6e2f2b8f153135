"""`robustode.evaluate` takes what its documentation says, and gives the same as a run on disk."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

import robustode as ro
from robustode.errors import DataError, ModelError, OptionError, ProtocolError
from robustode.evaluation.rundir import read_run
from robustode.models import save_checkpoint, wrap
from tests.evaluation.problem import affine, refused, save_npz
from tests.problems import random_snode

OPTIONS = {"attacks": "fgm-l2", "eps": {"l2": [0.1, 0.2]}}


@pytest.fixture
def reference():
    model, data = affine()
    return ro.evaluate(model, data, **OPTIONS)


def same(run, reference, *, without=("data", "sample", "protocol")):
    drop = list(without)
    pd.testing.assert_frame_equal(run.records.drop(columns=drop), reference.records.drop(columns=drop))


def test_a_module_object_and_nothing_on_disk(reference):
    assert not reference.path.exists()
    assert len(reference.records) == 60
    assert (reference.records["status"] == "success").sum() > 20
    assert set(reference.records["model"]) == {"Affine"}
    assert reference.meta["status"] == "complete"
    assert reference.meta["command"] == "robustode.evaluate(...)"


@pytest.mark.parametrize("kind", ["tensors", "arrays", "npz", "path"])
def test_data_in_every_form(reference, tmp_path, kind):
    model, data = affine()
    path = tmp_path / "points.npz"
    save_npz(path, data)
    given = {
        "tensors": (data.x, data.y),
        "arrays": (data.x.numpy(), data.y.numpy()),
        "npz": str(path),
        "path": path,
    }[kind]
    same(ro.evaluate(model, given, **OPTIONS), reference)


def test_a_module_that_knows_nothing_is_wrapped(reference):
    model, data = affine()
    bare = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    bare[1].weight, bare[1].bias = model.weight, model.bias
    run = ro.evaluate(wrap(bare, bounds=(0, 1), classes=3, input_shape=(1, 3, 4)), data, **OPTIONS)
    same(run, reference, without=("model", "model_hash", "clean_margin", "adv_margin", "distance"))
    assert run.meta["models"][0]["label"] == "Sequential"


def test_checkpoints_by_name_and_objects_together(tmp_path):
    model = random_snode(scale=2.0, input_shape=(1, 8, 8), classes=10, dtype=torch.float32)
    path = save_checkpoint(model, tmp_path / "small.safetensors", data="digits", provenance={})
    run = ro.evaluate([path, model], limit=12, allow_low_accuracy=True, attacks="none", data="digits")
    assert [entry["label"] for entry in run.meta["models"]] == ["small", "SNODE"]
    assert run.meta["models"][0]["hash"] == run.meta["models"][1]["hash"]
    alone = ro.evaluate(str(path), limit=12, allow_low_accuracy=True, attacks="one-step-margin-linf")
    assert (alone.meta["data"]["name"], alone.meta["data"]["n"]) == ("digits", 12)
    assert alone.meta["protocol"]["budgets"] == {"linf": [0.05, 0.1, 0.2]}


def test_on_disk_with_tables_figures_and_report(reference, tmp_path):
    model, data = affine()
    run = ro.evaluate(model, data, **OPTIONS, out=tmp_path / "run")
    same(run, reference, without=())
    written = set(read_run(tmp_path / "run").meta["files"])
    assert {"report.html", "records.parquet", "timings.parquet"} <= written
    for folder in ("tables", "figures", "adversarials"):
        assert any(name.startswith(f"{folder}/") for name in written)
    again = ro.evaluate(model, data, **OPTIONS, out=tmp_path / "run", resume=True)
    same(again, reference, without=())


def test_attacks_none_is_published_too(tmp_path):
    model, data = affine()
    run = ro.evaluate(model, data, attacks="none", out=tmp_path / "run")
    assert len(run.records) == 0
    assert (run.path / "report.html").is_file()
    assert "93.3" in (run.path / "report.html").read_text()


def test_events_are_told():
    model, data = affine()
    kinds = []
    ro.evaluate(model, data, **OPTIONS, shard=10, listen=lambda event: kinds.append(event.kind))
    assert [kind for kind in kinds if kind != "check"] == ["clean", "unit", "unit", "unit"]
    assert kinds[-1] == "check"


def test_mistakes(tmp_path):
    model, data = affine()
    out = tmp_path / "run"
    refused(OptionError, "model: expected at least one model, got none", lambda: ro.evaluate([], data))
    refused(ProtocolError, "Did you mean 'limit'?", lambda: ro.evaluate(model, data, limt=3, out=out))
    refused(DataError, "no data given", lambda: ro.evaluate(model, out=out))
    refused(ModelError, "no such file", lambda: ro.evaluate("none.safetensors", data, out=out))
    assert not out.exists()


def test_the_module_is_left_as_it_was():
    model, data = affine()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ro.evaluate(model, data, attacks="standard-l2", eps={"l2": [0.1]})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())
