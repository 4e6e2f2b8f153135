"""The sensitivity attack: sequential projection of the clean input onto the linearised decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustode.attacks.base import AttackResult, Randomness, assess, check_inputs
from robustode.attacks.confident import most_confident
from robustode.attacks.minimal import SETTINGS, minimal_norm
from robustode.attacks.norms import check_norm
from robustode.attacks.paper import paper_search
from robustode.attacks.search import Passes, Search
from robustode.errors import AttackError, BudgetError, unknown
from robustode.models.base import Classifier
from robustode.sensitivity.jacobian import rows_at_once

CONVERGED = 1e-3  # largest KKT residual of a point that is called converged
CHUNK = 256  # samples searched together
COPIES = 4  # tensors of the size of all class gradients that the search holds at once


@dataclass(frozen=True, kw_only=True)
class SensitivityAttack:
    """Minimal-norm attack by sequential projection onto the linearised boundary, from the clean input, inside the box.

    With the margin g = z_y − z_k and its gradient G = P_y − P_k from the adjoint sweep, the next point is x₀ + argmin
    ‖δ‖ subject to g(x_i) + G·(x₀ + δ − x_i) = −tol and x₀ + δ in the box. All classes are linearised once at the clean
    input; the nearest few are approached with damped steps; the best is then polished on the boundary, where a step is
    accepted only if the boundary found again on its ray is nearer. A fixed point is a KKT point of the minimal-norm
    problem.

    Args:
        norm: "l2", "linf" or "l1".
        eps: None for the minimal norm; a radius > 0 (raw-input units) for the most confident adversarial in that ball.
        setting: "fast", "thorough", or "paper", the published attack itself (L2 only; see `attacks/paper.py`).
        damping: initial share of each step of the approach, in (0, 1]; adapted to how linear the margin proves to be.
        kappa, step, steps: parameters of setting "paper".

    Raises:
        AttackError, BudgetError: a parameter out of its range; at the call, inputs that do not fit the model.

    Source: arXiv 2205.13933, section 4.3 (direction); the projection is that of DeepFool (arXiv 1511.04599) and FAB
    (arXiv 1907.02044), taken from the clean point.
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

        Args:
            target: classes to reach, or None for any other class.
            generator: unused; the attack is deterministic.
        """
        check_inputs(model, x, y, target)
        if len(x) == 0:
            none = torch.zeros(0, dtype=torch.float64)
            return assess(model, x, y, x, norm=self.norm, eps=self.eps, forwards=none, backwards=none)
        size = min(CHUNK, max(1, rows_at_once(model, x) // COPIES))
        parts = [
            self._attack(model, xs, ys, None if target is None else target[i * size : i * size + len(xs)])
            for i, (xs, ys) in enumerate(zip(x.split(size), y.split(size), strict=True))
        ]
        x_adv, forwards, backwards, kkt = (torch.cat(column) for column in zip(*parts, strict=True))
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

    def _attack(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None):
        passes = Passes(len(x))
        rows = torch.arange(len(x), device=x.device)
        search = Search(model, x, y, target, self.norm, sample=rows, passes=passes)
        if self.setting == "paper":
            kkt = paper_search(search, kappa=self.kappa, step=self.step, steps=self.steps)
        else:
            kkt = minimal_norm(search, SETTINGS[self.setting], self.damping)
        if self.eps is not None:
            most_confident(search, self.eps)
        return search.best_x, passes.forwards, passes.backwards, kkt.cpu()
