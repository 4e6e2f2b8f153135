"""Budgets as users write them: `4/255,8/255`, `linf=0.1`, `l2=0.5,1`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robustode.attacks.norms import check_norm
from robustode.errors import BudgetError


def parse_radius(text: str) -> float:
    """Return the radius that `text` ("0.1", "8/255") writes; raise `BudgetError` unless it is positive and finite."""
    what, fix = "eps", "Write a number such as 0.03 or a fraction such as 8/255."
    numerator, slash, denominator = text.strip().partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise BudgetError(what, expected="a positive number or fraction", got=f"'{text}'", fix=fix) from None
    if not math.isfinite(value) or value <= 0:
        raise BudgetError(what, expected="a positive, finite radius", got=f"'{text}'", fix=fix)
    return value


def as_parts(value: Any, noun: str = "radius") -> tuple[Any, ...]:
    """Return the parts of a number, a text ("4/255,8/255") or a list of them; raise `BudgetError` if there is none."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    if not parts:
        raise BudgetError("eps", expected=f"at least one {noun}", got="none")
    return tuple(parts)


def distinct_radii(radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii, ascending; raise `BudgetError` if one comes twice."""
    twice = sorted({radius for radius in radii if radii.count(radius) > 1})
    if twice:
        raise BudgetError("eps", expected="every radius once", got=f"{twice[0]:g} twice", fix="Write it once.")
    return tuple(sorted(radii))


def parse_radii(value: Any) -> tuple[float, ...]:
    """Return the radii, ascending, of a number, a text ("4/255,8/255") or a list of them.

    Raises:
        BudgetError: none at all, one that is not a positive finite number, or one that comes twice.
    """
    return distinct_radii([parse_radius(str(part)) for part in as_parts(value)])


def check_radii(radii: Sequence[float], norm: str, bounds: Sequence[float], dimension: int) -> None:
    """Raise `BudgetError` if a ball is larger than the box: no two of its points are further apart than hi − lo (L∞),
    (hi − lo) √d (L2) or (hi − lo) d (L1)."""
    lo, hi = bounds
    most = (hi - lo) * {"linf": 1.0, "l2": math.sqrt(dimension), "l1": float(dimension)}[norm]
    if radii[-1] > most * (1 + 1e-9):
        raise BudgetError(
            f"budgets for norm {norm}",
            expected=f"radii up to {most:g}, the greatest distance in the box [{lo:g}, {hi:g}]",
            got=f"{radii[-1]:g}",
            fix="Radii are in the units of the inputs: 8/255 for inputs in [0, 1], 8 for inputs in [0, 255].",
        )


def parse_budgets(texts: Sequence[str], norms: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return {norm: radii in ascending order} from values of `--eps`.

    Args:
        texts: each "R,R,..." (needs exactly one norm) or "NORM=R,R,...".
        norms: the norms of the attacks of this run.

    Raises:
        BudgetError: unreadable, not positive, a bare value with several norms, or a norm that no attack has.
    """
    known = sorted(set(norms))
    if texts and not known:
        raise BudgetError("eps", expected="none, as there are no attacks", got=f"'{texts[0]}'")
    out: dict[str, list[float]] = {}
    for text in texts:
        name, equals, radii = text.partition("=")
        if not equals:
            if len(known) != 1:
                what = f"eps '{text}' with attacks of several norms ({', '.join(known)})"
                fix = "Name the norm: --eps linf=4/255,8/255 --eps l2=0.5, or choose one with --norm."
                raise BudgetError(what, expected="NORM=RADIUS", got="a bare value", fix=fix)
            name, radii = known[0], text
        norm = check_norm(name.strip())
        if norm not in known:
            raise BudgetError("eps", expected=f"a norm of this run ({', '.join(known)})", got=f"'{norm}'")
        out.setdefault(norm, []).extend(parse_radii(radii))
    return {norm: parse_radii(values) for norm, values in out.items()}
