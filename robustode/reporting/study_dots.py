"""Figures of a study with a dot for each unit: median distance by arm, and smoothness against it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from robustode.evaluation.study import Arm, Study, StudyData
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting import study_look as look
from robustode.reporting.plot import INK, Plot, new_figure, style
from robustode.reporting.study_frame import MATCHED, arms, caption, coverage, outcomes, over_seeds, pick, plans

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAINT = 0.45  # opacity of the dot of a unit that was not matched


def distance_by_arm(run: StudyRun) -> Plot:
    """Return the median minimal L2 distance by arm: a dot per seed, mean with Student interval; data sets in panels."""
    shown = plans(run)
    names = {arm.name for plan in shown for arm in arms(run, plan.name)}
    rows = _rows(run.study, names)
    with style():
        figure, panels = new_figure(len(shown), (2.6 + 2.7 * len(shown), 1.3 + 0.19 * len(rows)))
        for axes, plan in zip(panels, shown, strict=True):
            units = outcomes(run, plan.name)
            for at, row in enumerate(rows):
                if isinstance(row, Arm):
                    _draw(axes, pick(units, "arm", row.name), row, at)
            axes.set_title(plan.name, loc="left")
            axes.set(xlabel="median minimal L2 distance", ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
            look.grid(axes)
            _label(axes, rows, run.study, first=axes is panels[0])
        look.key(panels[0], run.study)
        look.legend_above(figure, panels[0], 3)
    text = (
        "Median minimal L2 distance over the shared test images by arm: a dot per training seed, and mean with 95 % "
        "Student interval over seeds (black). Bold: the two arms of the primary outcome. Pale: not matched in accuracy."
    )
    return Plot(name="distance_by_arm", caption=caption(text, MATCHED, coverage(run)), figure=figure)


def smoothness(run: StudyRun) -> Plot:
    """Return ∫ ‖θ'‖² dt (log) against the median L2 distance, a marker per unit; a panel per data set."""
    shown = plans(run)
    with style():
        figure, panels = new_figure(len(shown), (2.2 + 2.9 * len(shown), 4.0))
        for axes, plan in zip(panels, shown, strict=True):
            _scatter(axes, run, plan)
            axes.set(xlabel="roughness of the weights  ∫ ‖θ′(t)‖² dt", ylim=(0, None))
            units = outcomes(run, plan.name)
            if bool((units["log_smoothness"].notna() & np.isfinite(units["l2"].astype(float))).any()):
                axes.set_xscale("log")
                axes.minorticks_off()
            axes.set_title(plan.name, loc="left")
            look.grid(axes)
        panels[0].set_ylabel("median minimal L2 distance")
        look.key(panels[0], run.study)
        panels[0].plot([], [], color=INK, ls="", marker="o", ms=7, label="large: cross-entropy")
        panels[0].plot([], [], color=INK, ls="", marker="o", ms=3.2, label="small: squared error")
        look.legend_above(figure, panels[0], 3)
    text = (
        "Median minimal L2 distance against ∫ ‖θ'(t)‖² dt, the roughness of the weights in depth: one marker per "
        "trained network, all arms and seeds."
    )
    return Plot(name="smoothness", caption=caption(text, coverage(run)), figure=figure)


def _scatter(axes: Axes, run: StudyRun, plan: StudyData) -> None:
    units = outcomes(run, plan.name)
    for arm in arms(run, plan.name):
        own = pick(units, "arm", arm.name)
        size = 6.5 if arm.levels["cost"] == "ce" else 3.2
        axes.plot(own["smoothness"], own["l2"], ls="", ms=size, mew=0.9, alpha=0.85, **look.marker(arm))


def _rows(study: Study, names: set[str]) -> list[Arm | str]:
    """Return headings and arms from top to bottom: grouped by cost, cross-entropy first, then the extra arms."""
    rows: list[Arm | str] = []
    there = [arm for arm in study.arms if arm.name in names]
    cells = [arm for arm in there if not look.extra(study, arm)]
    for cost in ("ce", "squared"):
        group = [arm for arm in cells if arm.levels["cost"] == cost]
        rows += [look.WORDS[cost].capitalize(), *group] if group else []
    others = [arm for arm in there if look.extra(study, arm)]
    return [*rows, "Extra arms (cross-entropy)" if _all_ce(others) else "Extra arms", *others] if others else rows


def _all_ce(group: list[Arm]) -> bool:
    return all(arm.levels["cost"] == "ce" for arm in group)


def _draw(axes: Axes, own: pd.DataFrame, arm: Arm, at: int) -> None:
    for value, matched in zip(own["l2"], own["matched"], strict=True):
        if math.isfinite(value):
            axes.plot(value, at, ls="", ms=4.6, mew=0.9, alpha=1.0 if matched else _FAINT, **look.marker(arm))
    mean = over_seeds(own["l2"])
    if mean.value is not None:
        if mean.lo is not None and mean.hi is not None:
            axes.plot([mean.lo, mean.hi], [at, at], color=INK, lw=1.0, zorder=1)
        axes.plot([mean.value], [at], color=INK, ls="", marker="|", ms=10, mew=1.4, zorder=3)


def _label(axes: Axes, rows: list[Arm | str], study: Study, *, first: bool) -> None:
    """Name the rows at the left of the first panel; the primary pair and the headings in bold."""
    asked = study.primary
    axes.set_yticks(range(len(rows)))
    names = [row if isinstance(row, str) else row.name if look.extra(study, row) else look.label(row) for row in rows]
    axes.set_yticklabels(names if first else [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    for row, text in zip(rows, axes.get_yticklabels(), strict=True):
        text.set_fontsize(8)
        if isinstance(row, str):
            text.set_fontstyle("italic")
        elif row.name in (asked.arm, asked.against):
            text.set_fontweight("bold")
