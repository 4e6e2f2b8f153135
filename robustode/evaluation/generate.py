"""Adversarial data sets: every sample attacked by one card, judged, and written shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustode import __version__
from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.card import Card
from robustode.data import DatasetWriter
from robustode.data.formats import Layout, format_of
from robustode.data.place import HEADER, INDEX
from robustode.errors import AttackError, BudgetError, RunError
from robustode.evaluation.clean import CleanAccuracy, check_clean
from robustode.evaluation.engine import Unit, run_unit, seed_of
from robustode.evaluation.judge import Judge
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import samples_for
from robustode.evaluation.prepare import counted_for
from robustode.evaluation.records import rows
from robustode.evaluation.rounding import round_rows
from robustode.evaluation.rows import Shard, Subject
from robustode.files import read_json

PROBE = 512  # samples of the clean accuracy that is looked at before the first attack


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written.

    Attributes:
        path: `dataset.json` of the set.
        status: number of samples by status, of the whole set.
        made: the same of the shards made by this call (not of those kept on `resume`).
        survivors: in a format that rounds, {"found": adversarials of the attack, "survive": those left}; else None.
        errors: first message of an attack that raised; "" if none did.
    """

    path: Path
    status: dict[str, int]
    made: dict[str, int]
    survivors: dict[str, int] | None
    errors: str


def generate(
    plan: Plan,
    out: Path,
    *,
    format: str = "npz",
    command: str = "",
    resume: bool = False,
    force: bool = False,
    card: bool = True,
    listen: Callable[[int, int], None] | None = None,
) -> Generated:
    """Attack all samples of a plan of one model and one card at no more than one ε, and write the data set.

    Each row has the input (adversarial where one was found, clean elsewhere), label, index in the full split, clean and
    adversarial prediction, distance (+inf where none was found, 0 if misclassified) and status. In a format that rounds
    inputs they are judged again as they will be read (`round_rows`). Memory does not grow with the number of samples
    beyond the data themselves; finished shards are kept on `resume`.

    Args:
        plan: made by `make_plan`; the budgets of its protocol give ε of a budget attack.
        out: directory of the data set.
        format: npz, safetensors, parquet, huggingface or png.
        command: command line, for `dataset.json` and the data card.
        resume, force: go on with, or replace, what is in the directory.
        card: write README.md and SHA256SUMS.
        listen: called with (shards done, shards in all).

    Raises:
        AttackError: not exactly one model and one card.
        BudgetError: a budget attack without an ε, or with several.
        DataError: a format that is unknown or cannot hold such inputs.
        ModelError: a clean accuracy that says that something is wrong.
        RunError: the directory cannot be used.
    """
    attack, eps = check_request(plan, format)
    subject = _subject(plan)
    data, size = plan.data, plan.protocol.shard
    starts = range(0, len(data), size)
    begun_by = _begun_by(out) if resume else None
    meta = _meta(plan, attack, eps, command if begun_by is None else begun_by)
    options = {"shards": len(starts), "card": card, "force": force, "resume": resume}
    writer = DatasetWriter(out, format=format, meta=meta, **_box(plan), **options)
    made: Counter[str] = Counter()
    errors = ""
    for number, start in enumerate(starts):
        part = slice(start, start + size)
        if not writer.done(number, len(data.index[part])):
            shard = _shard(plan, subject, number, part)
            columns, message = _attacked(plan, subject, attack, eps, shard, writer)
            writer.write(number, **columns)
            made.update(columns["status"])
            errors = errors or message
        if listen is not None:
            listen(number + 1, len(starts))
    path = writer.close()
    index = read_json(path, RunError)
    survivors = index.get("survivors")
    return Generated(path=path, status=index["status"], made=dict(made), survivors=survivors, errors=errors)


def check_request(plan: Plan, format: str) -> tuple[Card, float | None]:
    """Return the plan's only card, as it runs at its only ε (None for the minimal norm); raise what `generate` raises
    before anything is computed."""
    form, box = format_of(format), _box(plan)
    attack, eps = _one_attack(plan)
    form.check(Layout.of({**box, "codes": {}, "meta": {"split": plan.data.split}}))
    return attack, eps


