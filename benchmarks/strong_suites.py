"""The strong suites against the field's standard ensembles: robust accuracy at every ε, passes and CPU time.

Runs what is not there yet under OUT/runs and writes OUT/tables; start it again to go on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness.compare import passes
from harness.store import Place, Timed
from harness.subjects import Case, load_case
from minimal_norm import say

from robustode.attacks.card import Card, make_card
from robustode.attacks.cards import resolve
from robustode.attacks.norms import ball_tolerance
from robustode.data import default_budgets
from robustode.evaluation.cascade import smallest
from robustode.evaluation.engine import run_unit
from robustode.files import atomic, write_text

HERE = Path(__file__).resolve().parent
OURS = "robustode:sensitivity"
ZOO = ("zoo:snode-digits", "zoo:layered-digits", "zoo:resnet-digits")
FIELD = "autoattack"  # how the names of the field's ensembles begin
NORM_WORDS = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A suite, or one attack, whose robust accuracy is compared.

    Attributes:
        name: in the tables.
        cards: run in order; in a cascade where they say so.
        instead: cards that stand in for it where it raises, and a note on that.
    """

    name: str
    cards: tuple[Card, ...]
    instead: tuple[tuple[Card, ...], str] = ((), "")


def contenders(case: Case, norm: str) -> list[Contender]:
    """Return the strong suite, the same without the sensitivity attack, and the two AutoAttacks."""
    suite = tuple(card for card in resolve(f"strong-{norm}") if not card.needs.unmet(case.subject.counted))
    without = tuple(card for card in suite if card.implementation != OURS)
    original = "python:peers.py:autoattack"
    return [
        Contender(name=f"strong-{norm}", cards=suite),
        Contender(name=f"strong-{norm}-without-ours", cards=without),
        Contender(name="autoattack-torchattacks", cards=(_card("torchattacks:AutoAttack", norm),)),
        Contender(
            name="autoattack-original",
            cards=(_card(original, norm),),
            instead=((_card(original, norm, square=False),), "without Square, which raised"),
        ),
    ]


def _card(implementation: str, norm: str, **params: Any) -> Card:
    name = implementation.rpartition(":")[2] + "".join(f"-{key}-{value}" for key, value in params.items())
    values = {"name": name, "title": name, "implementation": implementation, "norm": norm, "kind": "budget"}
    return make_card({**values, "params": {"version": "standard", **params}, "source": str(HERE)}, name)


def measure(place: Place, case: Case, cards: Sequence[Card], radii: Sequence[float], redo: bool) -> pd.DataFrame:
    """Return the rows of all cards at all radii, with the CPU seconds of each unit in `cpu`, from disk or run now."""
    frames: list[pd.DataFrame] = []
    samples = case.correct.index.tolist()
    for card in cards:
        before = frames if card.cascade else []
        for eps in [None] if card.kind == "minimal" else radii:
            found = smallest(before, samples) if card.cascade else None
            facts = [
                card.resolved(),
                case.subject.hash,
                samples,
                eps,
                list(radii),
                found is not None and found.tolist(),
            ]
            made_from = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
            path = place.file(card.name if eps is None else f"{card.name}-{eps:.6g}", ".parquet")
            frame = pd.read_parquet(path) if path.is_file() and not redo else None
            if frame is None or frame["digest"].iloc[0] != made_from:
                timed = Timed(card)
                at = radii if eps is None else [eps]
                options: dict[str, Any] = {"data": case.data, "seed": 0, "protocol": "bench", "found": found}
                unit: Any = run_unit(case.subject, timed, case.correct, radii=at, **options)  # type: ignore[arg-type]
                frame = unit.records.assign(digest=made_from, cpu=timed.cpu)
                with atomic(path) as temporary:
                    frame.to_parquet(temporary, index=False)
                state = frame["status"].value_counts().to_dict()
                say(f"  {place.part} {path.stem}: {state}, {timed.cpu:.1f} s")
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def ran(
    case: Case, norm: str, contender: Contender, radii: Sequence[float], args: argparse.Namespace
) -> tuple[pd.DataFrame, str]:
    """Return the rows of a contender, or of what stands in for it where it raises, and a note that says so."""
    place = Place(out=args.out, model=case.subject.label, norm=norm, part=contender.name)
    frame = measure(place, case, contender.cards, radii, redo=contender.name in args.redo)
    errors = frame.loc[frame["status"] == "error", "message"]
    cards, note = contender.instead
    if errors.empty or not cards:
        return frame, "" if errors.empty else f"raised: {errors.iloc[0]}"
    return measure(place, case, cards, radii, redo=contender.name in args.redo), note


