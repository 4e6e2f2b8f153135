"""Gradient attacks on an sNODE through the fused sweep against the same attacks on plain autograd implementations.

CPU time of the process, alternating in one run, best of several. "ratio" is plain to fused for weights that require
gradients, "frozen" for weights that do not, and "limit" the most that "frozen" could be: plain to the matrix products
of the same gradients alone, below which no implementation in the same arithmetic comes.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from robustode.attacks.adapters.torchattacks import import_torchattacks
from robustode.models.snode import SNODE

EPS = 0.1
GRADIENTS = {"gradient": 1, "PGD-40": 40, "APGD-50": 51}  # forward and reverse passes of each
SHARE = 0.2  # of the --seconds of a size, for its first attack alone; larger ones are left out


class Plain(nn.Module):
    """The network of an sNODE as a user would write it: x ← x + h tanh(W_n x + b_n), differentiated by autograd.

    W_n and b_n are θ at the middles of the steps, interpolated once; `trainable` makes parameters of them that require
    gradients, as they do in a module that was just trained.
    """

    def __init__(self, model: SNODE, *, trainable: bool) -> None:
        super().__init__()
        flow, self.classes = model.flow, model.classes
        pairs = [flow.parameters(n, 0) for n in range(flow.steps)]
        self.weight = nn.ParameterList(nn.Parameter(w.detach().clone(), trainable) for w, _ in pairs)
        self.bias = nn.ParameterList(nn.Parameter(b.detach().clone(), trainable) for _, b in pairs)
        self.step, self.scale = flow.step, model.encoding_scale
        self.weights, self.biases = list(self.weight), list(self.bias)  # a ParameterList is slow to index

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) * self.scale
        for w, b in zip(self.weights, self.biases, strict=True):
            x = x + self.step * torch.tanh(x @ w.T + b)
        return x[:, : self.classes]


def network(side: int, steps: int) -> SNODE:
    """An sNODE with weights of the size of trained ones, on grey images."""
    model = SNODE(input_shape=(1, side, side), classes=10, steps=steps)
    with torch.no_grad():
        model.weight.mul_(side)
    return model.eval()


def gradient(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """One gradient of the cross-entropy with respect to the inputs."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)[0]

    return run


def attacks(model: nn.Module) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What is timed, each on one batch (images, labels)."""
    library = import_torchattacks()
    return {
        "gradient": gradient(model),
        "PGD-40": library.PGD(model, eps=EPS, alpha=EPS / 4, steps=40, random_start=False),
        "APGD-50": library.APGD(model, norm="Linf", eps=EPS, steps=50),
    }


@torch.no_grad()
def products(model: SNODE, rows: int, times: int) -> None:
    """The matrix products of `times` gradients, without anything else."""
    x = torch.ones(rows, model.weight.shape[-1])
    for _ in range(times):
        for w in model.weight:
            torch.matmul(x, w.t())
        for w in model.weight:
            torch.matmul(x, w)


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def alternating(tasks: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, float]:
    """Best CPU time of every task, taken in turns: `repeats` of each, fewer if that takes longer than `seconds`."""
    times = {name: [cpu_seconds(task)] for name, task in tasks.items()}
    rounds = min(repeats, int(seconds / sum(min(t) for t in times.values())))
    for _ in range(max(1, rounds)):
        for name, task in tasks.items():
            times[name].append(cpu_seconds(task))
    return {name: min(t) for name, t in times.items()}


def compare(batch: int, side: int, steps: int, repeats: int, seconds: float) -> None:
    """Print the rows of one size."""
    model = network(side, steps)
    x = torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1).detach()
    frozen = network(side, steps).requires_grad_(False)
    nets = {
        "fused": model,
        "fused, frozen": frozen,
        "plain": Plain(model, trainable=True),
        "plain, frozen": Plain(model, trainable=False),
    }
    same = [gradient(net)(x, y) for net in nets.values()]
    if not all(torch.allclose(same[0], other, rtol=1e-3, atol=1e-3 * float(same[0].abs().max())) for other in same):
        raise SystemExit("the implementations do not agree")
    once = cpu_seconds(lambda: gradient(model)(x, y))
    for name, count in GRADIENTS.items():
        if count > 1 and count * once > SHARE * seconds:
            continue
        timed = {label: attacks(net)[name] for label, net in nets.items()}
        tasks: dict[str, Callable[[], object]] = {label: partial(attack, x, y) for label, attack in timed.items()}
        tasks["matmul"] = partial(products, model, batch, count)
        best = alternating(tasks, repeats, seconds)
        row = "".join(f"{1e3 * best[label] / count:14.2f}" for label in tasks)
        ratios = ("plain", "fused"), ("plain, frozen", "fused, frozen"), ("plain, frozen", "matmul")
        row += "".join(f"{best[slow] / best[fast]:9.2f}" for slow, fast in ratios)
        print(f"{batch:5d}{side**2:6d}{steps:6d}  {name:9s}{row}", flush=True)


def main() -> None:
    """Print a table: milliseconds for each gradient, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--side", type=int, nargs="+", default=[14, 28])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 150])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size and attack")
    args = parser.parse_args()
    print(f"CPU milliseconds for each gradient, {torch.get_num_threads()} threads, float32, tanh, Euler")
    head = "".join(f"{name:>14s}" for name in ("fused", "fused, frozen", "plain", "plain, frozen", "matmul alone"))
    print(f"{'batch':>5s}{'d':>6s}{'steps':>6s}  {'':9s}{head}{'ratio':>9s}{'frozen':>9s}{'limit':>9s}")
    for batch, side, steps in itertools.product(args.batch, args.side, args.steps):
        compare(batch, side, steps, args.repeats, args.seconds)


if __name__ == "__main__":
    main()
