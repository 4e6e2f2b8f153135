"""What certified training costs: clean accuracy against certified radius, for several factors μ₅ of the log norm.

Trains the plain recipe and the recipe `certified` with each μ₅, certifies and attacks the same test samples of each in
L2, and writes OUT/training.csv, OUT/training_table.md and OUT/training.svg. Each network and its radii are files under
OUT/runs: the same command goes on.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import robustode as ro
from robustode.certificates import certify
from robustode.data import Data, load_data
from robustode.evaluation.statistics import Estimate, censored_median, wilson
from robustode.files import write_text
from robustode.models import load_model, peek, save_checkpoint
from robustode.reporting.plot import COLOURS, Plot, new_figure, style
from robustode.training import Recipe, build, fit, provenance, recipe
from robustode.training.log_norm import DepthLogNorm

MU5 = [0.0, 0.02, 0.1, 0.5]
BUDGETS = (0.1, 0.2)  # at which the certified accuracy is given, L2
CHUNK = 20  # samples certified before a line is shown


def settings(args: argparse.Namespace) -> dict[str, Recipe]:
    """Return the trainings by label."""
    certified = recipe("snode", args.data, "certified")
    plain = recipe("snode", args.data)
    found = {
        "plain": plain,
        "plain, squared error": plain.overrides(mu1=1.0, mu2=0.0),
    }
    values = args.mu5 or MU5
    return found | {f"certified, mu5 = {value:g}": certified.overrides(mu5=value) for value in values}


def trained(label: str, chosen: Recipe, train: Data, test: Data, args: argparse.Namespace) -> Path:
    """Return the checkpoint of a training, made if it is not there."""
    path = args.out / "runs" / f"{re.sub('[^a-z0-9.]+', '-', label)}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        model = build(chosen, train, args.seed)
        result = fit(model, train, recipe=chosen, test=test, seed=args.seed)
        header = provenance(chosen, result, f"benchmarks/certified_training.py, {label}", args.seed)
        save_checkpoint(model, path, data=train.name, provenance=header)
        print(f"{label}: {result.test_accuracy:.2%} after {result.seconds:.0f} s", flush=True)
    return path


def radii(path: Path, samples: Data) -> pd.DataFrame:
    """Return a row for each sample: right, certified radius, distance attacked; computed if they are not there."""
    kept = path.with_suffix(".csv")
    if kept.is_file():
        return pd.read_csv(kept)
    model: Any = load_model(str(path))
    certified = []
    for x, y in zip(samples.x.split(CHUNK), samples.y.split(CHUNK), strict=True):
        certified.append(certify(model, x, y, norm="l2", methods=["affine"]).radius)
    with torch.no_grad():
        right = model(samples.x).argmax(1) == samples.y
    attacked = torch.zeros(len(samples), dtype=torch.float64)
    attack = ro.attacks.SensitivityAttack(norm="l2")
    attacked[right] = attack(model, samples.x[right], samples.y[right]).distance.double()
    columns = {"sample": samples.index, "right": right, "certified": torch.cat(certified), "attacked": attacked}
    table = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
    write_text(table.to_csv(index=False, float_format="%.6g"), kept)
    return table


def row(label: str, path: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of one network, intervals at 95 %: Wilson's, and of the order statistics for medians."""
    model: Any = load_model(str(path))
    right = table.loc[table["right"]]
    norms = DepthLogNorm(model.config["activation"])(model.weight.detach().double()).values
    out: dict[str, Any] = {"training": label, "accuracy": peek(str(path))["accuracy"]}
    out["log-norm integral"] = model.horizon * float(norms.clamp(min=0).mean())
    for name in ("certified", "attacked"):
        out |= _ends(f"{name} median", censored_median(np.asarray(right[name])))
    out |= _ends("ratio", censored_median(np.asarray(right["certified"]) / np.asarray(right["attacked"])))
    for eps in BUDGETS:
        good = int(np.sum(np.asarray(right["certified"]) >= eps))
        out |= _ends(f"certified accuracy at {eps:g}", wilson(good, len(table)))
    return out | {"samples": len(table), "right": len(right)}


def _ends(name: str, found: Estimate) -> dict[str, Any]:
    return {name: found.value, f"{name} lo": found.lo, f"{name} hi": found.hi}


def markdown(table: pd.DataFrame) -> str:
    """Return the table for people."""
    names = ["certified median", "attacked median", "ratio", *(f"certified accuracy at {eps:g}" for eps in BUDGETS)]
    lines = ["| training | clean accuracy | ∫ μ⁺ dt | " + " | ".join(names) + " |", "| --- " * (len(names) + 3) + "|"]
    for found in table.to_dict("records"):
        cells = [found["training"], f"{100 * found['accuracy']:.2f} %", f"{found['log-norm integral']:.2f}"]
        for name in names:
            value, low, high = (found[f"{name}{end}"] for end in ("", " lo", " hi"))
            share = name.startswith("certified accuracy")
            text = "{:.0%} [{:.0%}, {:.0%}]" if share else "{:.3f} [{:.3f}, {:.3f}]"
            cells.append(text.format(value, low, high))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(table: pd.DataFrame) -> Plot:
    """Return the trade-off: clean accuracy against the median certified and attacked radius."""
    with style("certified_training"):
        drawn, (axes,) = new_figure(1)
        for name, colour, marker in (("certified", COLOURS[0], "o"), ("attacked", COLOURS[1], "s")):
            middle = table[f"{name} median"].to_numpy()
            ends = np.abs(table[[f"{name} median lo", f"{name} median hi"]].to_numpy().T - middle)
            axes.errorbar(middle, 100 * table["accuracy"], xerr=ends, fmt=marker, color=colour, ms=4, lw=1, label=name)
        for found in table.to_dict("records"):
            label = found["training"].replace("certified, mu5 = ", "μ₅ = ")
            at = (found["certified median"], 100 * found["accuracy"])
            axes.annotate(label, at, xytext=(3, 4), textcoords="offset points", fontsize=7)
        axes.set(xlabel="median L2 radius", ylabel="clean accuracy, %", xlim=(0, None))
        drawn.legend(loc="outside upper left", ncols=2)
    caption = "Clean test accuracy against the median certified and attacked L2 radius of the same test samples."
    return Plot(name="certified_training", caption=caption, figure=drawn)


def main() -> None:
    """Train, certify and attack what is not there yet, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist14")
    parser.add_argument("--data-root")
    parser.add_argument("--mu5", type=float, nargs="*", help="factors of the log norm; default 0, 0.02, 0.1, 0.5")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/certified-training"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train = load_data(args.data, split="train", root=args.data_root)
    test = load_data(args.data, split="test", root=args.data_root)
    samples = load_data(args.data, split="test", limit=args.samples, root=args.data_root)
    rows = []
    for label, chosen in settings(args).items():
        path = trained(label, chosen, train, test, args)
        rows.append(row(label, path, radii(path, samples)))
        table = pd.DataFrame(rows)
        write_text(table.to_csv(index=False, float_format="%.6g"), args.out / "training.csv")
        write_text(markdown(table), args.out / "training_table.md")
        write_text(figure(table).svg(), args.out / "training.svg")
    print((args.out / "training_table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
