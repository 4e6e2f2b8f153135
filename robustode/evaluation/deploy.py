"""One set of weights under another solver: how well it classifies, and what its checkpoint says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robustode.data.dataset import Data
from robustode.data.sources import check_fits
from robustode.errors import ModelError
from robustode.evaluation.counting import Counted
from robustode.evaluation.judge import Judge
from robustode.models.base import Classifier, parameters_like
from robustode.models.checkpoint import Header
from robustode.models.snode import SNODE
from robustode.versions import versions


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A model and its deployment on the same samples.

    Attributes:
        samples: how many.
        original, accuracy: accuracy of the model and of its deployment, fractions.
        agreement: fraction of the samples to which both give the same label.
        original_nfe, nfe: evaluations of the right-hand side in one pass of one sample, mean.
    """

    samples: int
    original: float
    accuracy: float
    agreement: float
    original_nfe: float
    nfe: float


def agreement(original: Classifier, deployed: Classifier, data: Data) -> Agreement:
    """Predict every sample by both models as the judge does: alone, or in batches that were seen to answer alike.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the deployed model answers NaN or infinity.
    """
    check_fits(data, original)
    device, dtype = parameters_like(original)
    x, y = data.x.to(device, dtype), data.y.to(device)
    labels, cost = [], []
    for model in (original, deployed):
        counted = Counted(model)
        logits = Judge(counted).logits(x)
        broken = int((~torch.isfinite(logits)).any(1).sum())
        if broken:
            fix = "Use looser tolerances or another method."
            raise ModelError(
                "deployment", expected="finite logits", got=f"NaN or infinity on {broken} samples", fix=fix
            )
        labels.append(logits.argmax(1))
        cost.append((counted.evaluations or 0.0) / counted.forwards)
    right = [float((found == y).double().mean()) for found in labels]
    return Agreement(
        samples=len(y),
        original=right[0],
        accuracy=right[1],
        agreement=float(torch.eq(*labels).double().mean()),
        original_nfe=cost[0],
        nfe=cost[1],
    )


def deployed_provenance(
    header: Header, deployed: SNODE, found: Agreement | None, *, source: str, source_hash: str, command: str
) -> dict[str, Any]:
    """Return the provenance of a deployment: that of the training, with `accuracy` that of the deployment (None if not
    measured) and `deployed` on where it came from.

    Keys of `deployed`: from (name), model_hash (of the model it was made from), command, method, steps (of a fixed
    grid) or rtol, atol and backend, agreement with the original and its mean evaluations `nfe` (None if not measured),
    versions. A deployment of a deployment keeps the earlier one there as `earlier`.
    """
    config = deployed.config
    names = ("method", "steps") if deployed.solver is None else ("method", "rtol", "atol", "backend")
    libraries = ("robustode", "torch", *(() if deployed.solver is None else (deployed.solver.backend,)))
    facts: dict[str, Any] = {
        "from": source,
        "model_hash": source_hash,
        "command": command,
        **{name: config[name] for name in names},
        "agreement": None if found is None else found.agreement,
        "nfe": None if found is None else found.nfe,
        "versions": versions(libraries),
    }
    if "deployed" in header.provenance:
        facts["earlier"] = header.provenance["deployed"]
    return {**header.provenance, "accuracy": None if found is None else found.accuracy, "deployed": facts}
