"""Scenes from a base: the usual attacks on it, on the samples that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from robustode.attacks.cards import resolve
from robustode.audit.gallery.bases import Base, samples, trained
from robustode.audit.gallery.exhibit import Scene
from robustode.models.wrap import wrap

RADII = {"digits": (0.05, 0.1), "moons": (0.02, 0.05), "spirals": (0.01, 0.02)}
CLAIM = ("pgd-foolbox-linf",)  # the attack that an impostor withstands


def scene(
    base: Base,
    *,
    model: nn.Module | None = None,
    attacks: Sequence[str] = CLAIM,
    norm: str = "linf",
    count: int | None = None,
    **options: Any,
) -> Scene:
    """Return the scene of a trained base, or of a model in its place.

    Args:
        base: what is trained, and whose data are used.
        model: classifier; the trained base if None.
        attacks: names of cards or suites.
        norm: of the budgets; L2 radii are √d / 2 times those in L∞.
        count: number of samples; None for the usual one.
        options: further fields of `Scene`.
    """
    data = samples(base.data, base.seed, count)
    scale = 1.0 if norm == "linf" else data.x[0].numel() ** 0.5 / 2
    budgets = {norm: tuple(eps * scale for eps in RADII[base.data])}
    cards = options.pop("cards", None) or tuple(card for name in attacks for card in resolve(name))
    return Scene(
        model=trained(base) if model is None else model,
        cards=cards,
        **{"x": data.x, "y": data.y, "budgets": budgets, **options},
    )


def disguised(base: Base, disguise: Callable[[nn.Module], nn.Module], **options: Any) -> Callable[[int], Scene]:
    """Return the factory of the scene of a base inside a module that makes it look robust."""

    def make(seed: int) -> Scene:
        own = replace(base, seed=seed)
        own_data = samples(own.data, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = disguise(trained(own))
        model = wrap(module, bounds=(0.0, 1.0), sample=torch.zeros_like(own_data.x[:1]))
        return scene(own, model=model, **options)

    return make
