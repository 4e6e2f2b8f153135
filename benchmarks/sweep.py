"""GFLOP/s of the fused sweep against torch.matmul of the same shape, alternating in one run.

On a GPU also replayed as CUDA graphs, and all of it once more in TF32; `--bfloat16` adds rounded products.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from robustode.evaluation.precision import full_precision, tf32
from robustode.models.device import resolve_device
from robustode.models.snode import SNODE
from robustode.solvers.flow import Flow
from robustode.solvers.graphs import Graphs

Tasks = dict[str, tuple[Callable[[], object], int]]


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, until the device has ended it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def forwards(flow: Flow, x0: Tensor, one: Tensor, many: Tensor, what: str = "") -> Tasks:
    """Sweeps from the start, each with the number of times that the matrix products of the batch are in it."""
    classes = many.shape[1]
    return {
        f"forward sweep{what}": (lambda: flow.forward(x0), 1),
        f"recorded forward sweep{what}": (lambda: flow.record(x0), 1),
        f"forward + reverse{what}": (lambda: flow.adjoint(flow.record(x0)[1], one), 2),
        f"forward + reverse, {classes} cotangents{what}": (
            lambda: flow.adjoint(flow.record(x0)[1], many),
            1 + classes,
        ),
    }


def reverses(flow: Flow, x0: Tensor, one: Tensor, many: Tensor) -> Tasks:
    """Sweeps back from what one forward sweep has stored."""
    _, tape = flow.record(x0)
    classes = many.shape[1]
    return {
        "reverse sweep, 1 cotangent": (lambda: flow.adjoint(tape, one), 1),
        f"reverse sweep, {classes} cotangents": (lambda: flow.adjoint(tape, many), classes),
    }


def plain(model: SNODE, x0: Tensor, one: Tensor) -> Tasks:
    """The same network as a user would write it, by autograd: forward and backward."""
    step = model.horizon / model.steps

    def run() -> None:
        z = x0.clone().requires_grad_(True)
        out = z
        for w, b in zip(model.weight, model.bias, strict=True):
            out = out + step * torch.tanh(torch.nn.functional.linear(out, w, b))
        out.backward(one)

    return {"forward + backward, plain autograd": (run, 2)}


def products(weight: Tensor, rows: Tensor, steps: int, multiple: int = 1) -> Tasks:
    """The matrix products of a sweep, alone; the rows may be `multiple` batches."""

    def run() -> None:
        for _ in range(steps):
            torch.matmul(rows, weight.t())

    return {"matmul" if multiple == 1 else f"matmul, {multiple} x batch": (run, multiple)}


def measured(tasks: Tasks, flop: float, repeats: int, device: torch.device, heading: str) -> None:
    """Print a table of tasks beside the first of them."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for function, _ in tasks.values():
        function()
    for _ in range(repeats):
        for name, (function, _) in tasks.items():
            times[name].append(seconds(function, device))
    rates = {name: tasks[name][1] * flop / statistics.median(taken) for name, taken in times.items()}
    base = next(iter(rates.values()))
    print(f"{heading:44s} {'GFLOP/s':>9s} {'of matmul':>10s}")
    for name, rate in rates.items():
        print(f"{name:44s} {rate / 1e9:9.1f} {rate / base:10.0%}")


def main() -> None:
    """Print a table for each precision: matrix products, sweeps, plain autograd."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--knots", type=int, default=30)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="also with factors rounded to bfloat16")
    args = parser.parse_args()
    device, shape = resolve_device(args.device), (1, args.side, args.side)
    card = device.type == "cuda"
    model = SNODE(input_shape=shape, classes=args.classes, steps=args.steps, knots=args.knots)
    model = model.requires_grad_(False).to(device)
    draws, features = torch.Generator().manual_seed(0), args.side**2
    x0 = model.encode(torch.rand(args.batch, *shape, generator=draws).to(device))
    one = torch.randn(args.batch, features, generator=draws).to(device)
    many = one[:, None].expand(-1, args.classes, -1).contiguous()
    flop = 2 * args.batch * features**2 * args.steps
    where = torch.cuda.get_device_name(device) if card else f"{torch.get_num_threads()} threads"
    print(f"batch {args.batch}, {features} features, {args.steps} steps, {where}")

    def all_of(dtype: torch.dtype | None = None) -> Tasks:
        view = model.searched(products=dtype)
        tasks = products(model.weight[0].to(dtype), x0.to(dtype), args.steps) | forwards(view.flow, x0, one, many)
        if card:
            captured = model.searched(products=dtype, graphs=Graphs())
            tasks |= forwards(captured.flow, x0, one, many, ", CUDA graph")
        return tasks

    with full_precision():
        tasks = all_of() | reverses(model.flow, x0, one, many)
        tasks |= products(model.weight[0], many.flatten(0, 1), args.steps, args.classes)
        tasks |= plain(model, x0, one) if args.knots == args.steps else {}
        measured(tasks, flop, args.repeats, device, "float32")
    if card:
        with tf32():
            measured(all_of(), flop, args.repeats, device, "TF32")
    if args.bfloat16:
        measured(all_of(torch.bfloat16), flop, args.repeats, device, "products in bfloat16")


if __name__ == "__main__":
    main()
