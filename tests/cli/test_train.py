"""`robustode train`: recipes, early stopping, curves, resume, divergence, and nothing half written in any failure."""

from __future__ import annotations

import filecmp
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustode.data import holdout, load_data
from robustode.errors import OptionError
from robustode.evaluation.engines.options import parse_part
from robustode.models.checkpoint import load_checkpoint, read_header
from robustode.training.cost import Cost
from robustode.training.measure import evaluate
from robustode.training.ncg import NCG
from robustode.training.sgd import SGD
from tests.cli.command import refused, robustode, tree, works

SMALL = "train snode --data digits --limit 150 --set steps=6 --set knots=3 --set batch=50"
DIGITS = "150 random training images of digits 8x8, class-stratified"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current directory: new and empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTODE_DATA", raising=False)
    return tmp_path


def stop_at(monkeypatch, number, trainer=NCG):
    """Ctrl-C at the beginning of the `number`-th mini-batch."""
    step, steps = trainer.step, []

    def stopping(self, x, y):
        steps.append(1)
        if len(steps) == number:
            raise KeyboardInterrupt
        return step(self, x, y)

    monkeypatch.setattr(trainer, "step", stopping)


def same_weights(first, second):
    one, two = (load_checkpoint(path).state_dict() for path in (first, second))
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_recipe_paper(here):
    done = works("train snode --data digits --limit 200 --recipe paper --set epochs=1 --out p.safetensors --json").json
    header = read_header("p.safetensors")
    assert header.config["steps"] == header.config["knots"] == 150
    optimiser = done["provenance"]["optimiser"]
    expected = {"name": "ncg", "epochs": 1, "iterations": 6, "line_search": "linearised", "whitening": 0.0}
    assert {key: optimiser[key] for key in expected} == expected
    assert done["provenance"]["cost"] == {"mu1": 1.0, "mu2": 0.0, "mu3": 0.0, "mu4": 0.0, "mu5": 0.0}
    assert done["provenance"]["accuracy"] > 0.5
    assert done["curves"] == []
    assert list(tree()) == ["p.safetensors"]


