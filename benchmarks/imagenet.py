"""What an evaluation of ImageNet size would take: passes measured on a small model, operations of the large ones.

Passes are those that each attack takes for an image on `--model`, from 64 samples. Operations and stored bytes of a
row are counted on the large networks themselves, with random weights. Prints Markdown.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from robustode.evaluation.flops import flops_per_row
from robustode.evaluation.footprint import stored_bytes
from robustode.evaluation.forecast import forecast
from robustode.evaluation.plan import make_plan
from robustode.evaluation.protocol import build_protocol
from robustode.models import wrap
from robustode.models.conv_snode import ConvSNODE

SHAPE, CLASSES, IMAGES = (3, 224, 224), 1000, 50_000


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut, batch norm folded in."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1),
        )
        same = stride == 1 and inside == 4 * width
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """Return the layout of He et al., 2016, table 1, 50 layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            layers.append(Bottleneck(inside, width, 2 if stage and not block else 1))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, CLASSES))


def networks() -> dict[str, Any]:
    """Return the large networks by name."""
    config = {"input_shape": SHAPE, "classes": CLASSES, "bounds": (0.0, 1.0)}
    return {
        "ResNet-50": wrap(resnet50().eval().requires_grad_(False), **config),
        "convolutional sNODE, 12 steps, 1,024 channels of 14×14": ConvSNODE(
            **config, patch=16, channels=1024, steps=12, activation="relu", horizon=5.0
        ),
    }


def main() -> None:
    """Measure the passes, count the operations, print the product."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--attacks", nargs="*", default=["sensitivity-l2", "sensitivity-linf", "pgd-linf", "strong-linf"]
    )
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--data-root")
    parser.add_argument("--tflops", type=float, default=20.0, help="that a card really does in a second")
    args = parser.parse_args()
    passes = {}
    for name in args.attacks:
        values = {"models": [{"model": args.model}], "attacks": name, "limit": args.limit, "audit": "none"}
        plan = make_plan(build_protocol(values, "benchmark"), data_root=args.data_root)
        found = forecast(plan)
        passes[name] = found.total("forwards") / found.samples, found.total("backwards") / found.samples
    print("| network | attack | forwards, backwards an image | TFLOP an image | 50,000 images |")
    print("| --- | --- | --- | --- | --- |")
    for label, model in networks().items():
        x = torch.full((1, *SHAPE), 0.5)
        forward, backward = flops_per_row(model, x)
        stored = stored_bytes(model, x)[0]
        print(f"| {label}: {forward / 1e9:.1f} GFLOP, {stored / 1e6:.0f} MB stored a row | | | | |")
        for name, (f, b) in passes.items():
            tera = (f * forward + b * backward) / 1e12
            hours = IMAGES * tera / args.tflops / 3600
            print(f"| | {name} | {f:,.0f}, {b:,.0f} | {tera:.2f} | {hours:,.1f} card-hours |")


if __name__ == "__main__":
    main()
