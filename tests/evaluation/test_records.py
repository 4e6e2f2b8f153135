"""The records schema: what is accepted, what is refused, and that equal records are equal bytes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from robustode.errors import RunError
from robustode.evaluation import records
from tests import runs


def test_columns_are_those_of_the_contract():
    assert records.COLUMNS == (
        "model", "model_hash", "data", "sample", "label", "clean_pred", "attack", "params", "norm", "eps", "target",
        "seed", "protocol", "status", "distance", "adv_pred", "clean_margin", "adv_margin", "converged", "kkt",
        "forwards", "backwards", "nfe", "message",
    )  # fmt: skip


def test_dtypes_of_empty_records():
    frame = records.empty()
    assert len(frame) == 0
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == records.DTYPES
    assert records.validate(frame).equals(frame)


def test_validate_orders_and_casts_columns():
    shuffled = pd.DataFrame([runs.row(eps=None, target=None, kkt=1e-6, converged=True)])[list(records.COLUMNS)[::-1]]
    frame = records.validate(shuffled)
    assert list(frame.columns) == list(records.COLUMNS)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == records.DTYPES
    assert frame["eps"].isna().all()
    assert frame["target"].isna().all()
    assert bool(frame["converged"].iloc[0]) is True


def test_missing_and_extra_columns_are_named():
    frame = pd.DataFrame([runs.row()]).drop(columns="kkt").assign(seconds=1.0)
    with pytest.raises(RunError, match=r"records columns: expected exactly model, .*, got missing kkt; extra seconds"):
        records.validate(frame)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (runs.row(status="?"), r"'status': expected one of misclassified, success, failed, skipped, error, got \?"),
        (runs.row(distance=0.3), r"'distance': expected \+inf where no adversarial was found, got 0.3 \(model 'a'"),
        (runs.success(math.inf), "'distance': expected a finite number ≥ 0 for a success, got inf"),
        (runs.success(-0.1), "'distance': expected a finite number ≥ 0 for a success, got -0.1"),
        (runs.wrong(distance=0.2), "'distance': expected 0 for a misclassified sample, got 0.2"),
        (runs.error(distance=0.0), r"'distance': expected \+inf where no adversarial was found, got 0.0"),
        (runs.wrong(clean_pred=1), "'clean_pred': expected other than the label for a misclassified sample, got 1"),
        (runs.success(0.1, clean_pred=0), "'clean_pred': expected equal to the label for an attacked sample, got 0"),
        (runs.success(0.1, adv_pred=None), "'adv_pred': expected a value where a point was returned"),
        (runs.row(eps=0.0), "'eps': expected a positive number, or null for a minimal-norm attack, got 0.0"),
        (runs.row(params='{"b":1, "a":2}'), "'params': expected canonical JSON of an object, got"),
        (runs.row(params="[1]"), "'params': expected canonical JSON of an object"),
        (runs.row(params="{"), "'params': expected canonical JSON of an object"),
        (runs.row(label=None), "'label': expected a value in every row, got null in row 0"),
        (runs.row(sample=0.5), "'sample': expected dtype int64, got dtype float64"),
        (runs.row(model=7), "'model': expected text, got dtype int64"),
        (runs.row(distance=math.nan), "'distance': expected a value in every row, got null in row 0"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused(bad, message):
    with pytest.raises(RunError, match=message):
        records.validate(pd.DataFrame([bad]))


def test_two_rows_of_one_key_are_refused():
    with pytest.raises(RunError, match=r"expected one row for each \(model, attack, norm, eps, sample\), got 0"):
        records.validate(pd.DataFrame([runs.row(eps=None), runs.row(eps=None)]))
    assert len(runs.frame(runs.row(eps=0.1), runs.row(eps=0.2), runs.row(eps=None), runs.row(norm="l2"))) == 4


def test_sort_puts_minimal_norm_rows_last_within_an_attack():
    frame = runs.frame(
        runs.row(model="b"),
        runs.row(eps=None),
        runs.row(eps=0.2, sample=5),
        runs.row(eps=0.2, sample=3),
        runs.row(eps=0.1, sample=9),
        runs.row(attack="fgsm"),
        runs.row(norm="l2"),
    )
    keys = (
        records.sort(frame)[["model", "attack", "norm", "eps", "sample"]].astype(object).fillna("-").to_numpy().tolist()
    )
    assert keys == [
        ["a", "fgsm", "linf", 0.1, 0],
        ["a", "pgd-linf", "l2", 0.1, 0],
        ["a", "pgd-linf", "linf", 0.1, 9],
        ["a", "pgd-linf", "linf", 0.2, 3],
        ["a", "pgd-linf", "linf", 0.2, 5],
        ["a", "pgd-linf", "linf", "-", 0],
        ["b", "pgd-linf", "linf", 0.1, 0],
    ]


def test_round_trip_and_equal_bytes(tmp_path):
    frame, _ = runs.synthetic({"a": 0.2, "b": 0.1}, n=40)
    one = records.write(frame, tmp_path / "one.parquet")
    two = records.write(frame.sample(frac=1, random_state=3), tmp_path / "two.parquet")
    assert one.read_bytes() == two.read_bytes()
    pd.testing.assert_frame_equal(records.read(one), records.sort(frame))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]


def test_file_names_no_library_version_but_the_writers(tmp_path):
    path = records.write(runs.frame(runs.row()), tmp_path / "r.parquet")
    metadata = pq.read_metadata(path).metadata or {}
    assert b"pandas" not in metadata


def test_nulls_survive_the_round_trip(tmp_path):
    frame = runs.frame(
        runs.row(eps=None, target=3, kkt=0.25, converged=False, forwards=None, nfe=7.0), runs.error(sample=1)
    )
    back = records.read(records.write(frame, tmp_path / "r.parquet"))
    assert back["eps"].isna().tolist() == [False, True]
    minimal = back.iloc[1]
    assert (minimal["target"], minimal["kkt"], minimal["converged"], minimal["nfe"]) == (3, 0.25, False, 7.0)
    assert minimal["forwards"] is pd.NA
    assert back.iloc[0][["adv_pred", "adv_margin"]].isna().all()
    assert back["distance"].tolist() == [math.inf, math.inf]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = records.write(runs.frame(runs.row()), tmp_path / "r.parquet")
    before = path.read_bytes()
    with pytest.raises(RunError):
        records.write(pd.DataFrame([runs.row(status="?")]), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r.parquet"]


def test_read_refuses_what_is_not_parquet(tmp_path):
    path = tmp_path / "records.parquet"
    with pytest.raises(RunError, match="no records"):
        records.read(path)
    path.write_bytes(b"model,sample\n")
    with pytest.raises(RunError, match=r"expected a Parquet file, got"):
        records.read(path)


def test_canonical_json():
    assert records.canonical_json({"b": [1, 2.5], "a": {"d": None, "c": "ε"}}) == '{"a":{"c":"ε","d":null},"b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON"):
        records.canonical_json({"a": math.nan})


def test_best_distance_is_the_smallest_over_attacks_and_budgets():
    frame = runs.frame(
        runs.success(0.1, sample=0, eps=0.1),
        runs.success(0.2, sample=0, eps=0.2),
        runs.success(0.05, sample=0, attack="sens", eps=None),
        runs.row(sample=1, eps=0.1),
        runs.success(0.18, sample=1, eps=0.2),
        runs.error(sample=1, attack="sens", eps=None),
        runs.wrong(sample=2, eps=0.1),
        runs.wrong(sample=2, eps=0.2),
        runs.error(sample=2, attack="sens", eps=None, clean_pred=0),
        runs.row(sample=3, eps=0.1),
        runs.row(sample=3, eps=0.2, status="skipped"),
        runs.success(0.3, sample=0, norm="l2", eps=0.5),
        runs.row(sample=0, model="b", eps=0.1),
    )
    best = records.best_distance(frame)
    assert best[["model", "norm", "sample"]].to_numpy().tolist() == [
        ["a", "l2", 0], ["a", "linf", 0], ["a", "linf", 1], ["a", "linf", 2], ["a", "linf", 3], ["b", "linf", 0],
    ]  # fmt: skip
    assert best["distance"].tolist() == [0.3, 0.05, 0.18, 0.0, math.inf, math.inf]
    assert best["found_by"].fillna("-").tolist() == ["pgd-linf", "sens", "pgd-linf", "-", "-", "-"]
    assert best["found_eps"].fillna(-1.0).tolist() == [0.5, -1.0, 0.2, -1.0, -1.0, -1.0]
    assert best["errors"].tolist() == [0, 0, 1, 1, 0, 0]
    assert best["skipped"].tolist() == [0, 0, 0, 0, 1, 0]


def test_best_distance_does_not_depend_on_the_order_of_rows():
    frame, _ = runs.synthetic({"a": 0.2}, n=30)
    shuffled = frame.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(records.best_distance(frame), records.best_distance(shuffled))
    alone = records.best_distance(frame, by=("model", "attack", "norm"))
    smallest = alone.groupby(["model", "norm", "sample"])["distance"].min().to_numpy()
    np.testing.assert_array_equal(records.best_distance(frame)["distance"].to_numpy(), smallest)


def test_rows_selects_by_value_and_by_null():
    frame = runs.frame(runs.row(eps=None), runs.row(eps=0.1), runs.row(eps=0.2, norm="l2"))
    assert len(records.rows(frame, eps=None)) == 1
    assert records.rows(frame, eps=0.2)["norm"].tolist() == ["l2"]
    assert len(records.rows(frame, norm="linf", eps=0.2)) == 0
