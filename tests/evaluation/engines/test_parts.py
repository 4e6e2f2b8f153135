"""Parts of a run, as a job array computes them, become the run that one process would have made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from robustode import api
from robustode.errors import RunError
from robustode.evaluation.hold import hold
from robustode.evaluation.part import execute_part, is_unfinished
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.rundir import read_run
from tests.evaluation.problem import affine, plan_of, refused
from tests.evaluation.runs import BUDGETS, contents, run


def part(plan, out, i, n, **options):
    return execute_part(plan, out, (i, n), command="test", **options)


def test_parts_in_one_directory_and_the_whole_command_at_the_end(plan, tmp_path):
    run(plan, tmp_path / "whole")
    events = []
    done = part(plan, tmp_path / "a", 2, 3, listen=events.append)
    assert (done.units, done.total, len(done.missing)) == (4, 12, 8)
    assert done.missing[0] == "Affine · noise · shard 0"
    assert [event.done for event in events if event.kind == "unit"] == [1, 2, 3, 4]
    assert {event.total for event in events if event.kind == "unit"} == {4}
    assert is_unfinished(tmp_path / "a")
    refused(RunError, "is not finished", lambda: read_run(tmp_path / "a"))
    part(plan, tmp_path / "a", 0, 3)
    events.clear()
    run(plan, tmp_path / "a", resume=True, listen=events.append)  # computes the part that is missing
    kinds = [event.kind for event in events if event.kind in ("unit", "resumed")]
    assert kinds == ["resumed"] * 8 + ["unit"] * 4
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")
    assert part(plan, tmp_path / "a", 1, 3).missing == ()  # nothing is left to do, and nothing is changed
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_a_part_goes_on_with_itself_and_not_with_another_run(plan, suite, tmp_path):
    part(plan, tmp_path / "a", 0, 2)
    events = []
    part(plan, tmp_path / "a", 0, 2, listen=events.append)
    assert {event.kind for event in events} == {"clean", "resumed"}
    model, data = affine()
    other = plan_of(model, data, attacks=suite, budgets=BUDGETS, shard=16, seed=1)
    refused(RunError, "got seed: 0 then, 1 now", lambda: part(other, tmp_path / "a", 1, 2))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("1")
    refused(RunError, "expected an earlier run, got something else", lambda: part(plan, tmp_path / "b", 0, 2))


def test_parts_share_a_directory_and_nobody_else_does(plan, tmp_path):
    part(plan, tmp_path / "a", 0, 2)
    with hold(tmp_path / "a", shared=True):
        part(plan, tmp_path / "a", 1, 2)
        refused(RunError, "another process that is at work in it", lambda: run(plan, tmp_path / "a", resume=True))
    with hold(tmp_path / "a"):
        refused(RunError, "another process that is at work in it", lambda: part(plan, tmp_path / "a", 1, 2))


@pytest.fixture
def protocol(tmp_path):
    """Two bundled models on a few digits, in three shards, with an audit and certificates."""
    values = {"models": ["zoo:snode-digits", "zoo:layered-digits"], "data": "digits", "limit": 24, "shard": 10}
    values |= {"attacks": "fgm-l2", "budgets": {"l2": [0.3]}, "outputs": ["adversarials"], "allow_low_accuracy": True}
    return build_protocol({**values, "certificates": {"norms": ["l2"], "methods": "lipschitz"}})


def test_parts_in_directories_of_their_own_are_put_together(protocol, tmp_path):
    whole = api.run_protocol(protocol, tmp_path / "whole", command="test")
    folders = [tmp_path / str(i) for i in range(2)]
    for i, folder in enumerate(folders):
        api.run_part(protocol, folder, (i, 2), command="test")
    before = [contents(folder, without=("run.json",)) for folder in folders]
    made = api.merge_parts(folders, tmp_path / "a")
    assert made.records.equals(whole.records)
    assert made.certificates is not None
    assert made.certificates.equals(whole.certificates)
    files, others = (
        {name: content for name, content in contents(one.path).items() if "audit-" not in name} for one in (made, whole)
    )
    assert files == others
    assert [contents(folder, without=("run.json",)) for folder in folders] == before
    again = api.merge_parts([folders[0], made.path], tmp_path / "b")  # where a part was merged already
    assert again.records.equals(whole.records)


def test_missing_parts_are_named_and_nothing_is_written(protocol, tmp_path):
    for i in range(2):
        api.run_part(protocol, tmp_path / str(i), (i, 3))
    refused(
        RunError,
        "expected all 6 units, got 4; missing are snode-digits · fgm-l2 · shard 2, layered-digits · fgm-l2 · shard 2. "
        "Run the parts that are missing, or the same command without --shard and with --resume.",
        lambda: api.merge_parts([tmp_path / "0", tmp_path / "1"], tmp_path / "a"),
    )
    assert not (tmp_path / "a").exists()
    api.run_part(protocol.changed("other", seed=1), tmp_path / "2", (2, 3))
    refused(
        RunError, "expected parts of one run, got seed", lambda: api.merge_parts([tmp_path / "0", tmp_path / "2"], "a")
    )
    shutil.rmtree(tmp_path / "2")
    refused(RunError, "not a run directory", lambda: api.merge_parts([tmp_path / "0", tmp_path / "2"], tmp_path / "a"))


@pytest.mark.slow
def test_a_job_array_in_one_directory(tmp_path):
    """Three processes at the same time, then `report`."""
    line = "eval --model zoo:snode-digits --limit 30 --shard {} --attacks fgm-l2 --also sensitivity-l2 --audit none"
    words = [sys.executable, "-m", "robustode", *line.split(), "--out", str(tmp_path / "a")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = [
        subprocess.Popen([word.format(f"{i}/3") for word in words], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    said = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0]
    assert all(f"Part {i}/3: its " in said[i] for i in range(3))
    done = subprocess.run(
        [sys.executable, "-m", "robustode", "report", str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert f"Files in {tmp_path / 'a'}: report.html, tables/" in done.stdout
    assert read_run(tmp_path / "a").meta["status"] == "complete"
