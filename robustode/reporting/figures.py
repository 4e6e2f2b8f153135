"""The folder figures/ of a run: every chart of its report as SVG and PNG, for papers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robustode.reporting.charts import Chart


def write_figures(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Write NAME.{svg,png} of every chart into a folder, each atomically, and return their paths."""
    return [path for chart in charts for path in chart.write(folder)]
