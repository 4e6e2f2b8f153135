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
    """A model that keeps the inputs to which it answers other than a label."""

    def __init__(self, counted: Counted, label: int) -> None:
        super().__init__()
        self.counted, self.bare, self.label = counted, counted.bare, label
        self.bounds, self.classes, self.input_shape = counted.bounds, counted.classes, counted.input_shape
        self.wrong: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.counted(x)
        self.wrong.append(x.detach()[logits.detach().argmax(1) != self.label])
        return logits


def run(case: Case) -> Found:
    """Run the attacks in many steps on single survivors, at most 64, and judge every point that they asked about.

    Where not all survivors are looked at, s is taken in proportion, at least 2.
    """
    worst: tuple[float, int, int, str, Tensor, float] | None = None
    for norm in case.budgets:
        cards = _cards(case, norm)
        for eps in case.radii(norm) if cards else ():
            left = case.survivors(norm, eps)
            rows = spread(left, MOST)
            limit = max(LEAST, case.slack * len(rows) / len(left))
            for card in cards:
                silent = rows[[_is_silent(case, card, norm, eps, int(row)) for row in rows]]
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


def _is_silent(case: Case, card: Card, norm: str, eps: float, row: int) -> bool:
    """Attack one sample; whether the points it asked about hold an adversarial and the one it returned is none."""
    x, y = case.shard.x[row : row + 1], case.shard.y[row : row + 1]
    recorder = Recorder(case.subject.counted, int(y))
    attack: Attack = card.build(eps)
    draws = case.generator(f"silent-success-{card.name}-{eps}-{row}")
    with forked_rng(draws):
        result = attack(recorder, x.clone(), y.clone(), generator=draws)
    returned = result.x_adv if result.returned is None else result.returned
    rows = torch.tensor([row])
    if bool(case.take("silent-success", norm, eps, rows, returned).success):
        return False
    passed = torch.cat([*recorder.wrong, x[:0]])
    gaps = distance(x.expand_as(passed), passed, norm)
    inside = gaps <= eps + ball_tolerance(eps, tuple(case.model.bounds), x[0].numel(), norm)
    for point in passed[inside][gaps[inside].argsort()]:
        if bool(case.take("silent-success", norm, eps, rows, point[None]).success):
            return True
    return False


CHECK = Check(
    id="silent-success",
    title="attacks return the adversarials that they pass through",
    cheap=False,
    source="Carlini et al. 2019, arXiv 1902.06705, section 5",
    advice="Let the attack return the best point of its path instead of its last.",
    run=run,
)
