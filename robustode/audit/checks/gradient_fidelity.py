"""gradient-fidelity: the gradient that attacks follow is the derivative of the map that is evaluated."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.rng import forked_rng
from robustode.audit.case import Case
from robustode.audit.check import Check, Found, above, not_applicable
from robustode.audit.finding import Verdict
from robustode.audit.probing import gap, logits_of, spread
from robustode.audit.variants import solves
from robustode.evaluation.eot import Averaged
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise

MEDIAN, LARGE, SHARE = 1e-2, 0.1, 0.1  # fails above the first; warns if more than SHARE of the samples are above LARGE
PAIRS = 10
SAMPLES = 32
SAME = 1e-3  # the float64 copy stands for the module if its logits agree to this, relative to the largest
SHRINK = 0.02  # samples move this share of the way to the middle of the box, so that differences stay inside it
NOISE = 1000.0  # a derivative below this many rounding errors of its difference is not judged
STEPS = {torch.float64: (1e-5,), torch.float32: (1e-2, 3e-2, 3e-3)}  # h, of the range; the one that fits best counts


def run(case: Case) -> Found:
    """Compare wᵀJv of the reverse pass with (wᵀz(x + hv) − wᵀz(x − hv)) / 2h at 10 random (v, w) of each sample."""
    rows = spread(case.correct, SAMPLES)
    if len(rows) == 0:
        return not_applicable("no sample is correctly classified")
    lo, hi = case.model.bounds
    x = case.shard.x[rows.to(case.shard.x.device)]
    x = x + SHRINK * ((lo + hi) / 2 - x)
    fine = None if isinstance(case.model, Averaged) else _in_float64(case.model, x)
    error = _errors(case, x, case.model if fine is None else fine)
    median, far = float(error.median()), error > LARGE
    status = above(median, fail=MEDIAN)
    if status is Verdict.PASS:
        status = above(float(far.double().mean()), fail=torch.inf, warn=SHARE)
    where = "the deployed precision" if fine is None else "float64"
    text = (
        f"relative error of wᵀJv against central differences in {where}: median {median:.2g} over {len(x)} samples, "
        f"above {LARGE:g} on {int(far.sum())}"
    )
    if status is not Verdict.PASS and any(one.adaptive for one in solves(case.model, x)):
        text += (
            "; the reverse pass of an adaptive solver holds its steps constant, and the map chooses them by the input"
        )
    worst = case.samples(rows[far.cpu()]) if status is not Verdict.PASS else ()
    return Found(status=status, value=median, threshold=MEDIAN, text=text, samples=worst)


def _in_float64(model: Any, x: Tensor) -> Any:
    """Return a float64 copy of the model; None where it does not convert, or is then another map."""
    try:
        fine = copy.deepcopy(model).double()
        logits = logits_of(fine, x.double())
    except Exception:
        return None
    same = logits.dtype is torch.float64 and bool((gap(logits, logits_of(model, x)) <= SAME).all())
    return fine if same else None


def _errors(case: Case, x: Tensor, reference: Classifier) -> Tensor:
    """Return ‖a − b‖ / max(‖a‖, ‖b‖) over the pairs of each sample, (batch,) float64, for the best step."""
    dtype = torch.float64 if reference is not case.model else x.dtype
    draws = case.generator("gradient-fidelity")
    v = torch.randn(PAIRS, *x.shape, generator=draws, dtype=torch.float64).to(x.device)
    v = v / torch.linalg.vector_norm(v.flatten(2), dim=2).view(PAIRS, -1, *[1] * (x.dim() - 1))
    w = torch.randn(PAIRS, len(x), case.model.classes, generator=draws, dtype=torch.float64).to(x.device)
    seed = int(torch.randint(2**31, (1,), generator=draws))
    with _again(seed):
        linear = linearise(case.model, x)
    pulled = torch.stack([linear.vjp(one.to(linear.logits)) for one in w]).double()
    own = (pulled * v).flatten(2).sum(2)
    best = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for step in STEPS.get(dtype, (0.1,)):
        h = step * (case.model.bounds[1] - case.model.bounds[0])
        ahead = torch.stack([_moved(reference, x.to(dtype), h * one, seed) for one in v])
        behind = torch.stack([_moved(reference, x.to(dtype), -h * one, seed) for one in v])
        difference = ((ahead - behind) * w).sum(2) / (2 * h)
        noise = torch.finfo(dtype).eps * ahead.abs().amax((0, 2)) * PAIRS**0.5 / h
        size = torch.maximum(own.norm(dim=0), difference.norm(dim=0)).maximum(NOISE * noise)
        error = ((own - difference).norm(dim=0) / size.clamp_min(torch.finfo(torch.float64).tiny)).nan_to_num(torch.inf)
        best = torch.minimum(best, error)
        if bool((best < MEDIAN).all()):
            break
    return best


@torch.no_grad()
def _moved(model: Classifier, x: Tensor, delta: Tensor, seed: int) -> Tensor:
    with _again(seed):
        return model(x + delta.to(x)).double()


def _again(seed: int) -> Any:
    """The same draws in every pass, so that a randomised model is the same map in all of them."""
    return forked_rng(torch.Generator().manual_seed(seed))


CHECK = Check(
    id="gradient-fidelity",
    title="the gradient of the reverse pass is the derivative of the map",
    cheap=True,
    source="Athalye et al. 2018, arXiv 1802.00420, section 3",
    advice="Look for detached tensors, straight-through or custom backward passes, and solvers whose gradient is that "
    "of another discretisation; attack with the true gradient, or without one.",
    run=run,
)
