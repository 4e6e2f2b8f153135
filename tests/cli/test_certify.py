"""`robustode certify` and `eval --certify`: what they write and print, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustode.certificates import BOUNDS
from tests.cli.command import refused, robustode, works
from tests.standin import bound, only

CERTIFY = "certify --model s.safetensors --limit 12"


def test_certify_writes_a_run_of_certificates_alone(folder):
    text = works(f"{CERTIFY} --norm l2 --methods tube,lipschitz --eps 0.001,0.002").out
    for part in ("Certified accuracy, L2", "Certified radius, L2", "Clopper–Pearson", "the deployed discrete map"):
        assert part in text
    place = "runs/s-digits-certify"
    assert text.endswith(
        f"Files in {place}: report.html, tables/, figures/, records.parquet, certificates.parquet, run.json\n"
    )
    rows = pd.read_parquet(f"{place}/certificates.parquet")
    assert len(rows) == 12
    sure = rows["status"] == "certified"
    assert sure.any()
    assert set(rows.loc[sure, "method"]) <= {"tube", "lipschitz"}
    assert ((rows["radius"] > 0) == sure).all()
    assert pd.read_parquet(f"{place}/records.parquet").empty
    assert Path(place, "figures/certified_accuracy_l2.svg").is_file()
    radius = pd.read_csv(f"{place}/tables/certified_radius_l2.csv")
    right = rows["status"] != "misclassified"
    assert radius["median"].tolist() == pytest.approx([float(np.median(rows.loc[right, "radius"]))])
    assert pd.read_csv(f"{place}/tables/certified_accuracy_l2.csv")["eps"].tolist() == [0.001, 0.002]


def test_eval_certify_gives_the_interval_and_report_keeps_it(folder):
    line = "--attacks sensitivity-l2 --limit 12 --certify --certify-methods tube --eps 0.001,0.25"
    found = works(f"eval --model s.safetensors {line} --out a --json").json
    by_kind = {(row["kind"], row["eps"]): row for row in found["tables"]["certified_accuracy_l2"]}
    assert by_kind["certified", 0.001]["estimate"] <= by_kind["attacked", 0.001]["estimate"]
    low, high, ratio = found["tables"]["interval_l2"]
    assert 0 < low["q50"] <= high["q50"]
    assert 0 < ratio["q50"] <= 1
    (check,) = [one for one in found["audit"]["findings"] if one["check"] == "certificate"]
    assert check["status"] == "pass"
    again = works("report a --out r --json").json["tables"]
    assert again["interval_l2"] == found["tables"]["interval_l2"]
    assert Path("r/figures/certified_accuracy_l2.svg").is_file()
    plain = works("eval --model l.safetensors --attacks sensitivity-l2 --limit 12 --eps 0.001,0.25 --out b").out
    assert "ertified" not in plain
    joined = works("report a b --out ab").out
    assert "Certified" not in joined
    assert "Certificates are left out" in Path("ab/report.html").read_text()


def test_a_radius_that_is_too_large_is_a_defect(folder):
    real = BOUNDS["tube"]

    def inflated(problem):
        found = real.radii(problem)
        return replace(found, radius=1e4 * found.radius)

    lie = replace(real, radii=inflated)
    line = "eval --model s.safetensors --attacks sensitivity-l2 --limit 12 --certify --strict --out a"
    with only(lie):
        done = robustode(line)
    assert done.code == 3
    assert "certificate: DEFECT FOUND" in done.out
    assert "'tube' certifies" in done.out
    (check,) = [
        one for one in json.loads(Path("a/audit.json").read_text())["findings"] if one["check"] == "certificate"
    ]
    assert check["samples"]


def test_smoothing_is_apart(folder):
    text = works(f"{CERTIFY} --smoothing 0.1 --draws 50 --alpha 0.01").out
    assert "Certificates of the smoothed model (not of the model), L2" in text
    assert "Certified accuracy" not in text
    place = Path("runs/s-digits-smoothed")
    assert not (place / "certificates.parquet").exists()
    rows = pd.read_parquet(place / "smoothed.parquet")
    assert set(rows["draws"]) == {50}
    assert set(rows["alpha"]) == {0.01}
    assert (rows.loc[rows["prediction"] == -1, "radius"] == 0).all()


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ("--norm l3", ["certificates.norms: expected one of l1, l2, linf, got 'l3'"]),
        ("--norm l2 --norm l2", ["expected different norms"]),
        ("--methods afine", ["certificates.methods", "got 'afine'"]),
        ("--map flo", ["certificates.map", "Did you mean 'flow'?"]),
        ("--eps 0.1", ["eps '0.1' with attacks of several norms (l2, linf)"]),
        ("--norm l2 --eps linf=0.1", ["expected a norm of this run (l2), got 'linf'"]),
        ("--smoothing 0", ["smoothing.sigma: expected a finite number > 0"]),
        ("--smoothing 0.1 --alpha 1", ["smoothing.alpha: expected a number < 1"]),
        ("--smoothing 0.1 --draws 0", ["--draws: expected a whole number ≥ 1, got 0"]),
        ("--smoothing 0.1 --norm linf", ["--norm with --smoothing: expected l2", "without --smoothing"]),
        ("--smoothing 0.1 --methods affine", ["--methods with --smoothing: expected auto"]),
        ("--smoothing 0.1 --map flow", ["--map with --smoothing: expected discrete"]),
        ("--out .", ["expected a directory that does not exist"]),
    ],
)
def test_bad_input(folder, options, phrases):
    message = refused(f"{CERTIFY} {options}")
    for phrase in phrases:
        assert phrase in message


def test_methods_without_certify(folder):
    line = "eval --model s.safetensors --limit 20 --certify-methods affine"
    assert "--certify-methods: expected --certify beside it, got none" in refused(line)


def test_a_model_without_a_bound_says_what_remains(folder):
    with only(bound()):
        message = refused(f"{CERTIFY} --norm l2")
    assert message.startswith("model 's' (snode): ")
    assert "SNODE is not affine" in message
    assert "randomised smoothing" in message
