"""Worker processes: the records of one process, whatever befalls them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from robustode.errors import RunError
from robustode.evaluation.engines import drive
from robustode.evaluation.engines.failed import UnitsFailed
from robustode.evaluation.engines.options import Engine
from tests.evaluation.engines.hazards import children
from tests.evaluation.problem import CLASSES, SHAPE, affine, plan_of
from tests.evaluation.runs import contents, run, units

pytestmark = pytest.mark.slow

TWO = Engine(name="processes", workers=2)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_records_are_those_of_one_process(hazards, whole, tmp_path, workers):
    events = []
    made = run(hazards[1], tmp_path / "a", engine=Engine(name="processes", workers=workers), listen=events.append)
    assert contents(tmp_path / "a") == whole
    engine = {key: value for key, value in made.meta["engine"].items() if key != "peak_bytes"}
    assert engine == {"name": "processes", "workers": workers, "threads": 1}
    assert units(events) == [("unit", k) for k in range(1, 15)]


def test_workers_killed_in_the_middle_of_units_are_replaced(danger, whole, tmp_path):
    folder, plan = danger
    for number in range(2):
        (folder / f"once-{number}").touch()
    made = run(plan, tmp_path / "a", engine=TWO)
    assert not list(folder.glob("once-*"))
    assert sum(made.meta["engine"]["retries"].values()) == 2
    assert contents(tmp_path / "a") == whole


def test_memory_that_runs_out_in_a_worker(danger, whole, tmp_path):
    folder, plan = danger
    (folder / "most").write_text("4")
    events = []
    made = run(plan, tmp_path / "a", engine=TWO, listen=events.append)
    assert contents(tmp_path / "a") == whole
    halved = made.meta["engine"]["halved"]
    assert list(halved) == ["Affine · hazard · shard 0", "Affine · hazard · shard 1"]
    assert all(2 <= rows <= 4 for rows in halved.values())
    assert ["memory did not suffice" in event.text for event in events if event.kind == "memory"] == [True]


def test_a_unit_that_always_kills_its_worker_is_left_and_the_others_are_kept(danger, whole, tmp_path, monkeypatch):
    folder, plan = danger
    monkeypatch.setattr(drive, "RETRIES", 1)
    (folder / "always").touch()
    events = []
    with pytest.raises(UnitsFailed) as caught:
        run(plan, tmp_path / "a", engine=TWO, listen=events.append)
    said = "its worker was ended by signal 9, perhaps for memory, 2 times"
    assert str(caught.value) == (
        f"2 of 14 units of run '{tmp_path / 'a'}' failed: got Affine · hazard · shard 0: {said}; "
        f"Affine · hazard · shard 1: {said}. The others are kept: go on with the same command and --resume."
    )
    assert len(units(events)) == 12
    (folder / "always").unlink()
    events.clear()
    run(plan, tmp_path / "a", resume=True, listen=events.append)
    assert [kind for kind, _ in units(events)] == ["resumed"] * 12 + ["unit"] * 2
    assert contents(tmp_path / "a") == whole


def test_a_slow_worker_holds_up_no_other(danger, whole, tmp_path):
    folder, plan = danger
    (folder / "slow").write_text("2")
    events = []
    run(plan, tmp_path / "a", engine=Engine(name="processes", workers=3), listen=events.append)
    order = [event.text for event in events if event.kind == "unit"]
    assert order.index("hazard") > 2, order  # the first to be begun, and not the first to end
    assert contents(tmp_path / "a") == whole


SCRIPT = """
import sys
from pathlib import Path
import torch
from robustode.evaluation.engines.options import Engine
from tests.evaluation.engines.hazards import hazardous
from tests.evaluation.runs import run

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, out = map(Path, sys.argv[1:])
    plan = hazardous(folder)
    (folder / "slow").write_text("60")
    run(plan, out, engine=Engine(name="processes", workers=2))
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_the_driver_is_killed_its_workers_end_and_a_resume_ends_as_if_nothing_had_been(danger, whole, tmp_path):
    """Killed while both workers are in the middle of units that take a minute."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, str(tmp_path / "script.py"), str(danger[0]), str(tmp_path / "a")]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(danger[0].glob("at-work-*"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert len(started) >= 2
    deadline = time.monotonic() + 20
    while any(map(alive, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)]
    (danger[0] / "slow").unlink()
    run(danger[1], tmp_path / "a", engine=TWO, resume=True)
    assert contents(tmp_path / "a") == whole


class Flat(nn.Module):
    """A linear classifier whose class a test hides."""

    bounds, classes, input_shape = (0.0, 1.0), CLASSES, SHAPE

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_a_model_that_cannot_be_sent(tmp_path):
    class Local(Flat):
        pass

    torch.manual_seed(0)
    model, (_, data) = Local(), affine()
    plan = plan_of(model, data, attacks="fgm-l2", budgets={"l2": [0.1]}, allow_low_accuracy=True)
    with pytest.raises(RunError) as caught:
        run(plan, tmp_path / "a", engine=TWO)
    assert str(caught.value).startswith("models and attacks: expected what workers can be sent, got AttributeError")
    assert "name it as python:FILE.py:factory, or use engine local" in str(caught.value)
    assert run(plan, tmp_path / "a", resume=True).meta["engine"]["name"] == "local"


CODE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))

def steady():
    torch.manual_seed(5)
    return make()
"""


def test_models_of_the_user_s_code_are_made_again_and_must_be_the_same(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    _, data = affine()
    from robustode.evaluation.plan import make_plan
    from robustode.evaluation.protocol import build_protocol

    def plan(factory):
        torch.manual_seed(1)
        model = {"model": f"python:mine.py:{factory}", "bounds": [0.0, 1.0], "classes": 3, "input_shape": [1, 3, 4]}
        values = {"models": [model], "attacks": "fgm-l2", "budgets": {"l2": [0.1]}, "allow_low_accuracy": True}
        return make_plan(build_protocol(values), data=data)

    run(plan("steady"), tmp_path / "a")
    run(plan("steady"), tmp_path / "b", engine=TWO)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with pytest.raises(RunError) as caught:
        run(plan("make"), tmp_path / "c", engine=TWO)
    message = str(caught.value)
    assert message.startswith(
        "workers: expected models that they can load, got ModelError: model 'make' (python:mine.py"
    )
    assert "expected the model of hash" in message
