"""How right propagated uncertainty is: covariance, probability and regions against many Monte Carlo draws.

For every model, σ and method: the median relative error of the covariance of the logits beside the Monte Carlo floor,
|ΔP| and expected calibration error of P(correct), and how many of the drawn logits lie in the predicted 50, 90 and 95 %
regions. Writes OUT/uncertainty.csv after each level, so that the same command goes on, and OUT/uncertainty.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import chi2
from torch import Tensor

from robustode.data import load_data
from robustode.errors import OptionError
from robustode.evaluation.calibration import expected_calibration_error
from robustode.evaluation.statistics import wilson
from robustode.files import write_text
from robustode.models import load_model, peek
from robustode.uncertainty import METHODS, Uncertainty, propagate

LEVELS = (0.5, 0.9, 0.95)
CHUNK = 20  # samples whose draws are in memory together


@torch.no_grad()
def drawn(model: Any, x: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """Return the logits of some draws of a few samples, (samples, draws, classes) float64."""
    parts = []
    for _ in range(0, draws, 200):
        noise = torch.randn(200, *x.shape, generator=generator)
        parts.append(model((x + sigma * noise).flatten(0, 1)).double().unflatten(0, (200, len(x))))
    return torch.cat(parts).movedim(0, 1)


def covariance(z: Tensor) -> Tensor:
    """Return the sample covariances, (samples, classes, classes)."""
    d = z - z.mean(1, keepdim=True)
    return d.mT @ d / (z.shape[1] - 1)


def relative(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖A − B‖ / ‖B‖ of each sample, Frobenius norms."""
    return (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)


def inside(z: Tensor, found: Uncertainty) -> dict[float, np.ndarray]:
    """Return the share of each sample's draws in the predicted regions, by their level."""
    d = z - found.mean.double()[:, None]
    solved = torch.linalg.solve(found.cov.double() + 1e-12 * torch.eye(z.shape[-1], dtype=torch.float64), d.mT)
    distance = (d.mT * solved).sum(1)
    return {level: (distance <= chi2.ppf(level, z.shape[-1])).double().mean(1).numpy() for level in LEVELS}


def level(model: Any, x: Tensor, y: Tensor, sigma: float, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each method at one σ."""
    found: dict[str, dict[str, list[Any]]] = {}
    generator = torch.Generator().manual_seed(0)
    floor, measured = [], []
    for start in range(0, len(x), CHUNK):
        part, labels = x[start : start + CHUNK], y[start : start + CHUNK]
        z = drawn(model, part, sigma, args.draws, generator)
        cov, half = covariance(z), z.shape[1] // 2
        floor.append(relative(covariance(z[:, :half]), covariance(z[:, half:])) / 2)
        measured.append((z.argmax(-1) == labels[:, None]).double().mean(1))
        for method in args.methods:
            try:
                one = propagate(model, part, input_cov=sigma**2, method=method)
            except OptionError:
                continue
            kept = found.setdefault(method, {"error": [], "p": [], **{str(at): [] for at in LEVELS}})
            kept["error"].append(relative(one.cov.double(), cov))
            kept["p"].append(one.p_correct(labels))
            for at, share in inside(z, one).items():
                kept[str(at)].append(torch.from_numpy(share))
    p = torch.cat(measured).numpy()
    rows = []
    for method, kept in found.items():
        joined = {name: torch.cat(parts).numpy() for name, parts in kept.items()}
        gap = np.abs(joined["p"] - p)
        row: dict[str, Any] = {"sigma": sigma, "method": method, "samples": len(p), "draws": args.draws}
        row |= {"covariance error": float(np.median(joined["error"])), "floor": float(torch.cat(floor).median())}
        row |= {"P measured": float(p.mean()), "P predicted": float(joined["p"].mean())}
        row |= {"dP mean": float(gap.mean()), "dP floor": float(np.sqrt(2 / np.pi * p * (1 - p) / args.draws).mean())}
        row |= {"dP max": float(gap.max()), "ECE": expected_calibration_error(joined["p"], p)}
        rows.append(row | {f"inside {at:g}": float(joined[str(at)].mean()) for at in LEVELS})
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Return the table for people; intervals of the regions are Wilson's for as many trials as there are samples."""
    lines = [
        "| model, σ | method | covariance error (floor) | mean \\|ΔP\\| (max) | ECE | in 50 % | in 90 % | in 95 % |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in table.to_dict("records"):
        cells = [
            f"{row['model']}, {row['sigma']:g}",
            row["method"],
            f"{row['covariance error']:.3f} ({row['floor']:.3f})",
        ]
        cells += [f"{row['dP mean']:.4f} ({row['dP max']:.3f})", f"{row['ECE']:.4f}"]
        for at in LEVELS:
            share = row[f"inside {at:g}"]
            ends = wilson(round(share * row["samples"]), row["samples"])
            cells.append(f"{100 * share:.1f} % [{100 * (ends.lo or 0):.0f}, {100 * (ends.hi or 1):.0f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="[LABEL=]CKPT")
    parser.add_argument("--data-root")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--sigma", type=float, nargs="*", default=[0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--methods", nargs="*", default=[name for name in METHODS if name != "monte-carlo"])
    parser.add_argument("--out", type=Path, default=Path("runs/uncertainty"))
    args = parser.parse_args()
    path = args.out / "uncertainty.csv"
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["model", "sigma"])
    for spec in args.model or ["zoo:snode-digits", "zoo:layered-digits"]:
        label, _, name = spec.rpartition("=")
        model: Any = load_model(name)
        label = label or peek(name)["label"]
        data = load_data(peek(name)["data"], split="test", limit=args.samples, root=args.data_root)
        for sigma in args.sigma:
            if bool(((table["model"] == label) & (table["sigma"] == sigma)).any()):
                continue
            start = time.time()
            rows = [{"model": label, **row} for row in level(model, data.x, data.y, sigma, args)]
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
            write_text(table.to_csv(index=False, float_format="%.6g"), path)
            write_text(markdown(table), args.out / "uncertainty.md")
            print(f"{label} σ = {sigma:g}: {time.time() - start:.0f} s", flush=True)
    print((args.out / "uncertainty.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
