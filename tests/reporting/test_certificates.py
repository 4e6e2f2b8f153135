"""Tables and charts of certificates say what the rows say, and stand only where there are certificates."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from robustode.errors import RunError
from robustode.evaluation.certificate_rows import DTYPES
from robustode.evaluation.rundir import RunDir
from robustode.reporting.certificates import certificate_tables
from robustode.reporting.charts import all_charts
from robustode.reporting.charts.certificates import certificate_charts
from robustode.reporting.html import notes, render
from robustode.reporting.join import join, left_apart
from robustode.reporting.tables import escape_latex
from robustode.reporting.views import run_tables
from tests import runs

N = 40
RATIO = {"a": 0.5, "b": 0.25}


def certified(records, meta, *, norm="l2", certifies="discrete", ratio=RATIO):
    """Certificates at a fixed share of the smallest distance of every sample; every fifth is not certified."""
    parts = []
    for model in meta["models"]:
        own = records[(records["model"] == model["label"]) & (records["norm"] == norm)]
        least = own.assign(distance=own["distance"].replace(np.inf, 2.0)).groupby("sample")["distance"].min()
        first = own.drop_duplicates("sample").set_index("sample")
        wrong = (first["label"] != first["clean_pred"]).reindex(least.index).to_numpy()
        radius = np.where(np.arange(len(least)) % 5 == 0, 0.0, ratio[model["label"]] * least.to_numpy())
        status = np.where(wrong, "misclassified", np.where(radius > 0, "certified", "nothing"))
        columns = {"sample": least.index, "label": 1, "clean_pred": 1, "norm": norm, "map": certifies, "status": status}
        method = np.where(status != "certified", "", np.where(radius > 0.2, "tube", "crown"))
        more = {"radius": radius, "nearest": None, "method": method, "passes": np.where(wrong, 0.0, 12.0)}
        parts.append(pd.DataFrame({"model": model["label"], **columns, **more}))
    return pd.concat(parts, ignore_index=True)[list(DTYPES)].astype(DTYPES)


@pytest.fixture(scope="module")
def data():
    records, meta = runs.synthetic({"a": 0.9, "b": 0.5}, n=N)
    protocol = {**meta["protocol"], "budgets": {**runs.BUDGETS, "l2": [0.15, 0.5]}}
    left_out = {"l2": {"ibp": "no such layer.", "flow": "certifies the flow map"}}
    models = [{**model, "left_out": left_out} for model in meta["models"]]
    return records, {**meta, "protocol": protocol, "models": models, "certified": {"l2": [0.15, 0.5]}}


def run_of(data, **sides):
    records, meta = data
    return RunDir(path=runs.Path("runs/x"), meta=meta, records=records, **sides)


def by_name(tables):
    return {table.name: table for table in tables}


def test_certified_accuracy_stands_beside_the_attacked_at_every_radius(data):
    rows = certified(*data)
    table = by_name(certificate_tables(rows, *data, None))["certified_accuracy_l2"]
    assert table.display["accuracy"].tolist() == ["certified", "attacked"] * 2
    attacked = by_name(run_tables(run_of(data)))["robust_accuracy_l2"].frame
    for row in table.frame.to_dict("records"):
        if row["kind"] == "certified":
            own = rows[(rows["model"] == row["model"]) & (rows["status"] != "misclassified")]
            count = int((own["radius"] > row["eps"] * (1 + 1e-5)).sum())
            exact = binomtest(count, N).proportion_ci(0.95, "exact")
            assert (row["count"], row["estimate"], row["n"]) == (count, count / N, N)
            assert (row["lo"], row["hi"]) == pytest.approx((exact.low, exact.high))
        else:
            found = attacked[(attacked["model"] == row["model"]) & (attacked["eps"] == row["eps"])]
            worst = found[found["attack"] == "worst case of all attacks"]
            assert worst[["estimate", "lo", "hi"]].values.tolist() == [[row["estimate"], row["lo"], row["hi"]]]
    pairs = table.frame.pivot_table(index=["model", "eps"], columns="kind", values="estimate")
    assert (pairs["certified"] <= pairs["attacked"]).all()
    assert pairs["certified"].max() > 0


def test_radius_says_share_median_bounds_and_what_is_left_out(data):
    rows = certified(*data)
    timings = pd.DataFrame(
        {
            "model": ["a", "b"],
            "attack": "certificate:discrete",
            "norm": "l2",
            "samples": [10, 20],
            "seconds": [1.0, 8.0],
        }
    )
    table = by_name(certificate_tables(rows, *data, timings))["certified_radius_l2"]
    for row, seconds in zip(table.frame.to_dict("records"), (0.1, 0.4), strict=True):
        right = rows[(rows["model"] == row["model"]) & (rows["status"] != "misclassified")]
        sure = right[right["status"] == "certified"]
        assert row["certified"] == len(sure) / len(right)
        assert row["correct"] == len(right) < N
        assert row["median"] == pytest.approx(right["radius"].median())
        assert row["median_lo"] < row["median"] < row["median_hi"]
        counts = sure["method"].value_counts().to_dict()
        assert row["methods"] == ", ".join(f"{name} {counts[name]}" for name in ("crown", "tube") if name in counts)
        assert row["passes"] == 12
        assert row["seconds"] == pytest.approx(seconds)
    assert "Bounds left out on a: ibp (no such layer); flow (certifies the flow map)." in table.caption
    assert "the deployed discrete map" in table.caption


def test_quantiles_of_the_interval_and_of_its_ratio(data):
    records, meta = data
    rows = certified(records, meta)
    table = by_name(certificate_tables(rows, records, meta, None))["interval_l2"]
    assert table.display[""].tolist() == ["certified", "attacked", "certified / attacked"] * 2
    for model in ("a", "b"):
        low, high, ratio = table.frame[table.frame["model"] == model].to_dict("records")
        own = rows[(rows["model"] == model) & (rows["status"] != "misclassified")]
        least = records[(records["model"] == model) & (records["norm"] == "l2")].groupby("sample")["distance"].min()
        far = least.reindex(own["sample"]).to_numpy()
        assert low["q50"] == pytest.approx(own["radius"].median())
        assert low["q90"] == np.sort(own["radius"])[int(np.ceil(0.9 * len(own))) - 1]
        assert high["q25"] == np.sort(far)[int(np.ceil(0.25 * len(own))) - 1]
        assert ratio["q75"] == pytest.approx(RATIO[model])
        assert ratio["q10"] == 0  # what is not certified
        assert low["n"] == high["n"] == ratio["n"] == len(own)


def test_a_sample_that_no_attack_broke_has_no_ratio_but_counts(data):
    records, meta = data
    lost = records.assign(distance=np.where(records["distance"] > 0, np.inf, 0.0))
    table = by_name(certificate_tables(certified(records, meta), lost, meta, None))["interval_l2"]
    _, high, ratio = table.frame[table.frame["model"] == "a"].to_dict("records")
    assert (high["q25"], ratio["q90"]) == (np.inf, 0.0)
    assert "∞" in table.display.to_string()


def test_the_band_is_drawn_between_the_two_curves(data):
    rows = certified(*data)
    (chart,) = certificate_charts(rows, *data)
    assert (chart.name, chart.title) == ("certified_accuracy_l2", "Certified and attacked accuracy, L2")
    drawn = pd.read_csv(io.StringIO(chart.spec["data"]["values"]))
    assert (drawn["certified"] <= drawn["attacked"]).all()
    assert sorted(drawn.loc[drawn["budget"] == 1, "eps"].unique()) == [0.15, 0.5]
    for model in ("a", "b"):
        own = rows[(rows["model"] == model) & (rows["status"] != "misclassified")]
        curve = drawn[drawn["model"] == model]
        for eps, share in zip(curve["eps"], curve["certified"], strict=True):
            assert abs(share - (own["radius"] > eps + 2.0**-22 * 8 + 1e-6 * eps).mean() * len(own) / N) < 1e-3
        assert curve["attacked"].is_monotonic_decreasing
    area = chart.spec["layer"][0]
    assert (area["encoding"]["y"]["field"], area["encoding"]["y2"]["field"]) == ("certified", "attacked")
    assert chart.svg() == chart.svg()
    assert (chart.choices, chart.panels) == ({"model": ["a", "b"]}, "model")
    assert [panel["title"]["text"] for panel in chart.still()["concat"]] == ["a", "b"]
    assert chart.name in [one.name for one in all_charts(run_of(data, certificates=rows))]


def test_without_attacks_of_the_norm_only_the_lower_curve_is_drawn(data):
    records, meta = data
    other = records[records["norm"] == "linf"]
    rows = certified(records, meta)
    (chart,) = certificate_charts(rows, other, meta)
    assert "attacked" not in chart.spec["data"]["values"]
    assert "no attack of this norm was run" in chart.caption
    assert (list(chart.models), chart.choices) == (["a", "b"], {})
    assert "<path" in chart.svg()
    assert sorted(by_name(certificate_tables(rows, other, meta, None))) == [
        "certified_accuracy_l2",
        "certified_radius_l2",
    ]


def test_certificates_of_the_flow_say_so(data):
    rows = certified(*data, certifies="flow")
    for table in certificate_tables(rows, *data, None):
        assert "the solution of the ODE (flow), not the discrete map" in table.caption
    assert "the edges may cross" in certificate_charts(rows, *data)[0].caption


def test_a_run_without_certificates_shows_nothing_of_them(data):
    records, meta = data
    plain = {key: value for key, value in meta.items() if key != "certified"}
    run = run_of((records, plain))
    names = [table.name for table in run_tables(run)] + [chart.name for chart in all_charts(run)]
    assert not any("certif" in name or "interval" in name or "smoothed" in name for name in names)
    assert certificate_tables(None, records, plain, None) == certificate_charts(None, records, plain) == []


def test_the_page_and_latex_have_them(data):
    run = run_of(data, certificates=certified(*data))
    page = render([run], charts=())
    for name in ("certified_accuracy_l2", "certified_radius_l2", "interval_l2"):
        assert f'id="table-{name}"' in page
    for table in certificate_tables(run.certificates, *data, None):
        plain = escape_latex(table.caption)
        assert plain.isascii()


def test_joined_only_if_every_run_has_the_same_kind(data):
    rows = certified(*data)
    first = run_of(data, certificates=rows)
    both = join([first, first])
    assert set(both.certificates["model"]) == {"a", "b", "a#2", "b#2"}
    tables = by_name(certificate_tables(both.certificates, both.records, both.meta, None))
    assert tables["certified_radius_l2"].display["model"].tolist() == ["a", "b", "a#2", "b#2"]
    records, meta = data
    others = (
        run_of(data),
        run_of(data, certificates=certified(*data, certifies="flow")),
        run_of((records, {**meta, "certified": {"l2": [0.1]}}), certificates=rows),
    )
    for other in others:
        assert join([first, other]).certificates is None
        assert left_apart([first, other]) == ["certificates"]
        assert "Certificates are left out" in " ".join(notes([first, other], meta))
    assert left_apart([first, first]) == left_apart([run_of(data), run_of(data)]) == []
    with pytest.raises(RunError):
        join([first, replace(first, meta={**meta, "data": {**meta["data"], "name": "x"}})])
