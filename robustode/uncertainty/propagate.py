"""First-order propagation of input noise to the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustode.errors import OptionError, unknown
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise
from robustode.uncertainty.gaussian import Uncertainty


def propagate(model: Classifier, x: Tensor, *, input_cov: float | Tensor, method: str = "linear") -> Uncertainty:
    """Return mean and covariance of the logits under Gaussian input noise: mean z(x), Cov[z] ≈ J Σ Jᵀ.

    J comes from one forward pass and one reverse row for each class; the product is formed in float64. The noise is not
    clipped to the bounds.

    Args:
        model: classifier.
        x: (batch, *input_shape).
        input_cov: Σ in squared raw-input units: a number σ² (isotropic), variances shaped like one input (diagonal), or
            a (d, d) matrix with d the number of input coordinates.
        method: "linear".

    Raises:
        OptionError: an unknown method, or a covariance that does not fit, is negative or not finite.

    Source: arXiv 2205.13933, uncertainty propagation.
    """
    if method not in METHODS:
        raise unknown("method of uncertainty propagation", method, METHODS)
    return METHODS[method](model, x, _check_cov(input_cov, tuple(model.input_shape)))


def _linear(model: Classifier, x: Tensor, cov: Tensor) -> Uncertainty:
    linear = linearise(model, x)
    classes = linear.logits.shape[1]
    eye = torch.eye(classes, dtype=linear.logits.dtype, device=linear.logits.device)
    rows = linear.vjp(eye.expand(len(x), -1, -1)).flatten(2)
    rows = (rows.cpu() if rows.device.type == "mps" else rows).double()  # mps has no float64
    cov = cov.to(rows)
    spread = rows @ cov if cov.dim() == 2 else rows * cov
    out = spread @ rows.transpose(1, 2)
    return Uncertainty(mean=linear.logits, cov=(out + out.transpose(1, 2)) / 2)


METHODS: dict[str, Callable[[Classifier, Tensor, Tensor], Uncertainty]] = {"linear": _linear}


def _check_cov(value: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the covariance as a scalar tensor, a (d,) diagonal or a (d, d) matrix."""
    given = torch.as_tensor(value)
    precision = given.dtype if isinstance(value, Tensor) and given.is_floating_point() else torch.float64
    cov = torch.as_tensor(value, dtype=torch.float64)
    d = torch.Size(shape).numel()
    if not bool(torch.isfinite(cov).all()):
        raise OptionError("input_cov", expected="finite values", got="a value that is not finite")
    if tuple(cov.shape) in ((d, d),) and tuple(cov.shape) != shape:
        rounding = max(1e-8, d * torch.finfo(precision).eps) * float(cov.abs().max())
        if not torch.allclose(cov, cov.t(), rtol=0.0, atol=rounding):
            raise OptionError("input_cov", expected="a symmetric matrix", got="one that is not")
        if float(torch.linalg.eigvalsh(cov).min()) < -rounding:
            raise OptionError("input_cov", expected="a positive semidefinite matrix", got="a negative eigenvalue")
        return cov
    if cov.dim() == 0 or tuple(cov.shape) in (shape, (d,)):
        if float(cov.min()) < 0:
            raise OptionError("input_cov", expected="variances ≥ 0", got=float(cov.min()))
        return cov.reshape(-1) if cov.dim() else cov
    expected = f"a number, variances of shape {shape}, or a ({d}, {d}) matrix"
    raise OptionError("input_cov", expected=expected, got=f"shape {tuple(cov.shape)}")
