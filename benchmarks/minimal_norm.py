"""Minimal norms of the sensitivity attack and of every peer on the same images: ratio per sample, passes, time.

Runs what is not there yet under OUT/runs and writes OUT/tables and OUT/figures; start it again to go on.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness.compare import passes
from harness.configs import Config, Plan, read_plan
from harness.store import Place, leave_out, run
from harness.subjects import Case, load_case
from minimal_norm_tables import write_all

from robustode.evaluation.rows import Shard

HERE = Path(__file__).resolve().parent


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _mean_found(frame: pd.DataFrame) -> float:
    found = frame.loc[np.isfinite(frame["distance"]), "distance"]
    return float(found.mean()) if len(found) else float("inf")


class Bench:
    """One model: ours and the peers on development and report images, inside limits of CPU time."""

    def __init__(self, case: Case, plan: Plan, args: argparse.Namespace) -> None:
        self.case, self.plan, self.args = case, plan, args
        images = min(args.images, len(case.correct.y))
        self.report = case.part(0, images, 0)
        self.dev = case.part(images, images + args.dev, 1)
        self.spent = 0.0  # CPU seconds of the runs of this model, stored ones included

    def norm(self, norm: str) -> None:
        """Run everything in one norm."""
        configs = [one for one in self.plan.of_norm(norm) if not self.args.only or one.peer in self.args.only]
        for peer in dict.fromkeys(one.peer for one in configs):
            self._peer(norm, [one for one in configs if one.peer == peer])

    def _peer(self, norm: str, grid: list[Config]) -> None:
        """Run a peer's grid on the development images, then its defaults and the best point on the report images."""
        place = Place(out=self.args.out, model=self.case.subject.label, norm=norm, part="report")
        if grid[0].images is not None:
            self._run(place, grid[0], self.case.part(0, min(grid[0].images, len(self.report.y)), 0), None)
            return
        tried = {}
        for config in grid if len(self.dev.y) else []:
            share = len(self.dev.y) / max(len(self.report.y), 1)
            limit = 60 * self.args.limit * max(2 * share, 0.1)
            frame = self._run(replace(place, part="dev"), config, self.dev, None, limit=limit)
            if frame is not None:
                cost = float(passes(frame).mean())
                tried[config.name] = (float(frame["distance"].median()), _mean_found(frame), cost, frame)
        allowed = {name: value for name, value in tried.items() if value[2] <= self.plan.passes}
        best = min(allowed, key=lambda name: allowed[name][:2]) if allowed else None
        for config in grid:
            seconds = None
            if config.name in tried:
                seconds = float(tried[config.name][3]["cpu"].iloc[0]) * len(self.report.y) / max(len(self.dev.y), 1)
            wanted = grid[0].ours or config.default or config.name == best
            if wanted and (seconds is not None or not len(self.dev.y)):
                self._run(place, config, self.report, seconds)
            elif wanted:
                leave_out(place, config, "it did not end on the development images", 0.0)

    def _run(
        self, place: Place, config: Config, shard: Shard, estimate: float | None, *, limit: float | None = None
    ) -> pd.DataFrame | None:
        """Return a run, or None if it would not fit into the limits or did not end; `estimate` is in CPU seconds."""
        limit = 60 * self.args.limit if limit is None else limit
        there = place.file(config.name, ".parquet").is_file() and not {config.name, config.peer} & set(self.args.redo)
        if not config.ours and not there:
            left = max(60 * self.args.minutes - self.spent, 0.0)
            limit = min(limit, left)
            if (estimate or 0.0) > limit or limit == 0:
                wants = "" if estimate is None else f"would take {estimate / 60:.2g} CPU min, "
                reason = f"{wants}{limit / 60:.2g} left for this {'model' if limit == left else 'run'}"
                leave_out(place, config, reason, limit)
                say(f"  {place.norm} {place.part} {config.name}: not run, {reason}")
                return None
        started = time.process_time()
        frame = run(place, config, self.case, shard, limit=limit, redo=self.args.redo)
        if frame is None:
            self.spent += time.process_time() - started
            say(f"  {place.norm} {place.part} {config.name}: did not end (see {place.file(config.name, '.json')})")
            return None
        failed, seconds = int(np.isinf(frame["distance"]).sum()), float(frame["cpu"].iloc[0])
        self.spent += seconds
        found = f"median {frame['distance'].median():.4g}, {failed} failed"
        say(f"  {place.norm} {place.part} {config.name}: {found}, {passes(frame).mean():.0f} passes, {seconds:.1f} s")
        return frame


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=None, help="LABEL=MODEL or MODEL; repeats")
    parser.add_argument("--data", default=None, help="data source; that of the checkpoint if left out")
    parser.add_argument("--norm", action="append", choices=("l2", "linf", "l1"), default=None)
    parser.add_argument("--peers", type=Path, default=HERE / "minimal_norm.toml", help="TOML of attacks and grids")
    parser.add_argument("--images", type=int, default=500, help="correctly classified images reported on")
    parser.add_argument("--dev", type=int, default=100, help="others, on which grid points are chosen")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--out", type=Path, default=Path("runs/minimal-norm"))
    parser.add_argument("--limit", type=float, default=5.0, help="CPU minutes for each run on the report images")
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes of the peers for each model")
    parser.add_argument("--redo", action="append", default=[], help="attack or configuration to compute again; repeats")
    parser.add_argument("--only", action="append", default=[], help="attacks to run; all if left out; repeats")
    return parser.parse_args()


def main() -> None:
    """Run every model in every norm and write the tables after each."""
    args = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    plan = read_plan(args.peers)
    for spec in args.model or ["zoo:snode-digits", "zoo:layered-digits", "zoo:resnet-digits"]:
        case = load_case(spec, args.data, correct=args.images + args.dev, seed=args.seed)
        say(f"{case.subject.label}: {len(case.correct.y)} correctly classified of {case.seen} images of {case.data}")
        bench = Bench(case, plan, args)
        for norm in args.norm or ["l2", "linf"]:
            bench.norm(norm)
            write_all(args.out, plan)
        say(f"{case.subject.label}: {bench.spent / 60:.1f} CPU minutes of attacks")


if __name__ == "__main__":
    main()
