"""The figure of sensitivity maps: input, saliency of the margin, and growth along depth, a row for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from robustode.errors import OptionError
from robustode.reporting.formatting import minus, norm_name, number
from robustode.reporting.maps_sheet import SHEETS, Sheet
from robustode.reporting.plot import COLOURS, DASHES, INK, Plot, style
from robustode.sensitivity import SensitivityMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 12  # rows of a figure
_BARS = 40  # coordinates of a vector that are drawn as bars
_DECADES = 1.2  # of the curves, from which their axis is logarithmic
_BAR = (0.07, 0.08)  # of colours: its distance and width
_CAPTION = (
    "Left, the input. Next, the saliency of the margin z_c − z_k of the label c against the class k, the nearest in "
    "the linear model unless a target is given: its gradient in logits per unit of the input. Raising an orange "
    "coordinate moves the sample away from class k, raising a blue one towards it; channels are summed."
)
_ALONG = (
    "Right, along depth: ‖ξ(t)‖/‖ξ(0)‖, how much a small perturbation of the input along the direction has grown at "
    "depth t, and ‖λ(t)‖/‖λ(T)‖, how far a small disturbance of the state at depth t moves the margin, relative to one "
    "of the output. ⟨λ(t), ξ(t)⟩ is the same at every depth."
)


def sensitivity_plot(found: SensitivityMap, x: Tensor, *, samples: Sequence[int], direction: str = "margin") -> Plot:
    """Return the figure of some sensitivity maps.

    Images (channels, height, width) or (height, width) are shown as such, with three channels in colour; other inputs
    as bars or, if there are many coordinates, as a line.

    Args:
        found: the maps, at most `MOST` samples.
        x: their inputs, (batch, *input_shape).
        samples: their numbers in the data set.
        direction: name of the direction that was followed, for the caption.

    Raises:
        OptionError: more samples than fit, or another number of inputs or numbers.
    """
    if len(found.own) > MOST:
        raise OptionError("samples of a figure", expected=f"at most {MOST}", got=len(found.own), fix="Draw several.")
    if not len(found.own) == len(x) == len(samples):
        got = f"{len(x)} inputs, {len(samples)} numbers"
        raise OptionError("samples of a figure", expected=f"{len(found.own)} of each", got=got)
    sheet = SHEETS[_image(x[0]) is not None, found.along is not None]
    with style():
        figure = _figure(sheet, len(x))
        curves = []
        for row, values in enumerate(x):
            left, middle, *right = (sheet.place(figure, len(x), row, *column) for column in sheet.columns)
            _input(left, values)
            _saliency(middle, found.saliency[row], sheet)
            for axes in right:
                _depth(axes, found, row)
                curves.append(axes)
            words = _title(found, row, samples[row], ", " if right else ",\n")
            top = left.get_position().y1 + 0.07 / sheet.height(len(x))
            figure.text(0.1 / sheet.width, top, words, va="bottom", fontsize=9.5)
        if curves:
            _finish(figure, curves)
    text = _CAPTION if found.along is None else f"{_CAPTION} {_ALONG} Direction: {direction}, {norm_name(found.norm)}."
    return Plot(name="sensitivity", caption=text, figure=figure)


def _figure(sheet: Sheet, rows: int) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(sheet.width, sheet.height(rows)))
    FigureCanvasAgg(figure)
    return figure


def _title(found: SensitivityMap, row: int, sample: int, comma: str) -> str:
    own, other, guess = int(found.own[row]), int(found.other[row]), int(found.logits[row].argmax())
    answer = "" if guess == own else f", predicted {guess}"
    margin, distance = (number(float(values[row])) for values in (found.margin, found.distance))
    return (
        f"sample {sample}: label {own}{answer}, against class {other}{comma}margin {margin}, "
        f"linear {norm_name(found.norm)} distance {distance}"
    )


def _image(values: Tensor) -> Tensor | None:
    """Return an input as (channels, height, width) if it is an image, else None."""
    if values.dim() == 2:
        return values[None]
    return values if values.dim() == 3 else None


def _input(axes: Axes, values: Tensor) -> None:
    image = _image(values)
    if image is None:
        _vector(axes, values, [INK])
        axes.set(xlabel="coordinate", ylabel="input")
        return
    _frame(axes, "input")
    if len(image) == 3:
        low, high = float(image.min()), float(image.max())
        scaled = (image - min(low, 0.0)) / (max(high, 1.0) - min(low, 0.0))
        axes.imshow(scaled.permute(1, 2, 0).cpu().numpy(), interpolation="none")
        return
    axes.imshow(image.mean(0).cpu().numpy(), cmap="gray", interpolation="none")


def _saliency(axes: Axes, values: Tensor, sheet: Sheet) -> None:
    image = _image(values)
    if image is None:
        _vector(axes, values, [COLOURS[0], COLOURS[1]])
        axes.set(xlabel="coordinate", ylabel="∂margin/∂input")
        return
    from matplotlib.colors import LinearSegmentedColormap

    _frame(axes, "∂margin/∂input")
    total = image.sum(0).cpu().numpy()
    end = float(np.abs(total).max()) or 1.0
    cmap = LinearSegmentedColormap.from_list("saliency", [COLOURS[0], "white", COLOURS[1]])
    shown = axes.imshow(total, cmap=cmap, vmin=-end, vmax=end, interpolation="none")
    (gap, width), box = _BAR, axes.get_position(original=True)
    place = (box.x1 + gap / sheet.width, box.y0, width / sheet.width, box.height)
    bar = axes.figure.colorbar(shown, cax=axes.figure.add_axes(place))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.locator = _ticks(5)
    bar.formatter = _plain()
    bar.update_ticks()


def _vector(axes: Axes, values: Tensor, colours: Sequence[str]) -> None:
    """Draw coordinates as bars, negative ones in the first colour and others in the last; many of them as a line."""
    flat = values.flatten().cpu().numpy()
    at = np.arange(len(flat))
    axes.axhline(0.0, color=INK, lw=0.6)
    if len(flat) <= _BARS:
        axes.bar(at, flat, color=[colours[0] if value < 0 else colours[-1] for value in flat], width=0.8)
    else:
        axes.plot(at, flat, color=colours[-1], lw=0.9)
    axes.xaxis.set_major_locator(_ticks(5, integer=True))


def _depth(axes: Axes, found: SensitivityMap, row: int) -> None:
    along = found.along
    if along is None:
        return
    depth = along.depth.cpu().numpy()
    tangent, adjoint = (values[row].cpu().double().numpy() for values in (along.tangent, along.adjoint))
    with np.errstate(divide="ignore", invalid="ignore"):
        grown, moved = tangent / tangent[0], adjoint / adjoint[-1]
    axes.plot(depth, grown, color=COLOURS[0], ls=DASHES[0], lw=1.6, label="‖ξ(t)‖ / ‖ξ(0)‖, growth of a perturbation")
    axes.plot(depth, moved, color=COLOURS[1], ls=DASHES[1], lw=1.6, label="‖λ(t)‖ / ‖λ(T)‖, effect on the margin")
    axes.axhline(1.0, color=INK, lw=0.6, alpha=0.5)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(depth[0], depth[-1])


def _finish(figure: Figure, curves: Sequence[Axes]) -> None:
    """Give the curves of all samples one axis, so that they can be compared, and a legend above."""
    from matplotlib.ticker import LogLocator, NullLocator

    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for axes in curves for line in axes.lines])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (1.0, 1.0)
    wide = np.log10(high / low) > _DECADES
    for axes in curves:
        if wide:
            axes.set(yscale="log", ylim=(low / 1.3, high * 1.3))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
            axes.yaxis.set_major_formatter(_plain())
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(0.0, 1.06 * high)
        axes.set_ylabel("relative size")
    curves[-1].set_xlabel("depth t")
    handles, labels = curves[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=2, handlelength=2.6, borderaxespad=0.3)


def _frame(axes: Axes, label: str) -> None:
    axes.set(xticks=[], yticks=[], xlabel=label)
    axes.spines[:].set_visible(False)


def _ticks(count: int, integer: bool = False):
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=count, integer=integer, min_n_ticks=2)


def _plain():
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: minus(f"{value:.3g}"))