def _one_attack(plan: Plan) -> tuple[Card, float | None]:
    """Return the plan's only card, as it runs at its only ε (None for the minimal norm)."""
    attacks = plan.attacks
    if len(plan.models) != 1 or len(attacks.cards) != 1 or attacks.stored:
        got = f"{len(plan.models)} models and {len(attacks.cards) + len(attacks.stored)} attacks"
        raise AttackError("generate", expected="one model and one attack card", got=got)
    card = attacks.cards[0]
    radii = plan.protocol.budgets.get(card.norm, ())
    if len(radii) > 1 or (card.kind == "budget" and not radii):
        got = ", ".join(f"{r:g}" for r in radii) or "none"
        raise BudgetError(f"eps of attack '{card.name}'", expected="exactly one value", got=got, fix="Give one --eps.")
    if not radii:
        return card, None
    return card.model_copy(update={"kind": "budget"}), radii[0]


def _subject(plan: Plan) -> Subject:
    """Return the plan's model, after a look at its clean accuracy on samples spread over the data."""
    model, n = plan.models[0], len(plan.data)
    judge = Judge(model.module)
    chosen = torch.arange(n) if n <= PROBE else torch.linspace(0, n - 1, PROBE).long()
    x, y = (values[chosen.to(values.device)] for values in samples_for(model, plan.data))
    with forked_rng(torch.Generator().manual_seed(seed_of(plan.protocol.seed, model.hash, "clean"))):
        pred, _ = judge.answer(x, y)
        check_clean(plan, model, x[:64], CleanAccuracy(correct=int((pred == y).sum()), n=len(y)))
    return Subject(label=model.label, hash=model.hash, counted=counted_for(plan, model), judge=judge)


def _shard(plan: Plan, subject: Subject, number: int, part: slice) -> Shard:
    x, y = samples_for(plan.models[0], plan.data, part)
    with forked_rng(torch.Generator().manual_seed(seed_of(plan.protocol.seed, subject.hash, "clean", number))):
        pred, margin = subject.judge.answer(x, y)
    return Shard(number=number, x=x, y=y, index=plan.data.index[part], clean_pred=pred, clean_margin=margin)


def _attacked(
    plan: Plan, subject: Subject, attack: Card, eps: float | None, shard: Shard, writer: DatasetWriter
) -> tuple[dict[str, Any], str]:
    """Return the columns of a shard as the format of the set keeps them, and the message of an attack that raised."""
    radii = () if eps is None else (eps,)
    common = {"data": plan.data.name, "seed": plan.protocol.seed, "protocol": plan.hash}
    unit = run_unit(subject, attack, shard, radii=radii, **common)
    columns = _columns(shard, unit)
    rounded = writer.format.rounded(columns["x"], shard.x, writer.layout)
    if rounded:
        columns = round_rows(subject.judge, shard, columns, rounded, norm=attack.norm, eps=eps)
    return columns, next(iter(rows(unit.records, status="error")["message"]), "")


def _box(plan: Plan) -> dict[str, Any]:
    model = plan.models[0].module
    lo, hi = model.bounds
    return {"bounds": (float(lo), float(hi)), "classes": int(model.classes), "input_shape": plan.data.x.shape[1:]}


def _meta(plan: Plan, card: Card, eps: float | None, command: str) -> dict[str, Any]:
    model, data = plan.models[0], plan.data
    return {
        "source": data.name,
        "split": data.split,
        "caption": data.caption,
        "fingerprint": data.fingerprint,
        "model": model.label,
        "model_hash": model.hash,
        "attack": card.name,
        "params": card.params_at(eps),
        "attack_card": card.resolved(),
        "norm": card.norm,
        "eps": eps,
        "seed": plan.protocol.seed,
        "protocol": plan.hash,
        "command": command,
        "version": __version__,
    }


def _begun_by(out: Path) -> str | None:
    """The command that began a data set, which a resumed one keeps; None if there is none."""
    for name in (INDEX, HEADER):
        if (out / name).is_file():
            return str(read_json(out / name, RunError).get("meta", {}).get("command", ""))
    return None


def _columns(shard: Shard, unit: Unit) -> dict[str, Any]:
    place = {sample: row for row, sample in enumerate(shard.index.tolist())}
    x = shard.x.detach().cpu().clone()
    x[[place[sample] for sample in unit.sample.tolist()]] = unit.x_adv.to(x)
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
