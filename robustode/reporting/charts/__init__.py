"""The charts of a run: one file for each kind, each from the records and run.json alone."""

from __future__ import annotations

from robustode.evaluation.rundir import RunDir
from robustode.reporting.charts.accuracy import accuracy_charts
from robustode.reporting.charts.certificates import certificate_charts
from robustode.reporting.charts.chart import Chart
from robustode.reporting.charts.confusion import confusion_charts
from robustode.reporting.charts.depth import depth_charts
from robustode.reporting.charts.differences import difference_charts
from robustode.reporting.charts.distances import distance_charts
from robustode.reporting.charts.noise import noise_charts

__all__ = ["Chart", "all_charts"]


def all_charts(run: RunDir) -> list[Chart]:
    """Return the charts of a run in reading order."""
    return [
        *accuracy_charts(run.records, run.meta),
        *certificate_charts(run.certificates, run.records, run.meta),
        *difference_charts(run.records, run.meta),
        *distance_charts(run.records, run.meta),
        *confusion_charts(run.records, run.meta),
        *depth_charts(run.depth, run.meta),
        *noise_charts(run.noise, run.meta),
    ]
