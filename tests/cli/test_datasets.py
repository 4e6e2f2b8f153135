"""Adversarial data sets by command: every format, kill -9, a full disk, broken shards, transfer and training."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustode.data.formats import FORMATS
from robustode.models.checkpoint import read_header
from tests.cli.command import refused, robustode, works

LINE = "generate --model s.safetensors --attack fgm-l2 --eps 0.5"


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


@pytest.mark.parametrize("form", list(FORMATS))
def test_every_format_reads_back_in_one_command(folder, form):
    made = works(f"{LINE} --limit 60 --shard 25 --format {form} --out g --json").json
    assert (made["out"], made["format"], made["samples"]) == ("g", form, 60)
    assert made["splits"]["test"]["status"] == made["splits"]["test"]["made"] == made["status"]
    assert (made["splits"]["test"]["survivors"] is not None) == (form == "png")
    assert made["error"] is None
    assert Path(made["card"]).is_file()
    assert Path(made["checksums"]).is_file()
    wrong = made["status"]["success"] + made["status"].get("misclassified", 0)
    line = "eval --model s.safetensors --attacks none --allow-low-accuracy --json"
    back = works(f"{line} --data g").json["tables"]["clean_accuracy"][0]["estimate"]
    if form != "png":  # of which rounding may change a clean answer, too
        assert back == pytest.approx((60 - wrong) / 60)
    other = works(f"{line.replace('s.saf', 'l.saf')} --data g --out transfer").json
    assert other["tables"]["clean_accuracy"][0]["estimate"] >= back
    also = works("eval --model s.safetensors --attacks none --also g --limit 60 --eps 0.5 --out also --json").json
    assert also["tables"]["robust_accuracy_l2"][0]["attack"] == "stored-g"


def test_what_is_said(folder):
    out = works(f"{LINE} --limit 40 --format png --out g").out.splitlines()
    assert "still are after rounding to 8 bits; wrote g/dataset.json" in out[0]
    assert out[1] == "Data card g/README.md; check the files with: sha256sum -c SHA256SUMS"
    assert out[2] == ("Read it back in eval: --data g --attacks none --allow-low-accuracy, or attack with it: --also g")
    assert out[3] == "Train on it: robustode train snode --data g --out robust.safetensors"
    again = works(f"{LINE} --limit 40 --format png --out g --resume").out
    assert "(40 of them kept, 0 new)" in again
    text = works("generate --help").out
    assert "huggingface" in text
    assert "png" in text


def test_bad_requests(folder):
    assert refused(f"{LINE} --format parket --out g").endswith("got 'parket'. Did you mean 'parquet'?")
    assert refused(f"{LINE} --split tset --out g").startswith("unknown split")
    moons = "generate --model m.safetensors --attack sensitivity-l2 --format png --out g"
    works("train snode --data moons --set epochs=1 --out m.safetensors")
    assert "format png: expected images of shape (1, height, width) or (3, height, width)" in refused(moons)


def test_adversarial_training_closes_the_circle(folder):
    both = works(f"{LINE} --limit 120 --shard 50 --split train --split test --out both").out
    assert "train: " in both
    assert "test: " in both
    line = "train snode --data both --set epochs=2 --set steps=10 --out robust.safetensors"
    text = works(line).out
    assert "snode on all 120 training samples of both (" in text
    assert "test accuracy not measured" not in text
    header = read_header("robust.safetensors")
    assert header.data == "both"
    assert 0 < header.provenance["accuracy"] <= 1
    judged = works("eval --model robust.safetensors --attacks none --allow-low-accuracy --json --out r").json
    accuracy = judged["tables"]["clean_accuracy"][0]
    assert accuracy["n"] == 120
    assert accuracy["estimate"] == pytest.approx(header.provenance["accuracy"])
    half = "train snode --data both/train --set epochs=1 --set steps=10 --out half.safetensors"
    assert "test accuracy not measured" in works(half).out  # the only samples there are those it was trained on
    text = works(half.replace("both/train", "both/test").replace("half.", "leak.")).out
    assert "these are test samples: an accuracy measured on their clean ones later will be too high" in text


KILLER = """
import os, random, signal, sys, time
import pandas, PIL.PngImagePlugin, pyarrow.parquet, torch
import robustode.evaluation.splits
from robustode.cli.main import main

