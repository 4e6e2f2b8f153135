"""Where the panels of sensitivity maps stand: in inches, so that the images of all figures have one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sheet:
    """Inches: the figure's width, where its columns begin and how wide they are, heights of the parts of a row."""

    width: float
    columns: tuple[tuple[float, float], ...]
    words: float
    side: float
    below: float
    above: float

    def place(self, figure: Figure, rows: int, row: int, left: float, width: float) -> Axes:
        """Add axes at the height of the panels of a row."""
        total = self.height(rows)
        bottom = total - self.above - (row + 1) * (self.words + self.side + self.below) + self.below
        return figure.add_axes((left / self.width, bottom / total, width / self.width, self.side / total))

    def height(self, rows: int) -> float:
        """Height of the figure."""
        return self.above + rows * (self.words + self.side + self.below)


# by whether the inputs are images, and whether there are curves along depth
SHEETS = {
    (True, True): Sheet(7.2, ((0.1, 1.5), (1.75, 1.5), (4.45, 2.6)), words=0.3, side=1.5, below=0.5, above=0.35),
    (False, True): Sheet(7.4, ((0.65, 1.5), (2.95, 1.5), (5.1, 2.15)), words=0.3, side=1.4, below=0.5, above=0.35),
    (True, False): Sheet(5.2, ((0.1, 2.0), (2.35, 2.0)), words=0.46, side=2.0, below=0.3, above=0.05),
    (False, False): Sheet(5.6, ((0.65, 2.0), (3.4, 2.0)), words=0.46, side=1.5, below=0.5, above=0.05),
}
