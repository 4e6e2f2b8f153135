"""The table of the gallery: exhibits × checks, with the two rates that it is about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robustode.audit.check import Check
from robustode.audit.checks import CHECKS
from robustode.audit.finding import Finding, Verdict
from robustode.audit.gallery.exhibit import HALVES, Exhibit, examine
from robustode.evaluation.statistics import Estimate, clopper_pearson

_MARK = {"pass": "·", "warn": "warn", "fail": "**fail**", "not applicable": "n/a", "": ""}


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What the checks said of the gallery.

    Attributes:
        table: one row an exhibit: name, kind, half, about, disease, right (whether the verdicts are what they must
            be), seconds (of the processor), and a column for each check with its verdict, "" where it was not asked.
        findings: by exhibit.
    """

    table: pd.DataFrame
    findings: dict[str, list[Finding]]

    @property
    def passed(self) -> bool:
        """Whether every impostor is failed by the checks that name its disease, and no honest model by any."""
        return all(self.table["right"].tolist())

    def rate(self, kind: str, half: str | None = None) -> Estimate:
        """Return the share of impostors that are exposed, or of honest models that no check fails, with its exact
        95 % interval (Clopper and Pearson)."""
        rows = self.rows(kind, half)
        return clopper_pearson(sum(rows["right"].tolist()), len(rows))

    def warnings(self, half: str | None = None) -> tuple[Estimate, Estimate]:
        """Return the share of honest models with any warning, and of warnings among their verdicts."""
        rows = self.rows("honest", half)
        verdicts = rows[self.checks].to_numpy()
        warned, said = verdicts == Verdict.WARN.value, ~np.isin(verdicts, (Verdict.NOT_APPLICABLE.value, ""))
        models = clopper_pearson(int(warned.any(axis=1).sum()), len(rows))
        return models, clopper_pearson(int(warned.sum()), int(said.sum()))

    @property
    def checks(self) -> list[str]:
        """Ids of the checks that were asked."""
        known = {check.id for check in CHECKS}
        return [str(name) for name in self.table.columns if name in known]

    def rows(self, kind: str, half: str | None = None) -> pd.DataFrame:
        """Return the rows of a kind, of one half or both."""
        rows = pd.DataFrame(self.table[self.table["kind"] == kind])
        return rows if half is None else pd.DataFrame(rows[rows["half"] == half])

    def rates(self) -> list[tuple[str, str, str, str]]:
        """Return (what, half, share, exact 95 % interval) of impostors exposed, honest models that no check fails, and
        warnings on honest models, in words."""
        lines = []
        for half in (*HALVES, None):
            for kind, what in (("impostor", "impostors exposed"), ("honest", "honest models that no check fails")):
                if n := len(self.rows(kind, half)):
                    lines.append(_line(what, half, self.rate(kind, half), f" of {n}"))
            if len(self.rows("honest", half)):
                models, cells = self.warnings(half)
                lines.append(_line("honest models with any warning", half, models))
                lines.append(_line("warnings among the verdicts on honest models", half, cells))
        return lines

    def wrong(self) -> list[str]:
        """Return a sentence on every impostor that got away and every honest model that a check failed."""
        out = []
        for row in pd.DataFrame(self.table[~self.table["right"].astype(bool)]).to_dict("records"):
            failed = ", ".join(name for name in self.checks if row[name] == Verdict.FAIL.value)
            missed = f"expected a fail of {row['disease'] or 'no check'}, got {failed or 'none'}"
            out.append(f"{row['kind']} '{row['name']}' ({row['about']}): {missed}")
        return out

    def markdown(self) -> str:
        """Return the rates, then the table of each kind and half."""
        head = ["| | half | share | 95 % interval |", "| --- | --- | --- | --- |"]
        parts = ["\n".join([*head, *("| " + " | ".join(line) + " |" for line in self.rates())])]
        for kind, title in (("impostor", "Impostors"), ("honest", "Honest models")):
            for half in HALVES:
                rows = self.rows(kind, half)
                if len(rows):
                    parts.append(f"## {title}, {half} half\n\n{_grid(rows, self.checks)}")
        return "\n\n".join(parts) + "\n"


def self_test(
    exhibits: Iterable[Exhibit],
    *,
    checks: Sequence[Check] = CHECKS,
    listen: Callable[[str], object] | None = None,
) -> SelfTest:
    """Show exhibits to the checks.

    Args:
        exhibits: those of `robustode.audit.gallery.EXHIBITS`, or some.
        checks: all of them, or some.
        listen: told the name of each exhibit before it is shown.
    """
    rows, findings = [], {}
    for exhibit in exhibits:
        if listen is not None:
            listen(exhibit.name)
        started = time.process_time()
        found = findings[exhibit.name] = examine(exhibit, checks)
        rows.append(
            {
                "name": exhibit.name,
                "kind": exhibit.kind,
                "half": exhibit.half,
                "about": exhibit.about,
                "disease": ", ".join(exhibit.disease),
                "right": is_right(exhibit, found),
                "seconds": time.process_time() - started,
                **{finding.check: finding.status.value for finding in found},
            }
        )
    return SelfTest(table=pd.DataFrame(rows).fillna(""), findings=findings)


def is_right(exhibit: Exhibit, findings: Iterable[Finding]) -> bool:
    """Whether an impostor is failed by every check that names its disease, or an honest model by none."""
    failed = {finding.check for finding in findings if finding.status is Verdict.FAIL}
    return set(exhibit.disease) <= failed if exhibit.kind == "impostor" else not failed


def _line(what: str, half: str | None, rate: Estimate, count: str = "") -> tuple[str, str, str, str]:
    return what, half or "both", f"{rate.value:.1%}{count}", f"{rate.lo:.1%} to {rate.hi:.1%}"


def _grid(rows: pd.DataFrame, checks: Sequence[str]) -> str:
    head = ["exhibit", "disease", "right", *checks]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows.to_dict("records"):
        marks = [_MARK[row[name]] for name in checks]
        cells = [f"{row['name']}: {row['about']}", row["disease"], "yes" if row["right"] else "**no**", *marks]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
