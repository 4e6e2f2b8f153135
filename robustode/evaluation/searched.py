"""The model as attacks search on it, where that is faster than as it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustode.models.base import Classifier
from robustode.models.snode import SNODE
from robustode.solvers.graphs import Graphs


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """One model in two precisions.

    Attributes:
        full: in its own.
        reduced: in a shorter one; None where there is none.
        tf32: whether that is TF32, which is no matter of the module but of torch's settings.
    """

    full: Classifier
    reduced: Classifier | None = None
    tf32: bool = False


class Autocast(nn.Module):
    """A module under torch's automatic mixed precision: products in bfloat16, logits given back as the input's dtype.

    Source: Micikevicius et al. 2018, arXiv 1710.03740; `torch.autocast`.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.nfe: float | None = getattr(model, "nfe", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x).to(x.dtype)


def searched(model: Classifier, *, precision: str = "full", graphs: bool = False) -> Searched:
    """Return a model as attacks search on it.

    The sweep of an sNODE on a fixed grid multiplies in the precision of the search and keeps states in their own, any
    other module runs under autocast. An adaptive sNODE has no shorter precision: its steps would follow the rounding.

    Args:
        model: classifier in eval mode.
        precision: "full", "tf32" or "bfloat16", of float32 models.
        graphs: replay the sweeps of an sNODE on a fixed grid as CUDA graphs.
    """
    network: Any = model if isinstance(model, SNODE) else None
    fixed = network if network is not None and network.solver is None else None

    def view(products: torch.dtype | None = None) -> Classifier:
        if fixed is None or (products is None and not graphs):
            return model
        return fixed.searched(products=products, graphs=Graphs() if graphs else None)

    if precision == "full":
        return Searched(full=view())
    if precision == "tf32":
        return Searched(full=view(), reduced=view(), tf32=True)
    if network is not None:
        return Searched(full=view(), reduced=None if fixed is None else view(torch.bfloat16))
    return Searched(full=model, reduced=Autocast(model).eval())
