"""Early stopping: a target inside and at the end of an epoch, patience, the weights that are kept, and bad values."""

import re

import pytest
import torch

from robustode.errors import TrainingError
from robustode.training import loop
from robustode.training.cost import Cost
from robustode.training.fit import fit
from robustode.training.measure import evaluate
from robustode.training.ncg import NCGConfig
from robustode.training.sgd import SGDConfig
from robustode.training.stopping import Stopping
from tests.training.problems import data, snode

TRAIN, VALIDATION = data(n=240), data(n=90, seed=1)
PLAIN = SGDConfig(epochs=6, batch=20, learning_rate=0.3, momentum=0.5)  # 12 mini-batches
AVERAGED = NCGConfig(epochs=6, batch=20, iterations=1, averaging=0.3)


def noisy(n=90, seed=9):
    """Data whose labels are guesses: an accuracy that never gets high, and goes up and down."""
    guesses = torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed))
    return data(n=n, seed=seed, y=guesses)


def accuracy_of(model, samples):
    return evaluate(model, samples, Cost())[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "early stopping: expected a target accuracy or a patience, got neither"),
        ({"target": 0.0}, "training option target: expected a finite number > 0, got 0.0"),
        ({"target": -0.5}, "training option target: expected a finite number > 0, got -0.5"),
        ({"target": float("nan")}, "training option target: expected a finite number > 0, got nan"),
        ({"target": "high"}, "training option target: expected a finite number > 0, got 'high'"),
        ({"target": 95}, "training option target: expected an accuracy ≤ 1, got 95. Give a fraction: 0.95 for 95 %."),
        ({"patience": 0}, "training option patience: expected a whole number ≥ 1, got 0"),
        ({"patience": 1.5}, "training option patience: expected a whole number ≥ 1, got 1.5"),
        ({"patience": True}, "training option patience: expected a whole number ≥ 1, got True"),
        ({"patience": 1, "checks": 0}, "training option checks: expected a whole number ≥ 1, got 0"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        Stopping(**values)


def test_good_values():
    assert Stopping(target=1.0).patience is None
    assert Stopping(target=1, patience=1, checks=1) == Stopping(target=1.0, patience=1)


def test_without_validation_data():
    model = snode()
    before = model.weight.detach().clone()
    message = (
        r"^early stopping: expected validation data, got none. Hold some out: robustode train ... --validation 5000.$"
    )
    with pytest.raises(TrainingError, match=message):
        fit(model, TRAIN, recipe=PLAIN, stopping=Stopping(patience=1))
    assert torch.equal(model.weight, before)


def test_target_inside_an_epoch_keeps_the_weights_of_the_first_check_that_reached_it():
    seen = []

    def watch(progress):
        accuracy = accuracy_of(model, VALIDATION)
        seen.append((accuracy, model.weight.detach().clone()))
        model.train()

    model = snode(seed=4)
    fit(model, TRAIN, recipe=PLAIN, on_progress=watch)
    undisturbed, target = list(seen), 0.8
    first = next(i for i, (accuracy, _) in enumerate(undisturbed, 1) if accuracy >= target)
    assert first % 12 != 0, "the problem must reach its target inside an epoch"
    seen.clear()
    model = snode(seed=4)
    stopping = Stopping(target=target, checks=12)
    result = fit(model, TRAIN, recipe=PLAIN, validation=VALIDATION, stopping=stopping, on_progress=watch)
    assert len(seen) == first
    assert torch.equal(model.weight, undisturbed[first - 1][1])
    accuracy = accuracy_of(model, VALIDATION)
    assert result.validation_accuracy == accuracy >= target
    assert result.stopped == f"validation accuracy {accuracy:.2%} ≥ 80.00% after {first / 12:.3g} epochs"
    assert (result.epochs_done, result.interrupted) == (first // 12, False)
    assert len(result.history) == first // 12


def test_target_is_judged_by_the_averaged_weights_that_are_kept():
    model = snode(seed=4)
    stopping = Stopping(target=0.9, checks=12)
    result = fit(model, TRAIN, recipe=AVERAGED, validation=VALIDATION, stopping=stopping)
    assert result.validation_accuracy == accuracy_of(model, VALIDATION)
    assert result.validation_accuracy is not None
    assert result.validation_accuracy >= 0.9
    assert "≥ 90.00% after" in str(result.stopped)


@pytest.mark.parametrize("patience", [None, 2])
def test_target_at_the_end_of_an_epoch_counts_that_epoch(patience):
    model = snode(seed=4)
    stopping = Stopping(target=0.9, patience=patience)
    result = fit(model, TRAIN, recipe=PLAIN.replace(epochs=20), validation=VALIDATION, stopping=stopping)
    done = result.epochs_done
    assert 1 <= done < 20
    assert [row["epoch"] for row in result.history] == list(range(1, done + 1))
    accuracies = [float(row["validation_accuracy"] or 0) for row in result.history]
    assert all(accuracy < 0.9 for accuracy in accuracies[:-1])
    assert result.validation_accuracy == accuracies[-1] == accuracy_of(model, VALIDATION) >= 0.9
    assert result.stopped == f"validation accuracy {accuracies[-1]:.2%} ≥ 90.00% after {done} epochs"


@pytest.mark.parametrize(("checks", "asked"), [(1, 1), (4, 4), (5, 5), (12, 12), (100, 12)])
def test_how_often_the_target_is_asked(monkeypatch, checks, asked):
    calls = []

    def counting(model, samples, cost):
        calls.append(samples)
        return evaluate(model, samples, cost)

    monkeypatch.setattr(loop, "evaluate", counting)
    guesses = noisy()
    config = PLAIN.replace(epochs=2)
    result = fit(snode(), TRAIN, recipe=config, validation=guesses, stopping=Stopping(target=1.0, checks=checks))
    assert result.stopped is None
    assert sum(samples is guesses for samples in calls) == 2 * asked + 1  # and once at the end


def scripted(monkeypatch, accuracies, epochs, patience):
    """Train with given validation accuracies; return the model, the result and the weights after every epoch."""
    model, left, weights = snode(seed=4), iter(accuracies), []

    def judge(self, kept, samples):
        return None if samples is None else next(left)

    def watch(progress):
        if progress.batch == progress.batches:
            weights.append(model.weight.detach().clone())

    monkeypatch.setattr(loop.Loop, "_accuracy", judge)
    config, stopping = PLAIN.replace(epochs=epochs), Stopping(patience=patience)
    result = fit(model, TRAIN, recipe=config, validation=VALIDATION, stopping=stopping, on_progress=watch)
    return model, result, weights


def test_patience_ends_and_keeps_the_best_epoch(monkeypatch):
    model, result, weights = scripted(monkeypatch, [0.5, 0.7, 0.6, 0.7, 0.9], epochs=5, patience=2)
    assert result.epochs_done == len(weights) == 4  # an equal accuracy is no better one
    assert torch.equal(model.weight, weights[1])
    assert not torch.equal(model.weight, weights[3])
    assert result.stopped == "no validation accuracy above 70.00% (epoch 2) for 2 epochs"


def test_patience_keeps_the_best_epoch_at_the_regular_end_too(monkeypatch):
    model, result, weights = scripted(monkeypatch, [0.5, 0.4, 0.8, 0.6], epochs=4, patience=3)
    assert (result.epochs_done, result.stopped) == (4, None)
    assert torch.equal(model.weight, weights[2])


@pytest.mark.parametrize("config", [PLAIN.replace(learning_rate=1.0), AVERAGED], ids=["sgd", "ncg"])
@pytest.mark.parametrize("patience", [1, 100])
def test_the_accuracy_kept_is_the_best_of_the_history(config, patience):
    model, guesses = snode(seed=4), noisy()
    result = fit(model, noisy(240, seed=8), recipe=config, validation=guesses, stopping=Stopping(patience=patience))
    accuracies = [float(row["validation_accuracy"] or 0) for row in result.history]
    assert result.validation_accuracy == max(accuracies) == accuracy_of(model, guesses)
    assert len(set(accuracies)) > 1
    if patience == 1:
        assert result.epochs_done == accuracies.index(max(accuracies)) + 2 < 6
        assert str(result.stopped).endswith(f"(epoch {result.epochs_done - 1}) for 1 epochs")
    else:
        assert (result.epochs_done, result.stopped) == (6, None)
        assert accuracies[-1] < max(accuracies)


def test_interrupted_in_the_first_epoch_what_was_learnt_is_kept_in_spite_of_patience():
    def interrupt(progress):
        if progress.batch == 3:
            weights.append(model.weight.detach().clone())
            raise KeyboardInterrupt

    model, weights = snode(seed=4), []
    stopping = Stopping(patience=1)
    result = fit(model, TRAIN, recipe=PLAIN, validation=VALIDATION, stopping=stopping, on_progress=interrupt)
    assert (result.interrupted, result.epochs_done) == (True, 0)
    assert torch.equal(model.weight, weights[0])


def test_validation_data_alone_change_nothing():
    alone, watched = snode(seed=4), snode(seed=4)
    fit(alone, TRAIN, recipe=PLAIN)
    result = fit(watched, TRAIN, recipe=PLAIN, validation=VALIDATION)
    assert torch.equal(alone.weight, watched.weight)
    assert result.validation_accuracy == result.history[-1]["validation_accuracy"]
    assert result.stopped is None
