"""The tables of a run: every number counted by hand, every caption's duty."""

from __future__ import annotations

import pandas as pd
import pytest

from robustode.evaluation import records
from robustode.evaluation.statistics import censored_median, wilson
from robustode.reporting import views
from tests import runs

A = runs.model_meta("a", n=4, correct=3)


def by_hand():
    """Four samples, two attacks in L∞: one misclassified, one broken by PGD at 0.2, one by both, one by none."""
    rows = []
    for eps in (0.1, 0.2, 0.3):
        rows += [
            runs.wrong(sample=0, eps=eps),
            runs.success(0.2, sample=1, eps=eps) if eps >= 0.2 else runs.row(sample=1, eps=eps),
            runs.success(0.1, sample=2, eps=eps),
            runs.row(sample=3, eps=eps),
        ]
    minimal = {"attack": "sensitivity-linf", "params": "{}", "eps": None, "kkt": 1e-3, "converged": True}
    rows += [
        runs.wrong(sample=0, **{**minimal, "kkt": None, "converged": None}),
        runs.row(sample=1, **{**minimal, "converged": False}),
        runs.success(0.05, sample=2, **minimal),
        runs.success(0.25, sample=3, **{**minimal, "converged": False, "kkt": 3e-3}),
    ]
    return runs.frame(*rows), runs.run_meta([A])


def numbers(table, **where):
    return records.rows(table.frame, **where)


def test_robust_accuracy_counts():
    (table,) = views.robust_accuracy(*by_hand())
    assert table.name == "robust_accuracy_linf"
    assert list(table.frame.columns) == [
        "model", "attack", "norm", "eps", "estimate", "lo", "hi", "robust", "n", "incomplete",
    ]  # fmt: skip
    expected = {"pgd-linf": [3, 2, 1, 1], "sensitivity-linf": [3, 2, 2, 1], "worst case of all attacks": [3, 2, 1, 0]}
    for attack, robust in expected.items():
        assert numbers(table, attack=attack)["robust"].tolist() == robust
        assert numbers(table, attack=attack)["eps"].tolist() == [0.0, 0.1, 0.2, 0.3]
    row = numbers(table, attack="pgd-linf", eps=0.1).iloc[0]
    assert (row["estimate"], row["lo"], row["hi"]) == (0.5, wilson(2, 4).lo, wilson(2, 4).hi)
    assert table.display["attack"].tolist() == ["pgd-linf", "sensitivity-linf", "worst case of all attacks"]
    assert list(table.display.columns) == ["model", "attack", "clean", "ε = 0.1", "ε = 0.2", "ε = 0.3"]
    assert table.display.iloc[0].tolist()[2:4] == ["75.0 % [30.1, 95.4]", "50.0 % [15.0, 85.0]"]
    assert table.bold == {2}


def test_worst_case_is_the_minimum_and_below_clean():
    frame, meta = runs.synthetic({"a": 0.2, "b": 0.15}, n=100)
    for table in views.robust_accuracy(frame, meta):
        for (_, eps), cell in table.frame.groupby(["model", "eps"]):
            worst = cell["robust"][cell["attack"] == "worst case of all attacks"].item()
            assert worst <= cell["robust"].min() <= 96
            assert eps > 0 or worst == 96


def test_errors_read_incomplete_until_something_else_breaks_the_sample():
    frame, meta = by_hand()
    broken = frame[frame["sample"] != 3]
    extra = [runs.error(sample=3, eps=eps) for eps in (0.1, 0.2, 0.3)]
    extra += [runs.success(0.25, sample=3, attack="sensitivity-linf", params="{}", eps=None)]
    (table,) = views.robust_accuracy(runs.frame(*broken.to_dict("records"), *extra), meta)
    assert table.display["ε = 0.2"].tolist() == ["incomplete (1)", "50.0 % [15.0, 85.0]", "incomplete (1)"]
    assert table.display["ε = 0.3"].tolist()[2] == "0.0 % [0.0, 49.0]"
    row = numbers(table, attack="pgd-linf", eps=0.2).iloc[0]
    assert row["incomplete"] == 1
    assert pd.isna(row["estimate"])
    assert pd.isna(row["robust"])
    assert "incomplete (k): an attack raised on k samples" in table.caption


