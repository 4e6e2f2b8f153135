"""What each ingredient of the sensitivity attack brings: `fast` as it is, and with one ingredient taken out."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

import robustode as ro
from robustode.attacks import effort, explore, levels, walk
from robustode.models import peek

FAST = effort.SETTINGS["fast"]
# What is taken out: constants of the attack's modules, and fields of the effort.
VARIANTS: dict[str, tuple[list[tuple[Any, str, Any]], dict[str, Any]]] = {
    "fast": ([], {}),
    "curvature (every step the whole projection)": (
        [(walk, "SHARES", (1.0, 1.0)), (walk, "FIRST_SHARE", 1.0), (walk, "LONGEST", 1e9)],
        {},
    ),
    "mean of gradients (L-infinity, L1)": ([(walk, "MEMORY", dict.fromkeys(walk.MEMORY, 0.0))], {}),
    "damping of the lead": ([(explore, "DAMPING", (1.0, 1.0))], {}),
    "soft margin of the lead": ([], {"temperature": 0.0}),
    "classes (the lead alone)": ([], {"rounds": (replace(FAST.rounds[0], classes=0),)}),
    "radius of the classes": ([], {"rounds": tuple(replace(one, reach=1e3) for one in FAST.rounds)}),
    "restarts (one round)": ([], {"rounds": FAST.rounds[:1]}),
    "levels (full resolution throughout)": ([(levels, "SHARES", ())], {}),
    "refinement (no search along rays at the end)": ([], {"probes": 0}),
}


@contextmanager
def without(constants: list[tuple[Any, str, Any]], fields: dict[str, Any]) -> Iterator[None]:
    """Run `fast` with constants and fields of its effort changed."""
    with ExitStack() as stack:
        for module, name, value in constants:
            stack.enter_context(patch.object(module, name, value))
        stack.enter_context(patch.dict(effort.SETTINGS, {"fast": replace(FAST, **fields)}))
        yield


def table(model: Any, x: torch.Tensor, y: torch.Tensor, norm: str) -> pd.DataFrame:
    """One row for each variant: ratio per sample to `thorough`, passes."""
    reference = ro.attacks.SensitivityAttack(norm=norm, setting="thorough")(model, x, y).distance
    out = []
    for name, (constants, fields) in VARIANTS.items():
        with without(constants, fields):
            result = ro.attacks.SensitivityAttack(norm=norm)(model, x, y)
        ratio = (result.distance / reference)[torch.isfinite(reference)]
        passes = (result.forwards + result.backwards).mean() if result.forwards is not None else 0.0
        out.append(
            {
                "without": name if name != "fast" else "nothing: fast",
                "median": float(ratio.median()),
                "99 %": float(ratio.quantile(0.99, interpolation="higher")),
                "max": float(ratio.max()),
                "off by > 1 %": f"{float((ratio > 1.01).double().mean()):.1%}",
                "failed": int(torch.isinf(result.distance).sum()),
                "passes": float(passes),
            }
        )
    return pd.DataFrame(out)


def main() -> None:
    """Print one table for each model and norm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=None)
    parser.add_argument("--data", default=None)
    parser.add_argument("--norm", action="append", choices=("l2", "linf", "l1"), default=None)
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    for name in args.model or ["zoo:snode-digits", "zoo:resnet-digits"]:
        model: Any = ro.load_model(name)
        data = ro.load_data(args.data or peek(name)["data"], limit=args.limit)
        with torch.no_grad():
            right = model(data.x).argmax(1) == data.y
        for norm in args.norm or ("l2", "linf"):
            print(f"\n{name}, {norm}, {int(right.sum())} images; ratios to `thorough` on the same image")
            rows = table(model, data.x[right], data.y[right], norm)
            print(rows.to_string(index=False, float_format=lambda value: f"{value:.4g}"), flush=True)


if __name__ == "__main__":
    main()
