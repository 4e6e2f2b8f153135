"""Impostors among neural ODEs: what the solver does to answers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint_adjoint

from robustode.audit.gallery.bases import Base, NeuralODE, samples, trained
from robustode.audit.gallery.exhibit import Exhibit, Scene
from robustode.audit.gallery.scenes import scene
from robustode.models.wrap import wrap


class Adjoint(nn.Module):
    """A trained neural ODE, its gradient by the continuous adjoint at a loose tolerance of its own."""

    def __init__(self, inner: NeuralODE, tolerance: float) -> None:
        super().__init__()
        self.inner, self.tolerance = inner, tolerance
        self.anchor = nn.Parameter(torch.zeros(1))  # odeint_adjoint wants a parameter

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        inner, base = self.inner, self.inner.base
        times = torch.tensor([0.0, base.horizon], dtype=x.dtype)
        final = odeint_adjoint(
            lambda t, state: inner.field(state),
            inner.stem(x),
            times,
            rtol=1e-4,
            atol=1e-4,
            method="dopri5",
            adjoint_rtol=self.tolerance,
            adjoint_atol=self.tolerance,
            adjoint_params=(self.anchor,),
        )
        return inner.head(final[-1])


def deployed(base: Base, **options: Any) -> Callable[[int], Scene]:
    """Return the factory of the scene of a neural ODE that is trained and deployed with an adaptive solver."""
    return lambda seed: scene(replace(base, seed=seed), **options)


def loose_adjoint(base: Base, tolerance: float, **options: Any) -> Callable[[int], Scene]:
    """Return the factory of the scene of a neural ODE whose gradient is that of a continuous adjoint."""

    def make(seed: int) -> Scene:
        own = replace(base, seed=seed)
        inner: Any = trained(own)
        sick = Adjoint(inner.module, tolerance).requires_grad_(False)
        sample = samples(own.data, seed).x[:1]
        return scene(own, model=wrap(sick, bounds=(0.0, 1.0), sample=sample), **options)

    return make


SMALL: dict[str, Any] = {"count": 20, "budgets": {"linf": (0.05,)}}  # every sample is solved alone
NODE = Base(arch="node", activation="Tanh", width=24, epochs=3)
LONG = replace(NODE, data="moons", horizon=10.0, gain=6.0, epochs=4)
# Of 5 radians the solver misses 1.6 to 1.8, at all of 24 seeds, and the head is trained on what it returns.
TURNING = Base(
    data="moons", arch="turning", width=32, horizon=5.0, method="dopri5", tolerance=0.5, epochs=4, learning_rate=0.05
)

IMPOSTORS = (
    Exhibit(
        name="dopri5 at 0.5",
        about="a neural ODE on points that turns, its head trained on what torchdiffeq returns at tolerance 0.5",
        disease=("solver-reference",),
        brief=True,
        seed=51,
        make=deployed(TURNING, **SMALL),
    ),
    Exhibit(
        name="dopri5 at 0.5 on spirals",
        about="the same on other points",
        disease=("solver-reference",),
        brief=True,
        seed=151,
        make=deployed(replace(TURNING, data="spirals"), **SMALL),
    ),
    Exhibit(
        name="dopri5 at 0.01",
        about="a neural ODE on digits whose adaptive steps all samples of a batch share",
        disease=("batch-invariance",),
        brief=True,
        seed=52,
        make=deployed(replace(NODE, method="dopri5", tolerance=1e-2, horizon=3.0, gain=2.0), **SMALL),
    ),
    Exhibit(
        name="loose adjoint",
        about="a neural ODE on digits whose continuous adjoint is solved at tolerance 1",
        disease=("solver-gradient",),
        brief=True,
        seed=53,
        make=loose_adjoint(replace(NODE, method="rk4", steps=40, horizon=10.0, gain=3.0), 1.0, **SMALL),
    ),
    Exhibit(
        name="loose adjoint on points",
        about="the same on points",
        disease=("solver-gradient",),
        brief=True,
        seed=153,
        make=loose_adjoint(replace(LONG, method="rk4", steps=40), 1.0, **SMALL),
    ),
)
