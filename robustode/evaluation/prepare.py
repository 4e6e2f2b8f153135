"""What comes before the units of a run: clean answers, and what stands beside the attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from robustode.attacks.adapters.rng import forked_rng
from robustode.evaluation.beside import beside
from robustode.evaluation.clean import CleanAccuracy, check_clean
from robustode.evaluation.counting import Counted
from robustode.evaluation.events import Event, Listener
from robustode.evaluation.footprint import batch_in, fixed_bytes
from robustode.evaluation.jobs import Ready
from robustode.evaluation.judge import Judge
from robustode.evaluation.parts import parts_of
from robustode.evaluation.plan import Plan
from robustode.evaluation.planned import PlannedModel, samples_for
from robustode.evaluation.rows import Subject
from robustode.evaluation.searched import searched
from robustode.evaluation.seeds import seed_of
from robustode.evaluation.selection import unfit_in_words


def prepare(plan: Plan, tell: Listener, memory: int | None = None) -> list[Ready]:
    """Return the models of a plan with their clean answers; tell of them, and of attacks that are left out.

    Args:
        plan: what runs.
        tell: called with the events.
        memory: bytes that the process may take; None for no limit.

    Raises:
        ModelError: a clean accuracy that makes every robust accuracy meaningless.
    """
    ready = [prepare_model(plan, model, tell, memory) for model in plan.models]
    for skipped in plan.attacks.skipped:
        tell(Event(kind="skipped", text=f"{skipped['attack']}: skipped: {skipped['reason']}"))
    if unfit := unfit_in_words(plan.attacks.unfit):
        tell(Event(kind="skipped", text=unfit))
    return ready


def prepare_model(plan: Plan, model: PlannedModel, tell: Listener, memory: int | None = None) -> Ready:
    """Return a model with its clean answers."""
    x, y = samples_for(model, plan.data)
    judge = Judge(model.module, size=batch_in(memory, model.module, x, fixed_bytes(plan.data.x)))
    with forked_rng(torch.Generator().manual_seed(seed_of(plan.protocol.seed, model.hash, "clean"))):
        pred, margin = judge.answer(x, y)
        clean = CleanAccuracy(correct=int((pred == y).sum()), n=len(y))
        tell(Event(kind="clean", model=model.label, text="; ".join(model.notes), clean=clean))
        check_clean(plan, model, x[:64], clean)
    parts = parts_of(x, y, plan.data.index, pred, margin, plan.protocol.shard)
    subject = Subject(label=model.label, hash=model.hash, counted=counted_for(plan, model), judge=judge)
    return Ready(planned=model, subject=subject, clean=clean, shards=parts)


def counted_for(plan: Plan, model: PlannedModel) -> Counted:
    """Return a model as attacks of a plan see it."""
    options = {"precision": plan.protocol.search_precision, "graphs": plan.protocol.cuda_graphs}
    return Counted(model.module, searched(model.module, **options))


def compute_beside(
    plan: Plan, ready: Sequence[Ready], out: Path, tell: Listener, part: tuple[int, int] = (0, 1)
) -> None:
    """Compute what stands beside the attacks and is not on disk; of a part (i, n) every n-th piece, from the i-th."""
    work = list(beside(plan, ready, out))[part[0] :: part[1]]
    for done, (label, text, compute) in enumerate(work, start=1):
        compute()
        tell(Event(kind="beside", model=label, text=text, done=done, total=len(work)))
