"""Resume: a training that was stopped and goes on gives the bits of one that was not; what changed is refused."""

import os
import re
from dataclasses import replace

import pytest
import torch

from robustode.errors import TrainingError
from robustode.models.resnet import ResNet
from robustode.training import Adversary, Diverged, partial_path
from robustode.training.fit import fit
from robustode.training.ncg import NCG, NCGConfig
from robustode.training.sgd import SGD, SGDConfig
from robustode.training.stopping import Stopping
from tests.training.problems import data, snode

BY_NCG = NCGConfig(epochs=4, batch=20, iterations=2, whitening=0.9, averaging=0.7)
BY_SGD = SGDConfig(epochs=4, batch=20, learning_rate=0.3)
VALIDATION, TEST = data(n=30, seed=1), data(n=30, seed=2)
CONFIGS = {
    "ncg": BY_NCG,
    "ncg without averaging": BY_NCG.replace(averaging=0.0, direction="hestenes-stiefel"),
    "ncg with an adversary": BY_NCG.replace(adversary=Adversary(eps=0.05, steps=2, fraction=0.5)),
    "sgd": BY_SGD.replace(weight_decay=1e-3),
    "sgd with averaging": BY_SGD.replace(averaging=0.5),
    "sgd in depth": BY_SGD.replace(length=0.5),
    "adam": BY_SGD.replace(method="adam", learning_rate=0.02, averaging=0.5),
    "adam with an adversary": BY_SGD.replace(
        method="adam", learning_rate=0.02, adversary=Adversary(attack="sensitivity", norm="l2", eps=0.1)
    ),
}


def small():
    return snode(seed=4)


def convolutional():
    return ResNet(input_shape=(1, 4, 4), classes=3, width=4)


def train(config, *, make=small, stop=None, shape=(6,), **options):
    """A fresh model after `fit`, interrupted at (epoch, mini-batch) `stop`, and the result."""

    def watch(progress):
        if (progress.epoch, progress.batch) == stop:
            raise KeyboardInterrupt

    model = make()
    samples, test = data(shape=shape), data(n=30, shape=shape, seed=2)
    result = fit(model, options.pop("samples", samples), recipe=config, test=test, on_progress=watch, **options)
    return model, result


def timeless(result):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in result.history]


def assert_same(first, second):
    (a, one), (b, two) = first, second
    assert list(a.state_dict()) == list(b.state_dict())
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())
    assert timeless(one) == timeless(two)
    for name in ("train_accuracy", "validation_accuracy", "test_accuracy", "epochs_done", "stopped", "cost"):
        assert getattr(one, name) == getattr(two, name)
    assert (one.interrupted, two.interrupted) == (False, False)


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_is_as_undisturbed_to_the_bit(tmp_path, name):
    config, file = CONFIGS[name], tmp_path / "a.partial.pt"
    whole = train(config, partial=tmp_path / "whole.partial.pt")
    started, part = train(config, partial=file, stop=(2, 2))
    assert (part.interrupted, part.epochs_done) == (True, 1)
    assert not torch.equal(started.weight, whole[0].weight)
    _, part = train(config, partial=file, resume=True, stop=(3, 3))  # the last of its epoch: not complete before
    assert (part.interrupted, part.epochs_done) == (True, 2)
    resumed = train(config, partial=file, resume=True, make=lambda: snode(seed=9))
    assert_same(whole, resumed)  # whatever weights the model brought
    assert [float(row["seconds"]) for row in resumed[1].history] == sorted(row["seconds"] for row in resumed[1].history)
    assert resumed[1].seconds > float(resumed[1].history[-1]["seconds"])
    assert_same(whole, train(config))  # nor does keeping one change anything


def test_buffers_are_resumed(tmp_path):
    options = {"make": convolutional, "shape": (1, 4, 4)}
    whole, file = train(BY_SGD, **options), tmp_path / "a.partial.pt"
    train(BY_SGD, partial=file, stop=(2, 1), **options)
    resumed = train(BY_SGD, partial=file, resume=True, **options)
    assert_same(whole, resumed)
    assert any("running_var" in name for name in resumed[0].state_dict())


