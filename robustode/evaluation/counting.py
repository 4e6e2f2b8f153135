"""A model that counts the rows that pass through it, forwards and backwards, whoever drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustode.evaluation.precision import full_precision, tf32
from robustode.evaluation.searched import Searched
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import Linearisation, linearise

Inside = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Present:
    """What answers at present.

    Attributes:
        model: to passes of the model.
        reduced: to passes that ask for the shorter precision; None where there is none.
        inside: what these are made inside of.
    """

    model: Classifier
    reduced: Classifier | None = None
    inside: Inside = nullcontext


class Counted(nn.Module):
    """The model at whose boundary the harness counts passes; `bare` is the model itself, which is not counted.

    A backward is counted when a gradient arrives at the logits, so a second derivative of a loss that is not linear in
    them counts once more. Inside `torch.func.vmap` a batch of derivatives counts as one.

    Args:
        model: classifier in eval mode.
        searched: the same model as attacks search on it; None for no other than itself.

    Attributes:
        forwards, backwards: rows so far, times `draws`. A cotangent of the fused sweep counts as one backward row.
        draws: passes of the model in one answer; more than one where answers are averaged (`Averaged`).
        nfe: evaluations of the right-hand side in one pass, where that is one number; None for an adaptive solver,
            whose evaluations are then counted as they happen (`evaluations`).
    """

    def __init__(self, model: Classifier, searched: Searched | None = None) -> None:
        super().__init__()
        self.bare = model
        self._searched = Searched(full=model) if searched is None else searched
        self._present = _Present(model=model)
        self.bounds, self.classes, self.input_shape = model.bounds, model.classes, model.input_shape
        self.draws = int(getattr(model, "draws", 1))
        self.forwards = self.backwards = 0.0
        self.nfe: float | None = getattr(model, "nfe", None)
        self._taken: Tensor | None = None
        self._rows: Tensor | None = None

    @property
    def evaluations(self) -> float | None:
        """Evaluations of the right-hand side in all forwards so far, summed over rows; None where unknown.

        On a fixed grid that is `forwards` times `nfe`; under an adaptive solver it is what each row really took (the
        model's `last_nfe`). A tangent is taken along the stages of a pass and counts as much as that pass; backwards
        are not in it.
        """
        if self.nfe is not None:
            return self.forwards * self.nfe
        return None if self._taken is None else float(self._taken)

    @property
    def row_evaluations(self) -> Tensor | None:
        """The same for each row, (rows,) float64: known if every pass had the same number of rows under an adaptive
        solver, as where an attack drives a whole batch; None otherwise."""
        return self._rows if self._rows is not None and len(self._rows) else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the model and count."""
        self.forwards += len(x) * self.draws
        model = self._present.model
        logits = model(x)
        self.add(getattr(model, "last_nfe", None))
        if logits.requires_grad:
            logits = logits.view_as(logits)
            logits.register_hook(self._arrived)
        return logits

    def _arrived(self, gradient: Tensor) -> None:
        self.backwards += len(gradient) * self.draws

    def linearise(self, x: Tensor) -> Linearisation:
        """Return the model's own linearisation, counted."""
        self.forwards += len(x) * self.draws
        model = self._present.model
        linear = linearise(model, x)
        taken = getattr(model, "last_nfe", None)
        self.add(taken)
        return _CountedLinearisation(linear, self, taken)

    @contextmanager
    def searching(self, *, whole: bool) -> Iterator[None]:
        """Answer as the model is searched, not as it is judged, until the end.

        What is not in the shorter precision of the search is in full: no TF32 on a GPU, whose default it is for
        convolutions.

        Args:
            whole: every pass in the shorter precision, if there is one; else only the levels that a search comes back
                from to the model itself (`at_steps`, `shorter_precision`).
        """
        found, before = self._searched, self._present
        model = found.reduced if whole and found.reduced is not None else found.full
        inside = tf32 if found.tf32 else nullcontext
        self._present = _Present(model=model, reduced=found.reduced, inside=inside)
        try:
            with full_precision(), inside() if whole else nullcontext():
                yield
        finally:
            self._present = before

    def release(self) -> None:
        """Free what was kept to search faster."""
        self._searched.release()

    def at_steps(self, steps: int) -> _Level:
        """Return the model on a coarser grid, of which a pass counts as its fraction of one of the model itself."""
        present = self._present
        network: Any = present.model if present.reduced is None else present.reduced
        return _Level(self, network.at_steps(steps), steps / network.steps, present.inside)

    def shorter_precision(self) -> _Level | None:
        """Return the model in the shorter precision of the search, counted with it; None where there is none."""
        present = self._present
        return None if present.reduced is None else _Level(self, present.reduced, 1.0, present.inside)

    def add(self, taken: Tensor | None) -> None:
        """Count the evaluations that the rows of a pass took, (rows,), where the model says."""
        if taken is None:
            return
        rows = taken.double()
        if self._taken is None or self._rows is None:
            self._taken, self._rows = rows.sum(), rows
        else:
            self._taken = self._taken + rows.sum()
            self._rows = self._rows + rows if len(self._rows) == len(rows) else rows[:0]

    def reset(self) -> None:
        """Start counting again."""
        self.forwards = self.backwards = 0.0
        self._taken = self._rows = None


class _Level(nn.Module):
    """A cheaper level of a counted model, counted with it."""

    def __init__(self, counted: Counted, level: Any, share: float, inside: Inside) -> None:
        super().__init__()
        self.bare, self._share, self._counts, self._inside = level, share, (counted,), inside
        self.bounds, self.classes, self.input_shape = level.bounds, level.classes, level.input_shape

    def forward(self, x: Tensor) -> Tensor:
        self._count(x)
        with self._inside():
            return self.bare(x)

    def linearise(self, x: Tensor) -> Linearisation:
        self._count(x)
        with self._inside():
            linear = linearise(self.bare, x)
        return _CountedLinearisation(linear, self._counts[0], None, self._share, self._inside)

    def _count(self, x: Tensor) -> None:
        self._counts[0].forwards += len(x) * self._counts[0].draws * self._share


class _CountedLinearisation:
    def __init__(
        self,
        linear: Linearisation,
        counted: Counted,
        taken: Tensor | None,
        share: float = 1.0,
        inside: Inside = nullcontext,
    ) -> None:
        self._linear, self._counted, self._taken, self._share = linear, counted, taken, share
        self._inside, self.logits = inside, linear.logits

    def vjp(self, cotangent: Tensor) -> Tensor:
        self._counted.backwards += cotangent.shape[:-1].numel() * self._counted.draws * self._share
        with self._inside():
            return self._linear.vjp(cotangent)

    def jvp(self, delta: Tensor) -> Tensor:
        self._counted.forwards += len(delta) * self._counted.draws * self._share
        self._counted.add(self._taken)
        with self._inside():
            return self._linear.jvp(delta)
