"""An epoch of nonlinear conjugate gradients against the matrix products in it, alternating in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import ClassVar

import torch

from robustode.models.snode import SNODE
from robustode.training import NCGConfig
from robustode.training.ncg import NCG


class Counting(NCG):
    """NCG that counts its sweeps."""

    passes: ClassVar[dict[str, int]] = {}

    def at(self, *given):
        self.passes["forward"] += 1
        return super().at(*given)

    def gradient(self, *given):
        self.passes["gradient"] += 1
        return super().gradient(*given)

    def line(self, *given):
        self.passes["line"] += 1
        return super().line(*given)


def main() -> None:
    """Print the time of one mini-batch of NCG, of its own matrix products alone, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--knots", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--whitening", type=float, default=NCGConfig().whitening)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    shape, features = (1, args.side, args.side), args.side**2
    model = SNODE(input_shape=shape, classes=10, steps=args.steps, knots=args.knots)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(args.batch, *shape, generator=generator)
    y = torch.randint(10, (args.batch,), generator=generator)
    config = NCGConfig(
        batch=args.batch, iterations=args.iterations, whitening=args.whitening, damping="constant", averaging=0.0
    )
    trainer = Counting(model, config, 1000)

    rows, weight = torch.randn(args.batch, features), torch.randn(features, features)

    def products(forward: int, gradient: int, line: int) -> None:
        """x Wᵀ once in each step of a forward sweep; λ W and λᵀ x in a gradient; ξ Wᵀ and x δWᵀ in a line."""
        for _ in range(args.steps * (forward + gradient + 2 * line)):
            torch.matmul(rows, weight)
        for _ in range(args.steps * gradient):
            torch.matmul(rows.t(), rows)

    ours, theirs = [], []
    for _ in range(args.repeats + 1):
        trainer.passes.update(forward=0, gradient=0, line=0)
        start = time.perf_counter()
        trainer.step(x, y)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        products(**trainer.passes)
        theirs.append(time.perf_counter() - start)
    own, base = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(f"batch {args.batch}, {features} features, {args.steps} steps, {args.knots} knots, {trainer.passes}")
    print(f"mini-batch of NCG {own * 1e3:.0f} ms, its matrix products {base * 1e3:.0f} ms, ratio {own / base:.2f}")


if __name__ == "__main__":
    main()
