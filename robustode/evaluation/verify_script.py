"""Re-scores the adversarials stored beside this file with torch, safetensors and your model alone.

    python verify.py FILE.py:factory [LABEL]        (or module:factory)

factory() returns the torch.nn.Module that was evaluated: raw inputs in the box -> logits. LABEL: which model of the
run. A point holds if its clean input is classified correctly and the point is not, and if it lies in the box and no
further away than its file says. The number of samples, and of those classified correctly, is the run's own count.
Exit status 1 if a point does not hold.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import torch
from safetensors import safe_open


def load(spec):
    place, _, factory = spec.rpartition(":")
    sys.path[:0] = [str(Path(place).resolve().parent), os.getcwd()]
    module = importlib.import_module(Path(place).stem if place.endswith(".py") else place)
    return getattr(module, factory)().eval()


def score(model, head, x, x_adv, label, distance):
    def logits(point):  # of one sample alone, as the run asks; the mean of several passes where the run took it
        return torch.stack([model(point[None])[0] for _ in range(head["eot"] or 1)]).mean(0)

    def predict(points):  # -1 where an answer is not finite
        return torch.tensor([int(z.argmax()) if z.isfinite().all() else -1 for z in map(logits, points)])

    lo, hi = head["bounds"]
    order = {"l1": 1, "l2": 2, "linf": torch.inf}[head["norm"]]
    gap = torch.linalg.vector_norm((x_adv.double() - x.double()).flatten(1), ord=order, dim=1)
    inside = ((x_adv >= lo) & (x_adv <= hi)).flatten(1).all(1) & (gap <= distance * (1 + 1e-6))
    holds = inside & (predict(x) == label) & (predict(x_adv) != label)
    print(f"{head['model']}, {head['norm']}: {int(holds.sum())} of {len(holds)} stored points hold")
    for eps, tolerance in [(0.0, -1.0), *zip(head["eps"], head["tolerances"])]:
        broken = int((holds & (gap <= eps + tolerance)).sum())
        print(f"  eps {eps:<10g} robust accuracy {(head['correct'] - broken) / head['n']:.4f}")
    return bool(holds.all())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    files = [safe_open(path, "pt") for path in sorted(Path(__file__).parent.glob("*.safetensors"))]
    heads = [json.loads(file.metadata()["robustode"]) for file in files]
    labels = sorted({head["model"] for head in heads})
    if len(sys.argv) not in (2, 3) or not {*sys.argv[2:]} <= {*labels} or len(labels) > 1 > len(sys.argv[2:]):
        sys.exit(f"{__doc__}\nLABEL: one of {', '.join(labels)}")
    model, label, held = load(sys.argv[1]), (sys.argv[2:] or labels)[0], True
    for file, head in zip(files, heads):
        if head["model"] == label:
            held &= score(model, head, *map(file.get_tensor, ("x", "x_adv", "label", "distance")))
    sys.exit(0 if held else 1)
