"""Rows of a minimal-norm search: points that move towards a boundary, each with the best adversarial it has met."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robustode.attacks.norms import distance, per_sample
from robustode.attacks.projections import project
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise

BLOCK = 512  # rows that go through the model together, so that its activations stay bounded


@dataclass(frozen=True)
class Plane:
    """The linear model of each row's margin at its present point.

    Attributes:
        margin: (rows,), value there.
        gradient: (rows, *input_shape).
        point: (rows, *input_shape), the clean input projected onto {linear margin = −tolerance} ∩ {box}.
        length: (rows,) float64, distance of `point` from the clean input.
        feasible: (rows,) bool, whether the linear boundary meets the box; if not, `point` is the corner nearest to it.
    """

    margin: Tensor
    gradient: Tensor
    point: Tensor
    length: Tensor
    feasible: Tensor

    def take(self, rows: Tensor) -> Plane:
        """Return the planes of some rows."""
        return Plane(*(getattr(self, field.name)[rows] for field in fields(self)))


class Search:
    """The state of a search over rows (sample, candidate class); counts every pass it makes for each sample.

    A row is adversarial where its margin z_y − max_{k≠y} z_k (targeted: max_{j≠t} z_j − z_t) is at most −tolerance / 2.
    The tolerance, `tolerance_factor` · max|z|, keeps the points found on the far side of rounding errors.

    Args:
        model: classifier.
        x, y: clean inputs (samples, *input_shape) and labels.
        target: labels to reach, or None.
        norm: norm that is minimised.
    """

    def __init__(self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None, norm: str) -> None:
        self.model, self.norm = model, norm
        self.samples = len(x)
        self.tolerance_factor = 2e-5 if x.dtype == torch.float32 else 1e-12
        self.forwards = torch.zeros(len(x), dtype=torch.float64)
        self.backwards = torch.zeros(len(x), dtype=torch.float64)
        self.set_rows(torch.arange(len(x), device=x.device), x, y, target)

    def set_rows(self, sample: Tensor, x0: Tensor, y: Tensor, target: Tensor | None) -> None:
        """Start rows for the given samples, with nothing found yet."""
        self.sample, self.x0, self.y, self.target = sample, x0, y, target
        self.best_x = x0.clone()
        self.best = torch.full((len(x0),), math.inf, dtype=torch.float64, device=x0.device)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only the rows with these indices, and what they have found."""
        for name in ("sample", "x0", "y", "best_x", "best"):
            setattr(self, name, getattr(self, name)[rows])
        self.target = None if self.target is None else self.target[rows]

    def repeat_rows(self, times: int) -> None:
        """Replace every row by `times` copies, in place of each other."""
        self.keep_rows(torch.arange(len(self.x0), device=self.x0.device).repeat_interleave(times))

    def _count(self, counter: Tensor, rows: Tensor, each: float = 1.0) -> None:
        index = self.sample[rows].cpu()
        counter.index_add_(0, index, torch.full((len(index),), each, dtype=torch.float64))

    def margin(self, rows: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each row's margin and the two classes (high, low) whose difference it is; a NaN counts as +inf."""
        masked = logits.clone()
        own = (self.y if self.target is None else self.target)[rows]
        masked.scatter_(1, own[:, None], -math.inf)
        other = masked.argmax(1)
        high, low = (own, other) if self.target is None else (other, own)
        value = (logits.gather(1, high[:, None]) - logits.gather(1, low[:, None])).squeeze(1)
        return torch.where(torch.isfinite(logits).all(1), value, math.inf), high, low

    def tolerance(self, logits: Tensor) -> Tensor:
        """(rows,), the margin by which a point must lie beyond the boundary."""
        return self.tolerance_factor * logits.abs().amax(1).nan_to_num(nan=1.0, posinf=1.0).clamp_min(1e-30)

    def _record(self, rows: Tensor, x: Tensor, logits: Tensor) -> Tensor:
        """Keep the points that are adversarial and nearer than what the rows have; return the margins."""
        value, _, _ = self.margin(rows, logits)
        gap = distance(self.x0[rows], x, self.norm)
        better = (value <= -self.tolerance(logits) / 2) & (gap < self.best[rows])
        self.best[rows[better]] = gap[better]
        self.best_x[rows[better]] = x[better]
        return value

    @torch.no_grad()
    def evaluate(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (margin, tolerance) at `x`; one forward pass for each row."""
        logits = torch.cat([self.model(part) for part in x.split(BLOCK)])
        self._count(self.forwards, rows)
        return self._record(rows, x, logits), self.tolerance(logits)

    def plane(self, rows: Tensor, x: Tensor, candidate: Tensor | None = None) -> Plane:
        """Linearise the margin at `x`: one forward and one reverse row each.

        Args:
            rows: indices of the rows.
            x: their present points.
            candidate: class whose margin z_y − z_k is linearised; None for the margin that decides.
        """
        parts = [
            self._linear_model(rows[at : at + BLOCK], x[at : at + BLOCK], None if candidate is None else candidate[at:])
            for at in range(0, len(rows), BLOCK)
        ]
        value, gradient, tolerance = (torch.cat(column) for column in zip(*parts, strict=True))
        return self.project(rows, x, value, gradient, tolerance)

    def _linear_model(self, rows: Tensor, x: Tensor, candidate: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (margin, its gradient, tolerance) at `x`; records and counts."""
        linear = linearise(self.model, x)
        logits = linear.logits
        self._count(self.forwards, rows)
        self._count(self.backwards, rows)
        value = self._record(rows, x, logits)
        _, high, low = self.margin(rows, logits)
        if candidate is not None:
            low = candidate[: len(rows)]
            value = (logits.gather(1, high[:, None]) - logits.gather(1, low[:, None])).squeeze(1)
        cotangent = torch.zeros_like(logits)
        cotangent.scatter_(1, low[:, None], -1.0).scatter_(1, high[:, None], 1.0)
        gradient = linear.vjp(cotangent).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return value, gradient, self.tolerance(logits)

    def descent_gradient(self, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (margin, gradient of z_y − log Σ_{k≠y} exp z_k) at `x`; targeted, of log Σ_{k≠t} exp z_k − z_t."""
        margins, gradients = [], []
        for at in range(0, len(rows), BLOCK):
            part = rows[at : at + BLOCK]
            linear = linearise(self.model, x[at : at + BLOCK])
            logits = linear.logits
            self._count(self.forwards, part)
            self._count(self.backwards, part)
            margins.append(self._record(part, x[at : at + BLOCK], logits))
            own = (self.y if self.target is None else self.target)[part][:, None]
            others = logits.scatter(1, own, -math.inf).softmax(1).nan_to_num(nan=0.0)
            cotangent = -others.scatter(1, own, -1.0)
            gradient = linear.vjp(cotangent if self.target is None else -cotangent)
            gradients.append(gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
        return torch.cat(margins), torch.cat(gradients)

    def project(self, rows: Tensor, x: Tensor, margin: Tensor, gradient: Tensor, tolerance: Tensor) -> Plane:
        """Project the clean points onto the linearised boundary within the box."""
        x0 = self.x0[rows]
        lo, hi = self.model.bounds
        normal = -gradient.flatten(1)
        offset = margin + tolerance + (normal * (x - x0).flatten(1)).sum(1)
        step = project(normal, offset, x0.flatten(1), self.model.bounds, self.norm)
        point = (x0 + step.delta.reshape(x0.shape)).clamp(lo, hi)
        return Plane(margin, gradient, point, distance(x0, point, self.norm), step.feasible)

    def ray(self, rows: Tensor, point: Tensor, *, evaluations: int, slope: Tensor | None = None) -> None:
        """Look for the boundary on the ray from the clean input through `point`, no further out than the row's best.

        Safeguarded regula falsi (Illinois) on the margin as a function of the position s along the ray, s = 1 at
        `point`, until the bracket is 1e-4 relative or the margin is within three tolerances of the boundary.

        Args:
            evaluations: forward passes at most.
            slope: (rows,), derivative of the margin in s near s = 1, used to step outwards; None if unknown.
        """
        lo, hi = self.model.bounds
        x0, delta = self.x0[rows], point - self.x0[rows]
        length = distance(x0, point, self.norm).to(x0.dtype)
        outer = (self.best[rows] / length.double().clamp_min(1e-300)).to(x0.dtype).clamp_max(1e3)
        s = torch.minimum(torch.ones_like(length), outer)
        inside, inside_margin = torch.zeros_like(s), torch.full_like(s, math.inf)
        beyond, beyond_margin = torch.full_like(s, math.inf), torch.zeros_like(s)
        active = (length > 0).nonzero().squeeze(1)
        for _ in range(evaluations):
            if len(active) == 0:
                return
            x = (x0[active] + per_sample(s[active], x0) * delta[active]).clamp(lo, hi)
            value, tolerance = self.evaluate(rows[active], x)
            found = value <= -tolerance / 2
            aim = value + tolerance  # the search is for the zero of margin + tolerance
            old_in, old_be = inside_margin[active], beyond_margin[active]
            repeat_in = ~found & torch.isfinite(beyond[active]) & torch.isfinite(old_in)
            repeat_be = found & torch.isfinite(beyond[active])
            inside_margin[active] = torch.where(found, torch.where(repeat_be, old_in / 2, old_in), aim)
            beyond_margin[active] = torch.where(found, aim, torch.where(repeat_in, old_be / 2, old_be))
            inside[active] = torch.where(found, inside[active], s[active])
            beyond[active] = torch.where(found, s[active], beyond[active])
            s = s.index_copy(0, active, self._next(active, inside, inside_margin, beyond, beyond_margin, slope, outer))
            width = (beyond - inside)[active] / beyond[active].clamp_max(1e30)
            close = found & (value >= -3 * tolerance)
            exhausted = ~torch.isfinite(beyond[active]) & (inside[active] >= outer[active])
            active = active[~close & ~exhausted & ~(width <= 1e-4)]

    @staticmethod
    def _next(
        active: Tensor,
        inside: Tensor,
        inside_margin: Tensor,
        beyond: Tensor,
        beyond_margin: Tensor,
        slope: Tensor | None,
        outer: Tensor,
    ) -> Tensor:
        a, fa, b, fb = (v[active] for v in (inside, inside_margin, beyond, beyond_margin))
        rate = torch.full_like(a, -math.inf) if slope is None else slope[active]
        back = torch.where(rate < 0, fb / rate, torch.zeros_like(b)).clamp(0.005, 0.3)  # share to step back from b
        fraction = torch.where(torch.isfinite(fa), fa / (fa - fb), 1 - back)
        between = a + fraction.nan_to_num(nan=0.5).clamp(0.02, 0.995) * (b - a)
        newton = torch.where(rate < 0, -fa / rate, torch.zeros_like(a))
        outward = torch.minimum(a + newton.clamp(0.02, 0.5) * a.clamp_min(1e-3), outer[active])
        return torch.where(torch.isfinite(b), between, outward)

    def count_all(self, *, forwards: int, backwards: int) -> None:
        """Count passes made for every sample."""
        self.forwards += forwards
        self.backwards += backwards
