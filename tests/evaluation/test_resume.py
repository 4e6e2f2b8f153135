"""Interrupted and resumed runs end with the same bytes, and only the same run is resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustode.errors import RunError
from robustode.evaluation import engine, runner
from robustode.evaluation.rundir import read_run
from tests.evaluation.problem import affine, as_data, plan_of, refused
from tests.evaluation.runs import BUDGETS, Stop, contents, run, units

PROTOCOL = "the protocol (attacks, budgets, data, seed or shard size)"


@pytest.mark.parametrize("after", [1, 7, 12])
def test_interrupted_and_resumed_is_as_if_undisturbed(plan, tmp_path, after, monkeypatch):
    run(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(after))
    unfinished = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert unfinished["status"] == "running"
    refused(RunError, "is not finished", lambda: read_run(tmp_path / "cut"))
    made, computed = [], []
    monkeypatch.setattr(runner, "run_unit", lambda *a, **k: computed.append(1) or engine.run_unit(*a, **k))
    run(plan, tmp_path / "cut", listen=made.append, resume=True)
    assert units(made) == [("resumed" if k <= after else "unit", k) for k in range(1, 13)]
    assert len(computed) == 12 - after
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_interrupted_within_an_attack(plan, tmp_path, monkeypatch):
    run(plan, tmp_path / "whole")
    real, calls = engine.run_unit, []

    def interrupted(subject, attack, shard, **options):
        calls.append(attack.name)
        if len(calls) == 5:
            monkeypatch.setattr(type(attack), "build", lambda self, eps: (_ for _ in ()).throw(KeyboardInterrupt))
        return real(subject, attack, shard, **options)

    monkeypatch.setattr(runner, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut")
    monkeypatch.undo()
    assert len(list((tmp_path / "cut" / "shards").rglob("*[0-9].parquet"))) == 4
    run(plan, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_half_written_files_are_ignored(plan, tmp_path):
    run(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(3))
    folder = tmp_path / "cut" / "shards" / "Affine"
    half = {
        folder / ".within-00000.parquet.123.tmp": b"half",
        folder / "within-00001.safetensors": b"points of a unit that was not finished",
        tmp_path / "cut" / ".records.parquet.123.tmp": b"half",
        tmp_path / "cut" / "adversarials" / ".Affine-l2.safetensors.1.tmp": b"half",
    }
    for file, content in half.items():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    made = run(plan, tmp_path / "cut", resume=True)
    assert made.meta["files"].keys() == read_run(tmp_path / "whole").meta["files"].keys()
    left = {name: data for name, data in contents(tmp_path / "cut").items() if not Path(name).name.startswith(".")}
    assert left == contents(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(plan, tmp_path):
    run(plan, tmp_path / "a")
    before, events = contents(tmp_path / "a"), []
    run(plan, tmp_path / "a", resume=True, listen=events.append)
    assert contents(tmp_path / "a") == before
    assert {kind for kind, _ in units(events)} == {"resumed"}


def test_resuming_where_nothing_is_begins(plan, tmp_path):
    assert run(plan, tmp_path / "new", resume=True).meta["status"] == "complete"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, PROTOCOL),
        ({"shard": 13}, PROTOCOL),
        ({"budgets": {"l2": [0.1], "linf": [0.1]}}, PROTOCOL),
        (
            {"attacks": "fgm-l2", "budgets": {"l2": [0.1, 0.2]}},
            PROTOCOL,
        ),
        ({"store": False}, "whether adversarials are kept"),
    ],
)
def test_resume_refuses_another_run(plan, suite, tmp_path, change, named):
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(2))
    before = contents(tmp_path / "cut", without=("run.json",))
    model, data = affine()
    other = plan_of(model, data, **{"attacks": suite, "budgets": BUDGETS, "shard": 16, **change})
    message = (
        f"cannot resume '{tmp_path / 'cut'}': expected the run that was interrupted, got changes in {named}. "
        "Give the same command as before, or start anew with --force."
    )
    refused(RunError, message, lambda: run(other, tmp_path / "cut", resume=True))
    assert contents(tmp_path / "cut", without=("run.json",)) == before


def test_resume_refuses_another_model_other_data_or_other_versions(plan, suite, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(2))
    values = {"attacks": suite, "budgets": BUDGETS, "shard": 16}
    model, data = affine()
    model.bias.data += 1e-3
    other = plan_of(model, data, **values)
    refused(RunError, "got changes in the models.", lambda: run(other, tmp_path / "cut", resume=True))
    model, data = affine()
    fewer = as_data(data.x[:-1], data.y[:-1], index=data.index[:-1])
    other = plan_of(model, fewer, **values)
    refused(RunError, "shard size), the data.", lambda: run(other, tmp_path / "cut", resume=True))
    monkeypatch.setattr("robustode.evaluation.manifest.versions", lambda: {"torch": "9"})
    refused(RunError, "got changes in the versions of libraries.", lambda: run(plan, tmp_path / "cut", resume=True))
