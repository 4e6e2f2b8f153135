"""The folder figures/ of a run: every chart of its report as SVG and PNG, for papers."""

from __future__ import annotations

from pathlib import Path

from robustode.evaluation.rundir import RunDir
from robustode.reporting.charts import all_charts


def write_figures(run: RunDir, folder: Path | None = None) -> list[Path]:
    """Write NAME.{svg,png} of a run, or of joined ones, each atomically, and return their paths.

    Args:
        run: whose charts these are.
        folder: where they go; figures/ of the run if None.
    """
    place = run.path / "figures" if folder is None else folder
    return [path for chart in all_charts(run) for path in chart.write(place)]
