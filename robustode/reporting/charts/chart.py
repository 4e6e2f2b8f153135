"""`Chart`: a Vega-Lite chart, drawn by the reader's browser on the page and by vl-convert as SVG and PNG for papers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robustode.files import atomic, write_text

INK = "#1f2933"  # text and axes on paper; the page has its own
# Okabe and Ito's palette in an order that keeps neighbours apart in hue and in lightness
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2])
SHOWN = "shown"  # the parameter that holds the models which the page shows
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_WIDTH = 440  # pixels, of a still chart of one panel
_PANEL = 250  # of one of several
_NARROW = 300  # of the narrowest page, in which the legend must find room
_FONT = "DejaVu Sans, Liberation Sans, Arial, sans-serif"
_PAGE_FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
_LEGEND = {
    "orient": "top",
    "title": None,
    "symbolType": "stroke",
    "symbolSize": 200,
    "symbolStrokeWidth": 2,
    "symbolOpacity": 1,
    "labelLimit": 260,
}
_AXIS = {
    "gridOpacity": 0.15,
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 12,
    "labelFlush": False,
    "labelOverlap": True,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """A chart of a run.

    Attributes:
        name: file stem, and id on the page.
        title: a few words.
        caption: what was measured, on what, and what an interval covers.
        spec: Vega-Lite of one panel, without size, configuration and parameters.
        models: the labels that the reader may hide on the page; empty if the chart has no model to hide.
        choices: {parameter: values that the reader may choose from}; the first is shown at the beginning.
        panels: the parameter whose every value gets a panel of its own on paper, where nobody can choose.
        height: pixels.
    """

    name: str
    title: str
    caption: str
    spec: Mapping[str, Any]
    models: Sequence[str] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    panels: str | None = None
    height: int | None = 260

    def page(self) -> dict[str, Any]:
        """Return the chart for the page: as wide as its place, with the parameters that the reader sets."""
        return {**self._head(self.choices), **self._sized("container"), "config": _config(None)}

    def still(self) -> dict[str, Any]:
        """Return the chart for paper: everything shown, one panel for each value of `panels`."""
        values = self.choices.get(self.panels, ()) if self.panels else ()
        if len(values) < 2:
            return {**self._head(self.choices), **_quiet(self._sized(_WIDTH)), "config": _config(INK)}
        rest = {name: options for name, options in self.choices.items() if name != self.panels}
        shared = {key: value for key, value in self.spec.items() if key == "data"}
        own = {key: value for key, value in _quiet(self._sized(_PANEL)).items() if key not in shared}
        panels = [
            _fixed({**own, "title": {"text": value, "anchor": "start"}}, str(self.panels), value) for value in values
        ]
        return {
            **self._head(rest),
            **shared,
            "columns": 2 if len(panels) == 4 else min(3, len(panels)),
            "concat": panels,
            "config": _config(INK),
        }

    def svg(self) -> str:
        """Return the still chart as SVG text; equal charts give equal text."""
        import vl_convert

        return _renumbered(vl_convert.vegalite_to_svg(self.still()))

    def png(self) -> bytes:
        """Return the still chart as PNG on white, 200 pixels an inch."""
        import vl_convert

        return vl_convert.vegalite_to_png(self.still() | {"background": "white"}, scale=2, ppi=100)

    def write(self, folder: Path) -> list[Path]:
        """Write NAME.svg and NAME.png into a folder, each atomically, and return their paths."""
        picture = folder / f"{self.name}.png"
        with atomic(picture) as temporary:
            temporary.write_bytes(self.png())
        return [write_text(self.svg() + "\n", folder / f"{self.name}.svg"), picture]

    def _head(self, choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        params: list[dict[str, Any]] = [{"name": name, "value": values[0]} for name, values in choices.items()]
        if self.models:
            params.append({"name": SHOWN, "value": list(self.models)})
        return {"$schema": _SCHEMA, "params": params}

    def _sized(self, width: int | str) -> dict[str, Any]:
        size = {"width": width} if self.height is None else {"width": width, "height": self.height}
        return {**self.spec, **size}


def table(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as the data of a chart, in the CSV that takes a third of the room of JSON."""
    frame = pd.DataFrame([dict(row) for row in values])
    texts = {str(name): "string" for name in frame.columns if pd.api.types.infer_dtype(frame[name]) == "string"}
    numbers = {str(name): "number" for name in frame.columns if name not in texts}
    return {"values": frame.to_csv(index=False), "format": {"type": "csv", "parse": texts | numbers}}


