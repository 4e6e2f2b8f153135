"""The work of a run beside its attacks: uncertainty, certificates, and certificates of the smoothed models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from robustode.evaluation.certificate_rows import keep_certificates, kept_certificates
from robustode.evaluation.jobs import Ready
from robustode.evaluation.kept import together
from robustode.evaluation.noise_rows import keep_noise
from robustode.evaluation.plan import Plan
from robustode.evaluation.smoothed_rows import keep_smoothed, kept_smoothed

Work = tuple[str, str, Callable[[], None]]


def beside(plan: Plan, ready: Sequence[Ready], out: Path) -> Iterator[Work]:
    """Yield (label of the model, what it is, function that does it unless it is on disk) of every unit, in order."""
    protocol, seed = plan.protocol, plan.protocol.seed
    if (noise := protocol.uncertainty) is not None:
        for one in ready:
            yield one.subject.label, "uncertainty", partial(keep_noise, one, noise, out, seed=seed)
    if (entry := protocol.certificates) is not None:
        for one in ready:
            for norm in plan.certified:
                for shard in one.shards:
                    yield (
                        one.subject.label,
                        f"certificate {norm}",
                        partial(keep_certificates, one, shard, entry, norm, out),
                    )
    if (smoothing := protocol.smoothing) is not None:
        for one in ready:
            for shard in one.shards:
                yield one.subject.label, "smoothing", partial(keep_smoothed, one, shard, smoothing, out, seed=seed)


def certified_places(plan: Plan, ready: Sequence[Ready], out: Path) -> list[Path]:
    """Return where the certificates of some models wait for the end of the run, in order."""
    return [
        kept_certificates(out, one.subject.label, norm, shard.number)
        for one in ready
        for norm in plan.certified
        for shard in one.shards
    ]


def smoothed_places(plan: Plan, ready: Sequence[Ready], out: Path) -> list[Path]:
    """Return where those of the smoothed models wait."""
    several = [(one, shard) for one in ready for shard in one.shards] if plan.smoothed else []
    return [kept_smoothed(out, one.subject.label, shard.number) for one, shard in several]


def certificates_of(plan: Plan, model: Ready, out: Path) -> pd.DataFrame | None:
    """Return the certificates of one model of a run that has not ended; None if there are none."""
    places = certified_places(plan, [model], out)
    return together(places) if places else None
