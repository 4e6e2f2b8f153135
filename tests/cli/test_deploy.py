"""`robustode deploy`: what it writes, what it measures, what it refuses."""

import json

import pandas as pd
import pytest

from robustode.models import load_model, model_hash, peek
from tests.cli.command import refused, works


def test_adaptive(folder):
    done = works("deploy s.safetensors --method dopri5 --rtol 1e-4 --atol 1e-8 --out d.safetensors")
    assert done.out.startswith("s under dopri5 (torchode), rtol 0.0001, atol 1e-08\naccuracy ")
    assert "same label on " in done.out
    assert done.out.endswith("wrote d.safetensors\nNext: robustode eval --model d.safetensors\n")
    before, after = peek("s.safetensors")["header"], peek("d.safetensors")["header"]
    assert (after.config["rtol"], after.config["atol"], after.config["backend"]) == (1e-4, 1e-8, "torchode")
    assert after.data == "digits"
    facts = after.provenance["deployed"]
    assert facts["from"] == "s.safetensors"
    assert facts["model_hash"] == model_hash(load_model("s.safetensors"))
    assert (facts["method"], facts["rtol"]) == ("dopri5", 1e-4)
    assert "steps" not in facts
    assert facts["agreement"] > 0.9
    assert facts["versions"]["torchode"][0].isdigit()
    kept = {key: value for key, value in before.provenance.items() if key != "accuracy"}
    assert {key: after.provenance[key] for key in kept} == kept
    assert after.accuracy == pytest.approx(before.accuracy, abs=0.1)
    records = works("eval --model d.safetensors --attacks fgsm-linf --limit 20 --eps 0.1 --out run --json")
    assert json.loads(records.out)["status"] == "complete"
    rows = pd.read_parquet("run/records.parquet")
    tried = rows[rows["status"] != "misclassified"]
    assert (tried["nfe"] >= 6).all()
    assert (tried["nfe"] == tried["nfe"].round()).all()
    assert tried["nfe"].nunique() > 1  # each sample's own


def test_another_grid_without_data(folder):
    document = works("deploy s.safetensors --steps 5 --data none --out d.safetensors --json").json
    assert (document["measured"], document["config"]["steps"]) == (None, 5)
    header = peek("d.safetensors")["header"]
    assert header.accuracy is None
    assert header.provenance["deployed"]["steps"] == 5
    works("deploy d.safetensors --backend torchdiffeq --data none --out e.safetensors")
    assert peek("e.safetensors")["header"].provenance["deployed"]["earlier"] == header.provenance["deployed"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("l.safetensors --out d.safetensors", "a layered model cannot be re-discretised"),
        ("zoo:resnet-digits --out d.safetensors", "expected a checkpoint of an sNODE, got a resnet"),
        ("python:code_of_user.py:make --out d.safetensors", "expected a checkpoint of an sNODE"),
        ("nowhere.safetensors --out d.safetensors", "no such file"),
        ("s.safetensors --out d.pt", "a name that ends in .safetensors"),
        ("s.safetensors --out s.safetensors", "expected a new file"),
        ("s.safetensors --method dopri6 --out d.safetensors", "unknown solver"),
        ("s.safetensors --method euler --rtol 1e-3 --out d.safetensors", "rtol of the fixed-step method 'euler'"),
        ("s.safetensors --method dopri5 --steps 3 --out d.safetensors", "steps of the adaptive method 'dopri5'"),
        ("s.safetensors --rtol 0 --out d.safetensors", "rtol: expected a finite number > 0"),
        ("s.safetensors --method bosh3 --out d.safetensors", "expected one of dopri5, tsit5, heun"),
        ("s.safetensors --steps 0 --out d.safetensors", "--steps: expected a whole number ≥ 1"),
        ("s.safetensors --data nodata --out d.safetensors", "nodata"),
        ("s.safetensors --data moons --out d.safetensors", "moons"),
    ],
)
def test_bad_input(folder, line, message):
    assert message in refused(f"deploy {line}")
