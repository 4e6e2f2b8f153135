"""Minimal norms of the sensitivity attack against foolbox's DeepFool, DDN and FMN: ratio per sample, passes, time."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import robustode as ro
from robustode.evaluation.records import rows
from robustode.evaluation.rundir import RunDir

PEERS = ("deepfool-l2", "ddn-l2", "deepfool-linf", "fmn-linf")


def table(run: RunDir, suite: str) -> pd.DataFrame:
    """One row per attack: median distance, ratio per sample to the best peer, passes, relative time."""
    records = run.records[run.records["status"] != "misclassified"]
    wide = records.pivot(index="sample", columns="attack", values="distance")
    best = wide[[name for name in wide.columns if name in PEERS]].min(axis=1)
    seconds = run.timings.groupby("attack")["seconds"].sum()
    ours = f"sensitivity-{suite.removeprefix('minimal-')}"
    out = []
    for name in wide.columns:
        own = rows(records, attack=name)
        both_failed = np.isinf(wide[name]) & np.isinf(best)
        ratio = (wide[name] / best).mask(both_failed, 1.0).to_numpy()  # below 1: nearer than the best peer
        out.append(
            {
                "attack": name,
                "median": wide[name].median(),
                "ratio median": np.median(ratio),
                "ratio 99 %": np.quantile(ratio, 0.99, method="higher"),
                "ratio max": ratio.max(),
                "failed": int(np.isinf(wide[name]).sum()),
                "forwards": own["forwards"].astype(float).mean(),
                "backwards": own["backwards"].astype(float).mean(),
                "time / ours": seconds[name] / seconds[ours],
            }
        )
    return pd.DataFrame(out)


def main() -> None:
    """Print one table for each model and norm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=None)
    parser.add_argument("--data", default=None)
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    for model in args.model or ["zoo:snode-digits", "zoo:layered-digits", "zoo:resnet-digits"]:
        for suite in ("minimal-l2", "minimal-linf"):
            run = ro.evaluate(model, args.data, attacks=suite, limit=args.limit)
            clean = run.meta["models"][0]["clean_accuracy"]
            print(f"\n{model}, {suite}, {run.meta['data']['caption']}, clean accuracy {clean:.1%}")
            print(table(run, suite).to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
