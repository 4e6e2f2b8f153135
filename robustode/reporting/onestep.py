"""One-step success by direction: how good the attack directions are before any iteration."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from robustode.attacks.base import Status
from robustode.evaluation.records import rows
from robustode.evaluation.statistics import Estimate, wilson
from robustode.reporting import captions, layout
from robustode.reporting.formatting import eps_label, norm_name, percent
from robustode.reporting.tables import Table

ONE_STEP = "robustode:one-step"
FAST_GRADIENT = {
    "torchattacks:FGSM": "FGSM",
    "foolbox:LinfFastGradientAttack": "FGSM",
    "foolbox:L2FastGradientAttack": "FGM",
}
_CAPTION = (
    "Share of the correctly classified samples that one step of length ε along the direction breaks; each ε is a step "
    "of its own, so the share may fall as ε grows. margin: gradient of the margin to the nearest class; singular: "
    "leading right singular vector of the Jacobian (label-free); FGSM and FGM: gradient of the loss; random: a random "
    "direction. singular and random take the better of both signs."
)


def one_step(records: pd.DataFrame, meta: dict[str, Any]) -> list[Table]:
    """Return one table for each norm with one-step attacks; none if the run has none.

    Columns of the numbers: model, attack, direction, norm, eps, estimate, lo, hi, success, n, incomplete, where n is
    the number of correctly classified samples.
    """
    names = [
        name for name, card in layout.cards(meta).items() if card.get("implementation") in {ONE_STEP, *FAST_GRADIENT}
    ]
    keep = records["attack"].isin(names) & records["eps"].notna()
    steps = pd.DataFrame(records.loc[keep.to_numpy(dtype=bool)])
    return [_of_norm(steps, records, meta, norm) for norm in layout.norms(steps, meta) if layout.has(steps, norm)]


def direction(card: dict[str, Any], params: dict[str, Any]) -> str:
    """Return what a one-step card steps along: its parameter `kind`, or the fast gradient method's name."""
    return FAST_GRADIENT.get(card["implementation"]) or str(params.get("kind", card["name"]))


def _of_norm(steps: pd.DataFrame, records: pd.DataFrame, meta: dict[str, Any], norm: str) -> Table:
    epses = layout.budgets(meta, norm)
    frame, display = [], []
    for model in meta["models"]:
        for attack in layout.attacks(steps, meta, norm):
            own = rows(steps, model=model["label"], norm=norm, attack=attack)
            if own.empty:
                continue
            kind = direction(layout.cards(meta)[attack], json.loads(own["params"].iloc[0]))
            label = {"model": model["label"], "attack": attack, "direction": kind}
            numbers = [{**label, "norm": norm, "eps": eps, **_share(rows(own, eps=eps))} for eps in epses]
            frame += numbers
            display.append({**label, **{f"ε = {eps_label(row['eps'])}": _cell(row) for row in numbers}})
    return Table(
        name=f"one_step_{norm}",
        title=f"One-step success by direction, {norm_name(norm)}",
        caption=captions.caption(records, meta, _CAPTION, captions.WILSON, f"Norm: {norm_name(norm)}."),
        frame=pd.DataFrame(frame),
        display=pd.DataFrame(display),
    )


def _share(own: pd.DataFrame) -> dict[str, Any]:
    """Success among the correctly classified samples of one attack at one budget."""
    status = own["status"].to_numpy()[(own["clean_pred"] == own["label"]).to_numpy()]
    success = int((status == Status.SUCCESS.value).sum())
    incomplete = int(np.isin(status, [Status.ERROR.value, Status.SKIPPED.value]).sum())
    estimate = Estimate(value=None, lo=None, hi=None) if incomplete else wilson(success, len(status))
    return {
        "estimate": estimate.value,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "success": success,
        "n": len(status),
        "incomplete": incomplete,
    }


def _cell(row: dict[str, Any]) -> str:
    if row["incomplete"]:
        return f"incomplete ({row['incomplete']})"
    return percent(Estimate(value=row["estimate"], lo=row["lo"], hi=row["hi"]))
