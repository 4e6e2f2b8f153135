"""`Plot`: a matplotlib figure with name and caption that is written as SVG, PNG or PDF with equal bytes; its style."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustode.errors import OptionError
from robustode.files import atomic, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"  # text and axes
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
