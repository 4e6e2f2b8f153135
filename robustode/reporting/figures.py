"""The folder figures/ of a run: every chart of its report as SVG and PNG, for papers."""

from __future__ import annotations

from pathlib import Path

from robustode.evaluation.rundir import RunDir
from robustode.reporting.charts import all_charts


def write_figures(run: RunDir) -> list[Path]:
    """Write figures/NAME.{svg,png} of a run, each atomically, and return their paths."""
    return [path for chart in all_charts(run) for path in chart.write(run.path / "figures")]
