"""kill -9 at any moment, a disk that is full, and a second process: nothing is corrupt, and --resume ends as if
nothing had been."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustode.evaluation.rundir import read_run
from tests.cli.command import robustode, works
from tests.cli.undisturbed import check_same

KILLS = 10
PROTOCOL = """
models = ["s.safetensors", "l.safetensors"]
attacks = "fgm-l2"
also = ["sensitivity-l2", "one-step-random-linf"]
limit = 40
shard = 8
audit = "cheap"
"""
LINE = "run p.toml --out {} --resume"


def start(line: str, **options) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "robustode", *line.split()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def written(out: Path) -> list[Path]:
    return [file for file in out.rglob("*") if file.is_file() and not file.name.startswith(".")]


def units(out: Path) -> dict[str, tuple[int, int]]:
    """Every finished unit, with what changes when it is written again."""
    files = (file for file in out.glob("shards/*/*.parquet") if not file.name.endswith(".timings.parquet"))
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files if "audit-" not in file.name}


@pytest.mark.slow
def test_kill_9_at_ten_random_moments(folder):
    """Ten processes, each killed when it has written a random number of files and a random time has passed."""
    Path("p.toml").write_text(PROTOCOL)
    works(LINE.format("whole"))
    draws, out = random.Random(0), Path("part")
    every = len(written(Path("whole")))
    moments = sorted(draws.sample(range(1, every), KILLS))
    killed, finished = 0, {}
    for moment in moments:
        process = start(LINE.format(out))
        while len(written(out)) < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.05 * draws.random())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        now = units(out)
        assert {name: now[name] for name in finished} == finished  # none was computed again
        finished = now
    assert killed >= KILLS - 1, f"{KILLS - killed} processes had ended before they were killed"
    works(LINE.format(out))
    now = units(out)
    assert {name: now[name] for name in finished} == finished
    assert len(now) == 2 * 3 * 5  # models, attacks, shards
    assert not [file for file in out.rglob("*") if file.name.startswith(".")]
    check_same(out, Path("whole"), folder / "spare")


class Full:
    """A disk that is full when the k-th file is about to be moved to its place."""

    def __init__(self, k: int) -> None:
        self.k, self.calls, self.move = k, 0, os.replace

    def __call__(self, source, target) -> None:
        self.calls += 1
        if self.calls >= self.k > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        self.move(source, target)


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_kth_write(folder, monkeypatch):
    Path("p.toml").write_text(PROTOCOL)
    counted = Full(0)
    monkeypatch.setattr("robustode.files.os.replace", counted)
    works(LINE.format("whole"))
    monkeypatch.undo()
    total = counted.calls
    for k in (1, 5, total // 2, total - 5):
        monkeypatch.chdir(folder)
        with monkeypatch.context() as patch:
            patch.setattr("robustode.files.os.replace", full := Full(k))
            done = robustode(LINE.format("part"))
        if full.calls < k:
            break  # the parts before had finished so much that there were fewer files to write
        assert done.code == 2
        assert done.err.startswith("error: cannot write 'part/")
        assert done.err.count("\n") == 1
        assert "No space left on device. Make room. What is finished stays in part; go on with" in done.err
        assert ".tmp" not in done.err
        assert not [file for file in Path("part").rglob("*") if file.name.startswith(".")]
        assert not read_status(Path("part"))
    works(LINE.format("part"))
    check_same(Path("part"), Path("whole"), folder / "spare")


def read_status(out: Path) -> bool:
    """Whether a directory takes itself for a finished run."""
    try:
        return bool(read_run(out))
    except Exception:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("size", [3_000, 20_000])
def test_files_that_the_system_does_not_let_grow(folder, size):
    """The kernel ends the writing of a file in its middle, in whatever library."""
    Path("p.toml").write_text(PROTOCOL.replace("limit = 40", "limit = 20"))
    process = start(LINE.format("part"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.startswith("error: cannot write 'part/")
    assert "File too large. Make room. What is finished stays in part; go on with the same command and --resume." in err
    assert err.count("\n") == 1
    assert not [file for file in Path("part").rglob("*") if file.stat().st_size > size or file.name.startswith(".")]
    works(LINE.format("part"))
    works(LINE.format("whole"))
    check_same(Path("part"), Path("whole"), folder / "spare")


@pytest.mark.slow
def test_two_processes_on_one_directory(folder):
    """The second is refused, and the first ends as if alone."""
    Path("p.toml").write_text(PROTOCOL)
    first = start(LINE.format("part"))
    while not units(Path("part")) and first.poll() is None:
        time.sleep(0.001)
    second = robustode(LINE.format("part"))
    _, err = first.communicate(timeout=120)
    assert (first.returncode, err) == (0, "")
    assert second.code == 2
    assert "expected it to be free, got another process that is at work in it" in second.err
    works(LINE.format("whole"))
    check_same(Path("part"), Path("whole"), folder / "spare")
