"""`fit`: the same seed, interruption, divergence, and data that cannot be trained on."""

import math

import pytest
import torch

from robustode.errors import DataError, TrainingError
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.training.fit import fit
from robustode.training.ncg import NCG, NCGConfig
from robustode.training.result import Diverged
from robustode.training.sgd import SGDConfig
from tests.training.problems import data, snode

BY_NCG = NCGConfig(epochs=3, batch=20)
BY_SGD = SGDConfig(epochs=3, batch=20, learning_rate=0.3)


def trained(config, *, seed=0, **options):
    """A fresh model after `fit`, and the result."""
    model = snode(seed=4)
    return model, fit(model, data(), recipe=config, seed=seed, **options)


@pytest.mark.parametrize("config", [BY_NCG, BY_SGD])
def test_the_same_seed_gives_the_same_bits(config):
    torch.manual_seed(1)
    first, one = trained(config)
    torch.manual_seed(2)
    second, two = trained(config)
    other, _ = trained(config, seed=1)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert [h["loss"] for h in one.history] == [h["loss"] for h in two.history]
    assert not torch.equal(first.weight, other.weight)


def test_resnet_is_reproducible_with_its_buffers():
    states = []
    for _ in range(2):
        model = ResNet(input_shape=(1, 4, 4), classes=3, width=4)
        fit(model, data(shape=(1, 4, 4)), recipe=SGDConfig(epochs=2, batch=20))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any("running_mean" in k for k in states[0])


@pytest.mark.parametrize("config", [BY_NCG, BY_SGD])
def test_test_data_change_nothing(config):
    alone, without = trained(config)
    watched, with_test = trained(config, test=data(seed=1))
    assert torch.equal(alone.weight, watched.weight)
    assert (without.test_accuracy, without.history[0]["test_accuracy"]) == (None, None)
    assert with_test.test_accuracy == with_test.history[-1]["test_accuracy"]


def test_progress_and_history():
    seen = []
    _, result = trained(BY_NCG, on_progress=seen.append)
    assert [(p.epoch, p.batch) for p in seen] == [(e, b) for e in (1, 2, 3) for b in (1, 2, 3)]
    assert {(p.epochs, p.batches) for p in seen} == {(3, 3)}
    assert seen[0].loss == pytest.approx(math.log(3), abs=0.2)  # of untrained weights: before the step
    assert [h["loss"] for h in result.history] == [p.loss for p in seen if p.batch == 3]
    assert [h["accuracy"] for h in result.history] == [p.accuracy for p in seen if p.batch == 3]
    assert [h["epoch"] for h in result.history] == [1, 2, 3]
    assert (result.epochs_done, result.interrupted) == (3, False)
    assert 0 < float(result.history[0]["seconds"] or 0) < result.seconds


def test_mini_batches_are_nearly_equal_parts_of_a_permutation(monkeypatch):
    batches = []
    step = SGDConfig().trainer(snode(), 1).step
    monkeypatch.setattr(
        "robustode.training.sgd.SGD.step", lambda self, x, y: batches.append((x, y)) or step(x[:1].repeat(3, 1), y[:3])
    )
    source = data(n=53)
    fit(snode(), source, recipe=SGDConfig(epochs=2, batch=20))
    assert [len(y) for _, y in batches] == [18, 18, 17] * 2
    rows = [torch.cat([x for x, _ in batches[i : i + 3]]) for i in (0, 3)]
    for r in rows:
        assert torch.equal(r.sort(0).values, source.x.double().sort(0).values)
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize("config", [BY_NCG, BY_SGD])
def test_interruption_keeps_what_was_learnt(config):
    def interrupt(progress):
        if (progress.epoch, progress.batch) == (2, 2):
            raise KeyboardInterrupt

    model, result = trained(config, test=data(seed=1), on_progress=interrupt)
    assert (result.interrupted, result.epochs_done, len(result.history)) == (True, 1, 1)
    assert result.cost["total"] < 0.9 * math.log(3)
    assert result.test_accuracy is not None
    assert not model.training
    fresh = snode(seed=4)
    assert (model.weight - fresh.weight).abs().max() > 1e-2


def test_interruption_in_the_first_mini_batch_keeps_the_initial_weights():
    class Stopping(Layered):
        def final_state(self, x):
            if self.training:
                raise KeyboardInterrupt
            return super().final_state(x)

    model = Stopping(input_shape=(6,), classes=3, steps=4)
    before = model.weight.detach().clone()
    result = fit(model, data(), recipe=BY_SGD)
    assert (result.interrupted, result.epochs_done) == (True, 0)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("complete", [0, 1])
