"""GFLOP/s of the fused sweep against torch.matmul of the same shape, alternating in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from robustode.models.snode import SNODE


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print a table: forward, recorded forward, reverse (1 and `classes` cotangents), autograd's backward."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--knots", type=int, default=30)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    shape = (1, args.side, args.side)
    model = SNODE(input_shape=shape, classes=args.classes, steps=args.steps, knots=args.knots).requires_grad_(False)
    features, batch = args.side**2, args.batch
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    flow, x0 = model.flow, model.encode(x)
    _, tape = flow.record(x0)
    one = torch.randn(batch, features, generator=torch.Generator().manual_seed(1))
    many = one[:, None].expand(-1, args.classes, -1).contiguous()
    weight, state = model.weight[0].t(), x0.clone()

    def matmuls(rows: torch.Tensor) -> None:
        for _ in range(args.steps):
            torch.matmul(rows, weight)

    def plain() -> None:
        """The same network as a user would write it, by autograd: forward and backward."""
        z = x0.clone().requires_grad_(True)
        out = z
        for w, b in zip(model.weight, model.bias, strict=True):
            out = out + flow.step * torch.tanh(torch.nn.functional.linear(out, w, b))
        out.backward(one)

    def fused() -> None:
        _, recorded = flow.record(x0)
        flow.adjoint(recorded, one)

    tasks: dict[str, tuple[Callable[[], object], int]] = {
        "matmul": (lambda: matmuls(state), 1),
        "forward sweep": (lambda: flow.forward(x0), 1),
        "recorded forward sweep": (lambda: flow.record(x0), 1),
        "reverse sweep, 1 cotangent": (lambda: flow.adjoint(tape, one), 1),
        f"matmul, {args.classes} x batch": (lambda: matmuls(many.reshape(-1, features)), args.classes),
        f"reverse sweep, {args.classes} cotangents": (lambda: flow.adjoint(tape, many), args.classes),
        "forward + reverse, fused": (fused, 2),
    }
    if args.knots == args.steps:
        tasks["forward + backward, plain autograd"] = (plain, 2)
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for function, _ in tasks.values():
        function()
    for _ in range(args.repeats):
        for name, (function, _) in tasks.items():
            times[name].append(seconds(function))
    flop = 2 * batch * features**2 * args.steps
    base = flop / statistics.median(times["matmul"])
    print(f"batch {batch}, {features} features, {args.steps} steps, {torch.get_num_threads()} threads, float32")
    print(f"{'':36s} {'GFLOP/s':>9s} {'of matmul':>10s}")
    for name, (_, multiple) in tasks.items():
        rate = multiple * flop / statistics.median(times[name])
        print(f"{name:36s} {rate / 1e9:9.1f} {rate / base:10.0%}")


if __name__ == "__main__":
    main()
