"""Tables of a benchmark: each attack beside the best of all peers, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .configs import Plan
from .store import Place, reason_not_run

WIN = 1.01  # ratio above which a peer beats ours on a sample
REFERENCES = ("fast", "thorough")


def read_runs(place: Place, plan: Plan) -> dict[str, pd.DataFrame]:
    """Return the runs of one model, norm and part by name of their configuration: ours, then peers as in the plan.

    Runs that the plan does not name, of another list of peers in the same folder, come last. Runs of another model of
    that name, or on images that the first run does not have, are left out.
    """
    order = {config.name: i for i, config in enumerate(plan.of_norm(place.norm))}
    found = [pd.read_parquet(path).set_index("sample") for path in sorted(place.folder.glob("*.parquet"))]
    names = [str(frame["attack"].iloc[0]) for frame in found]
    ranks = [(not frame["ours"].iloc[0], order.get(name, len(order))) for frame, name in zip(found, names, strict=True)]
    out: dict[str, pd.DataFrame] = {}
    for i in sorted(range(len(found)), key=lambda i: ranks[i]):
        frame = found[i]
        first = next(iter(out.values()), frame)
        if frame["model_hash"].iloc[0] == first["model_hash"].iloc[0] and set(frame.index) <= set(first.index):
            out[names[i]] = frame
    return out


def distances(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a column for each run: distance by sample, inf where it failed, NaN where it was not run."""
    return pd.DataFrame({name: frame["distance"] for name, frame in runs.items()})


def ratio(own: pd.Series, best: pd.Series) -> np.ndarray:
    """Return own / best on the samples of `own`: 1 where both failed, inf where only `own` did, 0 where only `best`."""
    value = own.dropna()
    against = best.reindex(value.index).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(value.to_numpy() == against, 1.0, value.to_numpy() / against)


def best_of(runs: Mapping[str, pd.DataFrame], *, ours: bool | None = False) -> pd.Series:
    """Return the smallest distance of each sample over the peers (`ours` False), ours (True) or all (None)."""
    wide = distances({name: frame for name, frame in runs.items() if ours in (None, bool(frame["ours"].iloc[0]))})
    return wide.min(axis=1)


def passes(frame: pd.DataFrame) -> pd.Series:
    """Return forward-equivalents of each sample: forwards and backward rows."""
    return frame["forwards"].astype(float) + frame["backwards"].astype(float)


