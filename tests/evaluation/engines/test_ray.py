"""Ray: the records of one process, whatever becomes of workers and nodes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from robustode.errors import OptionError, RunError
from robustode.evaluation.engines import cluster
from robustode.evaluation.engines.connect import check_answers
from robustode.evaluation.engines.failed import UnitsFailed
from robustode.evaluation.engines.options import Engine
from tests.evaluation.engines.hazards import children
from tests.evaluation.problem import refused
from tests.evaluation.runs import contents, run, units

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """A cluster of this machine with four cores, or so it is told, to which the runs of a module connect."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.usefixtures("started")
def test_the_records_are_those_of_one_process(hazards, whole, tmp_path, workers):
    events = []
    made = run(hazards[1], tmp_path / "a", engine=Engine(name="ray", workers=workers), listen=events.append)
    assert contents(tmp_path / "a") == whole
    engine = {key: value for key, value in made.meta["engine"].items() if key != "peak_bytes"}
    assert engine == {"name": "ray", "workers": workers, "threads": 1}
    assert units(events) == [("unit", k) for k in range(1, 15)]


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_workers_killed_in_the_middle_of_units(danger, whole, tmp_path):
    folder, plan = danger
    for number in range(2):
        (folder / f"once-{number}").touch()
    made = run(plan, tmp_path / "a", engine=Engine(name="ray"))
    assert not list(folder.glob("once-*"))
    assert sum(made.meta["engine"]["retries"].values()) == 2
    assert contents(tmp_path / "a") == whole


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_memory_that_runs_out_in_a_worker(danger, whole, tmp_path):
    folder, plan = danger
    (folder / "most").write_text("4")
    events = []
    made = run(plan, tmp_path / "a", engine=Engine(name="ray", workers=2), listen=events.append)
    assert contents(tmp_path / "a") == whole
    halved = made.meta["engine"]["halved"]
    assert list(halved) == ["Affine · hazard · shard 0", "Affine · hazard · shard 1"]
    assert all(2 <= rows <= 4 for rows in halved.values())
    assert ["memory did not suffice" in event.text for event in events if event.kind == "memory"] == [True]


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_a_unit_that_always_kills_its_worker(danger, whole, tmp_path):
    folder, plan = danger
    (folder / "always").touch()
    with pytest.raises(UnitsFailed) as caught:
        run(plan, tmp_path / "a", engine=Engine(name="ray"))
    said = "its worker or node is gone (WorkerCrashedError), 3 times"
    assert f"2 of 14 units of run '{tmp_path / 'a'}' failed: got Affine · hazard · shard 0: {said};" in str(
        caught.value
    )
    (folder / "always").unlink()
    run(plan, tmp_path / "a", resume=True)
    assert contents(tmp_path / "a") == whole


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_a_node_of_other_versions_is_refused(hazards, tmp_path, monkeypatch):
    real = cluster.versions(cluster.CHECKED)
    monkeypatch.setattr(cluster, "versions", lambda names: {**real, "torch": "9.9"})
    with pytest.raises(RunError) as caught:
        run(hazards[1], tmp_path / "a", engine=Engine(name="ray"))
    assert f"of the cluster: expected torch 9.9, got torch {real['torch']}. Install the same" in str(caught.value)


class Nodes:
    """Two nodes on this machine, as `ray start` makes them, with a token."""

    HEAD, OTHER, PORT = "127.0.0.2", "127.0.0.3", 6397

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "token").write_text("0123456789abcdef" * 4)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "OMP_NUM_THREADS": "1",
        }
        self.processes = []

    def start(self, host: str, *words: str) -> None:
        script = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        line = [sys.executable, "-c", script, "start", f"--node-ip-address={host}", "--num-cpus=1", "--block", *words]
        line += ["--object-store-memory=100000000", "--disable-usage-stats"]
        with (self.folder / f"{host}.log").open("w") as log:
            process = subprocess.Popen(line, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)

    def leave(self, place: int) -> None:
        """End all processes of a node at once, as a machine that loses its power."""
        process = self.processes[place]
        for pid in (process.pid, *children(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait(30)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    pytest.importorskip("ray")
    both = Nodes(tmp_path)
    try:
        place = f"--temp-dir=/tmp/r{os.getpid()}"  # short, as sockets lie below it
        both.start(both.HEAD, "--head", f"--port={both.PORT}", "--include-dashboard=false", place)
        until(lambda: answers(f"{both.HEAD}:{both.PORT}"))
        both.start(both.OTHER, f"--address={both.HEAD}:{both.PORT}")
        until(lambda: "Ray runtime started" in (tmp_path / f"{both.OTHER}.log").read_text())
        yield both
    finally:
        for number in range(len(both.processes)):
            both.leave(number)
        shutil.rmtree(f"/tmp/r{os.getpid()}", ignore_errors=True)


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def answers(address: str) -> bool:
    try:
        check_answers(address)
    except RunError:
        return False
    return True


DRIVER = """
import sys
from pathlib import Path
import torch
from robustode.errors import RunError
from robustode.evaluation.engines.options import Engine
from tests.evaluation.engines.hazards import hazardous
from tests.evaluation.runs import run

torch.set_num_threads(1)
folder, out, address = sys.argv[1:]
plan = hazardous(Path(folder))
try:
    made = run(plan, Path(out), engine=Engine(name="ray", address=address), resume=True)
    print(made.meta["engine"])
except RunError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_node_that_leaves_takes_no_unit_with_it(nodes, danger, whole, tmp_path):
    """The second of two nodes goes while both are in the middle of a unit; before that, one without the token comes."""
    folder, address = danger[0], f"{nodes.HEAD}:{nodes.PORT}"
    words = [sys.executable, "-c", DRIVER, str(folder), str(tmp_path / "run"), address]
    plain = {**nodes.environment, "RAY_AUTH_MODE": "disabled"}
    refused_ = subprocess.run(words, env=plain, capture_output=True, text=True, timeout=60, check=True)
    assert "expected a cluster to join, got one that wants another token. Set RAY_AUTH_MODE=token" in refused_.stdout
    (folder / "slow").write_text("600")
    driver = subprocess.Popen(words, env=nodes.environment, stdout=subprocess.PIPE, text=True)
    until(lambda: len(list(folder.glob("at-work-*"))) == 2)
    (folder / "slow").unlink()
    nodes.leave(1)
    for file in folder.glob("at-work-*"):
        file.unlink()
    said = driver.communicate(timeout=120)[0]
    assert "'name': 'ray', 'workers': 2, 'threads': 1" in said
    assert "'retries': {'Affine · hazard · shard " in said
    assert contents(tmp_path / "run") == whole


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_where_nothing_answers(silent, monkeypatch):
    monkeypatch.setattr("robustode.evaluation.engines.connect.SECONDS", 0.3)
    refused(
        RunError, "expected an answer within 0.3 seconds, got timed out", lambda: check_answers(f"127.0.0.1:{silent}")
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    refused(RunError, f"Ray cluster '127.0.0.1:{port}': expected", lambda: check_answers(f"127.0.0.1:{port}"))


def test_an_address_where_something_else_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say() -> None:
            line, _ = server.accept()
            with line:
                line.recv(64)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=say)
        thread.start()
        port = server.getsockname()[1]
        refused(RunError, "got something else at this port", lambda: check_answers(f"127.0.0.1:{port}"))
        thread.join()


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:70000", "ray://host:1", "host:a"])
def test_addresses_refused(address):
    refused(OptionError, "address: expected HOST:PORT of a Ray cluster, or auto", lambda: check_answers(address))
