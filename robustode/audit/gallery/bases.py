"""Tiny honest classifiers of the embedded data, trained here within a second or two; the impostors are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from robustode.data import Data, load_data
from robustode.models.conv_snode import ConvSNODE
from robustode.models.layered import Layered
from robustode.models.resnet import ResNet
from robustode.models.snode import SNODE
from robustode.models.wrap import wrap
from robustode.training.adversarial import Adversary
from robustode.training.fit import fit
from robustode.training.sgd import SGDConfig

SHAPES = {"digits": (1, 8, 8), "moons": (2,), "spirals": (2,)}
CLASSES = {"digits": 10, "moons": 2, "spirals": 2}
EPS = {"digits": 0.1, "moons": 0.05, "spirals": 0.02}  # L-infinity radius of the adversary in training
SAMPLES = {"digits": 40, "moons": 60, "spirals": 60}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A classifier to be trained.

    Attributes:
        data: "digits", "moons" or "spirals".
        arch: "mlp", "conv", "resnet", "snode", "layered", "conv-snode", "node" (a user's own, with torchdiffeq) or
            "turning" (the same with a field that turns).
        width: units of a hidden layer, or channels.
        activation: name of a `torch.nn` module for "mlp" and "conv", of the sNODE's activation otherwise.
        method: of the solver.
        steps: of a fixed-step solver, or layers.
        tolerance: of an adaptive solver.
        horizon, gain: final depth of a "node" or "turning", and what the initial field of a "node" is multiplied by.
        epochs, learning_rate: of Adam.
        adversarial: whether every mini-batch is attacked first.
        seed: of weights and mini-batches.
    """

    data: str = "digits"
    arch: str = "mlp"
    width: int = 48
    activation: str = "ReLU"
    method: str = "euler"
    steps: int = 6
    tolerance: float = 1e-3
    horizon: float = 1.0
    gain: float = 1.0
    epochs: int = 8
    learning_rate: float = 5e-3
    adversarial: bool = False
    seed: int = 0


def samples(data: str, seed: int, count: int | None = None) -> Data:
    """Return the test samples that an exhibit is judged on, class-stratified; `SAMPLES` of them unless it says."""
    return load_data(data, split="test", limit=count or SAMPLES[data], seed=seed)


@cache
def trained(base: Base) -> nn.Module:
    """Return the classifier of a description, trained with Adam on the cross entropy; the same object every time."""
    model = _build(base)
    adversary = Adversary(norm="linf", eps=EPS[base.data], steps=2) if base.adversarial else None
    optimiser = SGDConfig(
        method="adam", epochs=base.epochs, batch=64, learning_rate=base.learning_rate, adversary=adversary
    )
    fit(model, load_data(base.data, split="train"), recipe=optimiser, seed=base.seed)
    return model.eval().requires_grad_(False)


def _build(base: Base) -> nn.Module:
    if base.arch in OWN:
        return OWN[base.arch](base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(base.seed)
        module = PLAIN[base.arch](base)
    shape = SHAPES[base.data]
    return wrap(module, bounds=(0.0, 1.0), input_shape=shape, sample=torch.full((1, *shape), 0.5))


def _mlp(base: Base) -> nn.Module:
    act, inputs = getattr(nn, base.activation), torch.Size(SHAPES[base.data]).numel()
    hidden = [nn.Linear(base.width, base.width), act()]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, base.width), act(), *hidden, nn.Linear(base.width, CLASSES[base.data])
    )


def _conv(base: Base) -> nn.Module:
    act = getattr(nn, base.activation)
    return nn.Sequential(
        nn.Conv2d(1, base.width, 3, padding=1),
        act(),
        nn.Conv2d(base.width, base.width, 3, stride=2, padding=1),
        act(),
        nn.Flatten(),
        nn.Linear(16 * base.width, 10),
    )


class NeuralODE(nn.Module):
    """A user's own: a linear stem, x' = field(x) solved by torchdiffeq, a linear head."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(SHAPES[base.data]).numel(), base.width))
        act = getattr(nn, base.activation)
        inward = nn.Linear(base.width, base.width)
        self.field = nn.Sequential(inward, act(), nn.Linear(base.width, base.width))
        self.head = nn.Linear(base.width, CLASSES[base.data])
        self.base = base
        with torch.no_grad():
            inward.weight *= base.gain

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        base, start = self.base, self.stem(x)
        times = torch.tensor([0.0, base.horizon], dtype=x.dtype)
        if base.method in ("euler", "midpoint", "rk4"):
            options = {"step_size": base.horizon / base.steps}
            final = odeint(self._slope, start, times, method=base.method, options=options)
        else:
            final = odeint(self._slope, start, times, method=base.method, rtol=base.tolerance, atol=base.tolerance)
        return self.head(final[-1])

    def _slope(self, t: Tensor, state: Tensor) -> Tensor:
        return self.field(state)


class Turning(NeuralODE):
    """Random features that x' = Jx turns by an angle of `horizon` radians; only the head is trained.

    The angle by which a solver misses is a matter of its tolerance, not of what training came to.
    """

    def __init__(self, base: Base) -> None:
        super().__init__(base)
        features, half = nn.Linear(torch.Size(SHAPES[base.data]).numel(), base.width), base.width // 2
        self.field = nn.Linear(base.width, base.width, bias=False)
        with torch.no_grad():
            features.weight.normal_(std=4.0)
            features.bias.uniform_(-4.0, 4.0)
            self.field.weight.copy_(torch.eye(base.width).roll(half, 1))
            self.field.weight[half:] *= -1
        self.stem = nn.Sequential(nn.Flatten(), features, nn.Tanh())
        self.stem.requires_grad_(False)
        self.field.requires_grad_(False)


def _common(base: Base) -> dict[str, Any]:
    return {"input_shape": SHAPES[base.data], "classes": CLASSES[base.data], "seed": base.seed}


def _snode(base: Base) -> nn.Module:
    return SNODE(**_common(base), steps=base.steps, method=base.method, activation=base.activation)


def _layered(base: Base) -> nn.Module:
    return Layered(**_common(base), steps=base.steps, activation=base.activation)


def _conv_snode(base: Base) -> nn.Module:
    return ConvSNODE(**_common(base), channels=base.width, steps=base.steps, patch=2, activation=base.activation)


def _resnet(base: Base) -> nn.Module:
    return ResNet(**_common(base), width=base.width)


PLAIN: dict[str, Callable[[Base], nn.Module]] = {
    "mlp": _mlp,
    "conv": _conv,
    "node": NeuralODE,
    "turning": Turning,
}
OWN: dict[str, Callable[[Base], nn.Module]] = {
    "snode": _snode,
    "layered": _layered,
    "conv-snode": _conv_snode,
    "resnet": _resnet,
}
