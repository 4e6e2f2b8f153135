"""The report of a study from made-up units: known differences give known numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from robustode.evaluation.study_runner import StudyRun
from robustode.reporting.study import study_figures, study_tables, write_study
from robustode.reporting.study_factors import effect
from robustode.reporting.study_frame import coverage, outcomes
from robustode.reporting.study_paired import curves, pairs
from tests import studies


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> StudyRun:
    return studies.made_up(studies.study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def tables(run):
    return {table.name: table for table in study_tables(run)}


def without(run: StudyRun, arm: str, seed: int | None = None) -> StudyRun:
    """The run before that arm (with that seed) was finished."""
    keep = [
        (frame["arm"] != arm) | (seed is not None and frame["seed"] != seed) for frame in (run.units, run.distances)
    ]
    return replace(run, units=run.units[keep[0]], distances=run.distances[keep[1]])


def test_names(tables):
    stems = ("arms", "training", "factors", "grids", "mcnemar")
    assert list(tables) == ["primary", *(f"{stem}_digits" for stem in stems)]
    for table in tables.values():
        assert len(table.display)
        assert "Incomplete" not in table.caption
        assert table.latex().isascii() or "ü" not in table.latex()


def test_primary_is_over_seeds(tables):
    frame = tables["primary"].frame
    assert frame["seed"].tolist() == ["0", "1", "2", "mean"]
    # NCG with the spline − Adam without: 0.1 + 0.01 seed − 0.05
    np.testing.assert_allclose(frame["difference"], [0.05, 0.06, 0.07, 0.06], atol=1e-12)
    mean, half = frame.iloc[-1], t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert (mean["lo"], mean["hi"]) == pytest.approx((0.06 - half, 0.06 + half))
    assert mean["p"] == pytest.approx(2 * t.sf(0.06 * math.sqrt(3) / 0.01, 2))
    assert frame["p"][:3].isna().all()
    assert frame["against"].tolist() == pytest.approx([0.4] * 4)  # the median of 21 with two zeros: 0.2 + 0.02 · 10
    assert tables["primary"].bold == {3}


def test_main_effects(run, tables):
    frame = tables["factors_digits"].frame.set_index(["scope", "outcome", "contrast"])
    for scope in ("all cells", "CE cells"):
        optimiser = frame.loc[(scope, "median L2 distance", "ncg − adam")]
        assert optimiser["effect"] == pytest.approx(0.11)
        assert (optimiser["seeds"], optimiser["matched"], optimiser["units"]) == (3, 6, 12)
        spline = frame.loc[(scope, "median L2 distance", "spline − independent")]
        assert (spline["effect"], spline["lo"], spline["hi"]) == pytest.approx((-0.05, -0.05, -0.05))
        assert frame.loc[(scope, "log10 of ∫‖θ'‖²", "ncg − adam"), "effect"] == pytest.approx(-1.0)
        assert frame.loc[(scope, "accuracy under noise σ = 0.2", "ncg − adam"), "effect"] == pytest.approx(0.1)
    cells = outcomes(run, "digits")
    np.testing.assert_allclose(effect(cells, "l2", "optimiser", "ncg", "adam"), [0.1, 0.11, 0.12])


def test_an_effect_leaves_out_seeds_with_a_missing_cell(run):
    cells = outcomes(without(run, "ncg-l2-ce-spline", seed=1), "digits")
    np.testing.assert_allclose(effect(cells, "l2", "optimiser", "ncg", "adam"), [0.1, 0.12])
    cells.loc[cells["seed"] == 0, "l2"] = math.inf  # half of the images unbroken
    np.testing.assert_allclose(effect(cells, "l2", "optimiser", "ncg", "adam"), [0.12])


def test_arms_and_grids(tables):
    arms = tables["arms_digits"].frame.set_index("arm")
    assert arms.loc["ncg-l2-ce-independent", "l2"] == pytest.approx(0.51)
    assert arms.loc["ncg-l2-ce-independent", "l2.seeds"] == "0.5 0.51 0.52"
    assert tables["arms_digits"].display["matched"].tolist() == ["3 of 3", "3 of 3", "0 of 3", "0 of 3"]
    grids = tables["grids_digits"].frame.set_index(["arm", "steps"])
    assert grids.loc[("adam-l2-ce-spline", 8)].tolist() == pytest.approx([0.8, 0.7, 0.3])
    assert grids.loc[("adam-l2-ce-spline", 4)].tolist() == pytest.approx([0.9, 1.0, 0.35])


def test_paired_tests_of_the_primary_arm_against_its_twins(run, tables):
    assert [pair.against for pair in pairs(run)] == ["adam-l2-ce-independent", "adam-l2-ce-spline"]
    frame = tables["mcnemar_digits"].frame.set_index(["against", "eps", "seed"])
    row = frame.loc[("adam-l2-ce-independent", 0.5, "0")]
    # robust at 0.5: 0.25 + 0.02 i > 0.5 from i = 13, against 0.2 + 0.02 i from i = 16
    assert (row["first"], row["second"]) == pytest.approx((8 / 21, 5 / 21))
    assert row["p"] == pytest.approx(2 * 0.5**3)
    assert row["lo"] < 3 / 21 < row["hi"]
    assert frame.loc[("adam-l2-ce-independent", 0.5, "mean"), "first"] == pytest.approx((8 + 8 + 9) / 63)


def test_curves_start_at_the_clean_accuracy_and_fall(run):
    frame = curves(run, "digits", "l2")
    for arm, part in itertools.groupby(frame.itertuples(), key=lambda row: row.arm):
        values = [row.robust_accuracy for row in part]
        assert values[0] == pytest.approx(19 / 21), arm
        assert (np.diff(values) <= 1e-12).all()
        assert values[-1] < 0.2


def test_an_incomplete_study_says_what_is_missing(run):
    part = without(run, "ncg-l2-ce-independent")
    assert coverage(part) == "Incomplete: 9 of 12 units are finished. Left out, without units: ncg-l2-ce-independent."
    found = {table.name: table for table in study_tables(part)}
    assert "ncg-l2-ce-independent" not in found["arms_digits"].display["arm"].tolist()
    assert all("9 of 12" in table.caption for table in found.values())
    gone = without(run, "ncg-l2-ce-spline")  # an arm of the primary outcome: no row, no error
    assert not len(study_tables(gone)[0].frame)
    assert study_figures(gone)


def test_one_seed_has_no_interval(run):
    units, distances = (frame[frame["seed"] == 2] for frame in (run.units, run.distances))
    table = study_tables(replace(run, units=units, distances=distances))[0]
    assert table.display["difference"].tolist()[-1] == "+0.0700"
    assert table.display["p"].tolist() == ["–", "–"]


def test_written_files_are_the_same_bytes_again(run, tmp_path):
    paths = write_study(run, tmp_path / "a")
    again = write_study(run, tmp_path / "b")
    names = {str(path.relative_to(tmp_path / "a")) for path in paths}
    figures = ("distance_by_arm", "study_robust_l2", "grids", "smoothness", "noise")
    assert {f"figures/{name}{suffix}" for name in figures for suffix in (".svg", ".png")} <= names
    assert {"tables/primary.csv", "tables/primary.md", "tables/primary.tex", "tables/curves_digits_l2.csv"} <= names
    for one, two in zip(paths, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one
    assert (tmp_path / "a" / "units.csv").is_file()
    assert (tmp_path / "a" / "distances.parquet").is_file()


def test_nothing_finished(run, tmp_path):
    empty = replace(run, units=run.units[:0], distances=run.distances[:0])
    assert write_study(empty, tmp_path) == []
    assert coverage(empty).startswith("Incomplete: 0 of 12 units are finished.")