@pytest.mark.parametrize("stop", [(2, 1), (4, 2)])
def test_patience_goes_on_counting(tmp_path, stop):
    guesses = data(n=60, y=torch.randint(3, (60,), generator=torch.Generator().manual_seed(3)))
    config, stopping = BY_SGD.replace(epochs=30, learning_rate=1.0), Stopping(patience=3, target=1.0, checks=2)
    options = {"samples": guesses, "validation": VALIDATION, "stopping": stopping}
    whole, file = train(config, **options), tmp_path / "a.partial.pt"
    assert 4 <= whole[1].epochs_done < 30
    assert "for 3 epochs" in str(whole[1].stopped)
    _, part = train(config, partial=file, stop=stop, **options)
    assert part.interrupted
    assert_same(whole, train(config, partial=file, resume=True, **options))


def test_a_finished_training_is_not_done_again(tmp_path, monkeypatch):
    file, whole = tmp_path / "a.partial.pt", train(BY_SGD)
    train(BY_SGD, partial=file)
    steps = []
    monkeypatch.setattr(SGD, "step", lambda self, x, y: steps.append(1))
    assert_same(whole, train(BY_SGD, partial=file, resume=True))
    assert not steps


@pytest.mark.parametrize("where", ["torch.save", "os.replace"])
def test_killed_while_saving_leaves_the_old_file_whole(tmp_path, monkeypatch, where):
    file, whole, saved = tmp_path / "a.partial.pt", train(BY_NCG), []

    def killed(*arguments, **options):
        saved.append(1)
        if len(saved) == 2:
            if where == "torch.save":
                arguments[1].write_bytes(b"half")
            raise KeyboardInterrupt
        return original(*arguments, **options)

    original = {"torch.save": torch.save, "os.replace": os.replace}[where]
    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        _, part = train(BY_NCG, partial=file)
    assert part.interrupted
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.pt"]
    assert len(torch.load(file, weights_only=True)["history"]) == 1
    assert_same(whole, train(BY_NCG, partial=file, resume=True))


def test_no_file_before_the_first_complete_epoch(tmp_path):
    _, part = train(BY_SGD, partial=tmp_path / "a.partial.pt", stop=(1, 2))
    assert part.interrupted
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverged_says_so(tmp_path, monkeypatch):
    step, file, there = SGD.step, tmp_path / "a.partial.pt", []

    def diverging(self, x, y):
        there.append(file.exists())
        report = step(self, x, y)
        return replace(report, final=float("nan")) if len(there) == 5 else report

    monkeypatch.setattr(SGD, "step", diverging)
    with pytest.raises(Diverged, match=r"epoch 2, mini-batch 2. The weights kept are those after epoch 1") as caught:
        train(BY_SGD, partial=file)
    assert caught.value.result.stopped == "the cost diverged: nan in epoch 2, mini-batch 2"
    assert there == [False, False, False, True, True]


def changed(name):
    """Options of a training in which one thing is not as it was."""
    return {
        "optimiser": {"config": BY_NCG.replace(iterations=3)},
        "cost": {"config": BY_NCG.replace(cost=replace(BY_NCG.cost, mu4=1e-3))},
        "adversary": {"config": BY_NCG.replace(adversary=Adversary(eps=0.1))},
        "kind": {"config": SGDConfig(epochs=4, batch=20)},
        "seed": {"seed": 1},
        "data": {"samples": data(seed=5)},
        "fewer data": {"samples": data(n=57)},
        "validation data": {"validation": data(n=30, seed=6)},
        "no validation data": {"validation": None, "stopping": None},
        "model": {"make": lambda: snode(seed=4, horizon=3.0)},
        "stopping": {"stopping": Stopping(patience=3)},
    }[name]