def attack_table(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each run.

    Ratios are those of `ratio` to the best of all peers; "beats fast" is the number of samples on which the run is
    nearer by more than 1 %; times are CPU seconds for each sample.
    """
    wide, best = distances(runs), best_of(runs)
    cpu = {name: float(frame["cpu"].iloc[0]) / len(frame) for name, frame in runs.items()}
    wall = {name: float(frame["wall"].iloc[0]) / len(frame) for name, frame in runs.items()}
    there = [name for name in REFERENCES if name in runs]
    peers = [str(frame["peer"].iloc[0]) for frame in runs.values()]
    rows = []
    for name, frame in runs.items():
        value, spent = ratio(wide[name], best), passes(frame)
        kind = "ours" if frame["ours"].iloc[0] else "default" if frame["default"].iloc[0] else "best of grid"
        if kind == "default" and peers.count(str(frame["peer"].iloc[0])) == 1:
            kind = "default, best of grid"
        row = {
            "attack": str(frame["peer"].iloc[0]),
            "kind": kind,
            "parameters": str(frame["params"].iloc[0]),
            "n": len(frame),
            "median distance": wide[name].dropna().median(),
            **spread(value),
            "failed": int(np.isinf(frame["distance"]).sum()),
            "forwards": frame["forwards"].astype(float).mean(),
            "backwards": frame["backwards"].astype(float).mean(),
            "passes": spent.mean(),
            "passes 95 %": float(np.quantile(spent, 0.95)),
            "CPU ms / sample": 1e3 * cpu[name],
            **{f"time / {own}": cpu[name] / cpu[own] for own in there},
            **{f"wall / {own}": wall[name] / wall[own] for own in there},
        }
        if kind != "ours":
            row |= {f"beats {own}": int((ratio(wide[own].reindex(frame.index), wide[name]) > WIN).sum())
                    for own in there}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def spread(value: np.ndarray) -> dict[str, float]:
    """Return median, 99th percentile and maximum of ratios."""
    return {
        "ratio median": float(np.median(value)),
        "ratio 99 %": float(np.quantile(value, 0.99, method="higher")),
        "ratio max": float(value.max()),
    }


def left_out(place: Place, plan: Plan) -> pd.DataFrame:
    """Return attacks and grid points that were not run, with the reason."""
    rows = []
    for config in plan.of_norm(place.norm):
        note = None if place.file(config.name, ".parquet").is_file() else reason_not_run(place, config.name)
        if note is not None:
            rows.append({"attack": config.name, "images": place.part, "not run": note["reason"]})
    return pd.DataFrame(rows)


def summary_rows(model: str, norm: str, runs: Mapping[str, pd.DataFrame]) -> list[dict[str, object]]:
    """Return one row for each of our settings against the best of all peers, and one for the best single peer."""
    table, best = attack_table(runs), best_of(runs)
    if best.empty:
        return []
    out = []
    for row in table[table["kind"] == "ours"].to_dict("records"):
        names = ("attack", "n", "median distance", "ratio median", "ratio 99 %", "ratio max", "failed")
        value = ratio(runs[str(row["attack"])]["distance"], best)
        out.append({
            "model": model, "norm": norm, **{key: row[key] for key in names},
            "peers nearer by > 1 %": int((value > WIN).sum()), "passes": row["passes"],
            "passes 95 %": row["passes 95 %"], "CPU ms / sample": row["CPU ms / sample"],
        })  # fmt: skip
    peers = table[(table["kind"] != "ours") & (table["n"] == table["n"].max())]
    if len(peers):
        row = peers.sort_values(["ratio 99 %", "ratio median"]).iloc[0]
        out.append({
            "model": model, "norm": norm, "attack": f"best single peer: {row['attack']} {row['parameters']}",
            **{key: row[key] for key in ("n", "median distance", "ratio median", "ratio 99 %", "ratio max", "failed",
                                         "passes", "passes 95 %", "CPU ms / sample")},
        })  # fmt: skip
    return out


def lost_samples(model: str, norm: str, runs: Mapping[str, pd.DataFrame], ours: str = "thorough") -> pd.DataFrame:
    """Return the samples on which a peer is nearer than one of our settings by more than 1 %, worst first."""
    peers = {name: frame for name, frame in runs.items() if not frame["ours"].iloc[0]}
    if ours not in runs or not peers:
        return pd.DataFrame()
    own, wide = runs[ours], distances(peers)
    rows = []
    for sample, value in zip(own.index, ratio(own["distance"], wide.min(axis=1)), strict=True):
        if not value > WIN:
            continue
        winner = str(wide.loc[sample].idxmin())
        ahead = wide.loc[sample].dropna()
        mine, theirs = own.loc[sample], peers[winner].loc[sample]
        rows.append({
            "model": model, "norm": norm, "sample": sample, "label": mine["label"], "ratio": value,
            "distance": mine["distance"], "class": mine["adv_pred"], "peer": winner,
            "peer distance": theirs["distance"], "peer class": theirs["adv_pred"],
            "fast distance": runs["fast"]["distance"].get(sample) if "fast" in runs else None,
            "peers ahead": int((mine["distance"] > WIN * ahead).sum()), "peers": len(ahead),
            "kkt": mine["kkt"], "converged": mine["converged"], "margin at point": mine["adv_margin"],
            "clean margin": mine["clean_margin"],
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values("ratio", ascending=False) if rows else pd.DataFrame()


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write PATH.csv and PATH.md."""
    from robustode.files import write_text

    write_text(table.to_csv(index=False), path.with_suffix(".csv"))
    write_text(markdown(table), path.with_suffix(".md"))


def markdown(table: pd.DataFrame) -> str:
    """Return a table as markdown, numbers to four digits."""
    lines: list[Sequence[str]] = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
