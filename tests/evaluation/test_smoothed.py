"""Certificates of the smoothed model in a run: drawn from the run's seed, kept, and apart from everything else."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from robustode import certificates
from robustode.audit.run import audit_of
from robustode.errors import ProtocolError, RunError
from robustode.evaluation import smoothed_rows as smoothed_file
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.smoothed_rows import DTYPES
from robustode.reporting.join import join
from robustode.reporting.smoothed import smoothed_tables
from robustode.reporting.views import run_tables
from tests.evaluation.problem import affine, plan_of, refused
from tests.evaluation.runs import contents, run

ENTRY = {"sigma": 0.25, "draws": 400, "alpha": 0.01}


def plan(**values):
    model, data = affine(n=24, wrong=2)
    return plan_of(model, data, **{"audit": "none", "shard": 10, "smoothing": ENTRY, **values})


@pytest.fixture
def fixed(monkeypatch):
    """Radii 0, 0.05, 0.1, ... of the right class, every fourth sample abstaining; returns what `smooth` was asked."""
    asked = []

    def smooth(model, x, **options):
        asked.append((len(x), options))
        place = torch.arange(len(x))
        prediction = torch.where(place % 4 == 3, -1, model(x).argmax(1))
        radius = torch.where(prediction < 0, 0.0, 0.05 * place.double())
        return SimpleNamespace(prediction=prediction, radius=radius, p_lower=torch.full((len(x),), 0.7).double())

    monkeypatch.setattr(certificates, "smooth", smooth, raising=False)
    return asked


def test_rows_are_those_of_smooth_shard_by_shard(tmp_path, fixed):
    made = plan()
    found = run(made, tmp_path / "r")
    rows = found.smoothed
    assert dict(rows.dtypes.astype(str)) == DTYPES
    assert rows["sample"].tolist() == made.data.index.tolist()
    assert rows["label"].tolist() == made.data.y.tolist()
    assert [count for count, _ in fixed] == [10, 10, 4]
    for _, options in fixed:
        assert (options["sigma"], options["draws"], options["alpha"]) == (0.25, 400, 0.01)
    seeds = {options["generator"].initial_seed() for _, options in fixed}
    assert len(seeds) == 3
    assert rows["radius"].tolist()[:5] == pytest.approx([0, 0.05, 0.1, 0, 0.2])
    assert found.certificates is None
    assert found.meta["files"].keys() >= {"smoothed.parquet"}
    assert found.meta["smoothed"].keys() == {"l2"}


def test_resumed_without_drawing_again(tmp_path, fixed, monkeypatch):
    whole = run(plan(), tmp_path / "whole")
    monkeypatch.setattr("robustode.evaluation.runner.finish", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(plan(), tmp_path / "cut")
    monkeypatch.undo()
    monkeypatch.setattr(smoothed_file, "smoothed_rows", None)
    again = run(plan(), tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert again.smoothed.equals(whole.smoothed)
    other = plan(smoothing={**ENTRY, "alpha": 0.02})
    refused(RunError, "smoothing.alpha: 0.01 then, 0.02 now", lambda: run(other, tmp_path / "cut", resume=True))


def test_the_table_is_of_the_smoothed_model_and_says_so(tmp_path, fixed):
    found = run(plan(budgets={"l2": [0.07, 0.32]}), tmp_path / "r")
    (table,) = smoothed_tables(found.smoothed, found.meta)
    rows = found.smoothed
    right = (rows["prediction"] == rows["label"]).to_numpy()
    for row, eps in zip(table.frame.to_dict("records"), (0.0, 0.07, 0.32), strict=True):
        count = int((right & ((rows["radius"] > eps) | (eps == 0))).sum())
        exact = binomtest(count, 24).proportion_ci(0.95, "exact")
        assert (row["eps"], row["count"], row["n"]) == (eps, count, 24)
        assert (row["lo"], row["hi"]) == pytest.approx((exact.low, exact.high))
        assert row["abstained"] == int((rows["prediction"] == -1).sum()) == 5
        assert row["median"] == pytest.approx(np.median(np.where(right, rows["radius"], 0)))
    assert set(table.frame["model"]) == {"Affine (smoothed)"}
    assert "not of the model" in table.title
    assert "α = 0.01, over the 400 draws" in table.caption
    names = [one.name for one in run_tables(found)]
    assert "smoothed" in names
    assert not any(name.startswith(("certified", "interval")) for name in names)


def test_it_enters_neither_the_interval_nor_the_audit(tmp_path, fixed):
    made = plan(attacks="sensitivity-l2", budgets={"l2": [0.1]}, audit="cheap")
    found = run(made, tmp_path / "r", examine=audit_of(made, scope="cheap"))
    (check,) = [one for one in found.audit["findings"] if one["check"] == "certificate"]
    assert check["status"] == "not applicable"
    assert not any(one.name.startswith(("certified", "interval")) for one in run_tables(found))


def test_runs_of_other_noise_are_joined_without_it(tmp_path, fixed):
    first = run(plan(), tmp_path / "a")
    other = run(plan(smoothing={**ENTRY, "sigma": 0.5}), tmp_path / "b")
    assert join([first, other]).smoothed is None
    assert len(join([first, first]).smoothed) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0}, "expected a finite number > 0, got '0'"),
        ({"sigma": "x"}, "expected a finite number > 0, got 'x'"),
        ({"sigma": math.inf}, "expected a finite number > 0, got 'inf'"),
        ({"sigma": True}, "expected a finite number > 0, got 'True'"),
        ({"draws": 0}, "smoothing.draws: expected a number ≥ 1"),
        ({"alpha": 1.0}, "smoothing.alpha: expected a number < 1"),
        ({"alpha": 0.0}, "smoothing.alpha: expected a number > 0"),
        ({"drwas": 5}, "Did you mean 'draws'?"),
    ],
)
def test_mistakes_in_a_protocol(change, message):
    values = {"models": ["a"], "smoothing": {"sigma": 0.1, **change}}
    refused(ProtocolError, message, lambda: build_protocol(values))
