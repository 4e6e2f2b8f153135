"""The bundled checkpoints: what they claim is true, and their commands reach the same accuracy again."""

import shlex

import pytest
import torch

import robustode as ro
from robustode.models import peek, zoo_names
from robustode.training import build, fit, recipe

NAMES = ("layered-digits", "resnet-digits", "snode-digits")


def accuracy(model, data) -> float:
    with torch.no_grad():
        return float((model(data.x).argmax(1) == data.y).double().mean())


def test_names():
    assert tuple(zoo_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_claimed_accuracy(name):
    header = peek(f"zoo:{name}")["header"]
    test = ro.load_data("digits", split="test")
    assert accuracy(ro.load_model(f"zoo:{name}"), test) == pytest.approx(header.accuracy, abs=1e-9)
    assert header.accuracy >= 0.95
    assert header.data == "digits"
    arch = name.partition("-")[0]
    words = shlex.split(header.provenance["command"])
    assert words[:5] == ["robustode", "train", arch, "--data", "digits"]
    assert header.provenance["optimiser"]["name"] == ("ncg" if arch == "snode" else "sgd")
    if arch == "snode":
        assert header.provenance["optimiser"]["length"] > 0  # a Sobolev gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_again_reaches_the_accuracy(name):
    header = peek(f"zoo:{name}")["header"]
    train, test = (ro.load_data("digits", split=split) for split in ("train", "test"))
    best = recipe(name.partition("-")[0], "digits")
    model = build(best, train, header.provenance["seed"])
    result = fit(model, train, recipe=best, test=test, seed=header.provenance["seed"])
    assert result.epochs_done == header.provenance["epochs"]
    assert result.test_accuracy == pytest.approx(header.accuracy, abs=0.01)
