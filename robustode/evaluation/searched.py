"""The model as attacks search on it, where that is faster than as it is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustode.evaluation.eot import Averaged
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
        graphs: where captured sweeps are kept.
    """

    full: Classifier
    reduced: Classifier | None = None
    tf32: bool = False
    graphs: tuple[Graphs, ...] = ()

    def release(self) -> None:
        """Free what was captured."""
        for one in self.graphs:
            one.clear()


class Autocast(nn.Module):
    """A module under torch's automatic mixed precision: products in bfloat16, logits given back as the input's dtype.

    Source: Micikevicius et al. 2018, arXiv 1710.03740; `torch.autocast`.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.nfe: float | None = getattr(model, "nfe", None)
        self.unit = torch.finfo(torch.bfloat16).eps

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
    if isinstance(model, Averaged):
        one = searched(model.model, precision=precision, graphs=graphs)
        reduced = None if one.reduced is None else Averaged(one.reduced, model.draws).eval()
        return replace(one, full=Averaged(one.full, model.draws).eval(), reduced=reduced)
    network: Any = model if isinstance(model, SNODE) else None
    fixed, kept = has_sweep(model), []

    def view(products: torch.dtype | None = None) -> Classifier:
        if not fixed or (products is None and not graphs):
            return model
        kept.extend([Graphs()] if graphs else [])
        return network.searched(products=products, graphs=kept[-1] if graphs else None)

    full, reduced = view(), None
    if precision == "tf32":
        reduced = view()
    elif precision != "full" and network is None:
        reduced = Autocast(model).eval()
    elif precision != "full" and fixed:
        reduced = view(torch.bfloat16)
    return Searched(full=full, reduced=reduced, tf32=precision == "tf32", graphs=tuple(kept))


def has_sweep(model: Classifier) -> bool:
    """Whether a model is an sNODE on a fixed grid, or an average of passes of one."""
    inner = model.model if isinstance(model, Averaged) else model
    return isinstance(inner, SNODE) and inner.solver is None
