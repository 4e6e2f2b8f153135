"""Comparison: paired numbers by hand, and a refusal that names what differs."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from robustode.errors import RunError
from robustode.evaluation import records
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.statistics import holm, mcnemar, median_difference, paired_difference
from robustode.evaluation.worst_case import worst_case
from robustode.reporting.compare import compare, pairs
from robustode.reporting.join import join
from tests import runs


def make(tmp_path, name, labels, seed=0, n=60):
    frame, meta = runs.synthetic(labels, n=n, seed=seed)
    return RunDir(path=tmp_path / name, meta=meta, records=frame, timings=runs.timings(frame))


@pytest.fixture
def two(tmp_path):
    return make(tmp_path, "one", {"a": 0.25}), make(tmp_path, "two", {"b": 0.12})


def changed(run, *, records=None, **meta):
    new = RunDir(path=run.path, meta=copy.deepcopy(run.meta), records=run.records if records is None else records)
    for path, value in meta.items():
        *parents, key = path.split("__")
        target = new.meta
        for parent in parents:
            target = target[parent]
        target[key] = value
    return new


def test_tables_of_a_comparison(two):
    assert [table.name for table in compare(two)] == [
        "robust_accuracy_linf", "robust_accuracy_l2", "minimal_distance_linf", "minimal_distance_l2",
        "paired_accuracy_linf", "paired_distance_linf", "paired_accuracy_l2", "paired_distance_l2",
    ]  # fmt: skip


def test_side_by_side_equals_each_alone(two):
    from robustode.reporting.views import robust_accuracy

    joint = compare(two)[0].frame
    for run in two:
        alone = robust_accuracy(run.records, run.meta)[0].frame
        label = run.meta["models"][0]["label"]
        assert records.rows(joint, model=label).reset_index(drop=True).equals(alone)


def test_paired_accuracy_by_hand(two):
    table = next(t for t in compare(two) if t.name == "paired_accuracy_linf")
    one, other = (worst_case(run.records, run.meta["models"][0], "linf") for run in two)
    assert table.frame["eps"].tolist() == [0.0, 0.1, 0.2, 0.3]
    row = table.frame.iloc[2]
    a, b = one.robust(0.2), other.robust(0.2)
    counts = [int(v.sum()) for v in (a & b, a & ~b, ~a & b, ~a & ~b)]
    expected = paired_difference(*counts)
    assert [row[name] for name in ("both", "first_only", "second_only", "neither")] == counts
    assert (row["estimate"], row["lo"], row["hi"]) == (expected.value, expected.lo, expected.hi)
    assert row["estimate"] == pytest.approx(a.mean() - b.mean())
    assert row["p"] == mcnemar(counts[1], counts[2]) < 0.001
    assert table.frame["estimate"].iloc[0] == 0
    assert table.display["models"].unique().tolist() == ["a − b"]
    assert table.display["McNemar p"].tolist()[::2] == ["1.00", "< 0.001"]
    assert "Newcombe 1998, method 10" in table.caption
    assert table.frame["p_holm"].tolist() == holm(table.frame["p"].to_numpy()).tolist()
    assert (table.frame["p_holm"] > table.frame["p"]).any()
    assert table.display["p (Holm)"].tolist()[::2] == ["1.00", "< 0.001"]
    assert "p (Holm): corrected for all tests of this table (4)." in table.caption


def test_paired_distance_by_hand(two):
    table = next(t for t in compare(two, seed=5, resamples=300) if t.name == "paired_distance_l2")
    one, other = (worst_case(run.records, run.meta["models"][0], "l2").distance for run in two)
    expected = median_difference(one, other, np.random.default_rng(5), resamples=300)
    row = table.frame.iloc[0]
    assert (row["estimate"], row["lo"], row["hi"]) == (expected.value, expected.lo, expected.hi)
    assert row["lo"] > 0
    assert "300 paired bootstrap draws (seed 5)" in table.caption


def test_paired_cells_with_errors_are_incomplete(two):
    one, other = two
    frame = other.records.copy()
    hit = (frame["sample"] == 3) & (frame["norm"] == "linf")
    frame.loc[hit, "status"] = "error"
    frame.loc[hit, "distance"] = np.inf
    tables = {table.name: table for table in compare([one, changed(other, records=frame)])}
    assert tables["paired_accuracy_linf"].display["difference (points)"].tolist()[1:] == ["incomplete (1)"] * 3
    assert tables["paired_accuracy_linf"].display["McNemar p"].tolist()[1:] == ["–"] * 3
    assert tables["paired_accuracy_linf"].display["p (Holm)"].tolist()[1:] == ["–"] * 3
    assert "all tests of this table (1)" in tables["paired_accuracy_linf"].caption
    assert tables["paired_distance_linf"].display.iloc[0, 1] == "incomplete (1)"
    assert "incomplete" not in tables["paired_accuracy_l2"].display.to_string()


def test_repeated_labels_are_numbered(two):
    one, other = two
    same = changed(other, records=other.records.assign(model="a").astype({"model": "string"}))
    same.meta["models"][0]["label"] = "a"
    joined = join([one, same, same])
    assert [model["label"] for model in joined.meta["models"]] == ["a", "a#2", "a#3"]
    assert sorted(set(joined.records["model"])) == ["a", "a#2", "a#3"]
    assert joined.timings is None
    records.validate(joined.records)


def test_join_of_one_run_is_that_run(two):
    joined = join(two[:1])
    assert joined.meta == two[0].meta
    assert joined.records.equals(records.sort(two[0].records))
    assert joined.timings is not None


def test_join_gathers_what_was_skipped(two):
    one, other = two
    skipped = [{"attack": "cw-l2", "reason": "not installed"}]
    joined = join([one, changed(other, skipped=skipped, status="partial")])
    assert joined.meta["status"] == "partial"
    assert joined.meta["skipped"] == skipped


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__fingerprint": "f1"}, "not comparable: data fingerprint: expected f0, got f1"),
        ({"data__name": "mnist"}, "not comparable: data: expected toy, got mnist"),
        ({"data__split": "train"}, "not comparable: split: expected test, got train"),
        ({"data__n": 61}, "not comparable: number of samples: expected 60, got 61"),
        ({"eot": 8}, "not comparable: eot: expected none, got 8"),
        ({"schema": 2}, "not comparable: schema: expected 1, got 2"),
        ({"protocol__budgets": {"linf": [0.1]}}, r"not comparable: budgets: expected .*'l2': \[0.5, 1.0\]"),
    ],
)
def test_refusals_of_meta(two, change, message):
    one, other = two
    with pytest.raises(RunError, match=message):
        compare([one, changed(other, **change)])


def test_refusal_of_bounds(two):
    one, other = two
    models = [{**other.meta["models"][0], "bounds": [-1.0, 1.0]}]
    with pytest.raises(RunError, match=r"bounds: expected \[\(0.0, 1.0\)\], got \[\(-1.0, 1.0\)\]"):
        compare([one, changed(other, models=models)])


def test_refusal_of_other_attacks(two):
    one, other = two
    fewer = records.rows(other.records, norm="linf")
    with pytest.raises(RunError, match=r"not comparable: norms: expected .*'l2', 'linf'.*, got .'linf'"):
        compare([one, changed(other, records=fewer)])
    fewer = other.records[other.records["attack"] != "deepfool-l2"]
    with pytest.raises(RunError, match=r"not comparable: attacks: expected .*deepfool-l2.*, got"):
        compare([one, changed(other, records=fewer)])


def test_refusal_of_other_parameters(two):
    one, other = two
    cards = copy.deepcopy(other.meta["protocol"]["attacks"])
    cards[2]["params"]["steps"] = 20
    with pytest.raises(RunError, match=r"parameters of attack 'pgd-linf': expected .*\"steps\":40.*got .*\"steps\":20"):
        compare([one, changed(other, protocol__attacks=cards)])


@pytest.mark.parametrize(
    ("key", "value"), [("per_eps", {"alpha": 0.25}), ("kind", "minimal"), ("code", "f00d"), ("implementation", "a:B")]
)
def test_refusal_of_any_other_entry_of_a_card(two, key, value):
    one, other = two
    cards = copy.deepcopy(other.meta["protocol"]["attacks"])
    cards[2][key] = value
    with pytest.raises(RunError, match=f"parameters of attack 'pgd-linf': expected .*got .*\"{key}\""):
        compare([one, changed(other, protocol__attacks=cards)])


def test_title_and_paper_do_not_matter(two):
    one, other = two
    cards = [{**card, "title": "other words", "paper": "arXiv"} for card in other.meta["protocol"]["attacks"]]
    assert len(join([one, changed(other, protocol__attacks=cards)]).meta["models"]) == 2


def test_refusal_of_other_samples(two, tmp_path):
    one, other = two
    shifted = other.records.assign(sample=other.records["sample"] + 3)
    message = "samples: expected the same samples, got 59 samples in common of 60 and 60. Evaluate both models by one"
    with pytest.raises(RunError, match=message):
        compare([one, changed(other, records=shifted)])


def test_one_model_alone_is_refused(two):
    with pytest.raises(RunError, match=r"comparison: expected at least two models, got one\. Give a second run"):
        compare(two[:1])
    with pytest.raises(RunError, match="expected at least one run directory, got none"):
        join([])


def test_pairs():
    assert pairs("abc") == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(pairs("abcd")) == 6
    assert pairs("abcde") == [("a", "b"), ("a", "c"), ("a", "d"), ("a", "e")]
