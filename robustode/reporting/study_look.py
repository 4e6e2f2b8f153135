"""How the arms of a study look in its figures: colour for the optimiser, marker for operator and initialisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustode.evaluation.study import FACTORS, Arm, Study
from robustode.reporting.plot import COLOURS, INK, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = {
    "ncg": "NCG",
    "adam": "Adam",
    "sgd": "SGD",
    "l2": "L2 gradient",
    "sobolev": "Sobolev gradient",
    "squared": "squared error",
    "ce": "cross-entropy",
    "spline": "spline",
    "independent": "independent",
}
GREY = "#9aa5b1"  # arms in the background


def colour(arm: Arm) -> str:
    """Return the colour of its optimiser."""
    return COLOURS[FACTORS["optimiser"].index(arm.levels["optimiser"])]


def marker(arm: Arm) -> dict[str, Any]:
    """Return shape (operator: circle L2, square Sobolev) and filling (spline full, independent hollow)."""
    full = arm.levels["initialisation"] == "spline"
    shape = MARKERS[FACTORS["operator"].index(arm.levels["operator"])]
    return {"marker": shape, "mfc": colour(arm) if full else "white", "mec": colour(arm)}


def extra(study: Study, arm: Arm) -> bool:
    """Return whether an arm is none of the cells of the factorial."""
    return arm.name != "-".join(arm.levels.values()) or arm.name in {str(table.get("name")) for table in study.extra}


def label(arm: Arm, *, cost: bool = False) -> str:
    """Return "NCG, Sobolev gradient, spline"."""
    names = ["optimiser", "operator", *(["cost"] if cost else []), "initialisation"]
    return ", ".join(WORDS[arm.levels[name]] for name in names)


def key(axes: Axes, study: Study, *, markers: bool = True) -> None:
    """Add entries without data that explain colours and markers, for `figures.legend`."""
    for i, level in enumerate(FACTORS["optimiser"]):
        if level in study.factors["optimiser"]:
            axes.plot([], [], color=COLOURS[i], ls="", marker="o", ms=5, label=WORDS[level])
    if markers:
        for i, operator in enumerate(FACTORS["operator"]):
            for start in FACTORS["initialisation"]:
                fill = INK if start == "spline" else "white"
                name = f"{WORDS[operator]}, {start}"
                axes.plot([], [], color=INK, ls="", marker=MARKERS[i], ms=5, mfc=fill, mec=INK, label=name)


def grid(axes: Axes) -> None:
    """Draw the faint grid that all figures have."""
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_above(figure: Figure, axes: Axes, columns: int, *, last_first: bool = False) -> None:
    """Put the legend of one panel above all, in columns of a number that fits its words."""
    handles, labels = axes.get_legend_handles_labels()
    if last_first:
        handles, labels = handles[::-1], labels[::-1]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.6)