def test_interruption_in_the_middle_of_a_step_keeps_the_last_complete_mini_batch(monkeypatch, complete):
    config, calls, line = NCGConfig(batch=20, iterations=3, averaging=0), [], NCG.line
    expected, model = snode(seed=4), snode(seed=4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:20]
    if complete:
        config.trainer(expected, 1).step(data().x[order].double(), data().y[order])

    def interrupting(self, point, d, y):
        calls.append(d)
        if len(calls) == 3 * complete + 2:  # one iteration of this mini-batch has moved the weights
            raise KeyboardInterrupt
        return line(self, point, d, y)

    monkeypatch.setattr(NCG, "line", interrupting)
    assert fit(model, data(), recipe=config).interrupted
    assert torch.equal(model.weight, expected.weight)
    assert len(calls) == 3 * complete + 2


class Poison(Layered):
    """A layered model whose state becomes `value` at the `at`-th training pass."""

    passes, at, value = 0, 5, math.nan

    def final_state(self, x):
        self.passes += self.training
        state = super().final_state(x)
        return state * self.value if self.training and self.passes >= self.at else state


@pytest.mark.parametrize(("value", "got"), [(math.nan, "nan"), (-1e6, r"\d+")])
def test_divergence_stops_and_gives_back_the_last_complete_epoch(value, got):
    model = Poison(input_shape=(6,), classes=3, steps=4).double()
    model.value = value
    message = (
        rf"training diverged: expected a finite cost below \d+.*, got {got}.* in epoch 2, mini-batch 2. The weights "
    )
    with pytest.raises(Diverged, match=message + r"kept are those after epoch 1. Use a smaller") as caught:
        fit(model, data(), recipe=BY_SGD)
    result = caught.value.result
    assert isinstance(caught.value, TrainingError)
    assert (result.epochs_done, result.interrupted) == (1, False)
    clean = Layered(input_shape=(6,), classes=3, steps=4).double()
    weights = []
    fit(clean, data(), recipe=BY_SGD, on_progress=lambda p: weights.append(clean.weight.detach().clone()))
    assert torch.equal(model.weight, weights[2])


def test_divergence_in_the_first_epoch_gives_back_the_initial_weights():
    model = snode(activation="relu", seed=4)
    with torch.no_grad():
        model.bias[0, 0] = math.inf
    before = model.bias.detach().clone()
    with pytest.raises(
        Diverged,
        match=r"expected a finite cost, got nan in epoch 1, mini-batch 1. The weights kept are the initial ones",
    ):
        fit(model, data(), recipe=BY_NCG)
    assert torch.equal(model.bias, before)


def test_a_slope_that_is_not_finite_stops_the_training(monkeypatch):
    trainer = "robustode.training.ncg.NCG.gradient"
    monkeypatch.setattr(trainer, lambda self, point, y: torch.full_like(self.path(), math.nan))
    with pytest.raises(Diverged, match=r"got a slope that is not finite in epoch 1, mini-batch 1. The weights"):
        trained(BY_NCG)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n": 19}, TrainingError, r"batch: expected at most the 19 samples of the data, got 20. Set the batch to 19"),
        ({"y": torch.ones(60, dtype=torch.int64)}, TrainingError, "at least two classes, got only class 1"),
        ({"classes": 4}, TrainingError, r"data 'clusters': expected labels 0 to 2, got label 3"),
        ({"shape": (2, 3)}, TrainingError, r"data 'clusters': expected samples of shape \(6,\), got \(2, 3\)"),
        (
            {"x": torch.full((60, 6), 2.0), "bounds": None},
            DataError,
            r"expected inputs inside the bounds \[0, 1\], got inputs from 2 to 2",
        ),
    ],
)
def test_data_that_cannot_be_trained_on(changes, error, message):
    model = snode()
    before = model.weight.detach().clone()
    with pytest.raises(error, match=message):
        fit(model, data(**changes), recipe=BY_NCG)
    assert torch.equal(model.weight, before)


def test_nan_in_the_data_and_in_the_test_data():
    broken = data()
    broken.x[3, 2] = math.nan  # after `Data` looked
    message = "data 'clusters': expected finite inputs, got NaN or infinity. Remove or repair them."
    with pytest.raises(TrainingError, match=message):
        fit(snode(), broken, recipe=BY_NCG)
    with pytest.raises(TrainingError, match=message):
        fit(snode(), data(), recipe=BY_NCG, test=broken)


def test_bad_seed():
    with pytest.raises(TrainingError, match="training option seed: expected a whole number ≥ 0, got -1"):
        fit(snode(), data(), recipe=BY_NCG, seed=-1)
