"""The sensitivity attack: minimal-norm perturbations by walks along the decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustode.attacks.base import AttackResult, Randomness, assess, check_inputs
from robustode.attacks.confident import most_confident
from robustode.attacks.effort import SETTINGS
from robustode.attacks.minimal import minimal_norm
from robustode.attacks.norms import check_norm
from robustode.attacks.paper import paper_search
from robustode.attacks.search import Search
from robustode.attacks.settle import settle
from robustode.errors import AttackError, BudgetError, unknown
from robustode.models.base import Classifier

CONVERGED = 1e-3  # largest KKT residual of a point that is called converged
CHUNK = 256  # samples searched together
HELD_BYTES = 2**30  # what they may hold
HELD = 120  # tensors of the size of a sample that the search holds for each at once


@dataclass(frozen=True, kw_only=True)
class SensitivityAttack:
    """Minimal-norm attack: walks along the decision boundary to the points of it that are nearest to the clean input.

    With the margin g = z_y − z_k and its gradient G = P_y − P_k from the adjoint sweep, the clean input x₀ is projected
    onto {g(x) + G·(· − x) = −tol} ∩ {box}, exactly, in the norm. A fixed point of that projection is a KKT point of the
    minimal-norm problem; the rest is to get there in few passes, and to the right one:

    - a *lead* follows the soft margin of all classes from x₀, with steps damped by how linear it proves to be;
    - from it, a *walk* along the boundary takes shares of the projection's tangential step that are chosen by Barzilai
      and Borwein, so that curvature costs no pass (`Walk`);
    - rows set out for the nearest classes, all linearised in one sweep, within the radius that the lead has found;
    - of the walks that begin there, the nearest distinct ones race on; further rounds are only for samples that the
      round before brought nearer; all of it on a coarser sNODE where that has the sample's margins (`levels`);
    - the boundary is refined to 1e-4 on the rays through the best points, in ten more passes at most.

    The projection is that of DeepFool (arXiv 1511.04599) and FAB (arXiv 1907.02044). DeepFool projects the last point,
    not x₀, so that its points drift, and leaves the box to a clip; FAB projects both and mixes them by a fixed rule;
    both step by it without regard to curvature, towards the nearest linear class at each point, and restart at random.

    Args:
        norm: "l2", "linf" or "l1".
        eps: None for the minimal norm; a radius > 0 (raw-input units) for the most confident adversarial in that ball.
        setting: "quick" (the lead alone), "fast" (one or two rounds), "thorough" (three to five), or "paper", the
            published attack itself (L2 only; see `attacks/paper.py`).
        damping: initial share of each step of the lead, in (0, 1]; adapted to how linear the margin proves to be.
        kappa, step, steps: parameters of setting "paper".

    Raises:
        AttackError, BudgetError: a parameter out of its range; at the call, inputs that do not fit the model.

    Source: arXiv 2205.13933, section 4.3 (direction).
    """

    norm: str = "l2"
    eps: float | None = None
    setting: str = "fast"
    damping: float = 0.6
    kappa: float = 0.975
    step: float = 0.03
    steps: int = 30

    names: ClassVar[tuple[str, ...]] = (*SETTINGS, "paper")

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.setting not in self.names:
            raise unknown("setting of the sensitivity attack", self.setting, self.names, AttackError)
        if self.setting == "paper" and self.norm != "l2":
            raise AttackError("sensitivity attack, setting 'paper'", expected="norm 'l2'", got=f"'{self.norm}'")
        if self.eps is not None and not 0 < self.eps < float("inf"):
            raise BudgetError("eps", expected="a positive number, or None for the minimal norm", got=self.eps)
        if not 0 < self.damping <= 1:
            raise AttackError("damping", expected="a number in (0, 1]", got=self.damping)
        if self.step <= 0 or self.steps < 1 or not 0 < self.kappa <= 1:
            raise AttackError("kappa, step, steps", expected="0 < kappa ≤ 1, step > 0, steps ≥ 1", got=self)

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        target: Tensor | None = None,
        generator: Randomness = None,
    ) -> AttackResult:
        """Attack every sample of `x` (batch, *input_shape) with labels `y`; the result has a status for each.

        No pass is spent on samples that are misclassified, nor on those whose target is their label: those fail, for
        nothing can be classified as its label and be adversarial.

        Args:
            target: classes to reach, or None for any other class.
            generator: unused; the attack is deterministic.
        """
        check_inputs(model, x, y, target)
        y, target = y.long(), None if target is None else target.long()
        with torch.no_grad():
            open_ = getattr(model, "bare", model)(x).argmax(1) == y if len(x) else y == y
        if target is not None:
            open_ &= target != y
        todo = open_.nonzero().squeeze(1)
        x_adv = x.clone()
        forwards, backwards = (torch.zeros(len(x), dtype=torch.float64) for _ in range(2))
        kkt = torch.full((len(x),), torch.inf, dtype=torch.float64)
        held = max(HELD, 4 * model.classes if self.setting == "paper" else 0) * x[:1].numel() * x.element_size()
        for rows in todo.split(min(CHUNK, max(1, HELD_BYTES // max(held, 1)))) if len(todo) else ():
            search = Search.of(model, x[rows], y[rows], None if target is None else target[rows], self.norm)
            index = rows.cpu()
            kkt[index] = self._run(search).cpu()
            x_adv[rows] = search.best_x
            forwards[index], backwards[index] = search.passes.forwards, search.passes.backwards
        evaluations = getattr(model, "nfe", None)
        # The residual belongs to the minimal-norm point; the published attack has no stopping test.
        tested = self.eps is None and self.setting != "paper"
        return assess(
            model,
            x,
            y,
            x_adv,
            norm=self.norm,
            eps=self.eps,
            target=target,
            forwards=forwards,
            backwards=backwards,
            nfe=None if evaluations is None else forwards * float(evaluations),
            converged=kkt <= CONVERGED if tested else None,
            kkt=kkt if tested else None,
        )

    def _run(self, search: Search) -> Tensor:
        if self.setting == "paper":
            kkt = paper_search(search, kappa=self.kappa, step=self.step, steps=self.steps)
        else:
            kkt = minimal_norm(search, SETTINGS[self.setting], self.damping)
        if self.eps is not None:
            most_confident(search, self.eps)
        settle(search, self.eps)
        return torch.where(torch.isfinite(search.best), kkt, torch.inf)
