"""Classifiers for the tests of the adapters: affine in any box, with exact distances, and a small sensitive network."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from robustode.attacks.adapters.foolbox import import_foolbox
from robustode.attacks.base import AttackResult, Status
from robustode.attacks.norms import ball_tolerance, distance
from tests.problems import Affine

BOXES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]


def boxed_affine(bounds, classes=2, input_shape=(1, 4, 5), dtype=torch.float64, samples=6):
    """One affine classifier on the unit box, seen through other bounds: model, points near the middle, their labels.

    The L2 distances of the points are between 0.04 and 0.25 of the range, so that the box is never active.
    """
    g = torch.Generator().manual_seed(classes)
    d, (lo, hi) = torch.Size(input_shape).numel(), bounds
    weight = torch.randn(classes, d, generator=g, dtype=torch.float64)
    u = 0.3 + 0.4 * torch.rand(200, d, generator=g, dtype=torch.float64)
    unit = Affine(weight, -(weight @ u.mean(0)), (d,))
    radius = exact_distance(unit, u, unit(u).argmax(1), "l2")
    u = u[(radius > 0.04) & (radius < 0.25)][:samples]
    bias = unit.bias.detach() - lo * weight.sum(1) / (hi - lo)
    model = Affine((weight / (hi - lo)).to(dtype), bias.to(dtype), input_shape, bounds).eval()
    x = (lo + (hi - lo) * u).to(dtype).reshape(-1, *input_shape)
    return model, x, model(x).argmax(1)


def exact_distance(model: Affine, x: Tensor, y: Tensor, norm: str, target: Tensor | None = None) -> Tensor:
    """min over k of (z_y − z_k) / ‖w_y − w_k‖ in the dual norm; the box is not active near the middle."""
    weight, z = model.weight.detach().double(), model(x).detach().double()
    gap = z.gather(1, y[:, None]) - z
    dual = (weight[y][:, None] - weight).norm(dim=2, p={"l2": 2, "linf": 1}[norm])
    radius = torch.where(gap == 0, torch.inf, gap / dual)
    return radius.min(1).values if target is None else radius.gather(1, target[:, None]).squeeze(1)


class SmallNet(nn.Module):
    """A convolution, tanh, dropout and a linear layer with steep logits; 4 classes, inputs of any bounds."""

    def __init__(self, bounds=(-1.0, 1.0), channels=3, dtype=torch.float32) -> None:
        super().__init__()
        self.bounds, self.classes, self.input_shape = bounds, 4, (channels, 8, 8)
        self.conv, self.drop = nn.Conv2d(channels, 4, 3, padding=1), nn.Dropout(0.5)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(256, 4)
        g = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in (*self.conv.parameters(), *self.head.parameters()):
                p.copy_(torch.randn(p.shape, generator=g) * 0.4)
        self.to(dtype).eval()

    def forward(self, x: Tensor) -> Tensor:
        u = (x - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
        return self.head(self.drop(self.norm(torch.tanh(self.conv(u))).flatten(1)))


def small_problem(bounds=(-1.0, 1.0), dtype=torch.float32, samples=4):
    """The small network, uniform points, and labels of which the first is wrong on purpose."""
    model = SmallNet(bounds, dtype=dtype)
    g = torch.Generator().manual_seed(3)
    x = bounds[0] + (bounds[1] - bounds[0]) * torch.rand(samples, *model.input_shape, generator=g, dtype=dtype)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    return model, x, y


def check_result(model: nn.Module, x: Tensor, y: Tensor, result: AttackResult, norm: str, eps: float | None) -> None:
    """Every status agrees with what the model says of the point, which is inside the box and the ball."""
    assert result.x_adv.dtype == x.dtype
    assert result.x_adv.shape == x.shape
    lo, hi = model.bounds
    assert result.x_adv.min() >= lo
    assert result.x_adv.max() <= hi
    with torch.no_grad():
        label, gap = model(result.x_adv).argmax(1), distance(x, result.x_adv, norm)
    for i, status in enumerate(result.status):
        if i == 0:
            assert status is Status.MISCLASSIFIED
            assert result.distance[i] == 0
        elif status is Status.SUCCESS:
            assert label[i] != y[i]
            assert gap[i] > 0
            assert result.distance[i] == gap[i]
            assert eps is None or gap[i] <= eps + ball_tolerance(eps, model.bounds, x[0].numel(), norm)
        else:
            assert status is Status.FAILED
            assert torch.equal(result.x_adv[i], x[i])
            assert result.distance[i] == torch.inf


def foolbox_names() -> list[str]:
    """Every concrete attack of foolbox under its class's own name."""
    attacks = import_foolbox().attacks
    classes = [c for c in vars(attacks).values() if inspect.isclass(c) and issubclass(c, attacks.Attack)]
    return sorted({c.__name__ for c in classes if not inspect.isabstract(c)})
