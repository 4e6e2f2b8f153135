"""Norm against passes: which attacks no other one beats at their budget; a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from robustode.files import write_text
from robustode.reporting.formatting import norm_name
from robustode.reporting.plot import COLOURS, INK, MARKERS, Plot, legend, new_figure, style

from .compare import best_of, distances, passes, ratio

_FLOOR = 1e-4  # smallest excess over the best that the figure shows


def pareto_table(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each run on all samples, by passes: its norm relative to the best of all attacks.

    "mean excess" is the mean over samples of ratio − 1, inf where a sample failed that another attack broke.
    "dominated" runs have another with at most their passes and at most their mean excess, one of the two smaller;
    "ahead of ours" are peers that none of our settings dominates.
    """
    wide, best = distances(runs), best_of(runs, ours=None)
    rows = []
    for name, frame in runs.items():
        if len(frame) < len(wide):
            continue
        value = ratio(wide[name], best)
        found = value[np.isfinite(value)]
        rows.append({
            "attack": name, "peer": str(frame["peer"].iloc[0]), "ours": bool(frame["ours"].iloc[0]),
            "passes": float(passes(frame).mean()), "mean excess": float(value.mean() - 1),
            "mean excess where found": float(found.mean() - 1) if len(found) else np.inf,
            "median excess": float(np.median(value) - 1), "failed": int(np.isinf(frame["distance"]).sum()),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table = table.sort_values("passes", ignore_index=True)
    everyone = table
    own = table[table["ours"]]
    table["dominated"] = [_beaten(row, everyone) for _, row in table.iterrows()]
    table["ahead of ours"] = [not row["ours"] and not _beaten(row, own) for _, row in table.iterrows()]
    return table


def _beaten(row: pd.Series, others: pd.DataFrame) -> bool:
    cheaper = others["passes"] <= row["passes"]
    nearer = others["mean excess"] <= row["mean excess"]
    strictly = (others["passes"] < row["passes"]) | (others["mean excess"] < row["mean excess"])
    return bool((cheaper & nearer & strictly).any())


def pareto_plot(table: pd.DataFrame, name: str, model: str, norm: str, images: int) -> Plot:
    """Return the figure: mean excess over the best against passes, both logarithmic; ours joined by a line."""
    table = table[table["failed"] <= images / 2]  # a mean over the few that were found says nothing
    with style(name):
        figure, (axes,) = new_figure(1, size=(7.2, 4.4))
        own = table[table["ours"]]
        axes.plot(own["passes"], _height(own), "-o", color=COLOURS[0], ms=6, lw=1.6, label="sensitivity", zorder=5)
        for row in own.itertuples():
            at = (row.passes, max(row[6], _FLOOR))
            axes.annotate(str(row.attack), at, xytext=(4, 5), textcoords="offset points", color=COLOURS[0], fontsize=8)
        for i, (peer, part) in enumerate(table[~table["ours"]].groupby("peer", sort=False)):
            colour, marker = COLOURS[1 + i % (len(COLOURS) - 1)], MARKERS[i % len(MARKERS)]
            for failed, face in ((False, colour), (True, "none")):
                some = part[(part["failed"] > 0) == failed]
                axes.plot(some["passes"], _height(some), marker, color=colour, mfc=face, ms=5, ls="none")
            axes.plot([], [], marker, color=colour, ms=5, ls="none", label=str(peer))
        axes.set(xscale="log", yscale="log", xlabel="forward-equivalents for each sample")
        axes.set_ylabel(f"mean {norm_name(norm)} norm over the best of all, − 1")
        axes.set_ylim(bottom=max(_FLOOR * 0.7, float(_height(table).min()) / 3))
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        legend(figure, axes)
    text = (
        f"{model}, {norm_name(norm)}, {images} images: mean excess of the minimal norm over the best of all attacks on "
        "the same sample, where an adversarial was found, against passes. Hollow: the attack failed on some samples; "
        f"those that failed on more than half are left out. Excesses below {_FLOOR:g} are drawn there."
    )
    return Plot(name=name, caption=text, figure=figure)


def _height(part: pd.DataFrame) -> pd.Series:
    return part["mean excess where found"].clip(lower=_FLOOR)


def write_plot(plot: Plot, folder: Path) -> None:
    """Write NAME.svg, NAME.png and NAME.txt, the caption."""
    write_text(plot.svg(), folder / f"{plot.name}.svg")
    plot.png(folder / f"{plot.name}.png")
    write_text(plot.caption + "\n", folder / f"{plot.name}.txt")
