"""Time of each method of uncertainty propagation against 100 Monte Carlo draws of the same samples, in one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from robustode.data import load_data
from robustode.models import load_model, peek
from robustode.uncertainty import METHODS, Uncertainty, int8, propagate

DRAWS = 100


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the least CPU time of some calls, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def main() -> None:
    """Print seconds, their ratio to the draws, P(correct) with its error and its difference from many draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", help="default: the data that the model was trained on")
    parser.add_argument("--data-root")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--sigma", type=float, nargs="*", default=[0.05, 0.1])
    parser.add_argument("--methods", nargs="*", default=[name for name in METHODS if name != "monte-carlo"])
    parser.add_argument("--weights", action="store_true", help="also with the noise of 8-bit weights")
    parser.add_argument("--reference", type=int, default=0, help="draws of each sample to compare P(correct) with")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model: Any = load_model(args.model)
    name = args.data or peek(args.model)["data"]
    data = load_data(name, split="test", limit=args.samples, root=args.data_root)
    x, y = data.x, data.y
    print(f"{args.model}, {len(x)} samples of {name}, {args.threads} threads; CPU seconds, ratio to {DRAWS} draws")
    print(
        f"{'sigma':>6s} {'weights':8s} {'method':12s} {'moments':>8s} {'P':>8s} {'ratio':>6s} {'P(correct)':>10s}",
        end=" ",
    )
    print(f"{'error':>8s} {'|dP|':>7s} {'max':>7s} {'valid':>6s}")
    for sigma in args.sigma:
        for weights in (None, int8()) if args.weights else (None,):

            def drawn(draws: int, sigma: float = sigma, weights=weights) -> Uncertainty:
                generator = torch.Generator().manual_seed(0)
                noise = {"input_cov": sigma**2, "weight_cov": weights}
                return propagate(model, x, method="monte-carlo", draws=draws, generator=generator, **noise)

            base, few = seconds(lambda: drawn(DRAWS), args.repeats)
            reference = (drawn(args.reference) if args.reference else few).probability(y).value
            label = "int8" if weights else "-"
            print(f"{sigma:6g} {label:8s} {'draws':12s} {base:8.2f} {'':8s} {1:6.2f} {float(reference.mean()):10.4f}")
            for method in args.methods:
                noise = {"input_cov": sigma**2, "weight_cov": weights, "method": method}
                moments, found = seconds(lambda noise=noise: propagate(model, x, **noise), args.repeats)
                integral, p = seconds(lambda found=found: found.probability(y), args.repeats)
                ratio = (moments + integral) / base
                row = f"{sigma:6g} {label:8s} {method:12s} {moments:8.2f} {integral:8.2f} {ratio:6.2f}"
                off = (p.value - reference).abs()
                row += f" {float(p.value.mean()):10.4f} {float(p.error.max()):8.1e} {float(off.mean()):7.4f}"
                valid = float(found.linear_valid.double().mean()) if method == "auto" else float("nan")
                print(f"{row} {float(off.max()):7.4f} {valid:6.1%}", flush=True)


if __name__ == "__main__":
    main()