def test_curves(here):
    out = works(f"{SMALL} --set epochs=2 --curves drawn/c.svg --out a.safetensors").out
    assert "learning curves: drawn/c.svg\n" in out
    assert ElementTree.parse("drawn/c.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    done = works(f"{SMALL} --set epochs=2 --curves c.png --out b.safetensors --json").json
    assert done["curves"] == ["c.png"]
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    assert same_weights("a.safetensors", "b.safetensors")


def test_patience(here):
    line = f"{SMALL} --set epochs=12 --set damping=constant --validation 40 --patience 1 --out a.safetensors"
    done = works(f"{line} --json").json
    found = done["provenance"]
    history = found["history"]
    accuracies = [row["validation_accuracy"] for row in history]
    assert found["validation_accuracy"] == max(accuracies)
    assert found["epochs"] == len(history) < 12
    best = accuracies.index(max(accuracies)) + 1
    assert found["stopped"] == f"no validation accuracy above {max(accuracies):.2%} (epoch {best}) for 1 epochs"
    _, held = holdout(load_data("digits", split="train", limit=150), 40)
    assert evaluate(load_checkpoint("a.safetensors"), held, Cost())[0] == max(accuracies)


def test_target(here):
    done = works(f"{SMALL} --set epochs=12 --validation 40 --target 0.6 --out a.safetensors")
    header = read_header("a.safetensors").provenance
    assert header["validation_accuracy"] >= 0.6
    assert header["stopped"].startswith(f"validation accuracy {header['validation_accuracy']:.2%} ≥ 60.00% after ")
    assert f"stopped early: {header['stopped']}\n" in done.out
    assert "without 40 held out (seed 0): ncg, 12 epochs" in done.out
    assert list(tree()) == ["a.safetensors"]


def test_the_header_has_the_learning_curves_without_seconds(here):
    works(f"{SMALL} --set epochs=2 --validation 40 --out a.safetensors")
    header = read_header("a.safetensors").provenance
    keys = {"epoch", "loss", "mismatch", "cross_entropy", "drift", "weights", "log_norm", "accuracy"}
    assert [set(row) for row in header["history"]] == [keys | {"validation_accuracy", "test_accuracy"}] * 2
    assert [row["epoch"] for row in header["history"]] == [1, 2]
    last = header["history"][-1]
    assert header["stopped"] is None
    assert (header["validation_accuracy"], header["accuracy"]) == (last["validation_accuracy"], last["test_accuracy"])
    assert header["command"] == f"robustode {SMALL} --set epochs=2 --validation 40 --out a.safetensors"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--patience 2", "--patience: expected validation data to judge by, got none. Hold samples out: --validation"),
        ("--target 0.9", "--target: expected validation data to judge by, got none. Hold samples out: --validation"),
        ("--validation 40 --target 1.2", "training option target: expected an accuracy ≤ 1, got 1.2. Give a fraction"),
        ("--validation 40 --target 0", "training option target: expected a finite number > 0, got 0.0"),
        ("--validation 40 --target nan", "training option target: expected a finite number > 0, got nan"),
        ("--validation 40 --patience 0", "--patience: expected a whole number ≥ 1, got 0"),
        ("--validation 0", "--validation: expected a whole number ≥ 1, got 0"),
        ("--validation 150", "samples held out of data 'digits': expected a whole number from 1 to 149"),
        (
            "--recipe papper",
            "unknown recipe: expected one of adversarial, best, certified, large, large-adversarial, paper, "
            "got 'papper'. Did you mean 'paper'",
        ),
        ("--curves c.pdf", "figure 'c.pdf': expected a name ending in .svg or .png, got '.pdf'. Write c.svg or c.png."),
        ("--resume", "unfinished training 'a.partial.pt': expected the file that a stopped training left, got no such"),
        ("--resume --force", "options: expected --resume or --force, got both"),
    ],
)
def test_refused(here, options, said):
    before = f"snode on {DIGITS}, seed 0: ncg, 25 epochs\n" if options == "--resume" else ""  # the data come first
    assert refused(f"{SMALL} {options} --out a.safetensors", before).startswith(said)


def test_paper_for_another_architecture(here):
    message = refused("train layered --data digits --recipe paper --out a.safetensors")
    assert message == "recipe 'paper': expected the architecture snode, got layered. Leave --recipe out."