def test_samples_without_rows_are_incomplete_too():
    frame, meta = by_hand()
    (table,) = views.robust_accuracy(records.rows(frame, sample=1), meta)
    assert set(table.display["ε = 0.1"]) == {"incomplete (3)"}


def test_captions_do_their_duty():
    frame, meta = by_hand()
    (table,) = views.robust_accuracy(frame, meta)
    for duty in (
        "sampling of test points, not the weakness of the attacks nor the training seeds",
        "Misclassified samples count as not robust",
        "at any budget",
        "toy, test split, 4 stratified random samples (n = 4)",
        "Norm: L∞",
    ):
        assert duty in table.caption
    assert "Partial" not in table.caption
    assert "EOT" not in table.caption
    skipped = [{"attack": name, "reason": "not installed"} for name in ("fgsm-linf", "cw-l2")]
    twin = {**meta, "models": [{**A, "arch": "layered"}], "eot": 8, "status": "partial", "skipped": skipped}
    (table,) = views.robust_accuracy(frame, twin)
    assert "Partial run: skipped fgsm-linf, cw-l2: not installed." in table.caption
    assert "averaged over 8 passes (EOT)" in table.caption
    assert "a: layered twin (the paper's ResNet)." in table.caption


def test_no_attack_gives_clean_accuracy_only():
    tables = views.all_tables(records.empty(), runs.run_meta([A, runs.model_meta("b", n=4, correct=4)]))
    assert [table.name for table in tables] == ["clean_accuracy"]
    assert tables[0].frame["estimate"].tolist() == [0.75, 1.0]
    assert tables[0].display["clean accuracy"].tolist() == ["75.0 % [30.1, 95.4]", "100.0 % [51.0, 100.0]"]


def test_minimal_distance():
    (table,) = views.minimal_distance(*by_hand())
    (row,) = table.frame.to_dict("records")
    assert (row["estimate"], row["unbroken"], row["n"]) == (0.15, 1, 4)
    assert (row["converged"], row["converged_of"], row["median_kkt"]) == (1, 2, 2e-3)
    assert table.display.iloc[0].tolist() == [
        "a", "sensitivity-linf", "0.150 [0.000, ∞]", "25.0 % [4.6, 69.9]", "50.0 %", "0.00200",
    ]  # fmt: skip


def test_minimal_distance_interval_and_rows_of_several_attacks():
    frame, meta = runs.synthetic({"a": 0.2}, n=100)
    table = next(t for t in views.minimal_distance(frame, meta) if t.name == "minimal_distance_l2")
    assert table.frame["attack"].tolist() == ["sensitivity-l2", "deepfool-l2", "smallest of all"]
    distance = records.rows(frame, attack="deepfool-l2")["distance"].to_numpy()
    expected = censored_median(distance)
    row = table.frame.iloc[1]
    assert (row["estimate"], row["lo"], row["hi"]) == (expected.value, expected.lo, expected.hi)
    assert table.frame["estimate"].iloc[2] <= table.frame["estimate"].iloc[:2].min()
    assert table.bold == {2}


def test_a_median_that_half_the_samples_do_not_reach_is_not_given():
    minimal = {"attack": "sensitivity-linf", "params": "{}", "eps": None}
    rows = [runs.row(sample=i, **minimal) if i % 2 else runs.success(0.1, sample=i, **minimal) for i in range(20)]
    meta = runs.run_meta([runs.model_meta("a", n=20, correct=20)])
    (table,) = views.minimal_distance(runs.frame(*rows), meta)
    assert pd.isna(table.frame["estimate"].iloc[0])
    assert table.display["median L∞"].tolist() == ["not reached [0.100, ∞]"]
    assert "converged" not in table.display


