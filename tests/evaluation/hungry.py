"""How scripts begin that measure memory: a convolutional classifier whose passes keep much, and points of its own."""

HUNGRY = """
import sys
from pathlib import Path

import torch
from torch import nn
import robustode as ro
from robustode.data import Data


def hungry(count):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 128, 3, padding=1), nn.Tanh(), nn.Conv2d(128, 8, 3), nn.Tanh(), nn.Flatten(),
              nn.Linear(8 * 26 * 26, 3))
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    model = ro.wrap(module, bounds=(0.0, 1.0), classes=3, input_shape=(1, 28, 28))
    x = torch.rand(count, 1, 28, 28)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(16)])
    index = torch.arange(count)
    return model, Data(name="toy", split="test", x=x, y=y, index=index, bounds=(0.0, 1.0), classes=3, caption="")

"""
