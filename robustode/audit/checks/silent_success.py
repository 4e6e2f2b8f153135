"""silent-success: an attack that passes through an adversarial returns it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustode.attacks.adapters.rng import forked_rng
from robustode.attacks.base import Attack
from robustode.attacks.card import Card
from robustode.attacks.norms import ball_tolerance, distance
from robustode.audit.case import LEAST, Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.kinds import is_one_step, iterative
from robustode.audit.probing import spread
from robustode.evaluation.counting import Counted

MOST = 64
_FOREIGN = ("torchattacks", "foolbox", "python")  # our own attacks keep their best point, and linearise


class Recorder(nn.Module):
    """A model that keeps the inputs to which it answers other than the label of the sample they belong to.

    Attributes:
        seen: (positions of the samples, points) of each pass.
        told: whether all rows of all passes could be assigned to samples: a pass on as many rows as there are samples
            has them in order, and to a single sample all rows belong.
    """

    def __init__(self, counted: Counted, labels: Tensor) -> None:
        super().__init__()
        self.counted, self.bare, self.labels = counted, counted.bare, labels
        self.bounds, self.classes, self.input_shape = counted.bounds, counted.classes, counted.input_shape
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.told = True

    def forward(self, x: Tensor) -> Tensor:
        logits = self.counted(x)
        if len(self.labels) not in (1, len(x)):
            self.told = False
            return logits
        place = torch.arange(len(x), device=x.device) % len(self.labels)
        wrong = logits.detach().argmax(1) != self.labels[place]
        self.seen.append((place[wrong], x.detach()[wrong]))
        return logits


def run(case: Case) -> Found:
    """Run the attacks in many steps on survivors, at most 64, and judge every point that they asked about.

    They run on single samples where it cannot be told to which sample of a batch a point belongs. Where not all
    survivors are looked at, s is taken in proportion, at least 2.
    """
    worst: tuple[float, int, int, str, Tensor, float] | None = None
    for norm in case.budgets:
        cards = _cards(case, norm)
        for eps in case.radii(norm) if cards else ():
            left = case.survivors(norm, eps)
            rows = spread(left, MOST)
            limit = max(LEAST, case.slack * len(rows) / len(left))
            for card in cards:
                silent = _silent(case, card, norm, eps, rows)
                if worst is None or len(silent) / limit > worst[0]:
                    place = f"{card.name} at {norm} ε = {eps:g}"
                    worst = (len(silent) / limit, len(silent), len(rows), place, silent, limit)
    if worst is None:
        return not_applicable("no attack of another library or of the user in many steps, or no survivor")
    _, count, tried, place, silent, limit = worst
    text = f"{place} passed through an adversarial that it did not return on {count} of {tried} survivors"
    status = above(count, fail=limit, warn=limit / 2)
    return Found(status=status, value=float(count), threshold=limit, text=text, samples=case.samples(silent))


def _cards(case: Case, norm: str) -> list[Card]:
    own = [c for c in case.cards if c.norm == norm and c.kind == "minimal" and c.provider == "python"]
    found = [*iterative(case.cards, norm), *(card for card in own if not is_one_step(card))]
    return [card for card in found if card.provider in _FOREIGN]


def _silent(case: Case, card: Card, norm: str, eps: float, rows: Tensor) -> Tensor:
    """Return the rows at which an attack asks about an adversarial and returns none."""
    silent, told = _attempt(case, card, norm, eps, rows)
    return silent if told else torch.cat([_attempt(case, card, norm, eps, row)[0] for row in rows.split(1)])


def _attempt(case: Case, card: Card, norm: str, eps: float, rows: Tensor) -> tuple[Tensor, bool]:
    here = rows.to(case.shard.x.device)
    x, y = case.shard.x[here], case.shard.y[here]
    recorder = Recorder(case.subject.counted, y)
    attack: Attack = card.build(eps)
    draws = case.generator(f"silent-success-{card.name}-{eps}-{rows.tolist()}")
    with forked_rng(draws):
        result = attack(recorder, x.clone(), y.clone(), generator=draws)
    returned = result.x_adv if result.returned is None else result.returned
    success = case.take("silent-success", norm, eps, rows, returned).success.cpu()
    if not recorder.told:
        return rows[:0], False
    place, points = (torch.cat(parts) for parts in zip((here[:0], x[:0]), *recorder.seen, strict=True))
    gaps = distance(x[place], points, norm)
    near = gaps <= eps + ball_tolerance(eps, tuple(case.model.bounds), x[0].numel(), norm)
    silent = torch.zeros(len(rows), dtype=torch.bool)
    for i in (~success).nonzero().squeeze(1).tolist():
        mine = ((place == i) & near).nonzero().squeeze(1)
        for k in mine[gaps[mine].argsort()].tolist():
            if bool(case.take("silent-success", norm, eps, rows[i : i + 1], points[k : k + 1]).success):
                silent[i] = True
                break
    return rows[silent], True


CHECK = Check(
    id="silent-success",
    title="attacks return the adversarials that they pass through",
    cheap=False,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="Let the attack return the best point of its path instead of its last.",
    run=run,
)
