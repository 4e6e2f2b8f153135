"""`--plan` of `robustode eval` and `robustode run`: what a run would cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from robustode.cli import options
from robustode.cli.console import emit, say, show_rows, watch_run

if TYPE_CHECKING:
    from robustode.evaluation.forecast import Forecast
    from robustode.evaluation.protocol import Protocol
    from robustode.evaluation.statistics import Estimate

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def plan_and_show(
    protocol: Protocol,
    engine: str,
    workers: int,
    *,
    memory: str | None,
    device: str,
    data_root: Path | None,
    quiet: bool,
) -> None:
    """Predict the cost of a protocol from a few of its samples and show it; write nothing.

    Raises:
        RobustODEError: what would end the run, too, before its first unit.
    """
    from robustode.evaluation.engines.options import parse_size
    from robustode.evaluation.engines.units import threads_of
    from robustode.evaluation.forecast import as_document, forecast
    from robustode.evaluation.plan import check_search, make_plan

    limit = None if memory is None else parse_size(memory)
    plan = check_search(make_plan(protocol, data_root=data_root, device=options.check_device(device)))
    with watch_run(quiet) as listen:
        threads = threads_of(engine, workers)
        found = forecast(plan, workers=workers, threads=threads, memory=limit, tell=listen)
    if quiet:
        return emit(as_document(found))
    _show(found)
    beside = [f"the audit ({protocol.audit})"] if protocol.audit != "none" else []
    beside += [name for name in ("certificates", "smoothing", "uncertainty") if getattr(protocol, name) is not None]
    say(f"Not in it: {', '.join([*beside, 'tables, figures and report'])}. Nothing was written.")


def _show(found: Forecast) -> None:
    rows = [
        (
            f"{cost.model} · {cost.attack}",
            f"{cost.attacked:,}",
            _passes(cost.forwards),
            _passes(cost.backwards),
            _scale(cost.flops),
            duration(cost.seconds),
            f"{cost.rows:,}",
            f"{cost.bytes / 10**6:,.0f} MB",
        )
        for cost in found.costs
    ]
    columns = ("model · attack", "attacked", "forwards", "backwards", "FLOP", "time", "at once", "memory")
    title = (
        f"Prediction for {found.samples:,} samples in {_many(found.units, 'unit')}, from {found.measured:,} of them "
        "(95 % of the choice of samples in brackets)"
    )
    show_rows(title, columns, rows)
    forwards, backwards, flops = (_scale(found.total(name)) for name in ("forwards", "backwards", "flops"))
    gap = " " if flops[-1] in "0123456789?" else ""  # 12 FLOP, but 12 GFLOP
    say(f"In all: {forwards} forward and {backwards} backward rows, {flops}{gap}FLOP.")
    alone = found.clean + found.total("seconds")
    many = f"{_many(found.workers, 'worker')} like this process ({_many(found.threads, 'thread')})"
    beside = "" if found.workers == 1 else f" (one after the other: {duration(alone)})"
    say(f"With {many}: {duration(found.seconds)}{beside}, at most {found.bytes / 10**6:,.0f} MB a process.")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _passes(found: Estimate) -> str:
    if found.lo is None or found.hi is None or not found.value:
        return _scale(found.value or 0.0)
    half = (found.hi - found.lo) / 2
    return _scale(found.value) + (f" [±{half / found.value:.0%}]" if half else "")


def _scale(value: float) -> str:
    """Return a number with three digits and a prefix: 1.23 M."""
    if not math.isfinite(value):
        return "?"
    power = 0 if value < 1000 else min(int(math.log10(value)) // 3, len(_PREFIXES) - 1)
    return f"{value / 1000**power:.3g} {_PREFIXES[power]}".strip()


def duration(seconds: float) -> str:
    """Return seconds in words, in the largest unit of which there are two."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
