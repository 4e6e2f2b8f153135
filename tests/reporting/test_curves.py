"""Learning curves: what the lines say, histories with gaps, reproducible files, and clear errors."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from robustode.errors import OptionError
from robustode.reporting.curves import learning_curves, learning_plot
from robustode.training import SGDConfig, fit
from tests.training.problems import data, snode


def history(epochs=5, rate=0.3, **changes):
    return [
        {
            "epoch": e,
            "loss": 2.0 * math.exp(-rate * e),
            "accuracy": 1 - 0.9 * math.exp(-rate * e),
            "validation_accuracy": 0.9 - 0.6 * math.exp(-rate * e),
            "test_accuracy": 0.8 - 0.5 * math.exp(-rate * e),
            "seconds": 2.5 * e,
        }
        | changes
        for e in range(1, epochs + 1)
    ]


def labels(plot):
    return [text.get_text() for text in plot.figure.legends[0].get_texts()]


def curves(axes):
    return [np.asarray(line.get_data()) for line in axes.lines if len(line.get_xdata())]


def test_what_the_lines_say():
    epochs = history()
    plot = learning_plot(epochs, title="a title")
    cost, accuracy = plot.figure.axes
    (loss,) = curves(cost)
    np.testing.assert_allclose(loss, [[1, 2, 3, 4, 5], [epoch["loss"] for epoch in epochs]])
    for line, key in zip(curves(accuracy), ("accuracy", "validation_accuracy", "test_accuracy"), strict=True):
        np.testing.assert_allclose(line, [[1, 2, 3, 4, 5], [100 * epoch[key] for epoch in epochs]])
    assert labels(plot) == ["training", "validation", "test"]
    assert plot.figure.legends[0].get_title().get_text() == "a title"
    assert (cost.get_ylabel(), accuracy.get_ylabel(), cost.get_xlabel()) == ("cost", "accuracy (%)", "epoch")
    assert (cost.get_yscale(), cost.get_ylim()[0], accuracy.get_ylim()[1]) == ("linear", 0.0, 100.0)


def test_a_cost_that_falls_far_is_logarithmic():
    assert learning_plot(history(20)).figure.axes[0].get_yscale() == "log"


def test_seconds():
    cost = learning_plot(history(3), x="seconds").figure.axes[0]
    assert curves(cost)[0][0].tolist() == [2.5, 5.0, 7.5]
    assert (cost.get_xlabel(), cost.get_xlim()[0]) == ("time (s)", 0.0)


def test_several_histories_have_a_colour_each_and_dashes_for_the_sets():
    plot = learning_plot({"NCG": history(3), "Adam": history(6, validation_accuracy=None)})
    cost, accuracy = plot.figure.axes
    assert labels(plot) == ["NCG", "Adam", "training", "validation", "test"]
    assert [len(line[0]) for line in curves(cost)] == [3, 6]
    assert [len(line[0]) for line in curves(accuracy)] == [3, 3, 3, 6, 6]
    colours = [line.get_color() for line in accuracy.lines[:5]]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    assert labels(learning_plot({"only": history(2)})) == ["only", "training", "validation", "test"]


def test_missing_values_leave_no_point():
    epochs = history(4, validation_accuracy=None)
    epochs[1]["test_accuracy"] = None
    epochs[2]["loss"] = math.inf
    epochs[3]["loss"] = math.nan
    del epochs[0]["accuracy"]
    plot = learning_plot(epochs)
    cost, accuracy = plot.figure.axes
    assert [line[0].tolist() for line in curves(cost)] == [[1, 2]]
    assert [line[0].tolist() for line in curves(accuracy)] == [[2, 3, 4], [1, 3, 4]]
    assert labels(plot) == ["training", "test"]
    assert labels(learning_plot([{"epoch": 1, "loss": 1.0}])) == ["training"]


def test_one_epoch_is_a_visible_point(tmp_path):
    plot = learning_plot(history(1))
    for axes in plot.figure.axes:
        assert axes.lines[0].get_marker() == "o"
        assert axes.get_xlim() == (0.5, 1.5)
    assert learning_curves(history(1), tmp_path / "one.png")[0].read_bytes().startswith(b"\x89PNG")


def test_files_are_reproducible_and_named_by_suffix(tmp_path):
    written = [learning_curves(history(), tmp_path / folder / "curves", title="t") for folder in ("a", "b")]
    assert [path.name for path in written[0]] == ["curves.svg", "curves.png"]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()
    text = written[0][0].read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "dc:date" not in text
    assert learning_curves(history(), str(tmp_path / "c.svg")) == [tmp_path / "c.svg"]
    assert (tmp_path / "c.svg").read_text() != text  # without the title
    assert not (tmp_path / "c.png").exists()


def test_history_of_a_training_and_no_global_state(tmp_path):
    before = dict(matplotlib.rcParams)
    result = fit(snode(), data(), recipe=SGDConfig(epochs=2, batch=20), test=data(seed=1))
    (path,) = learning_curves(result.history, tmp_path / "c.svg", x="seconds")
    assert path.stat().st_size > 1000
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: learning_curves(history(), path / "c.pdf"), r"c.pdf': expected a name ending in .svg or .png"),
        (lambda path: learning_curves(history(), path / "c.pdf"), r"got '.pdf'. Write c.svg or c.png."),
        (lambda path: learning_curves(history(), path / "c", x="epochs"), "unknown axis .* got 'epochs'. Did you mean"),
        (lambda path: learning_plot([]), "history: expected at least one complete epoch, got none"),
        (lambda path: learning_plot({}), "learning curves: expected at least one history, got none"),
        (lambda path: learning_plot({"a": []}), "history 'a': expected at least one complete epoch, got none"),
        (lambda path: learning_plot([{"epoch": 1, "loss": 1.0}], x="seconds"), "expected 'seconds' of .* only epoch"),
        (lambda path: learning_plot([{"epoch": 1, "loss": math.nan}]), "history: expected a finite value of one"),
    ],
)
def test_errors(call, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
