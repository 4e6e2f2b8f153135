"""Figures of a run: robust accuracy against ε, and the distribution of minimal distances; SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from robustode.errors import OptionError
from robustode.evaluation.records import rows
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.statistics import wilson_bounds
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.files import atomic, write_text
from robustode.reporting import captions, layout
from robustode.reporting.formatting import norm_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"  # text and axes; a page may replace it by its own ink
# Okabe and Ito's palette in an order that keeps neighbours apart in hue and in lightness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_POINTS = 400  # of a curve
_QUANTILE = 0.98  # of the finite distances, where the axis ends


@dataclass(frozen=True, kw_only=True, eq=False)
class Plot:
    """A figure with its file stem and caption."""

    name: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """Return the figure as SVG text without date; equal figures give equal text."""
        buffer = io.StringIO()
        with style(self.name):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        return buffer.getvalue()

    def png(self, path: Path) -> Path:
        """Write the figure as PNG, 200 dots per inch on white, atomically."""
        with atomic(path) as temporary, style(self.name):
            self.figure.savefig(temporary, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        return path

    def pdf(self, path: Path) -> Path:
        """Write the figure as PDF without date, atomically; equal figures give equal bytes."""
        with atomic(path) as temporary, style(self.name):
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            self.figure.savefig(temporary, format="pdf", metadata=metadata)
        return path


_WRITERS: dict[str, Callable[[Plot, Path], Path]] = {
    ".svg": lambda plot, path: write_text(plot.svg(), path),
    ".png": Plot.png,
    ".pdf": Plot.pdf,
}


def check_name(path: Path) -> None:
    """Raise `OptionError` unless a figure can be written under that name."""
    if path.suffix not in _WRITERS:
        raise OptionError(
            f"figure '{path}'",
            expected=f"a name ending in {', '.join(_WRITERS)}",
            got=f"'{path.suffix}'" if path.suffix else "no suffix",
            fix=f"Write {path.stem or 'figure'}.svg.",
        )


def write_plot(plot: Plot, path: Path) -> Path:
    """Write a figure as SVG, PNG or PDF by the suffix of its name, atomically; raise `OptionError` for another."""
    check_name(path)
    return _WRITERS[path.suffix](plot, path)


def accuracy_curves(records: pd.DataFrame, meta: dict[str, Any]) -> list[Plot]:
    """Return robust accuracy against ε for each norm: a curve with Wilson band per model, markers at the budgets."""
    return [_curves(records, meta, norm) for norm in layout.norms(records, meta) if layout.has(records, norm)]


def distance_distributions(records: pd.DataFrame, meta: dict[str, Any]) -> list[Plot]:
    """Return the share of samples broken within a distance, for each norm with minimal-norm rows: a panel per model."""
    minimal = rows(records, eps=None)
    return [_distributions(minimal, meta, norm) for norm in layout.norms(minimal, meta) if layout.has(minimal, norm)]


def all_figures(records: pd.DataFrame, meta: dict[str, Any]) -> list[Plot]:
    """Return the figures of a run in reading order."""
    return [*accuracy_curves(records, meta), *distance_distributions(records, meta)]


def write_figures(run: RunDir) -> list[Path]:
    """Write figures/NAME.{svg,png} of a run, each atomically, and return their paths."""
    paths, folder = [], run.path / "figures"
    for plot in all_figures(run.records, run.meta):
        paths.append(write_text(plot.svg(), folder / f"{plot.name}.svg"))
        paths.append(plot.png(folder / f"{plot.name}.png"))
    return paths


def _curves(records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Plot:
    epses = layout.budgets(meta, norm)
    cases = {model["label"]: worst_case(records, model, norm) for model in meta["models"]}
    end = _axis_end(rows(records, norm=norm), cases.values(), epses)
    grid = np.linspace(0.0, end, _POINTS)
    with style():
        figure, (axes,) = new_figure(1)
        for i, (label, case) in enumerate(cases.items()):
            colour = COLOURS[i % len(COLOURS)]
            n = len(case.samples)
            lo, hi = wilson_bounds([case.robust(eps).sum() for eps in grid], n)
            axes.fill_between(grid, 100 * lo, 100 * hi, color=colour, alpha=0.15, linewidth=0)
            doubtful = int(case.incomplete(0.0).sum())
            name = f"{label} (incomplete: {doubtful})" if doubtful else label
            axes.plot(grid, [100 * case.robust(eps).mean() for eps in grid], color=colour, ls=DASHES[i % len(DASHES)])
            at = [0.0, *epses]
            values = [100 * case.robust(eps).mean() for eps in at]
            axes.plot(at, values, MARKERS[i % len(MARKERS)], color=colour, ms=4.5, mec="white", mew=0.6, clip_on=False)
            axes.plot(
                [], [], color=colour, ls=DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)], ms=4.5, label=name
            )
        _finish(axes, end, f"{norm_name(norm)} budget ε", "robust accuracy (%)")
        legend(figure, axes)
    text = (
        f"Robust accuracy against the {norm_name(norm)} budget ε, worst case of all attacks; markers at ε = 0 and at "
        "the budgets of the run, bands: pointwise 95 % Wilson intervals (sampling of test points only)."
    )
    return Plot(
        name=f"robust_accuracy_{norm}",
        caption=captions.caption(records, meta, text, _between(records, norm)),
        figure=figure,
    )


def _between(records: pd.DataFrame, norm: str) -> str:
    if len(rows(records, norm=norm, eps=None)):
        return ""
    return "No minimal-norm attack was run: between the markers the curve is an upper bound only."


def _distributions(minimal: pd.DataFrame, meta: dict[str, Any], norm: str) -> Plot:
    names = layout.attacks(minimal, meta, norm)
    cases = {m["label"]: {a: worst_case(minimal, m, norm, attack=a) for a in names} for m in meta["models"]}
    flat = [case for by_attack in cases.values() for case in by_attack.values()]
    end = _axis_end(rows(minimal, norm=norm), flat, [])
    with style():
        figure, panels = new_figure(len(cases))
        for axes, (label, by_attack) in zip(panels, cases.items(), strict=True):
            for i, (attack, case) in enumerate(by_attack.items()):
                x = np.sort(case.distance)
                share = 100 * np.arange(1, len(x) + 1) / len(x)
                inside = np.isfinite(x)
                x, share = np.r_[0.0, x[inside], 2 * end], np.r_[0.0, share[inside], 100 * inside.mean()]
                colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
                axes.step(x, share, where="post", color=colour, ls=dash, label=attack)
            _finish(axes, end, f"{norm_name(norm)} distance", "samples broken (%)" if axes is panels[0] else "")
            axes.set_title(label, loc="left")
        legend(figure, panels[0])
    text = (
        f"Share of samples that each minimal-norm attack breaks within an {norm_name(norm)} distance; higher is the "
        "stronger attack. Misclassified samples are broken at 0; a curve that ends below 100 % left samples unbroken."
    )
    return Plot(name=f"distances_{norm}", caption=captions.caption(minimal, meta, text), figure=figure)


def _axis_end(own: pd.DataFrame, cases: Iterable[WorstCase], epses: Sequence[float]) -> float:
    """End of the ε axis: past the last budget, and past nearly every distance where minimal norms are known."""
    ends = [1.04 * max(epses, default=0.0)]
    if len(rows(own, eps=None)):
        finite = [case.distance[np.isfinite(case.distance)] for case in cases]
        ends += [float(np.quantile(values, _QUANTILE)) for values in finite if len(values)]
    return max(ends) or 1.0


def new_figure(count: int, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure outside pyplot with `count` panels, three in a row; `size` in inches if given."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, 3)
    lines = -(-count // columns)
    width = 5.2 if columns == 1 else 3.3 * columns
    figure = Figure(figsize=size or (width, 3.3 if columns == 1 else 2.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def _finish(axes: Axes, end: float, xlabel: str, ylabel: str) -> None:
    axes.set(xlim=(0, end), ylim=(0, 100), xlabel=xlabel, ylabel=ylabel)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """Put the legend above the panels, where it can cover no curve; the lines of one panel stand for all."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, round(12 * figure.get_figwidth()) // (max(map(len, labels)) + 10))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, handlelength=3, title=title, alignment="left"
    )


@contextmanager
def style(salt: str = "robustode") -> Iterator[None]:
    """Set our rcParams while drawing or saving; the caller's come back after."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield
