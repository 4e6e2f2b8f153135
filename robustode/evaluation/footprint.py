"""How much memory an attack takes on a model, modelled; and how many samples it may attack together in a budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustode.attacks.card import Card
from robustode.attacks.sensitivity import HELD
from robustode.errors import OptionError
from robustode.evaluation.judge import BATCH
from robustode.evaluation.stored import Stored
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import FusedLinearisation, linearise
from robustode.solvers.tape import ROWS as ROWS_TOGETHER
from robustode.solvers.tape import TAPE_BYTES

PROCESS = 740 * 10**6  # bytes of Python, torch and the libraries with nothing computed yet, at the most seen
AGAIN = 3  # times what autograd keeps: that, the gradients of it, and the work space of its kernels
COPIES = 24  # tensors of the size of a sample that an attack of a library, and the judge, hold for each
ROWS_EACH = 4  # points of a sample that the sensitivity attack has in the model together
ROWS = 512  # rows that it has there at most


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one process while an attack runs on a model.

    Attributes:
        fixed: what is there however few samples are attacked: the process, models and samples.
        held: of each sample.
        stored: of each row of a pass that will be differentiated.
        rows_each: rows of a sample in the model at once.
        most: rows there at most; None for no limit.
        capped: bytes beyond which a stored pass is computed again in segments; None where it is not.
    """

    fixed: int
    held: int
    stored: int
    rows_each: int
    most: int | None
    capped: int | None

    def bytes(self, samples: int) -> int:
        """Return the bytes of so many samples attacked together."""
        rows = samples * self.rows_each
        rows = rows if self.most is None else min(rows, self.most)
        passes = rows * self.stored
        return self.fixed + samples * self.held + (passes if self.capped is None else min(passes, self.capped))

    def samples(self, budget: int, most: int) -> int:
        """Return how many samples fit into a budget, at most `most`; 0 if not even one does."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bytes(middle) <= budget else (low, middle - 1)
        return low


def footprint(model: Classifier, attack: Card | Stored | None, x: Tensor, more: int = 0) -> Footprint:
    """Return the footprint of an attack on a model.

    What a pass stores is measured on two samples: the tape of an sNODE, or what autograd keeps of any other module.

    Args:
        model: classifier in eval mode.
        attack: what runs on it; None for the judge alone.
        x: at least one sample, (batch, *input_shape), on the model's device.
        more: bytes of the other models and of all samples.
    """
    sample = x[:1].numel() * x.element_size()
    own = isinstance(attack, Card) and attack.implementation == "robustode:sensitivity"
    stored, fused = stored_bytes(model, x[:1])
    values = model.parameters() if isinstance(model, nn.Module) else ()
    weights = sum(value.numel() * value.element_size() for value in values)
    return Footprint(
        fixed=PROCESS + 2 * weights + more,
        held=(HELD if own else COPIES) * sample,
        stored=stored,
        rows_each=ROWS_EACH if own else 1,
        most=ROWS if own else None,
        capped=TAPE_BYTES if fused else None,
    )


def stored_bytes(model: Classifier, x: Tensor) -> tuple[int, bool]:
    """Return the bytes that a pass of one row keeps for its derivative, and whether the sweep is our own, which
    recomputes what would be too much."""
    linear = linearise(model, x)
    if isinstance(linear, FusedLinearisation):
        return linear.stored_bytes, True
    least = ROWS_TOGETHER if getattr(model, "solver", None) is not None else 1  # it fills batches up to such a number
    sizes = []
    for rows in (least, 2 * least):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answer = model(x.expand(rows, *x.shape[1:]).clone().requires_grad_(True))
        sizes.append(sum(kept.values()))
        del answer
    return AGAIN * max(0, sizes[1] - sizes[0]) // least, False


def fixed_bytes(data: Tensor) -> int:
    """Return the bytes that samples take beside a model: as they are, and once more on their way."""
    return 2 * data.numel() * data.element_size()


def batch_in(budget: int | None, model: Classifier, x: Tensor, more: int) -> int:
    """Return how many samples the judge may ask a model about together, at most `BATCH`; one, if nothing fits."""
    if budget is None:
        return BATCH
    return max(1, footprint(model, None, x, more).samples(budget, BATCH))


def rows_in(budget: int, what: str, size: Footprint, most: int) -> int:
    """Return how many samples to attack together in a budget.

    Raises:
        OptionError: not even one fits; says what it needs.
    """
    rows = size.samples(budget, most)
    if rows < 1:
        least = -(-size.bytes(1) // 10**6)
        fix = f"Give at least --memory {least}MB."
        raise OptionError(
            "memory", expected=f"at least {least} MB, for one sample of {what}", got=said(budget), fix=fix
        )
    return rows


def said(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 10**6:.0f} MB" if size < 10**10 else f"{size / 10**9:.1f} GB"
