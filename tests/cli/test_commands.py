"""The commands together, as one would type them: evaluate, generate, read back, compare, verify, fetch."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from robustode.data.public import MNIST
from tests.cli.command import refused, robustode, works

FAST = "--attacks sensitivity-l2 --limit 40"


def test_eval_alone_does_the_whole_job(folder):
    done = works("eval --model s.safetensors --limit 30")
    lines = done.out.splitlines()
    assert lines[0].startswith("s: clean accuracy ")
    assert lines[-1] == (
        "Files in runs/s-digits-standard: report.html, tables/, figures/, records.parquet, adversarials/, audit.json, "
        "run.json"
    )
    for title in (
        "Robust accuracy, L∞",
        "Robust accuracy, L2",
        "One-step success by direction, L2",
        "Cost of the attacks",
    ):
        assert title in done.out
    assert done.out.count("Data: 30 random test images of digits 8x8") == 1
    for name in lines[-1].partition(": ")[2].split(", "):
        assert (Path("runs/s-digits-standard") / name).exists()
    meta = json.loads(Path("runs/s-digits-standard/run.json").read_text())
    assert meta["command"] == "robustode eval --model s.safetensors --limit 30"
    assert meta["status"] == "complete"


def test_two_models_budgets_and_json(folder):
    line = f"eval --model s.safetensors --model l.safetensors {FAST} --eps 0.5,0.25 --no-store --json"
    document = works(line).json
    assert document["out"] == "runs/s+l-digits-sensitivity-l2"
    assert (document["status"], document["skipped"], document["errors"]) == ("complete", [], [])
    rows = pd.DataFrame(document["tables"]["robust_accuracy_l2"])
    assert sorted(set(rows["eps"])) == [0, 0.25, 0.5]
    assert set(rows["model"]) == {"s", "l"}
    assert not Path(document["out"], "adversarials").exists()


def test_no_attacks(folder):
    done = works("eval --model s.safetensors --attacks none --limit 40")
    assert "Clean accuracy" in done.out
    assert done.out.endswith(
        "Files in runs/s-digits-none: report.html, tables/, records.parquet, audit.json, run.json\n"
    )


def test_generate_reads_back_and_attacks(folder):
    made = works("generate --model s.safetensors --attack sensitivity-l2 --limit 40 --out g --json").json
    assert made["status"].get("success", 0) + made["status"].get("misclassified", 0) == 40
    back = works("eval --model s.safetensors --data g --attacks none --allow-low-accuracy --json").json
    assert back["tables"]["clean_accuracy"][0]["estimate"] == 0
    line = "eval --model s.safetensors --attacks none --also g --limit 40 --eps 0.5,4 --out also --json"
    accuracy = pd.DataFrame(works(line).json["tables"]["robust_accuracy_l2"])
    at_four = accuracy[(accuracy["attack"] == "stored-g") & (accuracy["eps"] == 4)]
    assert at_four["estimate"].tolist() == [0]
    budget = (
        "generate --model s.safetensors --attack pgd-foolbox-linf --eps 8/255 --limit 20 --format safetensors --out b"
    )
    assert "wrote b/dataset.json" in works(budget).out
    assert refused(budget).startswith("output directory 'b'")
    works(f"{budget} --force")


def test_compare_verify_uncertainty(folder):
    works(f"eval --model s.safetensors {FAST} --out a")
    works(f"eval --model l.safetensors {FAST} --out b")
    both = works("report a b --out r").out
    assert "Differences of robust accuracy, L2" in both
    assert both.endswith("Files in r: report.html, tables/, figures/\n")
    assert Path("r/tables/paired_accuracy_l2.csv").is_file()
    assert "expected a new one, got it exists" in refused("report a b --out r")
    alone = works("report a --out r --force --json").json
    assert "robust_accuracy_l2" in alone["tables"]
    assert not Path("r/tables/paired_accuracy_l2.csv").exists()

    same = works("verify a --model s.safetensors --json").json
    assert same["same_model"] is True
    assert same["held"] == same["points"] > 30
    assert all(row["claimed"] == row["rescored"] for row in same["robust_accuracy"])
    other = works("verify a --model l.safetensors --label s").out
    assert "this is a transfer of its adversarials" in other

    line = "uncertainty --model s.safetensors --sigma 0.05,0.1 --weights int8 --draws 50 --drawn 20 --limit 30 --out u"
    text = works(line).out
    assert "Accuracy under noise" in text
    assert text.endswith("Files in u: report.html, tables/, figures/, records.parquet, uncertainty.parquet, run.json\n")
    assert len(pd.read_parquet("u/uncertainty.parquet")) == 2 * (30 + 20)
    again = works("report u --out ru --json").json["tables"]
    assert [row["drawn"] for row in again["noise_accuracy"]] == [20, 20]
    assert Path("ru/figures/noise_reliability.svg").is_file()
    noise = works(f"{line} --force --json").json["tables"]["noise_accuracy"]
    assert [(row["sigma"], row["weights"], row["drawn"]) for row in noise] == [(0.05, "int8", 20), (0.1, "int8", 20)]


def test_verify_exits_1_if_an_adversarial_no_longer_holds(folder, monkeypatch):
    from robustode.evaluation import verify

    works(f"eval --model s.safetensors {FAST} --out a")
    original = verify.verify

    def weaker(*arguments, **options):
        from dataclasses import replace

        found = original(*arguments, **options)
        return replace(found, held=found.points - 1)

    monkeypatch.setattr(verify, "verify", weaker)
    assert robustode("verify a --model s.safetensors").code == 1


def test_run_a_protocol(folder):
    Path("p.toml").write_text(
        'title = "mine"\nmodels = ["s.safetensors", { model = "l.safetensors", label = "twin" }]\n'
        'attacks = "sensitivity-l2"\nlimit = 30\nbudgets = { l2 = [0.5] }\n'
    )
    document = works("run p.toml --limit 20 --json").json
    assert document["out"] == "runs/p"
    rows = pd.DataFrame(document["tables"]["robust_accuracy_l2"])
    assert set(rows["model"]) == {"s", "twin"}
    assert set(rows["n"]) == {20}


def test_an_attack_that_raises_is_recorded_and_the_status_is_1(folder):
    line = "eval --model s.safetensors --attacks python:code_of_user.py:raises --norm linf --eps 0.1 --limit 20 --out"
    done = robustode(f"{line} a")
    assert done.code == 1
    assert "incomplete (" in done.out
    assert "raised for " in done.out
    assert "RuntimeError: out of luck" in done.out
    records = pd.read_parquet("a/records.parquet")
    own = records[~records["attack"].str.startswith("audit-")]
    assert own["status"].isin(["error", "misclassified"]).all()
    machine = robustode(f"{line} b --json")
    assert machine.code == 1
    assert machine.json["status"] == "partial"
    assert machine.json["errors"][0]["message"] == "RuntimeError: out of luck"
    made = robustode(line.replace("eval", "generate").replace("--attacks", "--attack") + " g")
    assert made.code == 1
    assert "the attack raised: RuntimeError: out of luck" in made.out
    assert "Did you mean 'often'?" in refused(f"{line} c --param oftn=2")


def test_without_torchattacks(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    done = works("eval --model s.safetensors --attacks standard-linf --limit 20 --out a")
    assert "fgsm-linf: skipped: not installed (torchattacks)" in done.out
    assert "Partial run: skipped fgsm-linf, pgd-linf: not installed (torchattacks)." in done.out
    assert json.loads(Path("a/run.json").read_text())["status"] == "partial"
    works("report a --out r")
    for line in (
        "eval --model s.safetensors --attacks torchattacks:PGD --norm linf --limit 20 --out b",
        "generate --model s.safetensors --attack pgd-linf --eps 0.1 --limit 20 --out b",
    ):
        assert refused(line).startswith("torchattacks is not installed. Install it with: pip install ")


def test_train_writes_a_checkpoint_that_evaluates(folder):
    line = "train layered --data digits --set epochs=1 --out new/t.safetensors"
    text = works(line).out
    assert "epoch 1/1: loss " in text
    assert text.endswith("Next: robustode eval --model new/t.safetensors\n")
    document = works(f"{line} --force --json").json
    assert document["provenance"]["command"].startswith("robustode train layered --data digits")
    works("eval --model new/t.safetensors --attacks none --limit 40 --allow-low-accuracy")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine with the four files of MNIST, and their checksums in the catalogue."""
    place = tmp_path / "mirror"
    place.mkdir()
    for number, name in enumerate(MNIST.files):
        (place / name).write_bytes(bytes([number]) * 100)
        monkeypatch.setitem(MNIST.files, name, hashlib.md5((place / name).read_bytes()).hexdigest())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(
        type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}), directory=str(place)
    )
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_fetch(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert works(f"data fetch mnist --data-root d --url {server}").out == "mnist is in d: 4 files, checked\n"
    files = works(f"data fetch mnist --data-root d --url {server} --json").json["files"]
    assert sorted(Path(file).name for file in files) == sorted(MNIST.files)
    shutil.rmtree("d")
    monkeypatch.setenv("ROBUSTODE_DATA", "e")
    works(f"data fetch mnist --url {server}")
    assert len(list(Path("e/MNIST/raw").iterdir())) == 4
    message = robustode(f"data fetch mnist --url {server}/absent --data-root f").err
    assert "404" in message


def test_points_that_the_judge_refuses_are_spoken_of(folder):
    code = "def fn(model, x, y, *, norm, eps, generator):\n    return x + float('nan')\n"
    Path("nothing_but_nan.py").write_text(code, encoding="utf-8")
    line = "eval --model s.safetensors --attacks python:nothing_but_nan.py:fn --norm linf --eps 0.1 --limit 20 --out n"
    done = works(line)
    assert "points were refused, for example: the attack returned a value that is not finite" in done.out


def test_a_folder_of_images_keeps_its_own_units(folder):
    from PIL import Image

    for name in ("0", "1"):
        Path("images", name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), color=40 * i).save(Path("images", name, f"{i}.png"))
    said = refused("eval --model python:code_of_user.py:make --data folder:images --bounds 0,255")
    assert "which lie in [0, 1]" in said
    assert "[0, 255]" in said