def test_one_step_counts_correct_samples_at_their_own_budget():
    rows = []
    for eps in (0.1, 0.2, 0.3):
        kinds = {"attack": "one-step-margin", "params": '{"kind":"margin"}', "eps": eps}
        rows += [runs.wrong(sample=0, **kinds), runs.row(sample=1, **kinds), runs.row(sample=2, **kinds)]
        rows.append((runs.success(0.2, sample=3, **kinds)) if eps == 0.2 else runs.row(sample=3, **kinds))
        rows.append(runs.success(eps, sample=3, attack="fgsm-linf", params="{}", eps=eps))
        rows.append(runs.success(eps, sample=3, attack="pgd-linf", eps=eps))
    (table,) = views.one_step(runs.frame(*rows), runs.run_meta([A]))
    assert table.display["attack"].tolist() == ["fgsm-linf", "one-step-margin"]
    assert table.display["direction"].tolist() == ["FGSM", "margin"]
    margin = numbers(table, attack="one-step-margin")
    assert margin["success"].tolist() == [0, 1, 0]
    assert margin["n"].tolist() == [3, 3, 3]
    assert table.display["ε = 0.2"].tolist()[1] == "33.3 % [6.1, 79.2]"


def test_one_step_errors_are_incomplete():
    kinds = {"attack": "fgsm-linf", "params": "{}"}
    rows = [runs.row(sample=0, **kinds), runs.error(sample=1, **kinds), runs.error(sample=2, clean_pred=0, **kinds)]
    (table,) = views.one_step(runs.frame(*rows), runs.run_meta([A]))
    assert table.display["ε = 0.1"].tolist() == ["incomplete (1)"]


def test_attack_cost_counts_attacked_rows_only():
    frame = runs.frame(
        runs.wrong(sample=0, forwards=0.0, backwards=0.0),
        runs.row(sample=1, forwards=10.0, backwards=None),
        runs.success(0.1, sample=2, forwards=20.0, backwards=4.0),
        runs.row(sample=3, forwards=60.0, backwards=6.0),
    )
    (table,) = views.attack_cost(frame, runs.run_meta([A]), runs.timings(frame, milliseconds=3.0))
    (row,) = table.frame.to_dict("records")
    assert (row["forwards_mean"], row["forwards_median"]) == (30.0, 20.0)
    assert (row["backwards_mean"], row["backwards_median"]) == (5.0, 5.0)
    assert row["nfe_mean"] is None or pd.isna(row["nfe_mean"])
    assert row["seconds"] == pytest.approx(0.003)
    assert table.display.iloc[0].tolist() == ["a", "pgd-linf", "L∞", "30 (20)", "5 (5)", "–", "3.00"]
    (untimed,) = views.attack_cost(frame, runs.run_meta([A]))
    assert untimed.display["ms / sample"].tolist() == ["–"]


def test_write_tables(tmp_path):
    run = runs.write_run(tmp_path / "run", *runs.synthetic({"a": 0.2, "b": 0.1}, n=50))
    paths = views.write_tables(run)
    names = {path.name for path in paths}
    stems = {"robust_accuracy_linf", "robust_accuracy_l2", "minimal_distance_linf", "minimal_distance_l2"}
    stems |= {"one_step_linf", "attack_cost"}
    stems |= {f"paired_{what}_{norm}" for what in ("accuracy", "distance") for norm in ("linf", "l2")}
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("csv", "md", "tex")}
    assert {path.name for path in (run.path / "tables").iterdir()} == names
    before = {path: path.read_bytes() for path in paths}
    views.write_tables(run)
    assert before == {path: path.read_bytes() for path in paths}
    back = pd.read_csv(run.path / "tables" / "robust_accuracy_linf.csv")
    assert back["estimate"].between(0, 1).all()
    assert (back["lo"] <= back["estimate"]).all()
    assert (back["estimate"] <= back["hi"]).all()