def compare(case: Case, norm: str, args: argparse.Namespace) -> pd.DataFrame:
    """Return one row for each contender and ε, and one without ε for what the whole curve cost."""
    model, size = case.subject.counted, case.correct.x[0].numel()
    radii = tuple(args.eps or default_budgets(case.data, tuple(model.bounds), size)[norm])
    samples, out, broken = case.correct.index.tolist(), [], {}
    for contender in contenders(case, norm):
        frame, note = ran(case, norm, contender, radii, args)
        distance = smallest([frame], samples).numpy()
        common = {"model": case.subject.label, "norm": norm, "contender": contender.name, "n": case.seen}
        for eps in radii:
            lost = distance <= eps + ball_tolerance(eps, tuple(model.bounds), size, norm)
            value = (len(lost) - int(lost.sum())) / case.seen
            if (frame["status"] == "error").any():  # it did not run to its end: no number
                value = math.nan
            else:
                broken[contender.name, eps] = lost
            out.append({**common, "eps": eps, "robust accuracy": value})
        cost = {"passes": float(passes(frame).fillna(0).sum()) / max(len(samples), 1), "CPU s": _seconds(frame)}
        out.append({**common, "eps": math.nan, **cost, "note": note})
    for row in out:
        if (row["contender"], row["eps"]) in broken:
            lost = broken[row["contender"], row["eps"]]
            field = [by for (name, eps), by in broken.items() if eps == row["eps"] and name.startswith(FIELD)]
            row["missed"] = int((np.any(field, axis=0) & ~lost).sum()) if field else math.nan
    return pd.DataFrame(out)


def _seconds(frame: pd.DataFrame) -> float:
    return float(frame.groupby(["attack", "eps"], dropna=False)["cpu"].first().sum())


def _cell(accuracy: float, missed: float) -> str:
    if math.isnan(accuracy):
        return "raised"
    return f"{accuracy:.3f}" + ("" if math.isnan(missed) else f" [{int(missed)}]")


def markdown(table: pd.DataFrame) -> str:
    """Return a table for each norm: a row for each model and contender, robust accuracy at each ε, passes, CPU seconds.

    In brackets: samples that one of the AutoAttacks breaks and the contender does not.
    """
    lines = [
        "Robust accuracy at each ε [samples that an AutoAttack breaks and this does not]; passes for each correctly"
    ]
    lines += [
        "classified sample (rows forwards and backwards at the model's boundary) and CPU seconds of the whole curve."
    ]
    for norm, part in table.groupby("norm", sort=False):
        for model, own in part.groupby("model", sort=False):
            radii = sorted(own["eps"].dropna().unique())
            n = int(own["n"].iloc[0])
            heads = [f"{NORM_WORDS[str(norm)]} {eps:.4g}" for eps in radii]
            lines += [
                "",
                f"| {model}, n = {n} | {' | '.join(heads)} | passes | CPU s | |",
                "|---" * (len(heads) + 4) + "|",
            ]
            for name, rows in own.groupby("contender", sort=False):
                at = rows.set_index("eps")
                cells = [_cell(at.loc[eps, "robust accuracy"], at.loc[eps, "missed"]) for eps in radii]
                cost = rows[rows["eps"].isna()].iloc[0]
                spent = f"{cost['passes']:,.0f} | {cost['CPU s']:,.0f} | {cost['note']}"
                lines.append(f"| {name} | {' | '.join(cells)} | {spent} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=None, help="LABEL=MODEL or MODEL; repeats")
    parser.add_argument("--data", default=None, help="data source; that of the checkpoint if left out")
    parser.add_argument("--norm", action="append", choices=("l2", "linf"), default=None)
    parser.add_argument("--eps", action="append", type=float, default=[], help="radius; repeats; needs one --norm")
    parser.add_argument("--images", type=int, default=100, help="images, the misclassified ones among them")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the images")
    parser.add_argument("--out", type=Path, default=Path("runs/strong-suites"))
    parser.add_argument("--redo", action="append", default=[], help="contender to compute again; repeats")
    args = parser.parse_args()
    if args.eps and len(args.norm or []) != 1:
        parser.error("--eps: expected exactly one --norm beside it")
    args.eps = sorted(set(args.eps))
    return args


def main() -> None:
    """Run every model in every norm and write the tables after each."""
    args = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    parts: list[pd.DataFrame] = []
    for spec in args.model or ZOO:
        case = load_case(spec, args.data, correct=None, seen=args.images, seed=args.seed)
        say(f"{case.subject.label}: {len(case.correct.y)} of {case.seen} images of {case.data} correctly classified")
        for norm in args.norm or ["linf", "l2"]:
            parts.append(compare(case, norm, args))
            table = pd.concat(parts, ignore_index=True)
            folder = args.out / "tables"
            folder.mkdir(parents=True, exist_ok=True)
            table.to_csv(folder / "strong_suites.csv", index=False)
            write_text(markdown(table), folder / "strong_suites.md")


if __name__ == "__main__":
    main()