def child(words, folder):
    number = os.fork()
    if not number:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        sys.argv = ["robustode", *words]
        main(words)
    return number

torch.set_num_threads(1)
words, draw = sys.argv[2:], random.Random(sys.argv[1])
began = time.monotonic()
assert os.waitpid(child(words, "whole"), 0)[1] == 0
longest, kills = time.monotonic() - began, 0
for _ in range(10):
    number = child([*words, "--resume"], "part")
    time.sleep(draw.uniform(0.05, 0.35) * longest)
    os.kill(number, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(number, 0)[1])
assert os.waitpid(child([*words, "--resume"], "part"), 0)[1] == 0
print("kills", kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", list(FORMATS))
def test_killed_at_ten_random_moments_it_goes_on_to_the_same_files(folder, form):
    line = f"{LINE} --limit 120 --shard 4 --split train --split test --format {form} --out g"
    words = line.replace("s.safetensors", "../s.safetensors").split()
    done = subprocess.run([sys.executable, "-c", KILLER, form, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3, "killed too late to show anything"
    assert files("part/g") == files("whole/g")


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_full_disk(folder, form, monkeypatch):
    """The second shard finds no room: one message, nothing half written, and --resume goes on."""
    line = f"{LINE} --limit 40 --shard 15 --format {form} --out"
    works(f"{line} whole")
    kind, calls = type(FORMATS[form]), []
    save = kind.save

    def full(self, path, arrays, layout):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(self, path, arrays, layout)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "save", full)
        done = robustode(f"{line} part")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: cannot write 'part/")
    assert done.err.count("\n") == 1
    assert "No space left on device. Make room" in done.err
    assert not list(Path("part").rglob("*.tmp"))
    assert not Path("part/dataset.json").exists()
    assert "unfinished data set 'part'" in refused("eval --model s.safetensors --data part --attacks none")
    works(f"{line} part --resume")
    assert set(files("part")) == set(files("whole"))
    same = [name for name in files("whole") if not name.endswith((".json", ".md", "SUMS"))]  # these name the folder
    assert [files("part")[name] for name in same] == [files("whole")[name] for name in same]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["safetensors", "parquet"])
def test_a_limit_of_the_system_on_files(folder, form):
    """What the libraries themselves raise where a write fails: a limit of file size, as a stand-in for a full disk."""
    code = (
        "import resource, sys; from robustode.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))\n"
        f"sys.argv[1:] = {f'{LINE} --limit 80 --shard 40 --format {form} --out g'.split()!r}; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write")
    assert done.stderr.count("\n") == 1
    assert not list(Path("g").rglob("*.tmp"))
    assert not Path("g/dataset.json").exists()
    works(f"{LINE} --limit 80 --shard 40 --format {form} --out g --resume")
    works("eval --model s.safetensors --data g --attacks none --allow-low-accuracy")


def test_a_broken_shard(folder):
    works(f"{LINE} --limit 45 --shard 15 --split test --split train --out g")
    whole = files("g")
    Path("g/test/data-00001.npz").write_bytes(b"broken")
    line = "eval --model s.safetensors --data g --attacks none --allow-low-accuracy --json"
    said = refused(line)
    assert said.startswith("shard 'g/test/data-00001.npz': expected the bytes that were written")
    assert said.endswith("Or use the 30 samples of the other shards: robustode data repair g/test")
    out = works("data repair g").out.splitlines()
    assert out[0].startswith("dropped test/data-00001.npz (sha256 ")
    assert out[1] == "75 samples are left, 15 are gone; generate makes them again with --resume"
    assert works("data repair g").out == "g is intact: 75 samples\n"
    back = works(line).json
    assert back["tables"]["clean_accuracy"][0]["n"] == 30
    report = json.loads(Path(back["out"], "run.json").read_text()) if "out" in back else None
    assert report is None or "without the broken data-00001.npz" in report["data"]["caption"]
    assert works("data repair g --json").json == {"dropped": [], "lost": 0, "samples": 75}
    works(f"{LINE} --limit 45 --shard 15 --split test --split train --out g --resume")
    assert files("g") == whole
    assert "expected a directory with dataset.json" in refused("data repair nowhere")
