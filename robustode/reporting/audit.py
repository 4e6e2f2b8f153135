"""What the audit found: a row for each model and check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustode.reporting.formatting import NONE, number
from robustode.reporting.tables import Table

NONE_SUPPLIED = "none supplied"
WORDS = {"pass": "no defect found", "warn": "warning", "fail": "DEFECT FOUND", "not applicable": "not applicable"}
_COLUMNS = ("model", "check", "status", "value", "threshold", "text", "advice", "source")


def audit_table(audit: dict[str, Any] | None) -> list[Table]:
    """Return the table of findings, nothing for a run without audit.

    Columns of the numbers: model, check, status (pass, warn, fail, not applicable), value, threshold, text, advice,
    source, samples (how many are concerned).
    """
    if not audit or not audit["findings"]:
        return []
    findings = audit["findings"]
    frame = [{**{key: one[key] for key in _COLUMNS}, "samples": len(one["samples"])} for one in findings]
    return [
        Table(
            name="audit",
            title="Audit",
            caption=caption(audit),
            frame=pd.DataFrame(frame),
            display=pd.DataFrame([_shown(one) for one in findings]),
            bold=frozenset(i for i, one in enumerate(findings) if one["status"] == "fail"),
            prose=True,
        )
    ]


def caption(audit: dict[str, Any]) -> str:
    """Return what the audit covered."""
    all_checks = "All checks" if audit["scope"] == "full" else "The cheap checks only (--audit full runs all)"
    adaptive = audit["adaptive_attack"] or NONE_SUPPLIED
    return (
        f"{all_checks}. Adaptive attack: {adaptive}. A check that finds no defect does not show that there is none; "
        "numbers and thresholds are those of the documentation."
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the audit says of one model.

    Attributes:
        model: its label.
        status: "pass", "warn" or "fail", the worst of its checks.
        text: one line that sums it up.
        findings: (check, verdict, what was found and what to do) of every warning and defect.
    """

    model: str
    status: str
    text: str
    findings: tuple[tuple[str, str, str], ...]


def verdicts(audit: dict[str, Any] | None) -> list[Verdict]:
    """Return the verdict on each model; nothing for a run without audit."""
    out = []
    for model in dict.fromkeys(one["model"] for one in (audit or {}).get("findings", ())):
        own = [one for one in audit["findings"] if one["model"] == model] if audit else []
        counts = {status: sum(one["status"] == status for one in own) for status in WORDS}
        adaptive = (audit or {})["adaptive_attack"] or NONE_SUPPLIED
        said = "defects found" if counts["fail"] else "no defect found"
        out.append(
            Verdict(
                model=model,
                status=next((status for status in ("fail", "warn") if counts[status]), "pass"),
                text=f"{said}; {counts['pass']} checks passed, {counts['warn']} warned, {counts['fail']} failed; "
                f"adaptive attack: {adaptive}",
                findings=tuple(
                    (one["check"], WORDS[one["status"]], f"{one['text']}. {one['advice']}".rstrip())
                    for one in own
                    if one["status"] in ("warn", "fail")
                ),
            )
        )
    return out


def lines(audit: dict[str, Any] | None) -> list[str]:
    """Return a line for each model that sums up its audit, and one for each warning and defect."""
    out = []
    for verdict in verdicts(audit):
        out.append(f"Audit of {verdict.model} ({(audit or {})['scope']}): {verdict.text}")
        out += [f"  {check}: {word}: {text}" for check, word, text in verdict.findings]
    return out


def failed(audit: dict[str, Any] | None) -> bool:
    """Whether any check found a defect."""
    return bool(audit) and any(one["status"] == "fail" for one in audit["findings"])


def _shown(one: dict[str, Any]) -> dict[str, str]:
    said = one["text"] if not one["advice"] else f"{one['text']}. {one['advice']}"
    return {
        "model": one["model"],
        "check": one["check"],
        "verdict": WORDS[one["status"]],
        "number": NONE if one["value"] is None else number(one["value"]),
        "threshold": NONE if one["threshold"] is None else number(one["threshold"]),
        "found": said,
    }
