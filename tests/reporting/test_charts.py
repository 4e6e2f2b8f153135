"""Charts: what they draw is what the records say, in equal bytes, and every one of them is valid Vega-Lite."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
import vl_convert

from robustode.evaluation import records
from robustode.evaluation.depth import COLUMNS, GROWTH, REACH
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.worst_case import worst_case
from robustode.reporting.charts import all_charts
from robustode.reporting.charts.accuracy import accuracy_charts
from robustode.reporting.charts.confusion import confusion, confusion_charts
from robustode.reporting.charts.depth import depth_charts
from robustode.reporting.charts.differences import difference_charts
from robustode.reporting.charts.distances import distance_charts
from robustode.reporting.compare import paired
from robustode.reporting.figures import write_figures
from robustode.reporting.plot import COLOURS
from tests import runs


@pytest.fixture(scope="module")
def data():
    return runs.synthetic({"a": 0.25, "b": 0.12}, n=60)


@pytest.fixture(scope="module")
def depth():
    rows = [("b", quantity, t, 1 + t, 1.0, 2 + t, 7) for quantity in (GROWTH, REACH) for t in (0.0, 0.5, 1.0)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def values(chart):
    """The rows that a chart draws."""
    return pd.read_csv(io.StringIO(chart.spec["data"]["values"]), keep_default_na=False)


def of(data, depth=None):
    frame, meta = data
    return RunDir(path=runs.Path("runs/x"), meta=meta, records=frame, depth=depth)


def test_names_in_reading_order(data, depth):
    assert [chart.name for chart in all_charts(of(data, depth))] == [
        "robust_accuracy_linf", "robust_accuracy_l2", "differences_linf", "differences_l2", "distances_linf",
        "distances_l2", "confusion_linf", "confusion_l2", "depth_growth", "depth_reach",
    ]  # fmt: skip


@pytest.mark.parametrize("attack", ["worst case of all attacks", "pgd-linf", "sensitivity-linf"])
def test_the_curve_is_the_survival_of_the_worst_case(data, attack):
    frame, meta = data
    chart = accuracy_charts(frame, meta)[0]
    assert chart.choices["attack"][0] == "worst case of all attacks"
    alone = None if attack.startswith("worst") else attack
    for model in meta["models"]:
        case = worst_case(frame, model, "linf", attack=alone)
        rows = values(chart).query("model == @model['label'] and attack == @attack")
        np.testing.assert_allclose(rows.p, [case.robust(eps).mean() for eps in rows.eps], atol=1e-4)
        assert rows.eps[rows.budget == 1].tolist() == [0.0, 0.1, 0.2, 0.3]
        assert (rows.lo <= rows.p).all()
        assert (rows.p <= rows.hi).all()
        assert (np.diff(rows.p) <= 0).all()


def test_after_the_audit_comes_first_and_lies_below(data):
    frame, meta = data
    found = runs.success(0.01, attack="audit-noise-linf", params="{}", sample=3, label=1, clean_pred=1, eps=0.1)
    audited = records.validate(pd.concat([frame, runs.frame(found)], ignore_index=True))
    chart = accuracy_charts(audited, meta)[0]
    assert list(chart.choices["attack"])[:2] == ["after the audit", "worst case of all attacks"]
    assert not any(name.startswith("audit-") for name in chart.choices["attack"])
    by = values(chart).query("model == 'a' and budget == 1").set_index(["attack", "eps"]).p
    assert by["after the audit", 0.1] < by["worst case of all attacks", 0.1]


def test_without_minimal_norm_attacks_the_axis_ends_at_the_budgets_and_the_caption_says_why():
    frame = runs.frame(*[runs.success(0.05 * i, sample=i, eps=0.3) for i in (1, 2, 3)], runs.row(sample=4, eps=0.3))
    (chart,) = accuracy_charts(frame, runs.run_meta([runs.model_meta("a", n=4, correct=4)]))
    assert values(chart).eps.max() == pytest.approx(1.04 * 0.3)
    assert "upper bound only" in chart.caption


def test_incomplete_samples_are_named():
    frame = runs.frame(runs.error(sample=0), runs.row(sample=1))
    (chart,) = accuracy_charts(frame, runs.run_meta([runs.model_meta("a", n=2, correct=2)]))
    assert "a: 1 incomplete" in chart.caption


def test_the_distribution_ends_at_the_broken_share():
    minimal = {"attack": "sensitivity-linf", "params": "{}", "eps": None}
    rows = [runs.wrong(sample=0, **minimal), runs.row(sample=3, **minimal)]
    rows += [runs.success(0.1 * i, sample=i, **minimal) for i in (1, 2)]
    (chart,) = distance_charts(runs.frame(*rows), runs.run_meta([runs.model_meta("a", n=4, correct=3)]))
    drawn = values(chart)
    steps = dict(zip(drawn.distance, drawn.share, strict=True))  # of equal distances the last counts
    assert list(steps.values()) == [0.25, 0.5, 0.5]
    assert list(steps) == [0.0, 0.1, pytest.approx(0.1 + 0.96 * 0.1)]  # the axis ends at the 98 % quantile


def test_differences_are_those_of_the_table(data):
    frame, meta = data
    table = next(table for table in paired(frame, meta) if table.name == "paired_accuracy_linf").frame
    drawn = values(difference_charts(frame, meta)[0])
    assert drawn.pair.unique().tolist() == ["a − b"]
    assert drawn.eps.tolist() == ["clean", "ε = 0.1", "ε = 0.2", "ε = 0.3"]
    for name in ("estimate", "lo", "hi"):
        np.testing.assert_allclose(drawn[name], 100 * table[name].astype(float), atol=1e-3)
    assert difference_charts(*runs.synthetic({"a": 0.2}, n=30)) == []


def test_confusion_counts_the_nearest_adversarial_of_each_sample():
    common = {"label": 1, "clean_pred": 1}
    frame = runs.frame(
        runs.success(0.3, sample=0, eps=0.3, **common) | {"adv_pred": 5},
        runs.success(0.1, sample=0, eps=0.1, **common) | {"adv_pred": 7},
        runs.success(0.2, sample=0, attack="fgsm-linf", params="{}", eps=0.2, **common) | {"adv_pred": 6},
        runs.row(sample=1, eps=0.1, **common),
        runs.wrong(sample=2, label=1, eps=0.1),
        runs.success(0.1, sample=3, eps=0.1, label=2, clean_pred=2) | {"adv_pred": 0},
    )
    found = confusion(frame, "a", "linf")
    counted = {(own, taken): (count, share) for own, taken, count, share in found.itertuples(index=False, name=None)}
    third = pytest.approx(1 / 3)
    assert counted == {("1", "7"): (1, third), ("1", "none"): (1, third), ("1", "0"): (1, third), ("2", "0"): (1, 1.0)}
    (chart,) = confusion_charts(frame, runs.run_meta([runs.model_meta("a", n=4, correct=3)]))
    assert values(chart)["count"].sum() == 4


def test_a_model_keeps_its_colour_and_who_is_missing_is_named(data, depth):
    _, meta = data
    growth, reach = depth_charts(depth, meta)
    scale = growth.spec["encoding"]["color"]["scale"]
    assert (scale["domain"], scale["range"]) == (["b"], [COLOURS[1]])
    assert "(b 7)" in reach.caption
    assert "Not here: a (no sNODE on a fixed grid)." in reach.caption
    assert depth_charts(None, meta) == []


def test_every_chart_is_valid_and_has_the_parameters_that_it_uses(data, depth):
    for chart in all_charts(of(data, depth)):
        for spec in (chart.page(), chart.still()):
            compiled = vl_convert.vegalite_to_vega(spec)
            signals = {signal["name"] for signal in compiled.get("signals", ())}
            assert {param["name"] for param in spec["params"]} <= signals
        assert chart.page()["width"] == "container"


def test_paper_has_a_panel_for_each_model_and_no_hidden_points(data):
    chart = next(chart for chart in all_charts(of(data)) if chart.name == "distances_l2")
    still = chart.still()
    assert [panel["title"]["text"] for panel in still["concat"]] == ["a", "b"]
    for model, panel in zip("ab", still["concat"], strict=True):
        assert {"filter": {"field": "model", "equal": model}} in panel["transform"]
    assert not any("params" in layer for panel in still["concat"] for layer in panel["layer"])
    text = chart.svg()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert text.count(">samples broken</text>") == 2


def test_written_files_are_reproducible(data, tmp_path):
    frame, meta = data
    one, two = (runs.write_run(tmp_path / name, frame, meta) for name in ("one", "two"))
    written = [write_figures(all_charts(run), run.path / "figures") for run in (one, two)]
    for first, second in zip(*written, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
    assert len(list((tmp_path / "one" / "figures").iterdir())) == 16
    assert (tmp_path / "one" / "figures" / "distances_l2.png").read_bytes().startswith(b"\x89PNG")


def test_no_attack_no_chart():
    meta = runs.run_meta([runs.model_meta("a", n=4, correct=3)])
    assert all_charts(RunDir(path=runs.Path("r"), meta=meta, records=records.empty())) == []
