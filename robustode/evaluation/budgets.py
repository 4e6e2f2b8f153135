"""Budgets as users write them: `4/255,8/255`, `linf=0.1`, `l2=0.5,1`."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def parse_budgets(texts: Sequence[str], norms: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return {norm: radii in ascending order} from values of `--eps`.

    Args:
        texts: each "R,R,..." (needs exactly one norm) or "NORM=R,R,...".
        norms: the norms of the attacks of this run.

    Raises:
        BudgetError: unreadable, not positive, a bare value with several norms, or a norm that no attack has.
    """
    out: dict[str, set[float]] = {}
    for text in texts:
        name, equals, radii = text.partition("=")
        if not equals:
            if len(set(norms)) != 1:
                fix = "Name the norm: --eps linf=4/255,8/255 --eps l2=0.5, or choose one with --norm."
                raise BudgetError(
                    f"eps '{text}' with attacks of several norms ({', '.join(sorted(set(norms)))})",
                    expected="NORM=RADIUS",
                    got="a bare value",
                    fix=fix,
                )
            name, radii = norms[0], text
        norm = check_norm(name.strip())
        if norm not in norms:
            raise BudgetError("eps", expected=f"a norm of this run ({', '.join(sorted(set(norms)))})", got=f"'{norm}'")
        out.setdefault(norm, set()).update(parse_radius(part) for part in radii.split(","))
    return {norm: tuple(sorted(values)) for norm, values in out.items()}