def colour(name: str, labels: Sequence[str], among: Sequence[str] | None = None, **legend: Any) -> dict[str, Any]:
    """Return the colour channel of a column: each value has the colour of its place in `among`, else in `labels`."""
    return _channel(name, labels, among, COLOURS, legend)


def dash(name: str, labels: Sequence[str], among: Sequence[str] | None = None, **legend: Any) -> dict[str, Any]:
    """Return the dash channel that goes with `colour` and shares its legend."""
    return _channel(name, labels, among, DASHES, legend)


def _channel(
    name: str, labels: Sequence[str], among: Sequence[str] | None, looks: Sequence[Any], legend: dict[str, Any]
) -> dict[str, Any]:
    order = list(labels if among is None else among)
    scale = {"domain": list(labels), "range": [looks[order.index(label) % len(looks)] for label in labels]}
    columns = max(1, min(3, int(_NARROW / (34 + 6.5 * max(map(len, labels), default=1)))))
    shown = {**_LEGEND, "columns": columns, **legend}
    return {"field": name, "type": "nominal", "scale": scale, "legend": shown}


def hover(y: Mapping[str, Any], *tooltip: tuple[str, str, str]) -> dict[str, Any]:
    """Return the layer that shows the point nearest to the pointer, with its numbers.

    Args:
        y: the channel of the points.
        tooltip: (column, what it is called, number format or "" for text) of each line.
    """
    select = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    return {
        "mark": {"type": "point", "filled": True, "size": 90, "tooltip": {"expr": _said(tooltip)}},
        "params": [{"name": "hover", "select": select}],
        "encoding": {
            "y": dict(y),
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0},
        },
    }


def _said(tooltip: Sequence[tuple[str, str, str]]) -> str:
    """The object that the tooltip shows, as a Vega expression; the cell around a point wraps the point's row."""
    row = "(datum.datum || datum)"
    lines = [
        f"{json.dumps(title, ensure_ascii=False)}: " + (f"format({row}.{name}, '{form}')" if form else f"{row}.{name}")
        for name, title, form in tooltip
    ]
    return "{" + ", ".join(lines) + "}"


def only_shown() -> dict[str, str]:
    """Return the transform that leaves the models which the reader has not hidden."""
    return {"filter": f"indexof({SHOWN}, datum.model) >= 0"}


def chosen(name: str) -> dict[str, str]:
    """Return the transform that leaves the rows whose column equals the parameter of the same name."""
    return {"filter": f"datum.{name} == {name}"}


def _renumbered(svg: str) -> str:
    """Return an SVG whose identifiers count from 0; the converter counts through all charts of the process."""
    numbers: dict[str, int] = {}
    return re.sub(r"\b(clip|gradient_)(\d+)", lambda m: f"{m[1]}{numbers.setdefault(m[0], len(numbers))}", svg)


def _quiet(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a chart without the layers that answer the pointer."""
    return spec | {"layer": [layer for layer in spec["layer"] if "params" not in layer]}


def _fixed(panel: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    """Return a panel in which a choice is made once and for all."""
    made = {"filter": {"field": name, "equal": value}}
    return panel | {"transform": [made if step == chosen(name) else step for step in panel["transform"]]}


def _config(ink: str | None) -> dict[str, Any]:
    """Fonts and lines; the ink of the page is set by its style sheet."""
    tint = ink or "#808080"
    axis = {**_AXIS, "gridColor": tint, "domainColor": tint, "tickColor": tint, "labelColor": tint, "titleColor": tint}
    return {
        "background": None,
        "font": _FONT if ink else _PAGE_FONT,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {"labelFontSize": 12, "labelColor": tint, "titleColor": tint, "titleFontWeight": "normal"},
        "title": {"fontSize": 12, "fontWeight": "normal", "color": tint},
    }
