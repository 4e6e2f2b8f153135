"""Interrupted and resumed runs end with the same bytes, and only the same run is resumed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from robustode.errors import RunError
from robustode.evaluation import engine
from robustode.evaluation.engines import bench
from robustode.evaluation.rundir import read_run
from robustode.evaluation.runner import execute
from robustode.versions import versions
from tests.evaluation.problem import affine, as_data, plan_of, refused
from tests.evaluation.runs import BUDGETS, Stop, contents, run, units


@pytest.mark.parametrize("after", [1, 7, 12])
def test_interrupted_and_resumed_is_as_if_undisturbed(plan, tmp_path, after, monkeypatch):
    run(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(after))
    unfinished = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert unfinished["status"] == "running"
    refused(RunError, "is not finished", lambda: read_run(tmp_path / "cut"))
    made, computed = [], []
    monkeypatch.setattr(bench, "run_unit", lambda *a, **k: computed.append(1) or engine.run_unit(*a, **k))
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

    monkeypatch.setattr(bench, "run_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut")
    monkeypatch.undo()
    assert len(list((tmp_path / "cut" / "shards").rglob("*[0-9].parquet"))) == 4
    run(plan, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_half_written_files_go(plan, tmp_path):
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
    run(plan, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


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
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"shard": 13}, "shard: 16 then, 13 now"),
        (
            {"budgets": {"l2": [0.1], "linf": [0.05, 0.1]}, "seed": 4},
            "seed: 0 then, 4 now; budgets.l2: [0.1, 0.2] then, [0.1] now",
        ),
        ({"also": ["fgm-l2"]}, 'attacks: ["noise", "within", "push"'),
        ({"eot": 2}, "eot: nothing then, 2 now"),
        (
            {"outputs": ["report"]},
            'outputs: ["tables", "figures", "report", "adversarials"] then, ["report"] now',
        ),
    ],
)
def test_resume_refuses_another_run(plan, suite, tmp_path, change, named):
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(2))
    before = contents(tmp_path / "cut", without=("run.json",))
    model, data = affine()
    other = plan_of(model, data, **{"attacks": suite, "budgets": BUDGETS, "shard": 16, **change})
    with pytest.raises(RunError) as caught:
        run(other, tmp_path / "cut", resume=True)
    message = f"cannot resume '{tmp_path / 'cut'}': expected the run that was interrupted, got {named}"
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Give the same command as before, or start anew with --force.")
    assert contents(tmp_path / "cut", without=("run.json",)) == before


def test_resume_refuses_another_model_other_data_or_other_versions(plan, suite, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", listen=Stop(2))
    values = {"attacks": suite, "budgets": BUDGETS, "shard": 16}
    model, data = affine()
    model.bias.data += 1e-3
    other = plan_of(model, data, **values)
    refused(
        RunError,
        f"got model 'Affine' (Affine): weights of hash {plan.models[0].hash} then, {other.models[0].hash} now.",
        lambda: run(other, tmp_path / "cut", resume=True),
    )
    model, data = affine()
    fewer = as_data(data.x[:-1], data.y[:-1], index=data.index[:-1])
    other = plan_of(model, fewer, **values)
    refused(RunError, "got data: 30 samples then, 29 now.", lambda: run(other, tmp_path / "cut", resume=True))
    moved = plan_of(model, as_data(data.x.flip(0), data.y.flip(0), index=data.index), **values)
    message = f"got data: fingerprint {data.fingerprint[:16]} then, {moved.data.fingerprint[:16]} now."
    refused(RunError, message, lambda: run(moved, tmp_path / "cut", resume=True))
    two = plan_of([model, model], data, **values)
    refused(RunError, "got models: Affine then, Affine, Affine#2 now.", lambda: run(two, tmp_path / "cut", resume=True))
    real = versions()
    monkeypatch.setattr("robustode.evaluation.manifest.versions", lambda: {**real, "torch": "9"})
    message = f'got version of torch: "{real["torch"]}" then, "9" now.'
    refused(RunError, message, lambda: run(plan, tmp_path / "cut", resume=True))


def test_resume_names_the_parameter_of_a_card_that_changed(tmp_path):
    model, data = affine()
    card = tmp_path / "mine.toml"
    text = "title = 't'\nimplementation = 'foolbox:L2PGD'\nnorm = 'l2'\nkind = 'budget'\n[params]\nsteps = {steps}\n"
    values = {"attacks": str(card), "also": ["fgm-l2"], "budgets": {"l2": [0.1]}, "shard": 16}
    card.write_text(text.format(steps=3))
    with pytest.raises(KeyboardInterrupt):
        run(plan_of(model, data, **values), tmp_path / "cut", listen=Stop(2))
    card.write_text(text.format(steps=4).replace("'t'", "'another title'"))
    message = "got attacks.mine.params.steps: 3 then, 4 now."
    refused(RunError, message, lambda: run(plan_of(model, data, **values), tmp_path / "cut", resume=True))


def test_a_run_that_goes_on_keeps_its_beginning(plan, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        execute(plan, tmp_path / "cut", command="first", listen=Stop(2))
    began = json.loads((tmp_path / "cut" / "run.json").read_text())
    monkeypatch.setattr("robustode.evaluation.manifest.datetime", Later)
    meta = execute(plan, tmp_path / "cut", command="second --resume", resume=True).meta
    assert (meta["created"], meta["command"]) == (began["created"], "first")


class Later(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(days=1)


@pytest.mark.parametrize("left", [".run.json.77.tmp", "shards/Affine/.push-00000.parquet.77.tmp"])
def test_killed_before_run_json_was_there(plan, tmp_path, left):
    """What a killed process left half written is no reason to refuse the directory, and goes."""
    file = tmp_path / "a" / left
    file.parent.mkdir(parents=True)
    file.write_text("{")
    if "shards" in left:
        refused(RunError, "expected an earlier run", lambda: run(plan, tmp_path / "a", resume=True))
        return
    run(plan, tmp_path / "a", resume=True)
    assert not file.exists()
    assert contents(tmp_path / "a") == contents(run(plan, tmp_path / "b").path)
