"""`robustode audit` and the audit of `eval`: findings, exit codes, a run that stays whole."""

import json
from functools import partial
from pathlib import Path

import pytest

from robustode.audit import gallery
from robustode.audit.check import Check, Found
from robustode.audit.checks import CHECKS
from robustode.audit.finding import Verdict
from robustode.evaluation.rundir import read_run
from tests.cli.command import refused, robustode, works

SICK = """
import torch
from torch import nn

class Hole(nn.Module):
    bounds, classes, input_shape = (0.0, 1.0), 10, (1, 8, 8)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        z = self.linear(x.flatten(1))
        return torch.where(x.flatten(1)[:, :1] > 0.5, torch.nan, z)

def factory():
    return Hole()

def other():
    model = Hole()
    model.bounds = (0.0, 2.0)
    return model
"""
EVAL = "eval --model s.safetensors --attacks one-step-margin-l2 --limit 30 --out r"


def findings(path):
    return json.loads((path / "audit.json").read_text())["findings"]


def test_an_evaluation_carries_the_cheap_checks(folder):
    done = works(EVAL)
    assert "Audit of s (cheap): no defect found" in done.out
    assert "adaptive attack: none supplied" in done.out
    assert [one["check"] for one in findings(Path("r"))] == [check.id for check in CHECKS if check.cheap]
    assert "<h3>Audit" in Path("r/report.html").read_text()


def test_a_finished_run_takes_all_checks_and_stays_whole(folder):
    works(EVAL)
    claimed = read_run(Path("r")).records
    document = works("audit r --json").json
    run = read_run(Path("r"))
    assert [one["check"] for one in document["audit"]["findings"]] == [check.id for check in CHECKS]
    assert document["audit"]["scope"] == "full"
    own = run.records[~run.records["attack"].str.startswith("audit-")].reset_index(drop=True)
    assert own.equals(claimed[~claimed["attack"].str.startswith("audit-")].reset_index(drop=True))


def test_strict_exits_with_3_at_a_defect(folder):
    Path("sick.py").write_text(SICK)
    command = "eval --model python:sick.py:factory --data digits --attacks none --limit 30 --allow-low-accuracy"
    done = robustode(f"{command} --out sick --strict")
    assert done.code == 3
    assert "finite: DEFECT FOUND" in done.out
    assert robustode(f"{command} --out again").code == 0
    assert robustode("audit sick --audit cheap --strict").code == 3


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("audit", ["expected a run directory", "got none", "--self-test"]),
        ("audit r --self-test", ["--self-test: expected no run, got r"]),
        ("audit missing", ["no run directory 'missing'"]),
        ("audit r --model l.safetensors", ["expected the weights that the run evaluated as 's'", "got hash"]),
        ("audit r --model s.safetensors --model l.safetensors", ["expected one for each of the run's (s)", "got 2"]),
        ("audit r --audit deep", ["audit: expected one of cheap, full, got 'deep'"]),
        ("audit r --transfer missing.safetensors", ["missing.safetensors"]),
        ("audit r --transfer python:sick.py:other", ["for transfer", "expected bounds"]),
    ],
)
def test_bad_input_leaves_the_run_as_it_was(folder, command, parts):
    Path("sick.py").write_text(SICK)
    works(EVAL)
    before = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    message = refused(command)
    for part in parts:
        assert part in message
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == before


def test_units_that_are_gone(folder):
    import shutil

    works(EVAL)
    shutil.rmtree("r/shards")
    assert "units of run 'r'" in refused("audit r")


@pytest.mark.parametrize("seen", [Verdict.FAIL, Verdict.PASS])
def test_the_self_test_says_what_got_away(monkeypatch, seen):
    """A gallery of one impostor, which the check that names it fails, or does not."""
    sick = next(one for one in gallery.IMPOSTORS if one.name == "a step of zero")
    monkeypatch.setattr(gallery, "EXHIBITS", (sick,))
    found = Found(status=seen, text="said")
    check = Check(id="one-step", title="t", cheap=True, source="s", advice="a", run=lambda case: found)
    monkeypatch.setattr(gallery, "self_test", partial(gallery.self_test, checks=[check]))
    done, wrong = robustode("audit --self-test"), seen is Verdict.PASS
    assert done.code == int(wrong)
    assert ("100.0% of 1" in done.out) != wrong
    assert ("'a step of zero' (PGD that stands still): expected a fail of one-step, got none" in done.out) == wrong
    document = robustode("audit --self-test --json").json
    assert document["passed"] is not wrong
    assert document["exhibits"][0]["name"] == "a step of zero"
