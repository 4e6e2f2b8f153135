"""The stored adversarials of a run: the nearest point of every sample, secured, with all that re-scoring needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.norms import ball_tolerance
from robustode.evaluation import shards
from robustode.evaluation.engine import seed_of
from robustode.evaluation.margins import Secured, secure
from robustode.evaluation.plan import Plan
from robustode.evaluation.rows import Shard, Subject
from robustode.files import write_text

FOLDER, SCRIPT = "adversarials", "verify.py"
TENSORS = ("sample", "label", "x", "x_adv", "pred", "found", "distance", "margin", "required")


def write(
    out: Path, plan: Plan, subject: Subject, parts: Sequence[Shard], norm: str, units: Iterable[tuple[Path, bool]]
) -> None:
    """Write the nearest adversarials of one model and norm, and beside them the script that re-scores them.

    The file has the tensors `TENSORS`, a row for each sample that was broken, by sample: `x` and `label` are the clean
    sample's, `found` is the distance that the attack found (that of the records), `distance` that of the stored point
    `x_adv`, which `secure` may have pushed a little further; `margin` and `required` are its. The header has the model,
    norm, box, ε with their τ, the number of samples and of those classified correctly, and how many points are pushed
    and thin. Nothing is written if the units kept no points.

    Args:
        out: run directory.
        plan: of the run.
        subject, parts: the model and its samples.
        norm: of the points.
        units: place of each unit with points of this norm, and whether its attack had no ball.
    """
    best = shards.nearest(units)
    if best is None:
        return
    clean = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y", "index")}
    place = {sample: row for row, sample in enumerate(clean["index"].tolist())}
    rows = torch.tensor([place[sample] for sample in best["sample"].tolist()], dtype=torch.int64)
    x, y = (clean[name][rows.to(clean["x"].device)] for name in ("x", "y"))
    radii = plan.budgets[norm]
    (lo, hi), dimension = subject.judge.model.bounds, math.prod(subject.judge.model.input_shape)
    tolerances = [ball_tolerance(eps, (lo, hi), dimension, norm) for eps in radii]
    ball = _ball(best["distance"], best["minimal"], radii, tolerances).to(x.device)
    with forked_rng(torch.Generator().manual_seed(seed_of(plan.protocol.seed, subject.hash, "margins", norm))):
        secured = secure(subject.judge, x, best["x_adv"].to(x), y, norm=norm, ball=ball)
    header = {
        "model": subject.label,
        "model_hash": subject.hash,
        "norm": norm,
        "bounds": [float(lo), float(hi)],
        "eps": list(radii),
        "tolerances": tolerances,
        "n": sum(len(part.y) for part in parts),
        "correct": sum(int((part.clean_pred == part.y).sum()) for part in parts),
        "eot": plan.protocol.eot,
        "pushed": int((secured.distance.cpu() > best["distance"]).sum()),
        "thin": int((secured.margin < secured.required).sum()),
    }
    tensors = _tensors(x, y, best, secured)
    folder = out / FOLDER
    shards.save_tensors(tensors, folder / f"{shards.safe(subject.label)}-{norm}.safetensors", header)
    write_text(Path(__file__).with_name("verify_script.py").read_text(encoding="utf-8"), folder / SCRIPT)


def _ball(distance: Tensor, minimal: Tensor, radii: Sequence[float], tolerances: Sequence[float]) -> Tensor:
    """Return the smallest ε of the run in which each point lies: it keeps there what it shows; +inf without a ball."""
    ball = torch.full_like(distance, math.inf)
    for eps, tolerance in sorted(zip(radii, tolerances, strict=True), reverse=True):
        ball = torch.where(~minimal & (distance <= eps + tolerance), eps, ball)
    return ball


def _tensors(x: Tensor, y: Tensor, best: dict[str, Tensor], secured: Secured) -> dict[str, Tensor]:
    values = (
        best["sample"],
        y,
        x,
        secured.x_adv,
        secured.pred,
        best["distance"],
        secured.distance,
        secured.margin,
        secured.required,
    )
    return {name: value.cpu() for name, value in zip(TENSORS, values, strict=True)}
