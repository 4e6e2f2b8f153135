"""Engines, parts and memory on the command line: what works, and what is refused with which words."""

from __future__ import annotations

import importlib.util
import json
import math
import socket
from pathlib import Path

import pytest

from robustode.cli.plan import _scale, duration
from robustode.evaluation.rundir import read_run
from tests.cli.command import refused, robustode, works

EVAL = "eval --model s.safetensors --attacks fgm-l2 --limit 20 --audit none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--engine proceses", "unknown engine: expected one of local, processes, ray, got 'proceses'. Did you mean"),
        ("--engine processes --workers 0", "--workers: expected a whole number ≥ 1, got 0"),
        ("--workers 2", "workers: expected an engine with workers, got engine 'local'. Add --engine processes"),
        ("--address a:1", "address: expected engine 'ray', got engine 'local'. Add --engine ray."),
        ("--memory much", "--memory: expected a size such as 2GB, 512MB or 1.5GiB, got 'much'"),
        ("--shard 3/3", "--shard: expected i/N with 0 ≤ i < N, such as 0/2, got '3/3'"),
        ("--shard 0", "--shard: expected a whole number ≥ 1 of samples in a unit, or i/N with 0 ≤ i < N"),
        ("--plan --memory 100MB", "memory: expected at least 741 MB, for one sample of fgm-l2 on s, got 100 MB."),
        ("--plan --engine proceses", "unknown engine: expected one of local, processes, ray, got 'proceses'."),
        ("--plan --device gpu", "unknown device"),
        ("--shard 0/2 --force", "--force: expected none with --shard i/N, got --force. Delete the directory"),
    ],
)
def test_refused(folder, options, message):
    assert refused(f"{EVAL} {options}").startswith(message)


def test_ray_that_is_not_installed(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "robustode.evaluation.engines.options.find_spec", lambda name: None if name == "ray" else find(name)
    )
    message = refused(f"{EVAL} --engine ray")
    assert message == 'ray is not installed. Install it with: pip install "robustode[ray]"'


def test_a_cluster_that_does_not_answer(folder):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = robustode(f"{EVAL} --engine ray --address 127.0.0.1:{port}")
    assert done.code == 2
    assert f"Ray cluster '127.0.0.1:{port}': expected an answer within 5 seconds, got Connection refused" in done.err


def test_a_budget_of_memory(folder):
    done = robustode(f"{EVAL} --memory 100MB --out r")
    assert done.code == 2
    assert "memory: expected at least 741 MB, for one sample of fgm-l2 on s, got 100 MB. Give at least" in done.err
    works(f"{EVAL} --memory 2GB --out r --resume")
    assert read_run("r").meta["engine"]["memory"] == 2 * 10**9


def test_parts_and_report(folder):
    works(f"{EVAL} --out whole")
    said = works(f"{EVAL} --shard 1/2 --out a").out
    assert "Part 1/2: its 0 units are in a" in said  # one shard, one attack: one unit, which is the first part's
    assert "1 of 1 units are not there yet, the first: s · fgm-l2 · shard 0" in said
    assert "robustode report a, or the same command without --shard and with --resume" in said
    assert "expected all 1 units, got 0; missing are s · fgm-l2 · shard 0" in robustode("report a").err
    document = works(f"{EVAL} --shard 0/2 --out b --json").json
    assert (document["part"], document["units"], document["of"], document["missing"]) == ([0, 2], 1, 1, [])
    assert "--out: expected a directory for the parts together, got none" in robustode("report a b").err
    assert "expected unfinished parts of one run, or finished runs, got both" in robustode("report b whole --out c").err
    assert "Files in c: report.html" in works("report a b --out c").out
    assert read_run("c").records.equals(read_run("whole").records)
    assert "Files in b: report.html" in works("report b").out
    assert json.loads(Path("b/run.json").read_text())["status"] == "complete"


def test_a_plan_is_a_prediction_and_leaves_nothing(folder):
    before = sorted(Path().rglob("*"))
    said = works(f"{EVAL} --out r --plan --engine ray --workers 3 --audit cheap").out  # ray need not be there
    assert "Prediction for 20 samples in 1 unit, from 20 of them" in said
    assert "With 3 workers like this process" in said
    assert "Not in it: the audit (cheap), tables, figures and report. Nothing was written." in said
    assert sorted(Path().rglob("*")) == before
    document = works(f"{EVAL} --plan --shard 1/4 --json").json
    assert (document["workers"], document["samples"], document["units"], document["measured"]) == (4, 20, 1, 20)
    (cost,) = document["costs"]
    works(f"{EVAL} --out r")
    records = read_run("r").records
    assert cost["forwards"]["value"] == document["forwards"] == records["forwards"].sum()
    assert cost["attacked"] == records[records["status"] != "misclassified"]["sample"].nunique()
    assert works("run quickstart --model s.safetensors --limit 12 --plan --json").json["samples"] == 12


def test_a_study_refuses_engines(folder):
    message = refused("run paper --plan")
    assert message.startswith("--plan: expected a protocol")
    message = refused("run paper --engine processes")
    assert message.startswith("--engine: expected a protocol")


def test_how_a_plan_writes_numbers():
    assert [_scale(value) for value in (0.0, 999.0, 1000.0, 1234567.0, 5.86e9, math.nan)] == [
        "0",
        "999",
        "1 k",
        "1.23 M",
        "5.86 G",
        "?",
    ]
    assert [duration(value) for value in (0.5, 119.0, 121.0, 7200.0, 3e5)] == [
        "0.5 s",
        "119 s",
        "2.02 min",
        "2 h",
        "3.47 days",
    ]
