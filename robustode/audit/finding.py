"""What a check says: a verdict, its number against its threshold, the samples concerned and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Outcome of one check. None of them says that a model is robust."""

    PASS = "pass"  # no defect found
    WARN = "warn"
    FAIL = "fail"  # defect found
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found on one model.

    Attributes:
        check: its id, as in the table of the documentation.
        model: label.
        status: verdict.
        value: its number; None where it has none.
        threshold: the value above (or, for a cosine, below) which it fails; None where there is none.
        text: one sentence that says what was found, with units.
        source: paper or section that the check is from.
        advice: one sentence on what to do; "" if nothing was found.
        samples: indices in the full split of the samples concerned.
        details: further numbers, JSON-able.
    """

    check: str
    model: str
    status: Verdict
    value: float | None = None
    threshold: float | None = None
    text: str = ""
    source: str = ""
    advice: str = ""
    samples: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what audit.json holds."""
        return {**asdict(self), "status": self.status.value, "samples": list(self.samples)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Finding:
        """Return the finding that `as_json` wrote."""
        return cls(**{**values, "status": Verdict(values["status"]), "samples": tuple(values["samples"])})
