"""Attacks on one device, ours and those of other libraries, on the same samples in one run: quality, passes, time.

Ours and those in a ball are searched in full, in the shorter precisions of the device and, for an sNODE on a GPU, by
CUDA graphs, whose capture is part of the time. What every attack finds is judged in full float32. Each runs
`--repeats` times after one that warms up; times are the least of these. Distances are beside those of the first row,
on the samples that both broke: geometric mean and 99 % quantile of the ratio. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustode.api import evaluate
from robustode.attacks.norms import ball_tolerance
from robustode.evaluation.searched import has_sweep
from robustode.evaluation.statistics import censored_median
from robustode.models import load_model, resolve_device

MINIMAL = {"l2": ("ddn-l2", "deepfool-l2"), "linf": ("fmn-linf", "deepfool-linf")}  # of other libraries
IN_A_BALL = {"l2": ("pgd-l2", "apgd-ce-l2"), "linf": ("pgd-linf", "apgd-ce-linf")}
EPS = {"l2": 0.5, "linf": 0.05}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An attack and how it is searched."""

    card: str
    way: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the table calls it."""
        words = (self.card, self.way.get("search_precision"), "CUDA graphs" if "cuda_graphs" in self.way else None)
        return ", ".join(word for word in words if word)


def contenders(norm: str, device: torch.device, graphs: bool) -> list[Contender]:
    """Return all of a norm, ours first."""
    shorter = ("tf32", "bfloat16") if device.type == "cuda" else ("bfloat16",)
    ways: list[dict[str, Any]] = [{}, *({"search_precision": name} for name in shorter)]
    ways += [{**way, "cuda_graphs": True} for way in ways] if graphs else []
    cards = (f"sensitivity-{norm}", *IN_A_BALL[norm])
    found = [Contender(card=card, way=way) for card in cards for way in ways]
    return [*found, *(Contender(card=card) for card in MINIMAL[norm])]


def measured(one: Contender, norm: str, eps: float, args: argparse.Namespace) -> dict[str, Any]:
    """Run one contender and return its row."""
    run, times = None, []
    for _ in range(1 + args.repeats):
        run = evaluate(
            args.model, args.data, attacks=one.card, eps={norm: [eps]}, limit=args.images, data_root=args.data_root,
            device=args.device, audit="none", outputs=[], **one.way,
        )  # fmt: skip
        times.append(float(run.timings["seconds"].sum()))
    rows = run.records
    tried = rows[rows["status"] != "misclassified"]
    box, shape = tuple(run.meta["data"]["bounds"]), run.meta["data"]["input_shape"]
    within = eps + ball_tolerance(eps, box, torch.Size(shape).numel(), norm)
    minimal = bool(rows["eps"].isna().all())
    return {
        "attack": one.name,
        "distance": rows.set_index("sample")["distance"] if minimal else None,
        "robust": float((rows["distance"] > within).mean()),
        "passes": float((tried["forwards"] + tried["backwards"]).mean()),
        "ms": 1e3 * min(times[1:]) / len(tried),
    }


def beside(distance: pd.Series | None, ours: pd.Series) -> list[str]:
    """Return the median, and mean and 99 % quantile of the ratio to ours; nothing for an attack in a ball."""
    if distance is None:
        return ["", "", ""]
    both = np.isfinite(distance) & np.isfinite(ours) & (ours > 0)
    ratio = (distance / ours)[both]
    mean, high = np.exp(np.log(ratio).mean()), ratio.quantile(0.99)
    return [f"{censored_median(distance.to_numpy()).value or np.inf:.4f}", f"{mean:.4f}", f"{high:.3f}"]


def main() -> None:
    """Print a table for each norm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:snode-digits")
    parser.add_argument("--data")
    parser.add_argument("--data-root")
    parser.add_argument("--norm", action="append", choices=tuple(EPS), help="default both; repeats")
    parser.add_argument("--eps", type=float, help="radius of the attacks in a ball; default by norm")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = resolve_device(args.device)
    graphs = device.type == "cuda" and has_sweep(load_model(args.model))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    for norm in args.norm or EPS:
        eps = args.eps or EPS[norm]
        rows = [measured(one, norm, eps, args) for one in contenders(norm, device, graphs)]
        print(f"{args.model}, {args.images} samples, {where}\n")
        print(f"| attack | median {norm} | mean ratio | 99 % | robust at {eps:g} | passes | ms a sample | times ours |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for row in rows:
            cells = [*beside(row["distance"], rows[0]["distance"]), f"{row['robust']:.3f}", f"{row['passes']:.1f}"]
            print(f"| {row['attack']} | {' | '.join(cells)} | {row['ms']:.2f} | {row['ms'] / rows[0]['ms']:.2f} |")
        print()


if __name__ == "__main__":
    main()
