"""Figures: reproducible bytes, what the curves say, and no trace left in matplotlib's state."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from robustode.evaluation.worst_case import worst_case
from robustode.reporting import figures
from tests import runs


@pytest.fixture(scope="module")
def data():
    return runs.synthetic({"a": 0.25, "b": 0.12}, n=60)


def test_names(data):
    assert [plot.name for plot in figures.all_figures(*data)] == [
        "robust_accuracy_linf", "robust_accuracy_l2", "distances_linf", "distances_l2",
    ]  # fmt: skip


def test_the_curve_is_the_survival_of_the_worst_case(data):
    frame, meta = data
    plot = figures.accuracy_curves(frame, meta)[0]
    (axes,) = plot.figure.axes
    for model, curve, markers in zip(meta["models"], axes.lines[0::3], axes.lines[1::3], strict=True):
        case = worst_case(frame, model, "linf")
        x, y = curve.get_data()
        np.testing.assert_allclose(y, [100 * case.robust(eps).mean() for eps in x])
        assert list(markers.get_xdata()) == [0.0, 0.1, 0.2, 0.3]
        np.testing.assert_allclose(markers.get_ydata(), [100 * case.robust(eps).mean() for eps in (0, 0.1, 0.2, 0.3)])
        assert (np.diff(y) <= 0).all()
    assert axes.get_ylim() == (0, 100)
    assert axes.get_xlim()[1] > 0.3


def test_the_distribution_ends_at_the_broken_share():
    minimal = {"attack": "sensitivity-linf", "params": "{}", "eps": None}
    rows = [runs.wrong(sample=0, **minimal), runs.row(sample=3, **minimal)]
    rows += [runs.success(0.1 * i, sample=i, **minimal) for i in (1, 2)]
    plot = figures.distance_distributions(runs.frame(*rows), runs.run_meta([runs.model_meta("a", n=4, correct=3)]))[0]
    x, y = plot.figure.axes[0].lines[0].get_data()
    assert np.interp([0.1, 0.2], x, y).tolist() == [50.0, 75.0]
    assert y[-1] == 75.0


def test_without_minimal_norm_attacks_the_axis_ends_at_the_budgets_and_the_caption_says_why():
    frame = runs.frame(*[runs.success(0.05 * i, sample=i, eps=0.3) for i in (1, 2, 3)], runs.row(sample=4, eps=0.3))
    (plot,) = figures.all_figures(frame, runs.run_meta([runs.model_meta("a", n=4, correct=4)]))
    assert plot.figure.axes[0].get_xlim()[1] == pytest.approx(1.04 * 0.3)
    assert "upper bound only" in plot.caption


def test_incomplete_samples_are_named_in_the_legend():
    frame = runs.frame(runs.error(sample=0), runs.row(sample=1))
    (plot,) = figures.all_figures(frame, runs.run_meta([runs.model_meta("a", n=2, correct=2)]))
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["a (incomplete: 1)"]


def test_written_files_are_reproducible(data, tmp_path):
    frame, meta = data
    one = runs.write_run(tmp_path / "one", frame, meta)
    two = runs.write_run(tmp_path / "two", frame, meta)
    for first, second in zip(figures.write_figures(one), figures.write_figures(two), strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
    assert len(list((tmp_path / "one" / "figures").iterdir())) == 8
    assert (tmp_path / "one" / "figures" / "distances_l2.png").read_bytes().startswith(b"\x89PNG")


def test_svg_is_xml_without_a_date(data):
    text = figures.accuracy_curves(*data)[0].svg()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "dc:date" not in text


def test_drawing_leaves_no_global_state(data):
    before = dict(matplotlib.rcParams)
    figures.accuracy_curves(*data)[0].svg()
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_no_attack_no_figure():
    from robustode.evaluation import records

    assert figures.all_figures(records.empty(), runs.run_meta([runs.model_meta("a", n=4, correct=3)])) == []
