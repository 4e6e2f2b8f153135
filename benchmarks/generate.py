"""Adversarial data sets: peak memory of one `robustode generate`, and its throughput beside the attack alone."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from robustode.attacks.cards import resolve
from robustode.data import Data
from robustode.data.formats import FORMATS
from robustode.evaluation.engine import seed_of
from robustode.evaluation.generate import generate
from robustode.evaluation.plan import make_plan
from robustode.evaluation.planned import samples_for
from robustode.evaluation.protocol import protocol_of
from robustode.models import load_model, save_checkpoint
from robustode.models.snode import SNODE

SHAPE = (1, 14, 14)


def problem(model: str | None, data: str | None, samples: int, root: str | None) -> tuple[object, Data]:
    """Return the user's model and data, or an sNODE with drawn weights and 14x14 inputs that it classifies itself."""
    from robustode.data import load_data

    if model is not None:
        return load_model(model), load_data(data or "mnist14", split="train", limit=f"first:{samples}", root=root)
    g = torch.Generator().manual_seed(0)
    network = SNODE(input_shape=SHAPE, classes=10, steps=30, knots=30)
    with torch.no_grad():
        network.weight.normal_(0, 0.05, generator=g)
        x = torch.rand(samples, *SHAPE, generator=g)
        y = torch.cat([network(part).argmax(1) for part in x.split(500)])
    index, caption = torch.arange(samples), "random"
    box = {"bounds": (0.0, 1.0), "classes": 10}
    return network.eval(), Data(name="random", split="train", x=x, y=y, index=index, caption=caption, **box)


def alone(plan, attack: str) -> float:
    """CPU seconds of the attack on the same shards, of the same model, judged by nobody and written nowhere."""
    card, model = resolve(attack)[0], plan.models[0]
    spent = time.process_time()
    for start in range(0, len(plan.data), plan.protocol.shard):
        rows = slice(start, start + plan.protocol.shard)
        x, y = samples_for(model, plan.data, rows)
        draws = [
            torch.Generator().manual_seed(seed_of(0, card.name, None, int(sample))) for sample in plan.data.index[rows]
        ]
        card.build(None)(model.module, x, y, generator=draws)
    return time.process_time() - spent


def whole(plan, form: str) -> float:
    """CPU seconds of `generate`: the look at the clean accuracy, attack, judge, files, card and checksums."""
    with tempfile.TemporaryDirectory() as folder:
        spent = time.process_time()
        generate(plan, Path(folder) / "set", format=form)
        return time.process_time() - spent


def peak(network, data: Data, args: argparse.Namespace, form: str) -> tuple[float, float]:
    """Peak resident GB and wall seconds of the command, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = ["--model", args.model or str(folder / "model.safetensors")]
        if args.model is None:
            import numpy as np

            save_checkpoint(network, folder / "model.safetensors", data=None, provenance={})
            np.savez(folder / "data.npz", x=data.x.numpy(), y=data.y.numpy(), bounds=np.array([0.0, 1.0]))
            chosen += ["--data", str(folder / "data.npz")]
        else:
            chosen += ["--data", args.data or "mnist14", "--split", "train", "--limit", f"first:{args.samples}"]
            chosen += ["--data-root", args.data_root] if args.data_root else []
        words = ["generate", *chosen, "--attack", args.attack, "--format", form, "--out", str(folder / "set")]
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "robustode", *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        sys.exit(f"robustode {' '.join(words)} failed")
    return usage.ru_maxrss * 1024 / 1e9, seconds


def main() -> None:
    """Print, for every format, the peak of the command; then the ratio of throughputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--timed", type=int, default=2_000, help="samples of the comparison with the attack alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--attack", default="sensitivity-l2", help="a card of this package, minimal-norm")
    parser.add_argument("--format", default="parquet", help=f"comma-separated: {', '.join(FORMATS)}")
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--data-root")
    args = parser.parse_args()
    torch.set_num_threads(1)
    forms = args.format.split(",")
    network, data = problem(args.model, args.data, max(args.samples, args.timed), args.data_root)
    for form in forms if args.samples else ():
        size, seconds = peak(network, data.shard(0, args.samples), args, form)
        rate = args.samples / seconds
        print(
            f"{form}: {args.samples:,} samples, peak {size:.2f} GB, {seconds:.0f} s with start-up, {rate:.0f} a second"
        )
    if not args.timed:
        return
    protocol, modules, part = protocol_of(network, data.shard(0, args.timed), attacks=args.attack, eps=None)
    plan = make_plan(protocol, data=part, modules=modules)
    times: dict[str, list[float]] = {name: [] for name in ("the attack alone", *forms)}
    for _ in range(args.repeats):  # interleaved, so that a busy machine is unkind to all
        times["the attack alone"].append(alone(plan, args.attack))
        for form in forms:
            times[form].append(whole(plan, form))
    first = statistics.median(times["the attack alone"])
    for name, values in times.items():
        seconds = statistics.median(values)
        print(f"{name}: {len(plan.data):,} samples in {seconds:.2f} CPU s, {seconds / first:.3f} of the attack alone")


if __name__ == "__main__":
    main()