@pytest.mark.parametrize(
    ("name", "what", "now", "was"),
    [
        ("optimiser", "optimiser", '"iterations": 3', '"iterations": 2'),
        ("cost", "optimiser", '"mu4": 0.001', '"mu4": 0.0'),
        ("adversary", "optimiser", '"eps": 0.1', '"adversary": null'),
        ("kind", "optimiser", "SGDConfig", "NCGConfig"),
        ("seed", "seed", "1", "0"),
        ("data", "data", "clusters, 60 samples, ", "clusters, 60 samples, "),
        ("fewer data", "data", "clusters, 57 samples, ", "clusters, 60 samples, "),
        ("validation data", "validation data", "clusters, 30 samples, ", "clusters, 30 samples, "),
        ("no validation data", "validation data", "none", "clusters, 30 samples, "),
        ("model", "model", "'horizon': 3.0", "'horizon': 2.0"),
        ("stopping", "stopping", '"patience": 3', '"patience": 2'),
    ],
)
def test_what_changed_is_named_and_nothing_is_lost(tmp_path, name, what, now, was):
    file = tmp_path / "a.partial.pt"
    same = {"config": BY_NCG, "validation": VALIDATION, "stopping": Stopping(patience=2), "partial": file}
    train(stop=(2, 1), **same)
    before = file.read_bytes()
    with pytest.raises(TrainingError) as caught:
        train(resume=True, **{**same, **changed(name)})
    assert caught.value.what == f"unfinished training '{file}'"
    assert caught.value.expected == f"the {what} that it was started with"
    first, _, second = str(caught.value.got).partition(" in place of ")
    assert now in first
    assert was in second
    assert first != second
    fix = "Repeat the command that started it, or delete the file and start without --resume."
    assert caught.value.fix == fix
    assert file.read_bytes() == before
    assert train(resume=True, **same)[1].epochs_done >= 2


def test_another_version_of_a_library(tmp_path, monkeypatch):
    file = tmp_path / "a.partial.pt"
    train(BY_NCG, partial=file, stop=(2, 1))
    monkeypatch.setattr("robustode.training.partial.versions", lambda names: dict.fromkeys(names, "0.0"))
    with pytest.raises(TrainingError, match=r"expected the library versions that it was started with, got .*0.0"):
        train(BY_NCG, partial=file, resume=True)


def test_missing(tmp_path):
    file = tmp_path / "a.partial.pt"
    message = f"unfinished training '{file}': expected the file that a stopped training left, got no such file. Start"
    with pytest.raises(TrainingError, match=re.escape(message)):
        train(BY_NCG, partial=file, resume=True)
    with pytest.raises(TrainingError, match="resume: expected the file of an unfinished training, got none"):
        train(BY_NCG, resume=True)


@pytest.mark.parametrize("content", ["bytes", "nothing", "half", "a list", "other keys"])
def test_damaged(tmp_path, content):
    file = tmp_path / "a.partial.pt"
    train(BY_NCG, partial=file, stop=(2, 1))
    whole = file.read_bytes()
    texts = {"bytes": b"no checkpoint", "nothing": b"", "half": whole[: len(whole) // 2]}
    if content in texts:
        file.write_bytes(texts[content])
    else:
        torch.save([1, 2] if content == "a list" else {"weights": 3}, file)
    message = r"expected a file written by training, got \w+. Delete it and start without --resume.$"
    with pytest.raises(TrainingError, match=message):
        train(BY_NCG, partial=file, resume=True)


def test_of_another_schema(tmp_path):
    file = tmp_path / "a.partial.pt"
    train(BY_NCG, partial=file, stop=(2, 1))
    torch.save({**torch.load(file, weights_only=True), "schema": 0}, file)
    with pytest.raises(TrainingError, match=r"with, got another version. Repeat the command"):
        train(BY_NCG, partial=file, resume=True)


def test_where_it_is_kept(tmp_path):
    assert partial_path(tmp_path / "a.safetensors") == tmp_path / "a.partial.pt"
    assert partial_path(tmp_path / "a.b.safetensors") == tmp_path / "a.b.partial.pt"


def test_a_step_in_which_it_was_stopped_is_not_in_it(tmp_path, monkeypatch):
    config, file, calls, line = BY_NCG, tmp_path / "a.partial.pt", [], NCG.line
    whole = train(config)

    def interrupting(self, point, d, y):
        calls.append(1)
        if len(calls) == 9:  # the second iteration of a mini-batch of epoch 2, which has moved the weights
            raise KeyboardInterrupt
        return line(self, point, d, y)

    with monkeypatch.context() as patch:
        patch.setattr(NCG, "line", interrupting)
        _, part = train(config, partial=file)
    assert (part.interrupted, part.epochs_done) == (True, 1)
    assert_same(whole, train(config, partial=file, resume=True))
