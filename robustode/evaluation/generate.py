"""Adversarial data sets: every sample attacked by one card, judged, and written shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustode.data import DatasetWriter
from robustode.errors import AttackError, BudgetError
from robustode.evaluation.clean import CleanAccuracy, check_clean, clean_answers
from robustode.evaluation.counting import Counted
from robustode.evaluation.engine import Shard, Subject, Unit, run_unit
from robustode.evaluation.judge import Judge
from robustode.evaluation.plan import Plan, to_device
from robustode.evaluation.records import rows


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written.

    Attributes:
        path: `dataset.json` of the set.
        status: number of samples by status.
        errors: first message of an attack that raised; "" if none did.
    """

    path: Path
    status: dict[str, int]
    errors: str


def generate(
    plan: Plan,
    out: Path,
    *,
    format: str = "npz",
    command: str = "",
    resume: bool = False,
    force: bool = False,
    listen: Callable[[int, int], None] | None = None,
) -> Generated:
    """Attack all samples of a plan of one model and one card at no more than one ε, and write the data set.

    Each row has the input (adversarial where one was found, clean elsewhere), label, index in the full split, clean and
    adversarial prediction, distance (+inf where none was found, 0 if misclassified) and status. Memory does not grow
    with the number of samples beyond the data themselves; finished shards are kept on `resume`.

    Args:
        plan: made by `make_plan`; its budgets give ε of a budget attack.
        out: directory of the data set.
        format: "npz" or "safetensors".
        listen: called with (shards done, shards in all).

    Raises:
        AttackError: not exactly one model and one card.
        BudgetError: a budget attack without an ε, or with several.
        RunError: the directory cannot be used.
    """
    if len(plan.models) != 1 or len(plan.cards) != 1 or plan.stored:
        got = f"{len(plan.models)} models and {len(plan.cards)} attacks"
        raise AttackError("generate", expected="one model and one attack card", got=got)
    model, card = plan.models[0], plan.cards[0]
    radii = plan.protocol.budgets.get(card.norm, ())
    if len(radii) > 1 or (card.kind == "budget" and not radii):
        got = ", ".join(f"{r:g}" for r in radii) or "none"
        raise BudgetError(f"eps of attack '{card.name}'", expected="exactly one value", got=got, fix="Give one --eps.")
    if card.kind == "minimal" and radii:
        card = card.model_copy(update={"kind": "budget"})
    eps = radii[0] if radii else None
    data, size = plan.data, plan.protocol.shard
    judge = Judge(model.module)
    subject = Subject(label=model.label, hash=model.hash, counted=Counted(model.module), judge=judge)
    meta = {
        "source": data.name,
        "split": data.split,
        "caption": data.caption,
        "fingerprint": data.fingerprint,
        "model": model.label,
        "model_hash": model.hash,
        "attack": card.name,
        "attack_card": card.resolved(),
        "norm": card.norm,
        "eps": eps,
        "seed": plan.protocol.seed,
        "protocol": plan.hash,
        "command": command,
    }
    box = (float(model.module.bounds[0]), float(model.module.bounds[1]))
    shape = tuple(data.x.shape[1:])
    x, y = to_device(plan, model, 0, min(len(data), 512))
    pred, _ = clean_answers(judge, x, y)
    check_clean(plan, model, judge, x[:64], CleanAccuracy(correct=int((pred == y).sum()), n=len(y)))
    writer = DatasetWriter(
        out, format=format, bounds=box, classes=int(model.module.classes), input_shape=shape, meta=meta,
        force=force, resume=resume,
    )  # fmt: skip
    status: dict[str, int] = {}
    errors = ""
    starts = range(0, len(data), size)
    for number, start in enumerate(starts):
        x, y = to_device(plan, model, start, start + size)
        if not writer.done(number, len(y)):
            pred, margin = clean_answers(judge, x, y)
            index = data.index[start : start + size]
            shard = Shard(number=number, x=x, y=y, index=index, clean_pred=pred, clean_margin=margin)
            unit = run_unit(
                subject, card, shard, radii=radii, data=data.name, seed=plan.protocol.seed, protocol=plan.hash
            )
            writer.write(number, **_columns(shard, unit))
            for name, count in unit.records["status"].value_counts().items():
                status[str(name)] = status.get(str(name), 0) + int(count)
            errors = errors or next(iter(rows(unit.records, status="error")["message"]), "")
        if listen is not None:
            listen(number + 1, len(starts))
    return Generated(path=writer.close(), status=status, errors=errors)


def _columns(shard: Shard, unit: Unit) -> dict[str, Any]:
    place = {int(i): row for row, i in enumerate(shard.index)}
    x = shard.x.detach().cpu().clone()
    x[[place[int(i)] for i in unit.sample]] = unit.x_adv.to(x)
    records = unit.records
    return {
        "x": x,
        "y": shard.y.cpu(),
        "index": shard.index,
        "clean_pred": records["clean_pred"].to_numpy(dtype="int64"),
        "adv_pred": records["adv_pred"].fillna(-1).to_numpy(dtype="int64"),
        "distance": records["distance"].to_numpy(dtype="float64"),
        "status": records["status"].tolist(),
    }
