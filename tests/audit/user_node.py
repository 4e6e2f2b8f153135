"""A neural ODE image classifier as a user would write it: a convolutional stem, an ODE block, a linear head.

It follows torchdiffeq's MNIST example (examples/odenet_mnist.py) in little, and is trained here on the digits:
`robustode eval --model python:tests/audit/user_node.py:factory --data digits --audit full`.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchdiffeq import odeint

from robustode.data import load_data


class ConcatConv2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t, x):
        return self.layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))


class ODEFunc(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv1 = ConcatConv2d(channels)
        self.norm2 = nn.GroupNorm(4, channels)
        self.conv2 = ConcatConv2d(channels)
        self.norm3 = nn.GroupNorm(4, channels)

    def forward(self, t, x):
        x = self.conv1(t, torch.relu(self.norm1(x)))
        x = self.conv2(t, torch.relu(self.norm2(x)))
        return self.norm3(x)


class ODEBlock(nn.Module):
    def __init__(self, func, tol=1e-3):
        super().__init__()
        self.func, self.tol = func, tol
        self.register_buffer("times", torch.tensor([0.0, 1.0]))

    def forward(self, x):
        return odeint(self.func, x, self.times, rtol=self.tol, atol=self.tol)[1]


class ODENet(nn.Module):
    def __init__(self, channels=8):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 4, 2, 1)
        )
        self.block = ODEBlock(ODEFunc(channels))
        self.head = nn.Sequential(nn.GroupNorm(4, channels), nn.ReLU(), nn.Flatten(), nn.Linear(16 * channels, 10))

    def forward(self, x):
        return self.head(self.block(self.stem(x)))


def factory(epochs=3, seed=0):
    """Train it on the training split and return it in eval mode."""
    data = load_data("digits", split="train")
    x, y = data.x, data.y
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ODENet()
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(model(x[rows]), y[rows]).backward()
                optimiser.step()
    return model.eval()
