"""Tightness and cost of every bound on the same samples, beside the nearest adversarial found and CROWN, in one run."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustode.attacks.norms import ball_tolerance, distance
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.certificates import certify
from robustode.data import load_data
from robustode.errors import OptionError
from robustode.evaluation.statistics import censored_median
from robustode.files import atomic
from robustode.models import load_model, peek

CHUNK = 4  # samples that all methods take one after the other
REFERENCE = "crown"


def chunks(model: Any, data: Any) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield number, samples and labels of chunks of the samples that the model classifies as they are labelled."""
    with torch.no_grad():
        right = (model(data.x).argmax(1) == data.y).nonzero()[:, 0]
    # in a random order: every chunk is a sample of all
    right = right[torch.randperm(len(right), generator=torch.Generator().manual_seed(0))]
    for number, part in enumerate(right.split(CHUNK)):
        yield number, data.x[part], data.y[part]


def attacked(model: Any, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Return the distance of the nearest adversarial that the sensitivity attack finds, inf without one."""
    found = SensitivityAttack(norm=norm, setting="thorough")(model, x, y)
    with torch.no_grad():
        broken = model(found.x_adv).argmax(1) != y
    return torch.where(broken, distance(x, found.x_adv, norm), math.inf)


def measure(name: str, model: Any, x: Tensor, y: Tensor, norm: str) -> tuple[Tensor, float, float]:
    """Return radii (or distances), CPU seconds and passes of a sample."""
    start = time.process_time()
    if name == "attack":
        return attacked(model, x, y, norm), (time.process_time() - start) / len(x), math.nan
    found = certify(model, x, y, norm=norm, methods=[name])
    return found.radius, (time.process_time() - start) / len(x), float(found.passes.mean())


def rows(args: argparse.Namespace, spec: str, norm: str, done: pd.DataFrame) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one chunk after the other, those left out that are `done`."""
    model: Any = load_model(spec)
    data = load_data(args.data or peek(spec)["data"], split="test", limit=args.samples, root=args.data_root)
    refused: set[str] = set()
    for number, x, y in chunks(model, data):
        for name in ["attack", *args.methods]:
            if name in refused or (name in args.slow and number * CHUNK >= args.slow_samples):
                continue
            if ((done["chunk"] == number) & (done["method"] == name)).any():
                continue
            try:
                radius, seconds, passes = measure(name, model, x, y, norm)
            except OptionError as reason:
                refused.add(name)
                print(f"{spec}, {norm}, {name}: {reason}")
                continue
            common = {"chunk": number, "method": name, "seconds": seconds, "passes": passes}
            yield [{**common, "sample": number * CHUNK + i, "radius": value} for i, value in enumerate(radius.tolist())]


def summary(model: Any, frame: pd.DataFrame, label: str, norm: str) -> list[dict[str, Any]]:
    """Return a row for each method: medians with intervals, the ratio to the attack, and the comparison with CROWN."""
    radius = frame.pivot(index="sample", columns="method", values="radius")
    seconds = frame.pivot(index="sample", columns="method", values="seconds")
    tolerance = ball_tolerance(0.0, model.bounds, math.prod(model.input_shape), norm)
    table = []
    for name in [column for column in radius if column != "attack"]:
        both = radius[[name, "attack"]].dropna()
        ratio = censored_median((both[name] / both["attack"]).to_numpy())
        row = {"model": label, "norm": norm, "method": name, "samples": len(both)}
        row |= {"certified": both[name].median(), "attacked": both["attack"].median()}
        row |= {"ratio": ratio.value, "ratio_lo": ratio.lo, "ratio_hi": ratio.hi}
        row |= {"above_attack": int((both[name] > both["attack"] + tolerance).sum())}
        row |= {"seconds": seconds[name].mean(), "passes": frame[frame["method"] == name]["passes"].mean()}
        if REFERENCE in radius and name != REFERENCE:
            beside = radius[[name, REFERENCE]].dropna().index
            against = radius.loc[beside, name] / radius.loc[beside, REFERENCE].replace(0, np.nan)
            row |= {"to_crown": against.median(), "compared": len(beside)}
            row |= {"time_to_crown": seconds.loc[beside, name].sum() / seconds.loc[beside, REFERENCE].sum()}
        table.append(row)
    return table


def main() -> None:
    """Run what is missing of every model and norm, and write OUT/certificates.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--data", help="default: the data that the model was trained on")
    parser.add_argument("--data-root")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--norm", action="append", choices=["l1", "l2", "linf"])
    parser.add_argument("--methods", nargs="*", default=["affine", "adjoint", "tube", "crown"])
    parser.add_argument("--slow", nargs="*", default=["crown"], help="methods that take the first samples only")
    parser.add_argument("--slow-samples", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/certificates"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    table: list[dict[str, Any]] = []
    for spec in args.model:
        for norm in args.norm or ["l2"]:
            label = Path(spec).stem.removeprefix("zoo:")
            place = args.out / f"{label}_{norm}.parquet"
            columns = ["chunk", "method", "seconds", "passes", "sample", "radius"]
            frame = pd.read_parquet(place) if place.exists() else pd.DataFrame(columns=columns)
            for new in rows(args, spec, norm, frame.copy()):
                frame = pd.DataFrame([*frame.to_dict("records"), *new])
                with atomic(place) as temporary:
                    frame.to_parquet(temporary)
            table += summary(load_model(spec), frame, label, norm)
            pd.DataFrame(table).to_csv(args.out / "certificates.csv", index=False, float_format="%.5g")
            print(pd.DataFrame(table[-6:]).to_string(index=False, float_format="%.4g"), flush=True)


if __name__ == "__main__":
    main()
