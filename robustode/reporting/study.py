"""The report of a study: units.csv, distances.parquet, tables/ and figures/ from what is finished."""

from __future__ import annotations

from pathlib import Path

from robustode.evaluation.study_runner import StudyRun, write_collected
from robustode.files import write_text
from robustode.reporting import study_dots, study_lines
from robustode.reporting.plot import Plot
from robustode.reporting.study_arms import arms_tables, grids_tables
from robustode.reporting.study_factors import factors_tables
from robustode.reporting.study_frame import norms, plans
from robustode.reporting.study_paired import curves, mcnemar_tables
from robustode.reporting.study_primary import primary
from robustode.reporting.tables import Table
from robustode.reporting.views import save_tables


def study_tables(run: StudyRun) -> list[Table]:
    """Return the tables of a study in reading order, that of the primary outcome first; none without finished units."""
    if not len(run.units):
        return []
    return [primary(run), *arms_tables(run), *factors_tables(run), *grids_tables(run), *mcnemar_tables(run)]


def study_figures(run: StudyRun) -> list[Plot]:
    """Return the figures of a study in reading order; none without finished units."""
    if not len(run.units):
        return []
    asked = run.study.evaluation
    lines = [study_lines.robust_accuracy(run, norm) for norm in norms(run)]
    dots = [study_dots.distance_by_arm(run), study_dots.smoothness(run)] if "l2" in norms(run) else []
    grids = [study_lines.grids(run)] if asked.steps else []
    return [*dots[:1], *lines, *grids, *dots[1:], *([study_lines.noise(run)] if asked.noise else [])]


def write_study(run: StudyRun, out: Path) -> list[Path]:
    """Write the report of a study, complete or not, to a folder: each file atomically, equal bytes from equal units.

    Returns:
        The paths of tables/NAME.{csv,md,tex}, tables/curves_DATA_NORM.csv and figures/NAME.{svg,png}, beside which lie
        units.csv and distances.parquet.
    """
    write_collected(run, out)
    paths = save_tables(study_tables(run), out / "tables")
    for plan in plans(run):
        for norm in norms(run):
            text = curves(run, plan.name, norm).to_csv(index=False, lineterminator="\n")
            paths.append(write_text(text, out / "tables" / f"curves_{plan.name}_{norm}.csv"))
    for plot in study_figures(run):
        paths.append(write_text(plot.svg(), out / "figures" / f"{plot.name}.svg"))
        paths.append(plot.png(out / "figures" / f"{plot.name}.png"))
    return paths
