"""What a protocol asks to be certified: norms, bounds and map; and, apart from it, the smoothed model."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from robustode.certificates import BOUNDS
from robustode.certificates.certify import MAPS, left_out
from robustode.errors import OptionError, unknown
from robustode.evaluation.budgets import as_parts
from robustode.evaluation.judge import same_answers
from robustode.models.base import Classifier
from robustode.sensitivity.norms import check_norm
from robustode.validation import as_value_error

AUTO = "auto"
LeftOut = dict[str, dict[str, str]]  # {norm: {bound: why the model has none such}}


def _methods(value: Any) -> tuple[str, ...]:
    names = tuple(str(name).strip() for name in as_parts(value, "method"))
    for name in names:
        if name not in (AUTO, *BOUNDS):
            raise unknown("method of certification", name, [AUTO, *BOUNDS])
    if len(set(names)) < len(names) or (AUTO in names and len(names) > 1):
        raise OptionError("methods", expected=f"different methods, or {AUTO} alone", got=", ".join(names))
    return names


def _map(value: Any) -> str:
    if value not in MAPS:
        raise unknown("map to certify", str(value), MAPS)
    return str(value)


def _norms(value: Any) -> tuple[str, ...]:
    norms = tuple(check_norm(str(name).strip()) for name in as_parts(value, "norm")) if value else ()
    if len(set(norms)) < len(norms):
        raise OptionError("norms", expected="different norms", got=", ".join(norms))
    return norms


class CertifyEntry(BaseModel):
    """The table `certificates` of a protocol.

    Attributes:
        norms: of the radii; empty for those of the attacks, or of the default budgets if there are no attacks.
        methods: names of `robustode.certificates.BOUNDS`; "auto" for all that a model allows, apart from the expensive.
        map: "discrete" for the deployed discrete map, "flow" for the solution of the ODE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    norms: Annotated[tuple[str, ...], BeforeValidator(as_value_error(_norms))] = ()
    methods: Annotated[tuple[str, ...], BeforeValidator(as_value_error(_methods))] = (AUTO,)
    map: Annotated[str, BeforeValidator(as_value_error(_map))] = "discrete"

    @property
    def named(self) -> tuple[str, ...] | None:
        """The methods as `certify` takes them: None for all that a model allows."""
        return None if self.methods == (AUTO,) else self.methods

    def check(self, model: Classifier, x: Tensor, norms: tuple[str, ...]) -> LeftOut:
        """Return why bounds are left out in each norm, as some samples `x` show; costs next to nothing.

        Raises:
            OptionError: the model's answers are random or depend on the batch, so that a radius says nothing of them;
                or it has no bound, or not those that are named.
        """
        with torch.no_grad():
            batch, again = model(x), model(x)
            if not same_answers(batch, again):
                raise OptionError(
                    "certificates",
                    expected="a model that answers a repeat alike",
                    got="other answers",
                    fix="What remains is randomised smoothing (robustode certify --smoothing), of the smoothed model.",
                )
            alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
        if self.map == "discrete" and not same_answers(batch, alone):
            raise OptionError(
                "certificates of the discrete map",
                expected="a model whose answers do not depend on the batch",
                got="other answers to samples alone: an adaptive solver chooses its steps for the whole batch",
                fix="Give it a fixed grid (robustode deploy), which is certified as it is deployed.",
            )
        return {norm: left_out(model, x, norm=norm, methods=self.named, certifies=self.map) for norm in norms}


def _sigma(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise OptionError("sigma", expected="a finite number > 0", got=f"'{value}'")
    return number


class SmoothingEntry(BaseModel):
    """The table `smoothing` of a protocol: certificates of the model smoothed by noise, not of the model itself.

    Attributes:
        sigma: standard deviation of the Gaussian noise of the input, in raw-input units.
        draws: for each sample, beside those that select the class.
        alpha: probability at which the radius of a sample may be wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma: Annotated[float, BeforeValidator(as_value_error(_sigma))]
    draws: int = Field(default=1000, ge=1, strict=True)
    alpha: float = Field(default=0.001, gt=0, lt=1, strict=True)
