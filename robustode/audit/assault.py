"""What the attacking checks share: further attacks on what is still standing, at every norm and radius of the case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.base import Attack
from robustode.audit.case import Case
from robustode.audit.check import Found, above, not_applicable
from robustode.audit.finding import Verdict
from robustode.errors import RobustODEError
from robustode.models.base import Classifier


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One further attack.

    Attributes:
        name: what the text and the details call it; its draws depend on it.
        build: makes the attack; a `RobustODEError` that it raises says why it is left out.
        model: what it attacks; the model itself if None.
        draws: what its draws depend on instead of its name; trials that are compared with each other share it.
    """

    name: str
    build: Callable[[], Attack]
    model: Classifier | None = None
    draws: str = ""


@dataclass
class _Tally:
    """What the trials of a check came to."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)
    raised: dict[str, str] = field(default_factory=dict)


def assault(
    case: Case,
    check: str,
    trials: Callable[[str, float], Iterable[Trial]],
    *,
    limit: int | None = None,
    nothing: str = "there is nothing to attack with",
) -> Found:
    """Return how many survivors the trials break: warns above s/2, fails above s.

    At each radius of the case, ascending, the trials run one after another, each on what those before it left
    standing; what broke at a smaller radius is broken at a larger one. The value is the largest number broken over
    norms and radii; all are in the details.

    Args:
        case: of the model.
        check: id.
        trials: (norm, ε) ↦ trials.
        limit: most survivors tried in a norm; more are drawn at random, and numbers are scaled up to all of them.
        nothing: why the check is not applicable if there are no trials.
    """
    tally = _Tally()
    order = torch.randperm(len(case.shard.y), generator=case.generator(check))
    standing = False
    for norm in case.budgets:
        known = torch.zeros(len(case.shard.y), dtype=torch.bool)
        for eps in sorted(case.radii(norm)):
            survivors = case.survivors(norm, eps)
            standing = standing or len(survivors) > 0
            rows = survivors if limit is None else survivors[order[survivors].argsort()[:limit]].sort().values
            _cell(case, check, norm, eps, (len(survivors), rows), trials(norm, eps), known, tally)
    if not standing:
        return not_applicable("no sample is left standing at any radius")
    if not tally.cells:
        return not_applicable(_said(tally) or nothing)
    return _found(case, tally)


def _cell(
    case: Case,
    check: str,
    norm: str,
    eps: float,
    asked: tuple[int, Tensor],
    trials: Iterable[Trial],
    known: Tensor,
    tally: _Tally,
) -> None:
    """Run the trials at one radius; `known` are the rows broken in this norm so far, and is brought up to date."""
    (survivors, rows), ran, by = asked, False, Counter()
    before = int(known[rows].sum())
    for trial in trials:
        try:
            attack = trial.build()
        except RobustODEError as reason:
            tally.left_out[trial.name] = str(reason)
            continue
        ran, left = True, rows[~known[rows]]
        try:
            broken = case.attack(check, attack, left, model=trial.model, name=trial.draws or trial.name)
        except Exception as error:
            said = str(error).strip().splitlines()
            tally.raised[trial.name] = f"{type(error).__name__}: {said[0] if said else ''}"[:200]
            continue
        known[left[broken]] = True
        by[trial.name] += int(broken.sum())
    if not ran or len(rows) == 0:
        return
    share = survivors / len(rows)
    broken = rows[known[rows]]
    tally.broken |= set(case.samples(broken))
    counts = {"survivors": survivors, "tried": len(rows), "broken": len(broken), "scaled": len(broken) * share}
    radius = {"norm": norm, "eps": eps, "at_smaller": before, "by": dict(by)}
    tally.cells.append({**radius, **counts})


def _found(case: Case, tally: _Tally) -> Found:
    worst = max(tally.cells, key=lambda cell: (cell["scaled"], cell["survivors"]))
    by = ", ".join(f"{name} {count}" for name, count in worst["by"].items() if count)
    if worst["at_smaller"]:
        by = ", ".join(part for part in (by, f"at smaller radii {worst['at_smaller']}") if part)
    text = f"{worst['broken']} of {worst['tried']} survivors broken at {worst['norm']} {worst['eps']:g}"
    text += f" ({by})" if by else ""
    if worst["tried"] < worst["survivors"]:
        text += f", drawn from {worst['survivors']}: about {worst['scaled']:.0f} of all"
    said = _said(tally)
    status = above(worst["scaled"], fail=case.slack, warn=case.slack / 2)
    if tally.raised and status is Verdict.PASS:
        status = Verdict.WARN
    return Found(
        status=status,
        value=float(worst["scaled"]),
        threshold=case.slack,
        text=f"{text}; {said}" if said else text,
        samples=tuple(sorted(tally.broken)),
        details={"radii": tally.cells, "left_out": tally.left_out, "raised": tally.raised},
    )


def _said(tally: _Tally) -> str:
    """Say which trials did not run, and why."""
    parts = [f"{name} left out ({reason.rstrip('.')})" for name, reason in tally.left_out.items()]
    parts += [f"{name} did not end ({reason.rstrip('.')})" for name, reason in tally.raised.items()]
    return "; ".join(parts)
