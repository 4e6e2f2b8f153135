"""A small affine problem with exact distances, attacks that lie, and what the tests of the evaluation share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustode.data import Data
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge
from robustode.evaluation.plan import Plan, make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.rows import Shard, Subject
from tests.attacks.adapter_problems import boxed_affine
from tests.problems import Affine

CLASSES, SHAPE = 3, (1, 3, 4)
FORMS = """
import torch

def push(model, x, y, *, norm, eps, generator, length: float = 0.0, by: float = 0.0):
    # The exact step to the nearest boundary of an affine model, times 1 + by (or of a fixed length).
    w = next(value for name, value in model.named_parameters() if name.endswith("weight")).detach()
    z = model(x).detach()
    own = z.gather(1, y[:, None])
    rows = w[y][:, None] - w
    dual = rows.norm(dim=2) if norm == "l2" else rows.abs().sum(2)
    reach = (own - z) / dual.clamp_min(1e-9)
    reach[torch.arange(len(x)), y] = float("inf")
    k = reach.argmin(1)
    row = rows[torch.arange(len(x)), k]
    step = row / row.norm(dim=1, keepdim=True) if norm == "l2" else row.sign()
    size = reach.min(1).values[:, None] * (1 + by) if length == 0 else length
    return x - (size * step).reshape(x.shape)

def within(model, x, y, *, norm, eps, generator):
    # The step of length eps along that direction.
    return push(model, x, y, norm=norm, eps=eps, generator=generator, length=eps)

def alone(model, x, y, *, norm, eps, generator):
    # One sample after the other.
    rows = range(len(x))
    return torch.cat([push(model, x[[i]], y[[i]], norm=norm, eps=eps, generator=generator, by=1e-3) for i in rows])

def leaves_box(model, x, y, *, norm, eps, generator):
    return push(model, x, y, norm=norm, eps=eps, generator=generator, length=5.0)

def leaves_ball(model, x, y, *, norm, eps, generator):
    return push(model, x, y, norm=norm, eps=eps, generator=generator, by=0.5)

def not_a_number(model, x, y, *, norm, eps, generator):
    return torch.full_like(x, float("nan"))

def clean(model, x, y, *, norm, eps, generator):
    return x

def wreck(model, x, y, *, norm, eps, generator):
    # Makes the model wrong instead of the input.
    for value in model.state_dict().values():
        value.mul_(-1)
    return x

def wrong_shape(model, x, y, *, norm, eps, generator):
    return x.flatten(1)

def raises(model, x, y, *, norm, eps, generator, above: float = 0.0):
    if eps is not None and eps < above:
        return x
    raise ValueError("no luck today\\nsecond line")

def in_place(model, x, y, *, norm, eps, generator):
    # Moves the very tensor that it was given.
    return x.copy_(push(model, x, y, norm=norm, eps=eps, generator=generator, by=0.01))

def noise(model, x, y, *, norm, eps, generator):
    own = torch.rand(x.shape, generator=generator) - 0.5
    return (x + eps * (own + torch.rand_like(x) - 0.5)).clamp(0, 1)
"""


def affine(n: int = 30, *, seed: int = 3, wrong: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Affine, Data]:
    """An affine classifier of three classes and n points near the middle of the box, `wrong` of them labelled wrongly.

    Every point is 0.04 to 0.25 (L2) from its nearest boundary, so that the box is never active.
    """
    model, x, y = boxed_affine((0.0, 1.0), classes=CLASSES, input_shape=SHAPE, dtype=dtype, samples=n)
    y = y.clone()
    y[:wrong] = (y[:wrong] + 1) % CLASSES
    index = torch.arange(n) * 2 + seed
    return model, as_data(x.float(), y, index=index)


def as_data(x: Tensor, y: Tensor, *, index: Tensor | None = None, classes: int = CLASSES, name: str = "toy") -> Data:
    """Data of the unit box."""
    return Data(
        name=name,
        split="test",
        x=x,
        y=y,
        index=torch.arange(len(y)) if index is None else index,
        bounds=(0.0, 1.0),
        classes=classes,
        caption="toy points",
    )


def forms(folder: Path) -> Path:
    """Write the attacks of `FORMS` into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "forms.py").write_text(FORMS)
    return folder


def plan_of(modules: nn.Module | list[nn.Module], data: Any, **values: Any) -> Plan:
    """A plan of module objects."""
    several = modules if isinstance(modules, list) else [modules]
    models = [{"model": type(one).__name__} for one in several]
    protocol = build_protocol({"models": models, "attacks": "none", **values})
    return make_plan(protocol, data=data, modules=several)


def subject_and_shard(model: Any, data: Data) -> tuple[Subject, Shard]:
    """A model and all samples of the data, as `run_unit` takes them."""
    judge = Judge(model)
    pred, margin = judge.answer(data.x, data.y)
    shard = Shard(number=0, x=data.x, y=data.y, index=data.index, clean_pred=pred, clean_margin=margin)
    return Subject(label="m", hash="h", counted=Counted(model), judge=judge), shard


def save_npz(path: Path, data: Data) -> str:
    """Write data as an .npz with bounds and indices."""
    np.savez(path, x=data.x.numpy(), y=data.y.numpy(), index=data.index.numpy(), bounds=np.array(data.bounds))
    return str(path)


def refused(error: type[Exception], message: str, call: Any) -> None:
    """The call raises exactly this class, with this text in its message."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert message in str(caught.value), str(caught.value)


class Noisy(nn.Module):
    """An affine classifier whose logits have noise from torch's global generator."""

    def __init__(self, model: Affine, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + self.scale * torch.randn(len(x), self.classes)


class Coupled(nn.Module):
    """An affine classifier that subtracts the mean of the batch: alone, a sample's logits are all zero but the bias."""

    def __init__(self, model: Affine) -> None:
        super().__init__()
        self.model, self.calls = model, []
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        z = self.model(x)
        return z - z.mean(0) + torch.linspace(1, 0, self.classes)
