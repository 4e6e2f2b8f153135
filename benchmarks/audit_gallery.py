"""Show the gallery of impostors to the audit and publish the table.

    python benchmarks/audit_gallery.py --out reports/audit

Writes table.csv after each exhibit, so that the same command goes on, and README.md; exits 1 if an impostor gets away
or an honest model fails. With --blind TABLE the held-out half is that of a table made when nothing had been seen of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

from robustode.audit.gallery import IMPOSTORS, SelfTest, self_test
from robustode.audit.gallery.honest import STRONG, USUAL, honest

HEAD = """# What the audit finds, and what it leaves alone

Tiny models, attacks and data sets of which it is known whether their numbers deserve belief, shown to every check of
`robustode audit`: impostors that look robust or strong and are not, each of which must be failed by the checks that
name its disease; and honest models, trained plainly and adversarially, which no check may fail.

Impostors are attacked by PGD with 40 steps. Honest models are attacked by the strong suites in the held-out half (100
images or 150 points each), in the development half by the thorough sensitivity attack and PGD, a part of them, on 30 to
100 samples. A check fails at 3 samples or more, or 1 %.

Thresholds are those of the table of checks. Checks and exhibits were set on the development half, of which some
exhibits had to be rebuilt because they were not as sick as their label said, and one was given another label: a network
behind a winners-take-all activation, which the check `black-box` twice did not fail, and `loss-diversity` does. The
held-out half was written afterwards, with other defects, seeds and architectures, each defect made sure of by hand
(clean accuracy, what stands under the attack, labels of a fine solve, cosines of gradients) and not by a check, then
committed and shown to the checks once. That is the table below. What it says of the held-out half is the only figure
here that is a measurement.

One impostor got away: images in which four pixels write the class in binary, of which the tree of the check `data`
predicted 97.0 % where it asks for 98 %. The check was changed since (it leaves out the coordinates that spoil a code),
so that `robustode audit --self-test` finds it now; that is repair, and no part of the rate.

Intervals are exact (Clopper and Pearson, 95 %); they cover which exhibits stand in the gallery as if drawn at random
from a population of such exhibits, not defects of a kind that nobody has put there.

Made by `python benchmarks/audit_gallery.py`. `·` no defect found, `n/a` not applicable, empty: not asked (neural ODEs
get the cheap checks and those of their disease).
"""


def write(test: SelfTest, out: Path) -> None:
    """Write README.md."""
    seconds = f"{test.table['seconds'].sum():.0f} s of one core for all {len(test.table)} exhibits.\n"
    (out / "README.md").write_text(f"{HEAD}\n{test.markdown()}\n{seconds}", encoding="utf-8")


def seen(table: Path) -> pd.DataFrame:
    """Return the rows that a table has; none if it is not there."""
    return pd.read_csv(table, keep_default_na=False) if table.is_file() else pd.DataFrame(columns=["name", "half"])


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=("impostor", "honest"))
    parser.add_argument("--half", choices=("development", "held-out"))
    parser.add_argument("--usual", action="store_true", help="held-out honest models, too, under a part of the suites")
    parser.add_argument("--blind", type=Path, help="table.csv whose rows of the held-out half are taken")
    options = parser.parse_args()
    torch.set_num_threads(1)
    strong = {} if options.usual else {exhibit.name: exhibit for exhibit in honest(STRONG)}
    every = [strong.get(e.name, e) if e.half == "held-out" else e for e in (*IMPOSTORS, *honest(USUAL))]
    chosen = [e for e in every if options.kind in (None, e.kind) and options.half in (None, e.half)]
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / "table.csv"
    blind = pd.DataFrame() if options.blind is None else seen(options.blind).query("half == 'held-out'")
    table = pd.concat([seen(place), blind], ignore_index=True).drop_duplicates("name", keep="last")
    for exhibit in chosen:
        if exhibit.name not in set(table["name"]):
            print(exhibit.name, flush=True)
            table = pd.concat([table, self_test([exhibit]).table], ignore_index=True).fillna("")
            table.to_csv(place, index=False, float_format="%.1f")
    table.to_csv(place, index=False, float_format="%.1f")
    order = {exhibit.name: number for number, exhibit in enumerate(every)}
    test = SelfTest(table=table.sort_values("name", key=lambda names: names.map(order)), findings={})
    write(test, options.out)
    for line in test.wrong():
        print(line)
    print(f"{test.table['seconds'].sum():.0f} s of one core")
    return 0 if test.passed else 1


if __name__ == "__main__":
    sys.exit(main())
