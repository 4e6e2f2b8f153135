"""Ctrl-C: what is finished stays, the message says how to go on, and going on gives the same bytes."""

from __future__ import annotations

import filecmp
import signal
import subprocess
import sys
import time
from pathlib import Path

from robustode.evaluation.judge import Judge
from robustode.models.checkpoint import read_header
from tests.cli.command import refused, robustode, works

EVAL = "eval --model s.safetensors --attacks sensitivity-l2 --also ddn-l2 --limit 80 --shard 5 --out"
GENERATE = "generate --model s.safetensors --attack ddn-l2 --limit 80 --shard 5 --out"


def start(line: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "robustode", *line.split()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(line: str, pattern: str, count: int) -> tuple[str, str]:
    """Run a command, press Ctrl-C when `count` files of `pattern` are there, and return what it said."""
    process = start(line)
    deadline = time.monotonic() + 60
    while len(list(Path().glob(pattern))) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, f"{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def test_eval(folder):
    works(f"{EVAL} whole")
    _, err = interrupted(f"{EVAL} part", "part/shards/s/*-000??.parquet", 4)
    assert err == "what is finished stays in part; go on with the same command and --resume\ninterrupted\n"
    finished = {path: path.stat().st_mtime_ns for path in Path("part/shards").rglob("*.parquet")}
    assert len(finished) < 64, "interrupted too late to show anything"
    assert not Path("part/records.parquet").exists()
    assert "is not finished" in refused("report part")
    assert "--resume" in refused(f"{EVAL} part")
    assert "cannot resume 'part'" in refused(f"{EVAL} part --seed 1 --resume")
    works(f"{EVAL} part --resume")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert filecmp.cmp("part/records.parquet", "whole/records.parquet", shallow=False)
    assert filecmp.cmp("part/adversarials/s-l2.safetensors", "whole/adversarials/s-l2.safetensors", shallow=False)


def test_generate(folder):
    works(f"{GENERATE} whole")
    _, err = interrupted(f"{GENERATE} part", "part/data-*.npz", 3)
    assert "what is finished stays in part" in err
    assert not Path("part/dataset.json").exists()
    assert "unfinished data set 'part'" in refused("eval --model s.safetensors --data part --attacks none")
    works(f"{GENERATE} part --resume")
    for file in sorted(Path("whole").glob("data-*.npz")):
        assert filecmp.cmp(file, Path("part") / file.name, shallow=False)


def test_before_anything_is_written(folder, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Judge, "answer", stop)
    done = robustode("eval --model s.safetensors --limit 20 --out r")
    assert (done.code, done.err) == (130, "interrupted\n")
    assert not Path("r").exists()


def test_train(folder):
    process = start("train snode --data digits --out t.safetensors")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert "interrupted after " in out
    provenance = read_header("t.safetensors").provenance
    assert provenance["interrupted"] is True
    assert 1 <= provenance["epochs"] < 10
    works("eval --model t.safetensors --attacks none --limit 40")
