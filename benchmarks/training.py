"""NCG against Adam and SGD on one network and cost: test accuracy by passes over the data and by seconds."""

from __future__ import annotations

import argparse
import time

import torch

from robustode.data import load_data
from robustode.models.snode import SNODE
from robustode.training import NCGConfig, SGDConfig, fit, recipe


def main() -> None:
    """Train each method anew for every number of passes (its schedule ends there) and print accuracy and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist14")
    parser.add_argument("--data-root")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ncg", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--others", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--sgd-rate", type=float, default=1.0)
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--knots", type=int, nargs="*", help="of NCG's networks, each in turn; default the recipe's")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train = load_data(args.data, split="train", limit=args.limit, root=args.data_root)
    test = load_data(args.data, split="test", root=args.data_root)
    chosen = recipe("snode", args.data)
    assert isinstance(chosen.optimiser, NCGConfig)
    cost = chosen.optimiser.cost
    methods: dict[str, tuple[NCGConfig | SGDConfig, list[int]]] = {
        "NCG": (chosen.optimiser, args.ncg),
        "Adam": (SGDConfig(method="adam", batch=100, learning_rate=args.adam_rate, cost=cost), args.others),
        "SGD": (SGDConfig(batch=100, learning_rate=args.sgd_rate, cost=cost), args.others),
    }
    network = {**chosen.model, **({} if args.steps is None else {"steps": args.steps})}
    print(f"{network}, {len(train):,} images of {args.data}, {args.threads} threads; seconds of CPU time")
    print(f"{'method':8s} {'knots':>5s} {'passes':>6s} {'seed':>4s} {'test':>8s} {'seconds':>8s} {'weights':>9s}")
    for name, (config, lengths) in methods.items():
        for knots in args.knots if name == "NCG" and args.knots else [network.get("knots", network["steps"])]:
            for epochs in lengths:
                for seed in range(args.seeds):
                    shape = tuple(train.x.shape[1:])
                    values = {**network, "knots": knots, "input_shape": shape, "classes": train.classes}
                    model = SNODE(seed=seed, bounds=train.bounds, **values)
                    start = time.process_time()
                    result = fit(model, train, recipe=config.replace(epochs=epochs), seed=seed)
                    seconds = time.process_time() - start
                    with torch.no_grad():
                        accuracy = float((model(test.x).argmax(1) == test.y).double().mean())
                    size = 4e-6 * sum(parameter.numel() for parameter in model.parameters())
                    row = f"{name:8s} {knots:5d} {result.epochs_done:6d} {seed:4d} {accuracy:8.2%} {seconds:8.1f}"
                    print(f"{row} {size:6.2f} MB", flush=True)


if __name__ == "__main__":
    main()
