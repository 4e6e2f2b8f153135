"""The minimal-norm search: a lead, rows for the nearest classes, and a race of walks along the boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from robustode.attacks.effort import Effort, Round
from robustode.attacks.explore import distinct, far_points, lead, nearest_classes, towards
from robustode.attacks.levels import Level, agree, level_of_each
from robustode.attacks.search import Plane, Search
from robustode.attacks.walk import Walk

FINE = 1  # rounds from this one on are at full resolution
LATER = 0.5  # share of the later steps of a row towards its class
APART = 0.1  # rows nearer to each other than this share of their distance are one
HOPELESS = 1.5  # rows whose boundary lies further than this times the best known are given up
LONGER = 1.05  # what the distance of a point that is not adversarial counts in the race
SAME = 0.01  # a best point whose distance differs by more from a walk's end was met elsewhere
CONTENDERS = 1.01  # rows within this of the best are refined to the end
FAR = 10  # forward passes at most for the boundary on a ray that is still searched at the end
HARD = 0.2  # KKT residual above which a point is walked from again
SETTLED = 1e-2  # a round that gains less than this share leaves a sample settled
TRUST = (0.9, 10.0)  # share of a linear distance that is believed, and how much of it each unit of doubt takes
STRETCH = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0)  # factors tried where no boundary was met


def minimal_norm(search: Search, effort: Effort, damping: float) -> Tensor:
    """Run the whole minimal-norm search for a search with one row for each sample.

    Returns:
        (rows,) float64, KKT residual 1 − ‖δ_lin‖ / ‖δ‖ of the best points: the share by which the linear model at the
        point still promises to shorten it; +inf where nothing was found.
    """
    state = _State(search)
    clean = search.plane(search.every, search.x0, temperature=effort.temperature)
    groups, rows = level_of_each(search, clean.value, effort.temperature)
    for level, part in groups:
        here = search.spawn(part, model=level.model, share=level.share)
        coarse = here.plane(here.every, here.x0, temperature=effort.temperature)
        rows = torch.cat([rows, _solve(state, part, level, coarse, effort, damping)])
    if len(rows):
        rows = rows.sort().values
        _solve(state, rows, Level(search.model, search.share), clean.take(rows), effort, damping)
    _last_resort(state, effort)
    return torch.where(torch.isfinite(search.best), state.kkt, torch.inf)


def _solve(state: _State, samples: Tensor, level: Level, clean: Plane, effort: Effort, damping: float) -> Tensor:
    """Search for some samples on a level, from their planes there at the clean inputs; return those for which the level
    proved too coarse near the boundary."""
    search, temperature = state.search, effort.temperature
    here = search.spawn(samples, model=level.model, share=level.share)
    x = lead(here, here.every, clean, steps=effort.lead, damping=damping, temperature=temperature)
    walk = Walk(here, x, here.distance(here.every, x))
    walk.advance(here.every, effort.walk)
    refused = samples[:0]
    if level.model is search.model:
        state.take(samples, here, walk, per=1)
    else:
        suits = agree(search.spawn(samples), here, walk.x, clean.value, temperature)
        refused, samples = samples[~suits], samples[suits]
        walk.keep(suits)
    state.x[samples], state.reach[samples] = walk.x, walk.reach
    for number, plan in enumerate(effort.rounds):
        if len(samples) == 0:
            break
        if number == FINE:
            level = Level(search.model, search.share)
        before = state.radius(samples)
        _round(state, samples, level, effort, plan, first=number == 0)
        if number + 1 >= effort.sure:
            samples = samples[~(state.radius(samples) > before * (1 - SETTLED))]
    return refused


class _State:
    """What is known of each sample: its best point in the search, a point to go on from, its residual."""

    def __init__(self, search: Search) -> None:
        self.search, self.x = search, search.x0.clone()
        self.reach, self.kkt = torch.full_like(search.best, torch.inf), torch.full_like(search.best, torch.inf)
        self.arrived = torch.zeros_like(search.best, dtype=torch.bool)

    def radius(self, rows: Tensor) -> Tensor:
        """Distance to the nearest boundary known: of an adversarial, else where the walk saw it."""
        return torch.minimum(self.search.best[rows], self.reach[rows])

    def take(self, samples: Tensor, found: Search, walk: Walk, per: int) -> None:
        """Keep the best row of each sample where it is better than what is known."""
        best = found.best.reshape(-1, per).argmin(1) + per * torch.arange(len(samples), device=samples.device)
        better = found.best[best] < self.search.best[samples]
        into, rows = samples[better], best[better]
        for name in ("best", "best_x", "best_value", "best_tolerance"):
            getattr(self.search, name)[into] = getattr(found, name)[rows]
        self.x[into], self.reach[into] = found.best_x[rows], found.best[rows]
        there = (walk.reach[rows] - found.best[rows]).abs() <= SAME * found.best[rows]
        self.kkt[into], self.arrived[into] = walk.kkt[rows], walk.done[rows] & there

    def close_in(self, rows: Tensor) -> None:
        """Bring best points that lie beyond the boundary back to it, on their rays, and measure the KKT residual where
        no walk arrived at the point."""
        search = self.search
        rows = rows[torch.isfinite(search.best[rows])]
        search.ray(rows, search.best_x[rows], evaluations=FAR)
        rows = rows[~self.arrived[rows]]
        if len(rows):
            plane = search.plane(rows, search.best_x[rows])
            self.kkt[rows] = (1 - plane.length / search.best[rows].clamp_min(1e-300)).clamp_min(0)


def _round(state: _State, samples: Tensor, level: Level, effort: Effort, plan: Round, *, first: bool) -> None:
    """Explore the nearest classes of some samples on a level, and let the walks race; the best row is kept."""
    master = state.search
    coarse = master.spawn(samples, model=level.model, share=level.share)
    wide, x, running = _rows(state, samples, coarse, effort, plan, first=first)
    per = len(x) // len(samples)
    reach = state.radius(samples).repeat_interleave(per)
    away = running[running % per > 0]
    gone = wide.distance(away, x[away])
    reach[away] = torch.where(gone > 0, LONGER * gone, torch.inf)  # a class without a gradient leads nowhere
    found = torch.isfinite(wide.best)
    x[found], reach[found] = wide.best_x[found], wide.best[found]
    walk = Walk(wide, x, reach)
    running = _race(walk, running, effort.race, per)
    if level.model is not master.model:
        wide = wide.spawn(wide.every, model=master.model, share=master.share)
        walk = Walk(wide, walk.x, walk.reach)
        running = _race(walk, running, effort.polish, per)
    _refine(walk, running, per, effort.probes)
    state.take(samples, wide, walk, per)


def _rows(
    state: _State, samples: Tensor, coarse: Search, effort: Effort, plan: Round, *, first: bool
) -> tuple[Search, Tensor, Tensor]:
    """Return a search with a row for the best point of each sample and one for each of the nearest classes; the points
    where the rows begin; and those rows that are worth running."""
    known, radius = state.x[samples], state.radius(samples)
    if plan.classes == 0:
        return coarse, known.clone(), coarse.every
    at = coarse.x0 + plan.at * (known - coarse.x0)
    plane, candidate = nearest_classes(coarse, at, pool=effort.pool, count=plan.classes)
    count = len(candidate) // len(samples)
    wide = coarse.spawn(coarse.every.repeat_interleave(count + 1))
    grid = wide.every.reshape(-1, count + 1)
    every = torch.ones_like(candidate, dtype=torch.bool)
    keep = _plausible(plane.length.reshape(-1, count), radius) if first else every
    rows = grid[:, 1:].reshape(-1)[keep]
    x = known.repeat_interleave(count + 1, 0)
    if len(rows) == 0:
        return wide, x, grid[:, 0]
    limit = (plan.reach * radius).repeat_interleave(count)[keep]
    start = at.repeat_interleave(count, 0)[keep]
    options = {"steps": effort.steps, "damping": LATER}
    x[rows] = towards(wide, rows, start, plane.take(keep), candidate[keep], limit, **options)
    wide.ray(rows, x[rows], evaluations=1)
    return wide, x, torch.cat([grid[:, 0], rows]).sort().values


def _plausible(length: Tensor, radius: Tensor) -> Tensor:
    """Which classes can hold the nearest boundary, (samples · classes,) bool, as far as the linear model is right.

    How right it is is seen from the lead: the nearest plane predicted min `length`, the boundary lies at `radius`.
    """
    length = torch.where(length > 0, length, torch.inf)  # of a class without a gradient nothing is known
    doubt = (1 - radius / length.amin(1)).abs()
    return (length * (TRUST[0] - TRUST[1] * doubt)[:, None] <= radius[:, None]).reshape(-1)


def _race(walk: Walk, running: Tensor, stages: tuple[tuple[int, int], ...], per: int) -> Tensor:
    """Let walks run in stages; before each, only the nearest that are distinct go on. Return those left."""
    search = walk.search
    for steps, count in stages:
        running = distinct(search, running, walk.x, walk.reach, per=per, count=count, apart=APART)
        for _ in range(steps):
            best = search.best.reshape(-1, per).amin(1)[running // per]
            active = running[walk.reach[running] <= HOPELESS * best]
            walk.advance(active, 1)
    return running


def _refine(walk: Walk, running: Tensor, per: int, probes: int) -> None:
    """Find the boundary on the rays to the ends of the best walks, to 1e-4."""
    search = walk.search
    value = torch.full_like(search.best, torch.inf)
    value[running] = torch.minimum(walk.reach[running], search.best[running])
    least = value.reshape(-1, per).amin(1)[running // per]
    rows = running[value[running] <= CONTENDERS * least]
    search.ray(rows, walk.x[rows], evaluations=probes)


def _last_resort(state: _State, effort: Effort) -> None:
    """Where no adversarial was found: lengthen the step, then look far away. Walk from there, and from points that are
    still far from optimal."""
    search = state.search
    lo, hi = search.model.bounds
    hidden = torch.isinf(search.best).nonzero().squeeze(1)
    rows = hidden
    for factor in STRETCH:
        if len(rows) == 0:
            break
        x0 = search.x0[rows]
        search.evaluate(rows, (x0 + factor * (state.x[rows] - x0)).clamp(lo, hi))
        rows = rows[torch.isinf(search.best[rows])]
    far_points(search, rows, evaluations=FAR)
    state.close_in(search.every)
    rows = (torch.isfinite(search.best) & (state.kkt > HARD)).nonzero().squeeze(1)
    if len(rows):
        walk = Walk(search, search.best_x.clone(), search.best.clone())
        walk.advance(rows, sum(steps for steps, _ in effort.race[-2:]))
        search.ray(rows, walk.x[rows], evaluations=effort.probes)
        there = (walk.reach[rows] - search.best[rows]).abs() <= SAME * search.best[rows]
        state.kkt[rows], state.arrived[rows] = walk.kkt[rows], walk.done[rows] & there
        state.close_in(rows)
