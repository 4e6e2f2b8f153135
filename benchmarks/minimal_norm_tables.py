"""Tables and Pareto figures of the runs under OUT/runs, into OUT/tables and OUT/figures."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from harness.compare import attack_table, left_out, lost_samples, read_runs, summary_rows, write_table
from harness.configs import Plan, read_plan
from harness.pareto import pareto_plot, pareto_table, write_plot
from harness.store import Place

HERE = Path(__file__).resolve().parent
NORMS = ("l2", "linf", "l1")


def write_all(out: Path, plan: Plan) -> None:
    """Write every table and figure of what is there."""
    tables, summary, lost = out / "tables", [], []
    for folder in sorted((out / "runs").iterdir()):
        for norm in NORMS:
            place = Place(out=out, model=folder.name, norm=norm, part="report")
            if not (runs := read_runs(place, plan)):
                continue
            name = f"{folder.name}_{norm}"
            write_table(attack_table(runs), tables / f"{name}.csv")
            dev = Place(out=out, model=folder.name, norm=norm, part="dev")
            missing = pd.concat([left_out(place, plan), left_out(dev, plan)])
            write_table(missing, tables / f"{name}_not_run.csv")
            summary += summary_rows(folder.name, norm, runs)
            lost.append(lost_samples(folder.name, norm, runs))
            for part, some in (("report", runs), ("dev", read_runs(dev, plan))):
                table = pareto_table(some)
                if len(table) and table["ours"].any():
                    stem = f"pareto_{name}" + ("" if part == "report" else "_dev")
                    write_table(table, tables / f"{stem}.csv")
                    images = max(len(frame) for frame in some.values())
                    write_plot(pareto_plot(table, stem, folder.name, norm, images), out / "figures")
    write_table(pd.DataFrame(summary), tables / "summary.csv")
    found = [part for part in lost if len(part)]
    write_table(pd.concat(found) if found else pd.DataFrame(columns=["model", "norm", "sample"]), tables / "lost.csv")


def main() -> None:
    """Write the tables of one folder and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/minimal-norm"))
    parser.add_argument("--peers", type=Path, default=HERE / "minimal_norm.toml")
    args = parser.parse_args()
    write_all(args.out, read_plan(args.peers))
    print((args.out / "tables" / "summary.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
