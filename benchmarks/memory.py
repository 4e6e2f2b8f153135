"""Peak resident memory of `robustode eval` on 10,000 images of 14x14, in processes of their own."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import resource, sys
import torch
import robustode as ro
from robustode.data import Data
from robustode.models.snode import SNODE
steps, n, attacks = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
g = torch.Generator().manual_seed(0)
model = SNODE(input_shape=(1, 14, 14), classes=10, steps=steps, knots=30)
with torch.no_grad():
    model.weight.mul_(5.0)
x = torch.rand(n, 1, 14, 14, generator=g)
y = torch.cat([model(part).argmax(1) for part in x.split(500)])
index = torch.arange(n)
data = Data(name="random", split="all", x=x, y=y, index=index, bounds=(0.0, 1.0), classes=10, caption="random")
eps = {norm: [radius] for norm, radius in (("linf", 0.05), ("l2", 0.5)) if norm in attacks or attacks == "standard"}
run = ro.evaluate(model, data, attacks=attacks, eps=eps, out=sys.argv[4], allow_low_accuracy=True)
print(len(run.records), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def main() -> None:
    """Print the peak for every number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", default="30,3000")
    parser.add_argument("--attacks", default="standard")
    args = parser.parse_args()
    for steps in args.steps.split(","):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", CODE, steps, str(args.samples), args.attacks, str(Path(folder) / "run")]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows, peak = done.stdout.split()
        print(f"{steps:>5s} steps, {args.samples} samples, {args.attacks}: {rows} records, peak {float(peak):.2f} GiB")


if __name__ == "__main__":
    main()
