"""Every table of a run, and the folder tables/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.evaluation.rundir import RunDir
from robustode.files import write_text
from robustode.reporting.accuracy import clean_accuracy, robust_accuracy
from robustode.reporting.audit import audit_table
from robustode.reporting.certificates import certificate_tables
from robustode.reporting.compare import paired
from robustode.reporting.cost import attack_cost
from robustode.reporting.distances import minimal_distance
from robustode.reporting.noise import noise_tables
from robustode.reporting.onestep import one_step
from robustode.reporting.smoothed import smoothed_tables
from robustode.reporting.tables import Table

__all__ = [
    "all_tables",
    "attack_cost",
    "clean_accuracy",
    "minimal_distance",
    "one_step",
    "robust_accuracy",
    "run_tables",
    "save_tables",
    "tables_beside",
    "write_tables",
]


def all_tables(
    records: pd.DataFrame,
    meta: dict[str, Any],
    timings: pd.DataFrame | None = None,
    audit: dict[str, Any] | None = None,
) -> list[Table]:
    """Return the tables of a run in reading order; from records, run.json, timings and audit.json alone."""
    return [
        *robust_accuracy(records, meta),
        *audit_table(audit),
        *minimal_distance(records, meta),
        *one_step(records, meta),
        *attack_cost(records, meta, timings),
    ]


def run_tables(run: RunDir) -> list[Table]:
    """Return the tables of a run, the paired differences of several models, and those of what stands beside them."""
    tables = all_tables(run.records, run.meta, run.timings, run.audit)
    tables += paired(run.records, run.meta) if len(run.meta["models"]) > 1 else []
    return tables + tables_beside(run)


def tables_beside(run: RunDir) -> list[Table]:
    """Return the tables of what stands beside the attacks: certificates, those of smoothed models, noise."""
    return [
        *certificate_tables(run.certificates, run.records, run.meta, run.timings),
        *smoothed_tables(run.smoothed, run.meta),
        *noise_tables(run.noise, run.meta, run.timings),
    ]


def write_tables(run: RunDir) -> list[Path]:
    """Write tables/NAME.{csv,md,tex} of a run, each atomically, and return their paths."""
    return save_tables(run_tables(run), run.path / "tables")


def save_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX into a folder and return the paths."""
    paths = []
    for table in tables:
        for suffix, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
            paths.append(write_text(text, folder / f"{table.name}.{suffix}"))
    return paths
