"""Randomised smoothing: a certificate of the smoothed classifier of any model, never of the model itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustode.errors import OptionError
from robustode.models.base import Classifier, parameters_like

BLOCK = 64  # draws made at a time, so that they do not depend on how many go through the model together
SHY = 1e-9  # by so much, relatively, is the lower bound of p_A taken smaller, for its own rounding
ABSTAINS = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothedCertificate:
    """What `smooth` found, one row for each sample: about the smoothed classifier, not about the model.

    Attributes:
        prediction: (batch,) int64, the class c_A of the smoothed classifier; −1 where it abstains.
        radius: (batch,) float64, L2, in raw-input units: with confidence 1 − alpha, the smoothed classifier answers
            `prediction` at every input strictly nearer than this. 0 where it abstains.
        p_lower: (batch,) float64, the lower confidence bound of p_A = P[f(x + σξ) = c_A].
        counts: (batch,) int64, draws that answered c_A.
        sigma: standard deviation of the noise, in raw-input units.
        draws, selection: noisy inputs that p_A was estimated with, and those that c_A was chosen with.
        alpha: probability, for each sample, that its radius is too large.
    """

    prediction: Tensor
    radius: Tensor
    p_lower: Tensor
    counts: Tensor
    sigma: float
    draws: int
    selection: int
    alpha: float


@torch.no_grad()
def smooth(
    model: Classifier,
    x: Tensor,
    *,
    sigma: float,
    draws: int,
    generator: torch.Generator,
    selection: int = 100,
    alpha: float = 0.001,
    batch: int = 1000,
) -> SmoothedCertificate:
    """Certify the smoothed classifier g(x) = argmax_c P[f(x + σξ) = c], ξ ~ N(0, I), around every sample.

    c_A is the most frequent answer of `selection` draws; of `draws` others, k answer c_A, and p_A is at least the
    one-sided Clopper–Pearson bound at 1 − alpha. If that exceeds ½, g answers c_A within the L2 radius σ Φ⁻¹(p_A);
    otherwise g abstains. The noise is not clipped to the box of valid inputs. Every sample has a stream of its own, so
    that its draws do not depend on its neighbours nor on `batch`. The radius says nothing about f itself.

    Args:
        model: classifier f.
        x: (batch, *input_shape), inside the bounds or not.
        sigma: standard deviation of the noise, > 0, in raw-input units.
        draws: number of noisy inputs for p_A, at least 1; alpha^(1/draws) must exceed ½ to certify anything.
        generator: gives each sample its seed.
        selection: number of noisy inputs for c_A, at least 1.
        alpha: in (0, 1).
        batch: noisy inputs that go through the model together, at least 1; rounded up to a multiple of 64.

    Raises:
        OptionError: a value out of its range, or samples that do not fit.

    Source: Cohen et al., arXiv 1902.02918, Theorem 1 and section 3.2.2 (CERTIFY).
    """
    _check(model, x, sigma, {"draws": draws, "selection": selection, "batch": batch}, alpha)
    seeds = torch.randint(2**62, (len(x),), generator=generator, device=generator.device).tolist()
    prediction, counts = [], []
    for point, seed in zip(x, seeds, strict=True):
        own = torch.Generator().manual_seed(seed)
        chosen = int(_answers(model, point, sigma, selection, batch, own).argmax())
        prediction.append(chosen)
        counts.append(int(_answers(model, point, sigma, draws, batch, own)[chosen]))
    found = torch.tensor(counts, dtype=torch.int64)
    p_lower = lower_confidence(found, draws, alpha)
    certain = p_lower > 0.5
    return SmoothedCertificate(
        prediction=torch.where(certain, torch.tensor(prediction, dtype=torch.int64), ABSTAINS),
        radius=torch.where(certain, sigma * torch.special.ndtri(p_lower.clamp(min=0.5)), 0.0),
        p_lower=p_lower,
        counts=found,
        sigma=sigma,
        draws=draws,
        selection=selection,
        alpha=alpha,
    )


def lower_confidence(successes: Tensor, trials: int, alpha: float) -> Tensor:
    """Return the one-sided lower bound of a probability at confidence 1 − alpha, float64 of the shape of `successes`.

    It is the α-quantile of Beta(k, n − k + 1), 0 for k = 0: P[bound > p] ≤ alpha for every p.

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    from scipy.special import betaincinv

    k = successes.cpu().double()
    quantile = torch.from_numpy(betaincinv(k.clamp(min=1).numpy(), (trials - k + 1).numpy(), alpha))
    return torch.where(k > 0, quantile * (1 - SHY), 0.0)


def _answers(model: Classifier, x: Tensor, sigma: float, draws: int, batch: int, generator: torch.Generator) -> Tensor:
    """Return how often each class is answered, (classes,) int64; an answer with NaN is of no class."""
    device, dtype = parameters_like(model)
    counts = torch.zeros(model.classes, dtype=torch.int64)
    blocks = math.ceil(batch / BLOCK)
    while draws > 0:
        made = min(blocks, math.ceil(draws / BLOCK))
        noise = torch.cat([torch.randn(BLOCK, *x.shape, generator=generator, dtype=dtype) for _ in range(made)])[:draws]
        logits = model(x.to(device, dtype) + sigma * noise.to(device))
        answers = logits.argmax(1)[~logits.isnan().any(1)]
        counts += torch.bincount(answers.cpu(), minlength=model.classes)
        draws -= len(noise)
    return counts


def _check(model: Classifier, x: Tensor, sigma: float, numbers: dict[str, int], alpha: float) -> None:
    shape = tuple(model.input_shape)
    if tuple(x.shape[1:]) != shape or not x.is_floating_point():
        expected = f"floating-point samples (batch, {', '.join(map(str, shape))})"
        raise OptionError("x", expected=expected, got=f"{x.dtype} {tuple(x.shape)}")
    if not bool(x.isfinite().all()):
        raise OptionError("x", expected="finite values", got="NaN or infinity")
    if not (math.isfinite(sigma) and sigma > 0):
        raise OptionError("sigma", expected="a finite number > 0", got=sigma)
    if not 0 < alpha < 1:
        raise OptionError("alpha", expected="a probability between 0 and 1", got=alpha)
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise OptionError(name, expected="a whole number ≥ 1", got=value)
