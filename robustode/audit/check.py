"""One interface for every check: a function of a case, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robustode.attacks.adapters.rng import forked_rng
from robustode.audit.case import Case
from robustode.audit.finding import Finding, Verdict


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the function of a check returns; see `Finding` for the fields."""

    status: Verdict
    value: float | None = None
    threshold: float | None = None
    text: str
    samples: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def not_applicable(reason: str) -> Found:
    """Return the answer of a check that has nothing to look at."""
    return Found(status=Verdict.NOT_APPLICABLE, text=reason)


def above(value: float, *, fail: float, warn: float | None = None) -> Verdict:
    """Return FAIL if `value` > `fail`, WARN if it is > `warn`, else PASS; NaN fails."""
    if not value <= fail:
        return Verdict.FAIL
    return Verdict.WARN if warn is not None and not value <= warn else Verdict.PASS


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check.

    Attributes:
        id: its name in the table of checks.
        title: what it looks for, in a few words.
        cheap: whether every evaluation runs it; the others need `--audit full`.
        source: paper or section.
        advice: what to do where it warns or fails.
        run: the function.
    """

    id: str
    title: str
    cheap: bool
    source: str
    advice: str
    run: Callable[[Case], Found]

    def __call__(self, case: Case) -> Finding:
        """Run it, its draws and those of a randomised model following from the run's seed.

        A check that raises does not stop the audit: its finding is a warning that says so.
        """
        try:
            with forked_rng(case.generator(self.id)):
                found = self.run(case)
        except Exception as error:
            said = str(error).strip().splitlines()
            text = f"the check did not end: {type(error).__name__}: {said[0] if said else ''}"[:300]
            found = Found(status=Verdict.WARN, text=text)
        quiet = found.status in (Verdict.PASS, Verdict.NOT_APPLICABLE)
        return Finding(
            check=self.id,
            model=case.subject.label,
            status=found.status,
            value=found.value,
            threshold=found.threshold,
            text=found.text,
            source=self.source,
            advice="" if quiet else self.advice,
            samples=found.samples,
            details=found.details,
        )