def test_resume_after_ctrl_c_gives_the_same_file(here):
    """The very command in two folders: in one undisturbed, in the other stopped twice."""
    line = f"{SMALL} --set epochs=40 --validation 30 --patience 40 --out a.safetensors"
    words = [sys.executable, "-m", "robustode", *line.split()]
    folders = [here / "whole", here / "part"]
    for folder in folders:
        folder.mkdir()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folders[1])
    assert process.stdout is not None
    for row in process.stdout:
        if row.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n"), f"{out}\n{err}"
    assert out.endswith("Go on with the same command and --resume\nNext: robustode eval --model a.safetensors\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folders[0])
        works(line)
        patch.chdir(folders[1])
        assert sorted(tree()) == ["a.partial.pt", "a.safetensors"]
        assert read_header("a.safetensors").provenance["interrupted"] is True
        message = refused(line)
        assert message == (
            "'a.safetensors': expected no unfinished training, got 'a.partial.pt'. Go on with --resume, or start again "
            "with --force."
        )
        before = f"snode on {DIGITS}, seed 1, without 30 held out (seed 1): ncg, 40 epochs\n"
        message = refused(f"{line} --seed 1 --resume", before)
        assert message.startswith("unfinished training 'a.partial.pt': expected the data that it was started with, got")
        with pytest.MonkeyPatch.context() as again:
            stop_at(again, 5)
            assert robustode(f"{line} --resume").code == 130
        assert sorted(tree()) == ["a.partial.pt", "a.safetensors"]
        works(f"{line} --resume")
        assert list(tree()) == ["a.safetensors"]
    assert filecmp.cmp(folders[0] / "a.safetensors", folders[1] / "a.safetensors", shallow=False)


def test_force_starts_again(here, monkeypatch):
    line = f"{SMALL} --set epochs=4 --out"
    works(f"{line} whole.safetensors")
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        assert robustode(f"{line} a.safetensors").code == 130
    assert Path("a.partial.pt").exists()
    works(f"{line} a.safetensors --force")
    assert sorted(tree()) == ["a.safetensors", "whole.safetensors"]
    assert same_weights("a.safetensors", "whole.safetensors")


def test_ctrl_c_in_the_first_epoch_says_that_there_is_nothing_to_resume(here, monkeypatch):
    stop_at(monkeypatch, 2)
    done = robustode(f"{SMALL} --set epochs=4 --curves c.svg --out a.safetensors")
    assert (done.code, done.err) == (130, "interrupted\n")
    assert "interrupted after 0 epochs" in done.out
    assert "Start again with the same command and --force\n" in done.out
    assert "--resume" not in done.out
    assert list(tree()) == ["a.safetensors"]


def test_divergence_at_once(here):
    line = "train layered --data digits --limit 150 --set activation=relu --set learning_rate=1e6 --out a.safetensors"
    done = robustode(line)
    assert done.code == 2
    assert done.err.startswith("error: training diverged: expected a finite cost below ")
    assert "The weights kept are the initial ones. Use a smaller learning rate" in done.err
    assert done.err.count("\n") == 1
    assert "wrote a.safetensors" in done.out
    header = read_header("a.safetensors").provenance
    assert header["epochs"] == 0
    assert header["stopped"].startswith("the cost diverged: ")
    assert list(tree()) == ["a.safetensors"]


@pytest.mark.parametrize("json_", ["", "--json"])
def test_divergence_writes_the_last_good_weights(here, monkeypatch, json_):
    small = "train layered --data digits --limit 150 --set steps=4 --set epochs="
    step, steps = SGD.step, []

    def diverging(self, x, y):
        report = step(self, x, y)
        steps.append({name: value.detach().clone() for name, value in self._model.state_dict().items()})
        return replace(report, final=float("inf")) if len(steps) == 8 else report  # 3 mini-batches an epoch

    monkeypatch.setattr(SGD, "step", diverging)
    done = robustode(f"{small}4 --curves c.svg --out a.safetensors {json_}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "got inf in epoch 3, mini-batch 2. The weights kept are those after epoch 2." in done.err
    kept = load_checkpoint("a.safetensors").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in steps[5].items())
    header = read_header("a.safetensors").provenance
    assert (header["epochs"], len(header["history"])) == (2, 2)
    assert header["stopped"] == "the cost diverged: inf in epoch 3, mini-batch 2"
    assert sorted(tree()) == ["a.safetensors", "c.svg"]  # and nothing to resume: it would diverge again
    if json_:
        assert done.json["provenance"]["stopped"] == header["stopped"]


def test_a_failure_while_writing_leaves_nothing_half_written(here, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("robustode.models.checkpoint.save_file", full)
        done = robustode(f"{SMALL} --set epochs=1 --out a.safetensors")
    assert done.code != 0
    assert "No space left on device" in done.err
    assert list(tree()) == ["a.partial.pt"]  # the training itself is not lost:
    assert robustode(f"{SMALL} --set epochs=1 --out a.safetensors --resume").code == 0
    assert list(tree()) == ["a.safetensors"]


@pytest.mark.parametrize(("text", "part"), [("0/1", (0, 1)), ("0/2", (0, 2)), ("11/12", (11, 12))])
def test_shard(text, part):
    assert parse_part(text) == part


@pytest.mark.parametrize("text", ["", "1", "2/2", "0/0", "-1/2", "1/", "/2", "a/2", "1/2/3", "0.5/2", "²/3", "1 /2"])
def test_shard_refused(text):
    with pytest.raises(OptionError, match=f"^--shard: expected i/N with 0 ≤ i < N, such as 0/2, got '{text}'$"):
        parse_part(text)
