"""Models for the tests of attacking checks: affine ones whose distances are known, and what hides them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

import robustode as ro
from robustode.audit.case import Case
from tests.attacks.adapter_problems import boxed_affine, exact_distance
from tests.audit.cases import make_case
from tests.problems import Affine

EPS = 0.15


def affine(classes: int = 2, n: int = 40, input_shape: tuple[int, ...] = (1, 6, 6)) -> tuple[Affine, Tensor, Tensor]:
    """An affine classifier on the unit box in float32, and n points 0.04 to 0.25 (L2) from its nearest boundary."""
    model, x, y = boxed_affine((0.0, 1.0), classes=classes, input_shape=input_shape, dtype=torch.float32, samples=n)
    return model, x, y


def distances(model: Affine, x: Tensor, y: Tensor, norm: str = "l2") -> Tensor:
    """The exact distance of every sample."""
    return exact_distance(model, x, y, norm)


def clear_of(reach: Tensor, radius: float, gap: float = 0.01) -> Tensor:
    """Which distances are further than a share of a radius from it."""
    return (reach / radius - 1).abs() > gap


class Through(nn.Module):
    """A classifier seen through functions of its inputs and of its logits."""

    def __init__(
        self,
        model: nn.Module,
        *,
        inputs: Callable[[Tensor], Tensor] = lambda x: x,
        logits: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.inputs, self.logits = model, inputs, logits
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.model(self.inputs(x)))


def quantised(levels: int) -> Callable[[Tensor], Tensor]:
    """Rounding to multiples of 1 / levels, whose gradient is zero."""
    return lambda x: torch.round(x * levels) / levels


@cache
def healthy_case() -> Case:
    """zoo:snode-digits on 40 samples, after the thorough sensitivity attack and PGD in L∞."""
    model, data = ro.load_model("zoo:snode-digits"), ro.load_data("digits", limit=40)
    attacks = ["sensitivity-thorough-linf", "pgd-linf"]
    return make_case(model, data.x, data.y, attacks=attacks, budgets={"linf": [0.1]}, full=True)


def write_card(folder: Path, name: str, implementation: str, norm: str, rest: str = "", kind: str = "budget") -> str:
    """Write a card and return its path."""
    path = folder / f"{name}.toml"
    path.write_text(f"title = '{name}'\nimplementation = '{implementation}'\nnorm = '{norm}'\nkind = '{kind}'\n{rest}")
    return str(path)
