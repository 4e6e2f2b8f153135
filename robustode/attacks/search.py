"""Rows of a minimal-norm search: points that look for a boundary, each with the best adversarial it has met."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from robustode.attacks.constraint import constraint
from robustode.attacks.norms import distance, per_sample
from robustode.attacks.projections import project
from robustode.models.base import Classifier
from robustode.sensitivity.linearise import linearise

BLOCK = 512  # rows that go through the model together, so that its activations stay bounded
CLOSE = 3  # tolerances: a point this near to the boundary, on its far side, is on it
SHARP = 1e-4  # relative width of a bracket on a ray that is not searched further


@dataclass(frozen=True)
class Plane:
    """The linear model of each row's constraint at its present point.

    Attributes:
        value: (rows,), g there.
        gradient: (rows, *input_shape), G.
        tolerance: (rows,), by how much g is to end below zero.
        point: (rows, *input_shape), the clean input projected onto {g + G·(· − x) = −tolerance} ∩ {box}; where that is
            empty, the corner of the box nearest to it.
        length: (rows,) float64, distance of `point` from the clean input.
    """

    value: Tensor
    gradient: Tensor
    tolerance: Tensor
    point: Tensor
    length: Tensor

    def take(self, rows: Tensor) -> Plane:
        """Return the planes of some rows."""
        return Plane(*(getattr(self, field.name)[rows] for field in fields(self)))


class Passes:
    """Model passes spent on each sample.

    Attributes:
        forwards, backwards: (samples,) float64; on a coarse level a pass counts as its fraction of a full one.
    """

    def __init__(self, samples: int) -> None:
        self.forwards = torch.zeros(samples, dtype=torch.float64)
        self.backwards = torch.zeros(samples, dtype=torch.float64)

    def add(self, samples: Tensor, *, forwards: float = 0.0, backwards: float = 0.0) -> None:
        """Count passes for samples (with repetitions)."""
        index = samples.cpu()
        for counter, each in ((self.forwards, forwards), (self.backwards, backwards)):
            counter.index_add_(0, index, torch.full((len(index),), each, dtype=torch.float64))


class Search:
    """The state of a search over rows, several for each sample.

    A row is adversarial where its margin (see `constraint`, at temperature 0) is at most −tolerance / 2. The tolerance,
    2e-5 (max z − min z) (1e-12 in float64) and what rounding adds, keeps the points found on the far side of it.

    Args:
        model: classifier, at the level of this search.
        x, y: clean inputs and labels of the rows.
        target: classes to reach, or None.
        norm: norm that is minimised.
        sample: (rows,), the sample that each row belongs to, for the counting.
        passes: where passes are counted.
        share: what a pass counts, 1 at full resolution.

    Attributes:
        best, best_x: (rows,) float64 and (rows, *input_shape), the nearest adversarial met; +inf and the clean input.
        best_value, best_tolerance: (rows,), margin and tolerance there.
        clean, spread: (rows,), margin and max z − min z at the clean input; +inf and 0 until it was asked.
    """

    def __init__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        target: Tensor | None,
        norm: str,
        *,
        sample: Tensor,
        passes: Passes,
        share: float = 1.0,
    ) -> None:
        self.model, self.norm, self.sample, self.passes, self.share = model, norm, sample, passes, share
        self.x0, self.y, self.target = x, y, target
        self.own = y if target is None else target
        self.best_x, self.best_value, self.best_tolerance = x.clone(), x.new_zeros(len(x)), x.new_zeros(len(x))
        self.clean, self.spread = x.new_full((len(x),), math.inf), x.new_zeros(len(x))
        self.best = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)

    @classmethod
    def of(cls, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None, norm: str) -> Search:
        """Return a search with one row for each sample, at full resolution."""
        sample = torch.arange(len(x), device=x.device)
        return cls(model, x, y, target, norm, sample=sample, passes=Passes(len(x)))

    def spawn(self, rows: Tensor, *, model: Classifier | None = None, share: float | None = None) -> Search:
        """Return a search with a row for each of `rows` (with repetitions), nothing found, on the same counters."""
        out = Search(
            self.model if model is None else model,
            self.x0[rows],
            self.y[rows],
            None if self.target is None else self.target[rows],
            self.norm,
            sample=self.sample[rows],
            passes=self.passes,
            share=self.share if share is None else share,
        )
        out.clean, out.spread = self.clean[rows], self.spread[rows]
        return out

    @property
    def every(self) -> Tensor:
        """Indices of all rows."""
        return torch.arange(len(self.x0), device=self.x0.device)

    def constraint(
        self, rows: Tensor, logits: Tensor, candidate: Tensor | None = None, temperature: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return g of the rows and its cotangent; see `constraint`."""
        options = {"candidate": candidate, "temperature": temperature}
        return constraint(logits, self.own[rows], targeted=self.target is not None, **options)

    def tolerance(self, rows: Tensor, logits: Tensor) -> Tensor:
        """(rows,), the margin by which a point must lie beyond the boundary.

        The logits of two classes are equal there: their spread is taken at the clean input.
        """
        finite = logits.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        factor = 2e-5 if logits.dtype == torch.float32 else 1e-12
        rounding = 4 * torch.finfo(logits.dtype).eps * finite.abs().amax(1)
        spread = finite.amax(1) - finite.amin(1)
        spread = torch.maximum(spread, self.spread[rows]) if logits.shape[1] == 2 else spread
        return (factor * spread + rounding).clamp_min(1e-30)

    def distance(self, rows: Tensor, x: Tensor) -> Tensor:
        """(rows,) float64, distance of points from the rows' clean inputs."""
        return distance(self.x0[rows], x, self.norm)

    def _record(self, rows: Tensor, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        value, _ = self.constraint(rows, logits)
        gap = self.distance(rows, x)
        at = gap == 0
        self.clean[rows[at]] = value[at]
        self.spread[rows[at]] = (logits.amax(1) - logits.amin(1)).nan_to_num(0.0, 0.0, 0.0)[at]
        tolerance = self.tolerance(rows, logits)
        better = (value <= -tolerance / 2) & (gap < self.best[rows])
        into = rows[better]
        self.best[into], self.best_x[into] = gap[better], x[better]
        self.best_value[into], self.best_tolerance[into] = value[better], tolerance[better]
        return value, tolerance

    @torch.no_grad()
    def evaluate(self, rows: Tensor, x: Tensor, *, temperature: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return (g, tolerance) at `x`; one forward pass for each row."""
        logits = torch.cat([self.model(part) for part in x.split(BLOCK)])
        self.passes.add(self.sample[rows], forwards=self.share)
        margin, tolerance = self._record(rows, x, logits)
        return (self.constraint(rows, logits, temperature=temperature)[0] if temperature else margin), tolerance

    def plane(self, rows: Tensor, x: Tensor, *, candidate: Tensor | None = None, temperature: float = 0.0) -> Plane:
        """Linearise the rows' constraint at `x`: one forward and one reverse row each."""
        values, gradients, tolerances = [], [], []
        for at in range(0, len(rows), BLOCK):
            part, points = rows[at : at + BLOCK], x[at : at + BLOCK]
            linear = linearise(self.model, points)
            self._record(part, points, linear.logits)
            only = None if candidate is None else candidate[at : at + BLOCK]
            value, cotangent = self.constraint(part, linear.logits, only, temperature)
            values.append(value)
            gradients.append(linear.vjp(cotangent).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
            tolerances.append(self.tolerance(part, linear.logits))
        self.passes.add(self.sample[rows], forwards=self.share, backwards=self.share)
        return self.project(rows, x, torch.cat(values), torch.cat(gradients), torch.cat(tolerances))

    def project(self, rows: Tensor, x: Tensor, value: Tensor, gradient: Tensor, tolerance: Tensor) -> Plane:
        """Project the clean inputs onto {g + G·(· − x) = −tolerance} ∩ {box}."""
        x0 = self.x0[rows]
        lo, hi = self.model.bounds
        normal = -gradient.flatten(1)
        offset = value + tolerance + (normal * (x - x0).flatten(1)).sum(1)
        step = project(normal, offset, x0.flatten(1), self.model.bounds, self.norm)
        point = (x0 + step.delta.reshape(x0.shape)).clamp(lo, hi)
        return Plane(value, gradient, tolerance, point, distance(x0, point, self.norm))

    def ray(self, rows: Tensor, point: Tensor, *, evaluations: int) -> None:
        """Look for the boundary on the ray from the clean input through `point`, no further out than the row's best.

        Safeguarded regula falsi (Illinois) on the margin as a function of the position s along the ray, s = 1 at
        `point`, until the bracket is 1e-4 relative or the margin is within three tolerances of the boundary. The other
        end of the first bracket is the clean input.

        Args:
            evaluations: forward passes at most. None is spent on the first if `point` is the row's best.
        """
        lo, hi = self.model.bounds
        x0, delta = self.x0[rows], point - self.x0[rows]
        length = self.distance(rows, point).to(x0.dtype)
        outer = (self.best[rows] / length.double().clamp_min(1e-300)).to(x0.dtype).clamp_max(1e3)
        bracket = _Bracket(torch.minimum(torch.ones_like(length), outer), outer, self.clean[rows])
        known = (point == self.best_x[rows]).flatten(1).all(1) & torch.isfinite(self.best[rows]) & (length > 0)
        active = (length > 0).nonzero().squeeze(1)
        there = known.nonzero().squeeze(1)
        if len(there):
            met = bracket.narrow(there, self.best_value[rows[there]], self.best_tolerance[rows[there]])
            known[there] = met
            active = active[~known[active]]
        for _ in range(evaluations):
            if len(active) == 0:
                return
            x = (x0[active] + per_sample(bracket.s[active], x0) * delta[active]).clamp(lo, hi)
            value, tolerance = self.evaluate(rows[active], x)
            active = active[~bracket.narrow(active, value, tolerance)]


class _Bracket:
    """Where the boundary lies on each ray: between the last position before it and the first beyond it."""

    def __init__(self, s: Tensor, outer: Tensor, clean: Tensor) -> None:
        self.s, self.outer = s, outer
        self.inside, self.inside_value = torch.zeros_like(s), clean.clone()
        self.beyond, self.beyond_value = torch.full_like(s, math.inf), torch.zeros_like(s)

    def narrow(self, active: Tensor, value: Tensor, tolerance: Tensor) -> Tensor:
        """Take in the margins at `s` and set the next positions; return which rays are finished."""
        found = value <= -tolerance / 2
        aim = value + tolerance  # the search is for the zero of margin + tolerance
        a, fa, b, fb = (v[active] for v in (self.inside, self.inside_value, self.beyond, self.beyond_value))
        both = torch.isfinite(b) & torch.isfinite(fa)
        s = self.s[active]
        fa_next = torch.where(found, torch.where(both, fa / 2, fa), aim)
        fb_next = torch.where(found, aim, torch.where(both, fb / 2, fb))
        a, b = torch.where(found, a, s), torch.where(found, s, b)
        fraction = torch.where(torch.isfinite(fa_next), fa_next / (fa_next - fb_next), 0.99)
        between = a + fraction.nan_to_num(nan=0.5).clamp(0.02, 0.995) * (b - a)
        outward = torch.minimum(1.02 * s, self.outer[active])
        ahead = torch.where(torch.isfinite(b), between, outward)
        for name, new in (
            ("inside", a),
            ("inside_value", fa_next),
            ("beyond", b),
            ("beyond_value", fb_next),
            ("s", ahead),
        ):
            getattr(self, name)[active] = new
        narrow = (b - a) / b.clamp_max(1e30) <= SHARP
        exhausted = ~torch.isfinite(b) & (a >= self.outer[active])
        return (found & (value >= -CLOSE * tolerance)) | narrow | exhausted
