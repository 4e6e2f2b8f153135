"""How numbers are written for people: percentages, distances, counts and budgets."""

from __future__ import annotations

import math

from robustode.evaluation.statistics import Estimate

NONE = "–"
NORM_NAMES = {"l1": "L1", "l2": "L2", "linf": "L∞"}


def norm_name(norm: str) -> str:
    """Return "L∞" for "linf", and so on."""
    return NORM_NAMES.get(norm, norm)


def eps_label(eps: float) -> str:
    """Return a budget as people write it: "8/255" where it is such a fraction and no short decimal, else "0.3"."""
    steps = eps * 255
    short = math.isclose(round(eps, 3), eps, rel_tol=1e-12)
    if not short and steps > 0.5 and math.isclose(steps, round(steps), rel_tol=1e-6):
        return f"{round(steps)}/255"
    return f"{eps:.6g}"


def percent(estimate: Estimate) -> str:
    """Return "95.0 % [91.0, 97.3]"; "–" if there is no value."""
    if estimate.value is None:
        return NONE
    text = f"{100 * estimate.value:.1f} %"
    if estimate.lo is None or estimate.hi is None:
        return text
    return f"{text} [{100 * estimate.lo:.1f}, {100 * estimate.hi:.1f}]"


def points(estimate: Estimate) -> str:
    """Return a difference of two proportions in percentage points: "+3.5 [+0.4, +6.8]"; "–" if there is no value."""
    if estimate.value is None or estimate.lo is None or estimate.hi is None:
        return NONE
    value, lo, hi = (minus(f"{100 * end:+.1f}") for end in (estimate.value, estimate.lo, estimate.hi))
    return f"{value} [{lo}, {hi}]"


def number(value: float | None, *, sign: bool = False) -> str:
    """Return three significant digits ("0.394", "1.20e−05"); "–" for None or NaN."""
    if value is None or math.isnan(value):
        return NONE
    if value == 0:
        return "0"
    return minus((f"{value:+#.3g}" if sign else f"{value:#.3g}").removesuffix("."))


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """Return "0.394 [0.381, 0.402]": three digits of the largest, the same decimals for all.

    An unlimited end is "∞"; a missing value reads "not reached".
    """
    ends = (estimate.value, estimate.lo, estimate.hi)
    largest = max((abs(end) for end in ends if end is not None), default=0.0)
    decimals = 2 - math.floor(math.log10(largest)) if largest else 0

    def text(end: float | None, missing: str) -> str:
        if end is None or not 0 <= decimals <= 6:
            return missing if end is None else number(end, sign=sign)
        return minus(f"{end:+.{decimals}f}" if sign else f"{end:.{decimals}f}")

    return f"{text(ends[0], 'not reached')} [{text(ends[1], '−∞')}, {text(ends[2], '∞')}]"


def p_value(p: float) -> str:
    """Return a p-value as "0.031" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def minus(text: str) -> str:
    """Return the text with a true minus sign."""
    return text.replace("-", "−")
