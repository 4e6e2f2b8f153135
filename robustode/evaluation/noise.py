"""Which noise a protocol puts into inputs and weights, how it is propagated, and how much of it is drawn."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from robustode.errors import OptionError, unknown
from robustode.evaluation.budgets import as_parts
from robustode.evaluation.judge import same_answers
from robustode.models.base import Classifier
from robustode.uncertainty import METHODS, IIDWeights, WeightNoise, int8, propagate
from robustode.validation import as_value_error

DRAWN = "monte-carlo"  # the method that draws


def _parts(value: Any) -> tuple[Any, ...]:
    return as_parts(value, "value")


def _sigma(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise OptionError("sigma", expected="finite numbers ≥ 0", got=f"'{value}'")
    return number


def _levels(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or len(set(values)) < len(values):
        raise OptionError("sigma", expected="different standard deviations", got=", ".join(map(str, values)) or "none")
    return tuple(sorted(values))


def _weights(value: Any) -> Any:
    if value not in ("none", "int8"):
        try:
            return repr(IIDWeights(sigma=math.nan if isinstance(value, bool) else float(value)).sigma)
        except (TypeError, ValueError, OptionError):
            raise OptionError("weights", expected="none, int8 or a standard deviation", got=f"'{value}'") from None
    return str(value)


def _method(value: Any) -> str:
    name = str(value).strip()
    if name not in METHODS or name == DRAWN:
        raise unknown("method of uncertainty propagation", name, set(METHODS) - {DRAWN})
    return name


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values or len(set(values)) < len(values):
        raise OptionError("methods", expected="different methods", got=", ".join(values) or "none")
    return values


Method = Annotated[str, BeforeValidator(as_value_error(_method))]
Sigma = Annotated[float, BeforeValidator(as_value_error(_sigma))]


class NoiseEntry(BaseModel):
    """The table `uncertainty` of a protocol.

    Attributes:
        sigma: standard deviations of the Gaussian noise of the input, in raw-input units, each a level of its own.
        weights: noise of the weights beside it: "none", "int8" (rounding to 8 bits) or a standard deviation.
        methods: of `robustode.uncertainty.propagate`.
        draws: Monte Carlo draws for each of `drawn` samples, spread over all, which the predictions are compared with.
        drawn: number of these samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma: Annotated[
        tuple[Sigma, ...], BeforeValidator(as_value_error(_parts)), AfterValidator(as_value_error(_levels))
    ]
    weights: Annotated[str, BeforeValidator(as_value_error(_weights))] = "none"
    methods: Annotated[
        tuple[Method, ...], BeforeValidator(as_value_error(_parts)), AfterValidator(as_value_error(_distinct))
    ] = ("auto",)
    draws: int = Field(default=1000, ge=2, strict=True)
    drawn: int = Field(default=200, ge=0, strict=True)

    def weight_cov(self) -> WeightNoise | None:
        """Return the noise of the weights as `propagate` takes it."""
        if self.weights == "none":
            return None
        return int8() if self.weights == "int8" else IIDWeights(sigma=float(self.weights))

    def check(self, model: Classifier, x: Tensor) -> None:
        """Raise `OptionError` if the model does not allow a method or this noise, as one sample shows, or if its
        answers depend on the batch, in which they are propagated and drawn."""
        with torch.no_grad():
            alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
            if not same_answers(model(x), alone):
                raise OptionError(
                    "uncertainty",
                    expected="a model whose answers do not depend on the batch",
                    got="other answers to samples alone",
                    fix="Give it a fixed grid or steps of each sample's own (robustode deploy).",
                )
        for method in self.methods:
            propagate(model, x[:1], input_cov=self.sigma[0] ** 2, weight_cov=self.weight_cov(), method=method)
