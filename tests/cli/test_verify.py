"""`robustode verify`: what it refuses, with which words, and that it writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from robustode.evaluation.outdir import own_files
from robustode.evaluation.shards import read_header, save_tensors
from tests.cli.command import refused, robustode, works

EVAL = "eval --model s.safetensors --attacks sensitivity-l2 --limit 20"
FILE = Path("r/adversarials/s-l2.safetensors")


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory) -> Path:
    """A run of the sensitivity attack, made once."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        shutil.copy(trained / "snode.safetensors", "s.safetensors")
        works(f"{EVAL} --out r")
    return place / "r"


@pytest.fixture
def run(folder, made) -> Path:
    """A copy of it in the current directory."""
    shutil.copytree(made, "r")
    return Path("r")


def edited(change) -> None:
    """Change run.json."""
    meta = json.loads(Path("r/run.json").read_text())
    change(meta)
    Path("r/run.json").write_text(json.dumps(meta))


def test_a_run_that_holds(run):
    done = works("verify r --model s.safetensors")
    assert "stored beyond ε" in done.out
    answer = works("verify r --model s.safetensors --json").json
    assert answer["held"] == answer["points"] >= answer["pushed"] > 10
    assert answer["thin"] == 0
    assert [row["beyond"] for row in answer["robust_accuracy"]] == [0, 0, 0, 0]
    assert f"{answer['held']} of {answer['points']} stored adversarials hold" in done.out
    assert f"{answer['pushed']} were stored a little further out than found" in done.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(schema=0), "schema of 'r/run.json': expected 1, got 0. Run the evaluation again"),
        (lambda meta: meta.pop("schema"), "expected 1, got none. Run the evaluation again with this version"),
        (lambda meta: meta.update(schema=9), "expected 1, got 9. Update robustode to read it"),
        (
            lambda meta: meta.update(status="running"),
            "run 'r' is not finished: expected status complete or partial, got 'running'. "
            "Finish it with the same command and --resume",
        ),
    ],
)
def test_a_run_of_another_schema_or_not_finished(run, change, message):
    edited(change)
    assert message in refused("verify r --model s.safetensors")


def test_records_edited_by_hand(run):
    frame = pd.read_parquet("r/records.parquet")
    frame["distance"] = frame["distance"] * 2
    frame.to_parquet("r/records.parquet")
    message = refused("verify r --model s.safetensors")
    assert "run 'r' has other fingerprints than its run.json, it was changed by hand: " in message
    assert message.endswith("records.parquet has other bytes. Run the evaluation again, or restore the files")


def test_points_of_an_older_version(run):
    tensors = {name: value for name, value in load_file(FILE).items() if name != "required"}
    save_tensors(tensors, FILE, read_header(FILE))
    edited(lambda meta: meta.update(files=own_files(Path("r"))))
    message = refused("verify r --model s.safetensors")
    assert "file 'r/adversarials/s-l2.safetensors': expected tensors sample, label, x, " in message
    assert "got no required. It was written by an older version: evaluate again with this one" in message


def test_nothing_stored(folder):
    works(f"{EVAL} --no-store --out bare")
    expected = "run 'bare': expected stored adversarials, got none. Evaluate it without --no-store, and with attacks"
    assert expected in refused("verify bare --model s.safetensors")


def test_a_model_that_can_no_longer_be_loaded(run):
    assert "no such file" in refused("verify r --model gone.safetensors")
    Path("s.safetensors").write_bytes(b"not a checkpoint")
    assert "s.safetensors" in refused("verify r --model s.safetensors")
    assert "no luck" in refused("verify r --model python:code_of_user.py:broken")


def test_another_model_than_the_run_s(run):
    assert "expected one of s (" in refused("verify r --model l.safetensors")


def test_no_sample_was_broken(folder):
    works("eval --model s.safetensors --attacks fgm-l2 --eps 1e-6 --limit 20 --out r")
    answer = works("verify r --model s.safetensors --json").json
    assert (answer["points"], answer["held"], answer["pushed"], answer["largest_relative_change"]) == (0, 0, 0, 0)
    assert all(row["claimed"] == row["rescored"] for row in answer["robust_accuracy"])
    assert "0 of 0 stored adversarials hold" in works("verify r --model s.safetensors").out


def test_points_that_crossed_an_eps_when_they_were_stored_are_counted(folder):
    """With ε just above the distance at which a sample was broken, its stored point lies beyond ε, and that is said."""
    works(f"{EVAL} --out a")
    stored = load_file("a/adversarials/s-l2.safetensors")
    row = int((stored["distance"] - stored["found"]).argmax())
    eps = float(stored["found"][row] + stored["distance"][row]) / 2
    works(f"{EVAL} --eps {eps!r} --out r")
    answer = works("verify r --model s.safetensors --json").json
    clean, at = answer["robust_accuracy"]
    assert answer["held"] == answer["points"]
    assert (clean["beyond"], at["beyond"]) == (0, 1)
    assert at["rescored"] - at["claimed"] == pytest.approx(1 / 20)
    assert robustode("verify r --model s.safetensors").code == 0
