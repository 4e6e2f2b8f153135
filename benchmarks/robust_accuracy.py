"""Robust accuracy at every ε: one run of each of our settings against attacks that are run again at each ε.

Runs what is not there yet under OUT/runs and writes OUT/tables; start it again to go on.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness.compare import passes, write_table
from harness.configs import Plan, read_plan
from harness.store import Place, run
from harness.subjects import Case, load_case
from minimal_norm import say

from robustode.attacks.norms import ball_tolerance
from robustode.data import default_budgets

HERE = Path(__file__).resolve().parent
RADII = {"linf": (0.02, 0.03, 0.05, 0.08), "l2": (0.2, 0.3, 0.5)}  # of MNIST and its kin
LIKE_MNIST = ("mnist", "mnist14", "fashion-mnist", "fashion-mnist14")
THE_FIELD = "autoattack"  # the attack whose time is compared with our whole curve


def radii(case: Case, norm: str) -> tuple[float, ...]:
    """Return the radii of a norm."""
    if case.data in LIKE_MNIST:
        return RADII[norm]
    model = case.subject.counted
    return tuple(default_budgets(case.data, tuple(model.bounds), case.correct.x[0].numel())[norm])


def frames(case: Case, plan: Plan, norm: str, args: argparse.Namespace) -> dict[str, dict[float | None, pd.DataFrame]]:
    """Return {attack: {ε: run}} of what ended; ours have the one radius None."""
    out: dict[str, dict[float | None, pd.DataFrame]] = {}
    for config in plan.of_norm(norm):
        for eps in [None] if config.ours else args.eps or radii(case, norm):
            part = "curve" if eps is None else f"eps-{eps:.6g}"
            place = Place(out=args.out, model=case.subject.label, norm=norm, part=part)
            limit = 60 * args.limit
            frame = run(place, config, case, case.correct, limit=limit, eps=eps, redo=args.redo)
            if frame is None:
                say(f"  {norm} {part} {config.name}: did not end (see {place.file(config.name, '.json')})")
                continue
            out.setdefault(config.name, {})[eps] = frame.set_index("sample")
            broken = int(np.isfinite(frame["distance"]).sum())
            say(f"  {norm} {part} {config.name}: {broken} of {len(frame)} broken, {frame['cpu'].iloc[0]:.1f} s")
    return out


def table(
    case: Case, runs: Mapping[str, Mapping[float | None, pd.DataFrame]], norm: str, epses: tuple[float, ...]
) -> pd.DataFrame:
    """Return one row for each ε and attack: robust accuracy, samples apart from the union of all peers, times.

    "union only" counts samples that some peer breaks and the attack does not, "attack only" the reverse.
    """
    model, dimension = case.subject.counted, case.correct.x[0].numel()
    rows = []
    for eps in epses:
        tolerance = ball_tolerance(eps, tuple(model.bounds), dimension, norm)
        at = {
            name: by_eps[None if None in by_eps else eps] for name, by_eps in runs.items() if {None, eps} & set(by_eps)
        }
        broken = {name: frame["distance"] <= eps + tolerance for name, frame in at.items()}
        peers = [name for name in at if None not in runs[name]]
        if not peers:
            continue
        union = pd.concat([broken[name] for name in peers], axis=1).any(axis=1)
        broken["union of peers"] = union
        cpu = {name: float(frame["cpu"].iloc[0]) for name, frame in at.items()}
        for name, lost in broken.items():
            row = {
                "model": case.subject.label, "norm": norm, "eps": eps, "attack": name, "n": case.seen,
                "robust accuracy": (len(lost) - int(lost.sum())) / case.seen,
                "union only": int((union & ~lost).sum()), "attack only": int((lost & ~union).sum()),
            }  # fmt: skip
            if name in at:
                row |= {"passes": float(passes(at[name]).mean()), "CPU s": cpu[name]}
                if name not in peers and THE_FIELD in cpu:
                    row[f"{THE_FIELD} / whole curve"] = cpu[THE_FIELD] / cpu[name]
            rows.append(row)
    return pd.DataFrame(rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=None, help="LABEL=MODEL or MODEL; repeats")
    parser.add_argument("--data", default=None, help="data source; that of the checkpoint if left out")
    parser.add_argument("--norm", action="append", choices=("l2", "linf"), default=None)
    parser.add_argument("--eps", action="append", type=float, default=[], help="radius; repeats; needs one --norm")
    parser.add_argument("--peers", type=Path, default=HERE / "robust_accuracy.toml", help="TOML of attacks")
    parser.add_argument("--images", type=int, default=500, help="images, the misclassified ones among them")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the images")
    parser.add_argument("--out", type=Path, default=Path("runs/robust-accuracy"))
    parser.add_argument("--limit", type=float, default=30.0, help="CPU minutes for each run")
    parser.add_argument("--redo", action="append", default=[], help="attack to compute again; repeats")
    args = parser.parse_args()
    if args.eps and len(args.norm or []) != 1:
        parser.error("--eps: expected exactly one --norm beside it")
    return args


def main() -> None:
    """Run every model in every norm and write its table after each."""
    args = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    plan, parts = read_plan(args.peers), []
    for spec in args.model or ["zoo:snode-digits"]:
        case = load_case(spec, args.data, correct=None, seen=args.images, seed=args.seed)
        say(f"{case.subject.label}: {len(case.correct.y)} of {case.seen} images of {case.data} correctly classified")
        for norm in args.norm or ["l2", "linf"]:
            runs = frames(case, plan, norm, args)
            parts.append(table(case, runs, norm, tuple(args.eps) or radii(case, norm)))
            write_table(parts[-1], args.out / "tables" / f"{case.subject.label}_{norm}.csv")
    write_table(pd.concat(parts), args.out / "tables" / "summary.csv")


if __name__ == "__main__":
    main()
