"""Recipes: what they build, what can be changed, what they leave in a header, and that they reach what they promise."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from robustode.data import load_data
from robustode.errors import ModelError, TrainingError
from robustode.models.checkpoint import load_checkpoint, read_header, save_checkpoint
from robustode.models.registry import ARCHITECTURES
from robustode.training import NCGConfig, Recipe, SGDConfig, build, fit, provenance, recipe
from robustode.training.recipes import NAMED
from tests.training.problems import data


def test_every_architecture_has_a_fallback_and_digits():
    for arch in ARCHITECTURES:
        assert recipe(arch).data is None
        assert recipe(arch, "a user's own file.npz") is recipe(arch)
        assert recipe(arch, "digits").arch == arch
    assert isinstance(recipe("snode", "digits").optimiser, NCGConfig)
    assert isinstance(recipe("layered", "digits").optimiser, SGDConfig)


EVERY = [(name, *key) for name, table in NAMED.items() for key in table if name != "paper"]


@pytest.mark.parametrize("key", EVERY, ids=lambda key: "-".join(map(str, key)))
def test_every_recipe_builds_a_network_that_its_optimiser_trains(key):
    name, *key = key
    found = NAMED[name][tuple(key)]
    shapes = {
        "mnist": (1, 28, 28),
        "fashion-mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "moons": (2,),
        "spirals": (2,),
    }
    shape = shapes.get(key[1], (1, 14, 14))
    source = data(shape=shape, classes=2, bounds=(-1.0, 2.0))
    model = build(found, source, seed=3)
    assert (model.arch, model.input_shape, model.classes, model.bounds) == (found.arch, shape, 2, (-1.0, 2.0))
    again, other = build(found, source, seed=3), build(found, source, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    found.optimiser.trainer(model, 10)


def test_adversarial_recipes_differ_from_the_plain_ones_by_their_adversary():
    for arch in ("conv-snode", "resnet"):
        for plain, robust in (("best", "adversarial"), ("large", "large-adversarial")):
            first, second = (recipe(arch, "cifar10", name) for name in (plain, robust))
            assert first.optimiser.adversary is None
            assert second.optimiser.adversary.norm == "linf"
            assert (first.model, first.optimiser) == (second.model, second.optimiser.replace(adversary=None))
    sizes = {
        arch: sum(p.numel() for p in build(recipe(arch, "cifar10", "large"), data(shape=(3, 32, 32))).parameters())
        for arch in ("conv-snode", "resnet")
    }
    assert max(sizes.values()) < 1.25 * min(sizes.values())  # matched


def test_overrides_reach_network_optimiser_and_cost():
    base = recipe("snode", "digits")
    changed = base.overrides(epochs=2, steps=12, knots=6, activation="sigmoid", mu4=1e-3)
    assert (changed.optimiser.epochs, changed.optimiser.cost.mu4, changed.optimiser.cost.mu2) == (2, 1e-3, 1.0)
    assert changed.model["steps"] == 12
    model = build(changed, data(shape=(1, 3, 3)))
    assert (model.steps, len(model.bias), model.flow.activation.name) == (12, 6, "sigmoid")
    assert base == recipe("snode", "digits")
    assert len(build(base.overrides(steps=3), data(shape=(1, 3, 3))).bias) == 3
    assert base.overrides() == base


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("snode", {"step": 3}, "unknown training option: .* got 'step'. Did you mean 'steps'"),
        ("snode", {"learning_rate": 3}, "unknown training option: .* got 'learning_rate'"),
        ("layered", {"knots": 3}, "unknown training option: .* got 'knots'"),
        ("resnet", {"widht": 3}, "unknown training option: .* got 'widht'. Did you mean 'width'"),
        ("snode", {"cost": None}, "unknown training option: .* got 'cost'"),
        ("snode", {"epochs": -1}, "training option epochs: expected a whole number ≥ 1, got -1"),
        ("resnet", {"mu2": math.nan}, "cost factor mu2: expected a finite number ≥ 0, got nan"),
    ],
)
def test_overrides_that_do_not_fit(arch, changes, message):
    with pytest.raises(TrainingError, match=message):
        recipe(arch, "digits").overrides(**changes)


def test_unknown_architecture_and_options():
    message = (
        "unknown architecture: expected one of conv-snode, layered, resnet, snode, got 'snod'. Did you mean 'snode'"
    )
    with pytest.raises(TrainingError, match=message):
        recipe("snod", "digits")
    with pytest.raises(TrainingError, match=message):
        Recipe(arch="snod", optimiser=SGDConfig())
    with pytest.raises(TrainingError, match=r"unknown training option: .* got 'stepz'. Did you mean 'steps'"):
        Recipe(arch="snode", model={"stepz": 3}, optimiser=NCGConfig())


def test_the_paper_is_the_reference_set_up():
    found = recipe("snode", name="paper")
    assert recipe("snode", "digits", "paper") == found == recipe("snode", "mnist", name="paper")  # whatever the data
    by = found.optimiser
    assert isinstance(by, NCGConfig)
    assert (by.cost.mu1, by.cost.mu2, by.cost.mu3, by.cost.mu4) == (1.0, 0.0, 0.0, 0.0)
    assert (by.epochs, by.batch, by.iterations, by.length) == (10, 100, 6, 1.0)
    assert by.line_search == "linearised"
    assert (by.whitening, by.damping, by.averaging, by.adversary) == (0.0, "constant", 0.0, None)  # what is ours
    model = build(found, data(shape=(1, 3, 4)))
    assert (model.horizon, model.steps, len(model.bias), model.flow.step) == (3.0, 150, 150, 0.02)
    assert (model.config["method"], model.config["activation"]) == ("euler", "tanh")
    encoded = model.encode(torch.tensor([0.0, 1.0]).repeat(6).view(1, 1, 3, 4))
    assert encoded.flatten().tolist() == [0.0, -1.0] * 6
    assert model.flow.positions == [[(n, 0.0)] for n in range(150)]  # one knot a step: the layered reference set-up


def test_the_paper_starts_from_normal_weights_of_that_size():
    model = build(recipe("snode", name="paper"), data(shape=(1, 8, 8)))
    # integer depths 0 to T hold independent N(0, 1/features²), a spline in between: near a depth, their size
    ends = model.weight.detach()[[0, -1]]
    assert float(ends.std()) == pytest.approx(1 / 64, rel=0.05)
    assert abs(float(ends.mean())) < 1e-3


def test_the_paper_can_be_changed():
    changed = recipe("snode", name="paper").overrides(epochs=1, steps=20)
    assert (changed.optimiser.epochs, changed.optimiser.iterations, changed.model["knots"]) == (1, 6, 20)


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a != "snode"])
def test_the_paper_is_about_the_snode(arch):
    message = f"^recipe 'paper': expected the architecture snode, got {arch}. Leave --recipe out.$"
    with pytest.raises(TrainingError, match=message):
        recipe(arch, "digits", "paper")


@pytest.mark.parametrize("name", [None, "digits", "mnist14"])
def test_certified_is_attacked_in_l2_with_small_weights(name):
    found = recipe("snode", name, "certified")
    assert found.optimiser.adversary is not None
    assert found.optimiser.adversary.norm == "l2"
    assert found.optimiser.cost.mu4 > 0
    assert found.data == name
    assert recipe("snode", "a user's own file.npz", "certified") is recipe("snode", None, "certified")
    found.overrides(mu5=0.1).optimiser.trainer(build(found, data(shape=(1, 3, 4))), 10)
    with pytest.raises(TrainingError, match=r"^recipe 'certified': expected the architecture snode, got resnet"):
        recipe("resnet", name, "certified")


def test_unknown_recipe_names():
    message = (
        "^unknown recipe: expected one of adversarial, best, certified, large, large-adversarial, paper, "
        "got 'papper'. Did you mean 'paper'"
    )
    with pytest.raises(TrainingError, match=message):
        recipe("snode", "digits", "papper")
    assert recipe("snode", "digits", "best") is recipe("snode", "digits")


def test_recipes_are_frozen():
    found = recipe("snode", "digits")
    with pytest.raises(FrozenInstanceError):
        found.arch = "layered"  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.model["steps"] = 1  # type: ignore[index]


def test_data_without_bounds_and_data_that_the_network_cannot_take():
    unbounded = data(bounds=None)
    with pytest.raises(TrainingError, match=r"data 'clusters': expected known bounds, got none. Give the box of valid"):
        build(recipe("snode"), unbounded)
    assert build(recipe("snode").overrides(bounds=(0.0, 2.0)), unbounded).bounds == (0.0, 2.0)
    with pytest.raises(ModelError, match="resnet configuration"):
        build(recipe("resnet"), data())


@pytest.mark.parametrize("arch", ["snode", "layered"])
def test_provenance_goes_into_a_header_and_comes_back(tmp_path, arch):
    chosen = recipe(arch).overrides(epochs=2, batch=20, steps=4)
    runs = []
    for _ in range(2):
        model = build(chosen, data(), seed=5)
        result = fit(model, data(), recipe=chosen, test=data(seed=1), seed=5)
        runs.append(provenance(chosen, result, "robustode train it", 5))
    assert runs[0] == runs[1]  # nothing of it depends on the clock
    assert runs[0]["optimiser"]["name"] == {"snode": "ncg", "layered": "sgd"}[arch]
    assert runs[0]["cost"] == {"mu1": 0.0, "mu2": 1.0, "mu3": 0.0, "mu4": 0.0, "mu5": 0.0}
    assert set(runs[0]["versions"]) == {"python", "torch", "numpy", "robustode"}
    path = save_checkpoint(model, tmp_path / "a.safetensors", data="clusters", provenance=runs[0])
    header = read_header(path)
    assert header.provenance == json.loads(json.dumps(runs[0]))
    assert header.provenance["smoothness"] == pytest.approx(model.smoothness, rel=1e-12)
    assert (header.accuracy, header.provenance["seed"], header.provenance["epochs"]) == (result.test_accuracy, 5, 2)
    assert torch.equal(load_checkpoint(path).weight, model.weight)


def test_provenance_without_test_data():
    chosen = recipe("snode").overrides(epochs=1, batch=20, steps=4)
    result = fit(build(chosen, data()), data(), recipe=chosen)
    assert provenance(chosen, result, "c", 0)["accuracy"] is None
    stopped = provenance(chosen, replace(result, interrupted=True), "c", 0)
    assert (stopped["interrupted"], stopped["epochs"]) == (True, 1)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_digits(arch):
    train, test = load_data("digits", split="train"), load_data("digits", split="test")
    chosen = recipe(arch, "digits")
    model = build(chosen, train)
    result = fit(model, train, recipe=chosen, test=test)
    assert result.test_accuracy is not None
    assert result.test_accuracy >= 0.96
    with torch.no_grad():
        sure = model(test.x).softmax(1).amax(1) == 1
    assert sure.double().mean() < 0.01  # else the audit finds the cross entropy without a gradient


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "name"), [("snode", "moons"), ("layered", "moons"), ("layered", "spirals")])
def test_points(arch, name):
    train, test = load_data(name, split="train"), load_data(name, split="test")
    chosen = recipe(arch, name)
    result = fit(build(chosen, train), train, recipe=chosen, test=test)
    assert result.test_accuracy is not None
    assert result.test_accuracy >= 0.95
