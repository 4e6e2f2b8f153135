"""The sentences under tables and figures: what was measured, on what, and what the intervals cover."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robustode.attacks.base import Status
from robustode.evaluation.examination import claimed
from robustode.evaluation.selection import unfit_in_words

WILSON = (
    "Brackets: 95 % Wilson intervals. They cover the sampling of test points, not the weakness of the attacks nor "
    "the training seeds."
)
WORST_CASE = (
    "Worst case: a sample is robust at ε if it is classified correctly and no attack of the run, at any budget, found "
    "an adversarial at a distance ≤ ε + τ (τ is float32 rounding)."
)
AUDIT = "After the audit: the same with the adversarials that the checks found beside the attacks of the run."
MISCLASSIFIED = "Misclassified samples count as not robust."


def caption(records: pd.DataFrame, meta: dict[str, Any], *sentences: str) -> str:
    """Join the sentences of a table and those that hold for every table of the run."""
    return " ".join(sentence for sentence in (*sentences, *common(records, meta)) if sentence)


def common(records: pd.DataFrame, meta: dict[str, Any]) -> list[str]:
    """Return data, n, twin, EOT, cascade, partial, not applicable and error sentences, those that apply."""
    return [
        f"Data: {meta['data']['caption']} (n = {meta['data']['n']}).",
        _twins(meta),
        _eot(meta),
        precision(meta),
        _cascade(records),
        partial(meta),
        unfit_in_words(meta.get("not_applicable") or []),
        _errors(records),
    ]


def partial(meta: dict[str, Any]) -> str:
    """Return the sentence on attacks that were not run, empty if all were."""
    skipped: dict[str, list[str]] = {}
    for entry in meta.get("skipped") or []:
        skipped.setdefault(str(entry["reason"]).rstrip("."), []).append(str(entry["attack"]))
    if skipped:
        parts = [f"{', '.join(attacks)}: {reason}" for reason, attacks in skipped.items()]
        return f"Partial run: skipped {'; '.join(parts)}."
    return "Partial run: not every attack was run." if meta["status"] == "partial" else ""


def _errors(records: pd.DataFrame) -> str:
    if not bool((records.status == Status.ERROR.value).any()):
        return ""
    return "incomplete (k): an attack raised on k samples that nothing else broke, so the number is not known."


def _cascade(records: pd.DataFrame) -> str:
    own = claimed(records)
    attacks = sorted(set(own.loc[own["status"] == Status.SKIPPED.value, "attack"]))
    if not attacks:
        return ""
    return f"In the cascade, samples broken by an earlier attack count as broken for {', '.join(attacks)}."


def _eot(meta: dict[str, Any]) -> str:
    return f"Predictions are averaged over {meta['eot']} passes (EOT)." if meta.get("eot") else ""


def precision(meta: dict[str, Any]) -> str:
    """Return the sentence on the precision of the search, empty if it was the model's own."""
    found = meta.get("protocol", {}).get("search_precision", "full")
    return "" if found == "full" else f"Attacks were allowed to search in {found}; every point was judged in float32."


def _twins(meta: dict[str, Any]) -> str:
    twins = [model["label"] for model in meta["models"] if model.get("arch") == "layered"]
    return f"{', '.join(twins)}: layered twin (the paper's ResNet)." if twins else ""
