"""Engines and scale: overhead, workers side by side, cost and memory by number of samples, and the plan's prediction.

Every measurement is a process of its own. Writes OUT/scale.csv (one row each) and OUT/scale.md; what is there is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustode.evaluation.engines.options import Engine
from robustode.evaluation.engines.units import compute
from robustode.evaluation.forecast import forecast
from robustode.evaluation.jobs import attacks_of, places_of
from robustode.evaluation.plan import Plan, make_plan
from robustode.evaluation.prepare import prepare
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.shards import read_records, read_timings

SAMPLES = (500, 1000, 2000, 4000, 8000)
SHARD = 500


def planned(job: dict[str, Any]) -> Plan:
    """Return the plan of a job."""
    torch.set_num_threads(job["threads"])
    values = {
        "models": [{"model": job["model"]}],
        "data": job["data"],
        "limit": job["samples"],
        "attacks": job["attack"],
        "shard": SHARD,
        "audit": "none",
        "outputs": [],
        "allow_low_accuracy": True,
    }
    return make_plan(build_protocol(values, "benchmark"), data_root=job["data_root"])


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Return wall seconds of all units, those that the attacks say of themselves, passes and peak memory."""
    plan, engine = planned(job), Engine(name=job["engine"], workers=job["workers"])
    ready = prepare(plan, lambda event: None)
    if engine.name == "local":  # what is slow only once is no part of a unit: workers start anew in any case
        with tempfile.TemporaryDirectory() as folder:
            compute(plan, ready, Path(folder), engine, lambda event: None, (0, plan.data.x.shape[0] // SHARD or 1))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        start = time.perf_counter()
        facts = compute(plan, ready, out, engine, lambda event: None)
        wall = time.perf_counter() - start
        places = places_of(plan, plan.models, out)
        records = pd.concat([read_records(place) for place in places])
        attack = sum(float(read_timings(place)["seconds"].sum()) for place in places)
    passes = float(records["forwards"].sum() + records["backwards"].sum())
    assert len(attacks_of(plan)) == 1
    return {"wall": wall, "attack_seconds": attack, "passes": passes, "bytes": facts["peak_bytes"]}


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Return the same as the plan predicts it."""
    found = forecast(planned(job), workers=job["workers"] or 1)
    passes = found.total("forwards") + found.total("backwards")
    return {"wall": found.seconds - found.clean, "passes": passes, "bytes": found.bytes}


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return every measurement."""
    base = {"model": args.model, "data": args.data, "data_root": args.data_root, "attack": args.attack, "threads": 1}
    local = {"engine": "local", "workers": None}
    out = [{**base, **local, "what": "local", "samples": samples} for samples in args.samples]
    out += [{**base, **local, "what": "plan", "samples": samples} for samples in args.samples]
    for engine in args.engines:
        for workers in args.workers:  # the threads are shared out, so that every worker has one
            job = {**base, "what": engine, "engine": engine, "workers": workers, "samples": args.together}
            out.append({**job, "threads": workers})
    return out


def summary(table: pd.DataFrame) -> str:
    """Return what the table says, as Markdown."""
    lines = ["| | samples | workers | wall, s | attack, s | overhead | passes | peak, MB |", "| --- " * 8 + "|"]
    for row in table.fillna({"workers": 0}).itertuples():
        own = row.wall * max(1, row.workers)
        share = f"{own / row.attack_seconds - 1:.1%}" if row.attack_seconds == row.attack_seconds else ""
        attack = f"{row.attack_seconds:.1f}" if share else ""
        workers = f"{row.workers:.0f}" if row.workers else ""
        lines.append(
            f"| {row.what} | {row.samples:,} | {workers} | {row.wall:.1f} | {attack} | {share} | {row.passes:,.0f} | "
            f"{row.bytes / 1e6:,.0f} |"
        )
    local, plan = (table[table["what"] == what].set_index("samples") for what in ("local", "plan"))
    lines.append("")
    if len(local) > 1:
        slope = np.polyfit(np.log(local.index), np.log(local["wall"]), 1)[0]
        lines.append(f"- cost grows as samples to the power {slope:.3f} (wall); memory by {_span(local['bytes'])}")
    for name in ("passes", "bytes", "wall"):
        ratio = (plan[name] / local[name]).dropna()
        lines.append(f"- predicted over measured {name}: {', '.join(f'{value:.2f}' for value in ratio)}")
    for (what, samples), rows in table[~table["what"].isin(["local", "plan"])].groupby(["what", "samples"]):
        one = rows.set_index("workers")["wall"]
        said = ", ".join(f"{workers:.0f}: {one[1] / wall:.2f}" for workers, wall in one.items() if 1 in one.index)
        lines.append(f"- {what}, {samples:,} samples, times one worker: {said}")
    return "\n".join(lines) + "\n"


def _span(values: pd.Series) -> str:
    return f"{values.max() / values.min() - 1:.1%} from least to most"


def main() -> None:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data", default="mnist14")
    parser.add_argument("--data-root")
    parser.add_argument("--attack", default="sensitivity-l2")
    parser.add_argument("--samples", type=int, nargs="*", default=list(SAMPLES))
    parser.add_argument("--engines", nargs="*", default=["processes"], help="processes, ray")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--together", type=int, default=4000, help="samples for the engines")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        job = json.loads(args.one)
        print(json.dumps((predict if job["what"] == "plan" else measure)(job)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    place = args.out / "scale.csv"
    table = pd.read_csv(place) if place.exists() else pd.DataFrame()
    for job in jobs(args):
        key = {name: job[name] for name in ("what", "model", "attack", "samples", "workers")}
        if len(table) and (table[list(key)].fillna(-1) == pd.Series(key).fillna(-1)).all(axis=1).any():
            continue
        words = [sys.executable, __file__, "--one", json.dumps(job)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        table = pd.DataFrame([*table.to_dict("records"), {**key, **json.loads(done.stdout.splitlines()[-1])}])
        table.to_csv(place, index=False)
        print(table.tail(1).to_string(index=False, header=False), flush=True)
    (args.out / "scale.md").write_text(summary(table), encoding="utf-8")
    print(summary(table))


if __name__ == "__main__":
    main()
