"""Tables of certificates: certified accuracy beside attacked accuracy, certified radii, the interval per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from robustode.certificates.certificate import CERTIFIED, MISCLASSIFIED
from robustode.evaluation import records as records_file
from robustode.evaluation.certificate_rows import TIMED
from robustode.evaluation.certified_case import CertifiedCase, certified_case
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import Estimate, censored_median, clopper_pearson, wilson
from robustode.evaluation.worst_case import WorstCase, worst_case
from robustode.reporting import captions, layout
from robustode.reporting.formatting import NONE, eps_label, interval, norm_name, number, percent
from robustode.reporting.tables import Table

ROWS = ("certified", "attacked")
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_MAPS = {
    "discrete": "Certified: the deployed discrete map itself, as it answers.",
    "flow": "Certified: the solution of the ODE (flow), not the discrete map that is deployed; no adversarial of the "
    "deployed model contradicts it, and the audit does not compare them.",
}
_ACCURACY = (
    "Certified at ε: classified correctly, and no input at a distance ≤ ε + τ has another answer, whatever the attack. "
    "Brackets: 95 % Clopper–Pearson intervals, for the sampling of test points."
)
_BETWEEN = (
    "Attacked: the worst case of all attacks of the run and of its audit, with Wilson's intervals. The robust accuracy "
    "lies between the two."
)
_RADIUS = (
    "Certified: share of the correctly classified samples with a radius above 0. Median radius over the correctly "
    "classified, 0 where nothing is certified. Brackets: 95 % intervals, Clopper–Pearson's (shares) and from order "
    "statistics (medians). Bounds: which gave the radius of how many samples. Passes: cost of a sample in forward "
    "passes, all bounds together, mean. Seconds for each sample depend on the machine."
)
_INTERVAL = (
    "Quantiles over the correctly classified samples of the interval that holds the distance to the nearest input with "
    "another answer: certified radius, smallest distance that the attacks and the audit found (∞: nothing was found), "
    "and certified / attacked of each sample (0 where nothing was found). Brackets: 95 % intervals of the medians from "
    "order statistics."
)


def certificate_tables(
    certificates: pd.DataFrame | None, records: pd.DataFrame, meta: dict[str, Any], timings: pd.DataFrame | None
) -> list[Table]:
    """Return the tables of `certificates.parquet`; nothing for a run without it.

    Columns of the numbers: model, norm, map, kind, eps, estimate, lo, hi, count, n, incomplete (accuracy); model, norm,
    map, certified, certified_lo, certified_hi, correct, median, median_lo, median_hi, methods, passes, seconds
    (radius); model, norm, map, kind, the quantiles, lo, hi, n (interval).
    """
    if certificates is None or certificates.empty:
        return []
    tables = []
    for norm in dict.fromkeys(certificates["norm"]):
        cases = [certified_case(certificates, model, norm) for model in meta["models"]]
        attacked = layout.has(records, norm)
        tables.append(_accuracy(cases, records if attacked else None, meta, norm))
        tables.append(_radius(certificates, cases, meta, norm, timings))
        if attacked:
            tables.append(_interval(cases, records, meta, norm))
    return tables


def _said(meta: dict[str, Any], cases: list[CertifiedCase], *sentences: str) -> str:
    maps = dict.fromkeys(case.certifies for case in cases)
    return captions.caption(records_file.empty(), meta, *sentences, *(_MAPS[one] for one in maps))


def _accuracy(cases: list[CertifiedCase], records: pd.DataFrame | None, meta: dict[str, Any], norm: str) -> Table:
    epses = [float(eps) for eps in meta["certified"].get(norm, [])]
    frame, display = [], []
    for model, case in zip(meta["models"], cases, strict=True):
        both: dict[str, CertifiedCase | WorstCase] = {ROWS[0]: case}
        if records is not None:
            both[ROWS[1]] = worst_case(records, model, norm)
        for kind, one in both.items():
            found = [_share(model, one, kind, eps) for eps in epses]
            frame += [
                {"model": model["label"], "norm": norm, "map": case.certifies, "kind": kind, **row} for row in found
            ]
            cells = {f"ε = {eps_label(row['eps'])}": _cell(row) for row in found}
            display.append({"model": model["label"], "accuracy": kind, **cells})
    return Table(
        name=f"certified_accuracy_{norm}",
        title=f"Certified accuracy, {norm_name(norm)}",
        caption=_said(meta, cases, _ACCURACY, _BETWEEN if records is not None else "", f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display),
        bold=frozenset(i for i, row in enumerate(display) if row["accuracy"] == ROWS[0]),
    )


def _share(model: dict[str, Any], case: CertifiedCase | WorstCase, kind: str, eps: float) -> dict[str, Any]:
    """Share of the samples that are certified, or that no attack broke, at ε."""
    n = int(model["n"])
    if isinstance(case, CertifiedCase):
        count, unknown = int(case.certified(eps).sum()), 0
    else:
        count = int(case.robust(eps).sum())
        unknown = int(case.incomplete(eps).sum()) + n - len(case.samples)
    made = (clopper_pearson if kind == ROWS[0] else wilson)(count, n)
    shown = Estimate(value=None, lo=None, hi=None) if unknown else made
    numbers = {"estimate": shown.value, "lo": shown.lo, "hi": shown.hi, "count": pd.NA if unknown else count}
    return {"eps": eps, **numbers, "n": n, "incomplete": unknown}


def _cell(row: dict[str, Any]) -> str:
    if row["incomplete"]:
        return f"incomplete ({row['incomplete']})"
    return percent(Estimate(value=row["estimate"], lo=row["lo"], hi=row["hi"]))


def _radius(
    certificates: pd.DataFrame,
    cases: list[CertifiedCase],
    meta: dict[str, Any],
    norm: str,
    timings: pd.DataFrame | None,
) -> Table:
    frame = []
    for model, case in zip(meta["models"], cases, strict=True):
        own = rows(certificates, model=model["label"], norm=norm)
        right = pd.DataFrame(own[own["status"] != MISCLASSIFIED])
        count = sum((right["status"] == CERTIFIED).tolist())
        share = clopper_pearson(count, len(right)) if len(right) else Estimate(value=None, lo=None, hi=None)
        median = censored_median(right["radius"].to_numpy(dtype=float))
        methods = right.loc[right["status"] == CERTIFIED, "method"].value_counts(sort=False).to_dict()
        frame.append(
            {
                "model": model["label"],
                "norm": norm,
                "map": case.certifies,
                "certified": share.value,
                "certified_lo": share.lo,
                "certified_hi": share.hi,
                "correct": len(right),
                "median": median.value,
                "median_lo": median.lo,
                "median_hi": median.hi,
                "methods": ", ".join(f"{name} {methods[name]}" for name in sorted(methods)),
                "passes": float(np.mean(right["passes"].to_numpy())) if len(right) else None,
                "seconds": _seconds(timings, model["label"], norm, case.certifies),
            }
        )
    return Table(
        name=f"certified_radius_{norm}",
        title=f"Certified radius, {norm_name(norm)}",
        caption=_said(meta, cases, _RADIUS, *_left_out(meta, norm)),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame([_shown(row) for row in frame]),
        group=None,
    )


def _shown(row: dict[str, Any]) -> dict[str, str]:
    share = Estimate(value=row["certified"], lo=row["certified_lo"], hi=row["certified_hi"])
    median = Estimate(value=row["median"], lo=row["median_lo"] or 0.0, hi=row["median_hi"])
    return {
        "model": row["model"],
        "map": row["map"],
        "certified": percent(share),
        f"median {norm_name(row['norm'])}": interval(median) if row["correct"] else NONE,
        "bounds": row["methods"] or NONE,
        "passes": NONE if row["passes"] is None else number(row["passes"]),
        "seconds": NONE if row["seconds"] is None else number(row["seconds"]),
    }


def _seconds(timings: pd.DataFrame | None, label: str, norm: str, certifies: str) -> float | None:
    """Seconds a sample, all bounds together."""
    if timings is None:
        return None
    own = rows(timings, model=label, attack=f"{TIMED}{certifies}", norm=norm)
    samples = sum(own["samples"].tolist())
    return sum(own["seconds"].tolist()) / samples if samples else None


def _left_out(meta: dict[str, Any], norm: str) -> list[str]:
    """Say which bounds a model has not, and why."""
    said = []
    for model in meta["models"]:
        reasons: dict[str, list[str]] = {}
        for name, reason in (model.get("left_out") or {}).get(norm, {}).items():
            reasons.setdefault(reason.rstrip("."), []).append(name)
        parts = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        said += [f"Bounds left out on {model['label']}: {'; '.join(parts)}."] if parts else []
    return said


def _interval(cases: list[CertifiedCase], records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Table:
    frame = []
    for model, case in zip(meta["models"], cases, strict=True):
        attacked = worst_case(records, model, norm)
        far = pd.Series(attacked.distance, index=attacked.samples).reindex(case.samples).fillna(np.inf).to_numpy(float)
        radius, far = case.radius[case.right], far[case.right]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(np.isfinite(far) & (far > 0), radius / far, 0.0)
        for kind, values in (*zip(ROWS, (radius, far), strict=True), ("certified / attacked", ratio)):
            frame.append(
                {
                    "model": model["label"],
                    "norm": norm,
                    "map": case.certifies,
                    "kind": kind,
                    **_quantiles(values),
                }
            )
    return Table(
        name=f"interval_{norm}",
        title=f"Interval of every sample, {norm_name(norm)}",
        caption=_said(meta, cases, _INTERVAL, f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame([_written(row) for row in frame]),
    )


def _quantiles(values: np.ndarray) -> dict[str, Any]:
    """Quantiles, +inf where censored, and the interval of the median."""
    if not len(values):
        return {**{_name(q): None for q in QUANTILES}, "lo": None, "hi": None, "n": 0}
    found = {_name(q): float(np.quantile(values, q, method="inverted_cdf")) for q in QUANTILES}
    median = censored_median(values)
    found[_name(0.5)] = np.inf if median.value is None else median.value
    return {**found, "lo": median.lo, "hi": median.hi, "n": len(values)}


def _name(q: float) -> str:
    return f"q{100 * q:.0f}"


def _written(row: dict[str, Any]) -> dict[str, str]:
    cells = {}
    for q in QUANTILES:
        value = row[_name(q)]
        text = NONE if value is None else "∞" if np.isinf(value) else number(value)
        if q == 0.5 and value is not None:
            lo, hi = number(row["lo"] or 0.0), "∞" if row["hi"] is None else number(row["hi"])
            text = f"{text} [{lo}, {hi}]"
        cells["median" if q == 0.5 else f"{100 * q:.0f} %"] = text
    return {"model": row["model"], "": row["kind"], **cells}
