"""Learning curves: cost and accuracy of a training, or of several to compare, against epochs or seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustode.errors import OptionError, unknown
from robustode.files import write_text
from robustode.reporting.plot import COLOURS, DASHES, INK, MARKERS, Plot, legend, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[Mapping[str, float | None]]

AXES = {"epoch": "epoch", "seconds": "time (s)"}
SUFFIXES = (".svg", ".png")
# what is drawn: word in the legend, key of the cost, key of the accuracy
_SETS = (
    ("training", "loss", "accuracy"),
    ("validation", None, "validation_accuracy"),
    ("test", None, "test_accuracy"),
)
_MARKED = 20  # points of a curve at most that get a marker
_DECADES = 1.5  # of a positive cost, from which its axis is logarithmic


def learning_curves(
    history: History | Mapping[str, History], path: str | Path, *, title: str | None = None, x: str = "epoch"
) -> list[Path]:
    """Draw the cost (left) and the accuracies in % (right) of a training and write them as SVG or PNG.

    Equal histories give equal bytes. Values that are missing, None or not finite leave no point.

    Args:
        history: for each epoch "epoch", "loss" and "accuracy", and, if known, "validation_accuracy", "test_accuracy"
            and "seconds" since the start (accuracies as fractions): `TrainingResult.history`; or several by name, to
            compare them: {"NCG": ..., "Adam": ...}.
        path: file to write, NAME.svg or NAME.png; a name without suffix stands for both.
        title: text above the panels.
        x: "epoch" or "seconds".

    Returns:
        The paths written.

    Raises:
        OptionError: a suffix other than .svg and .png, an unknown `x`, or a history without epochs or without `x`.
    """
    path = Path(path)
    check_suffix(path)
    plot = learning_plot(history, title=title, x=x)
    paths = [path] if path.suffix else [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    return [write_text(plot.svg(), file) if file.suffix == ".svg" else plot.png(file) for file in paths]


def check_suffix(path: Path) -> None:
    """Raise `OptionError` unless a figure can be written under that name."""
    if path.suffix not in ("", *SUFFIXES):
        fix = f"Write {path.with_suffix('.svg').name} or {path.with_suffix('.png').name}."
        raise OptionError(f"figure '{path}'", expected="a name ending in .svg or .png", got=f"'{path.suffix}'", fix=fix)


def learning_plot(history: History | Mapping[str, History], *, title: str | None = None, x: str = "epoch") -> Plot:
    """Return the figure that `learning_curves` writes; arguments and errors are the same."""
    if x not in AXES:
        raise unknown("axis of learning curves", x, AXES)
    named: dict[str, History] = dict(history) if isinstance(history, Mapping) else {"": history}
    if not named:
        raise OptionError("learning curves", expected="at least one history", got="none")
    for name, epochs in named.items():
        _check(name, epochs, x)
    with style():
        figure, (cost, accuracy) = new_figure(2)
        for i, epochs in enumerate(named.values()):
            _draw(cost, accuracy, epochs, x, i if isinstance(history, Mapping) else None)
        _finish(cost, accuracy, x)
        if isinstance(history, Mapping):
            _explain(accuracy, named)
        legend(figure, accuracy if accuracy.lines else cost, title)
    text = (
        "Cost (left) and accuracy (right) during training. Training values are means over the mini-batches of an "
        "epoch, each taken before the step on it (and attacked, in adversarial training), so they lag behind those of "
        "validation and test data, which are taken after the epoch."
    )
    return Plot(name="learning_curves", caption=text, figure=figure)


def _check(name: str, epochs: History, x: str) -> None:
    what = f"history '{name}'" if name else "history"
    if not len(epochs):
        raise OptionError(what, expected="at least one complete epoch", got="none")
    if all(_value(epoch.get(x)) is None for epoch in epochs):
        got = ", ".join(sorted(epochs[0])) or "nothing"
        raise OptionError(what, expected=f"'{x}' of each epoch", got=f"only {got}")
    keys = [key for _, *pair in _SETS for key in pair if key]
    if not any(_points(epochs, x, key, 1.0) for key in keys):
        raise OptionError(what, expected=f"a finite value of one of {', '.join(keys)}", got="none")


def _draw(cost: Axes, accuracy: Axes, epochs: History, x: str, run: int | None) -> None:
    """Draw one training: colours tell the sets of data apart if it is alone (`run` None), else the trainings."""
    for number, (data, loss_key, accuracy_key) in enumerate(_SETS):
        look = number if run is None else run
        options = {
            "color": COLOURS[look % len(COLOURS)],
            "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKERS[look % len(MARKERS)],
            "clip_on": False,
            "markersize": 3.5,
            "markeredgewidth": 0,
            "linewidth": 1.4,
        }
        label = data if run is None else "_"  # matplotlib leaves names with an underscore out of the legend
        for axes, key, factor in ((cost, loss_key, 1.0), (accuracy, accuracy_key, 100.0)):
            points = _points(epochs, x, key, factor) if key else []
            if points:
                every = math.ceil(len(points) / _MARKED)
                axes.plot(*zip(*points, strict=True), label=label, markevery=every, **options)


def _explain(axes: Axes, named: Mapping[str, History]) -> None:
    """Put into the legend what the colours, and what the dashes stand for."""
    for i, name in enumerate(named):
        marker = MARKERS[i % len(MARKERS)]
        axes.plot([], [], color=COLOURS[i % len(COLOURS)], marker=marker, ms=3.5, mew=0, label=name)
    for number, (data, _, key) in enumerate(_SETS):
        if any(_value(epoch.get(key)) is not None for epochs in named.values() for epoch in epochs):
            axes.plot([], [], color=INK, ls=DASHES[number % len(DASHES)], lw=1.1, label=data)


def _finish(cost: Axes, accuracy: Axes, x: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for axes, label in ((cost, "cost"), (accuracy, "accuracy (%)")):
        axes.set(xlabel=AXES[x], ylabel=label)
        ticks = MaxNLocator(nbins=6, integer=x == "epoch", min_n_ticks=1, steps=[1, 2, 5, 10])
        axes.xaxis.set_major_locator(ticks)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.set_axisbelow(True)
    at = [*_drawn(cost, 0), *_drawn(accuracy, 0)]
    if at:
        lo, hi = 0.0 if x == "seconds" else min(at), max(at)
        room = 0.04 * (hi - lo) or 0.5
        for axes in (cost, accuracy):
            axes.set_xlim(lo if x == "seconds" else lo - room, hi + room)
    losses = _drawn(cost, 1)
    if losses and min(losses) > 0 and math.log10(max(losses) / min(losses)) > _DECADES:
        cost.set_yscale("log")
    elif losses and min(losses) >= 0:
        cost.set_ylim(0, 1.05 * max(losses) or 1.0)
    least = min(_drawn(accuracy, 1), default=0.0)
    accuracy.set_ylim(max(0.0, 10 * math.floor((least - 2) / 10)), 100)


def _drawn(axes: Axes, coordinate: int) -> list[float]:
    return [float(value) for line in axes.lines for value in np.asarray(line.get_data()[coordinate], dtype=float)]


def _points(epochs: History, x: str, key: str, factor: float) -> list[tuple[float, float]]:
    pairs = [(_value(epoch.get(x)), _value(epoch.get(key))) for epoch in epochs]
    return [(at, factor * value) for at, value in pairs if at is not None and value is not None]


def _value(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
