"""Output directories: never overwritten without being told, and never anything but a run."""

from __future__ import annotations

import json

import pytest

from robustode.errors import RunError
from robustode.evaluation.rundir import read_run
from tests.evaluation.problem import affine, plan_of, refused
from tests.evaluation.runs import contents, run


def test_an_existing_directory_is_refused(plan, tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    message = (
        f"output directory '{out}': expected a directory that does not exist, got it exists. "
        "Choose another --out, continue it with --resume, or replace it with --force."
    )
    refused(RunError, message, lambda: run(plan, out))
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("how", [{"force": True}, {"resume": True}])
@pytest.mark.parametrize("foreign", ["notes.txt", "run.json"])
def test_a_directory_that_is_no_run_is_never_taken(plan, tmp_path, how, foreign):
    out = tmp_path / "a"
    (out / "tables").mkdir(parents=True)
    (out / "tables" / "mine.csv").write_text("1,2")
    (out / foreign).write_text('{"name": "somebody else\'s"}')
    refused(RunError, "expected an earlier run, got something else", lambda: run(plan, out, **how))
    assert sorted(file.name for file in out.rglob("*")) == sorted(["tables", "mine.csv", foreign])
    file = tmp_path / "file"
    file.write_text("x")
    refused((RunError), "output directory", lambda: run(plan, file, **how))
    assert file.read_text() == "x"


def test_force_replaces_the_runs_own_files_only(plan, suite, tmp_path):
    out = tmp_path / "a"
    old = run(plan, out)
    (out / "notes.txt").write_text("mine")
    (out / "plots").mkdir()
    (out / "plots" / "mine.svg").write_text("mine")
    model, data = affine()
    new = run(plan_of(model, data, attacks="fgm-l2", budgets={"l2": [0.1]}, outputs=[]), out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "plots" / "mine.svg").read_text() == "mine"
    assert set(new.records["attack"]) == {"fgm-l2"}
    assert not (out / "adversarials").exists()
    assert set(new.meta["files"]) == {"records.parquet", "timings.parquet"}  # a foreign file is nobody's to check
    assert new.meta["protocol_hash"] != old.meta["protocol_hash"]
    (out / "notes.txt").write_text("changed")
    read_run(out)
    refused(RunError, "resume and force: expected one of them", lambda: run(plan, out, force=True, resume=True))


def test_a_run_of_another_schema(plan, tmp_path):
    out = tmp_path / "a"
    run(plan, out)
    meta = json.loads((out / "run.json").read_text())
    for schema, fix in ((0, "Start anew with --force, or choose another --out."), (9, "Update robustode")):
        (out / "run.json").write_text(json.dumps({**meta, "schema": schema}))
        before = sorted(out.rglob("*"))
        refused(
            RunError, f"schema of run '{out}': expected 1, got {schema}. {fix}", lambda: run(plan, out, resume=True)
        )
        assert sorted(out.rglob("*")) == before
    assert run(plan, out, force=True).meta["schema"] == 1


def test_one_process_at_a_time(plan, tmp_path):
    """Whoever comes second is refused, whatever it wants, and the first ends as if alone."""
    out, said = tmp_path / "a", []

    def listen(event):
        if event.kind == "unit" and event.done == 2:
            for how in ({"resume": True}, {"force": True}):
                with pytest.raises(RunError) as caught:
                    run(plan, out, **how)
                said.append(str(caught.value))

    run(plan, out, listen=listen)
    expected = f"output directory '{out}': expected it to be free, got another process that is at work in it."
    assert said == [f"{expected} Wait until it has ended, or choose another --out."] * 2
    assert contents(out) == contents(run(plan, tmp_path / "b").path)
    run(plan, out, resume=True)


def test_a_directory_made_by_another_run_in_the_meantime(plan, tmp_path):
    out = tmp_path / "a"

    def listen(event):
        if event.kind == "clean" and not out.exists():
            run(plan, out)

    refused(RunError, "expected a directory that does not exist", lambda: run(plan, out, listen=listen))
    assert read_run(out).meta["status"] == "complete"


def test_force_on_an_empty_directory(plan, tmp_path):
    (tmp_path / "a").mkdir()
    assert run(plan, tmp_path / "a", force=True).meta["status"] == "complete"
