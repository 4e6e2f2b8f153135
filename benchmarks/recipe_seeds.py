"""A recipe and variants of it over many seeds: the least and the mean test accuracy, and how many answers saturate."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from robustode.cli.options import params_of
from robustode.data import load_data
from robustode.training import build, fit, recipe


def train(arch: str, data: str, changes: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return the test accuracy of one training, and the share of test samples with a softmax of exactly 1."""
    torch.set_num_threads(1)
    samples, test = (load_data(data, split=split) for split in ("train", "test"))
    chosen = recipe(arch, data).overrides(**changes)
    model = build(chosen, samples, seed=seed)
    fit(model, samples, recipe=chosen, seed=seed)
    with torch.no_grad():
        logits = model(test.x)
    correct = (logits.argmax(1) == test.y).double().mean()
    return float(correct), float((logits.softmax(1).amax(1) == 1).double().mean())


def main() -> None:
    """Train every variant with every seed; one row a variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--variant", nargs="*", action="append", default=[], metavar="K=V", help="none unsets; repeats")
    args = parser.parse_args()
    print("| variant | seeds | least | mean | largest | most saturated |\n| --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for values in [[], *args.variant]:
            given = params_of(values, "--variant")
            changes = {name: None if value == "none" else value for name, value in given.items()}
            waiting = [pool.submit(train, args.arch, args.data, changes, seed) for seed in range(args.seeds)]
            accuracies, saturated = zip(*(one.result() for one in waiting), strict=True)
            shown = (min(accuracies), sum(accuracies) / len(accuracies), max(accuracies), max(saturated))
            row = " | ".join(f"{one:.1%}" for one in shown)
            print(f"| {' '.join(values) or 'the recipe'} | {args.seeds} | {row} |", flush=True)


if __name__ == "__main__":
    main()
