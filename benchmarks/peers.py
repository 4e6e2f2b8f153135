"""Attacks of adv-lib and of the original AutoAttack, as python: attacks of the benchmarks.

adv-lib's modules import torchvision and visdom for a perceptual distance and for plots; neither is used here, so both
modules are stood in for, and it is installed without its dependencies.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import types
from typing import Any

import torch
from torch import Tensor

from robustode.attacks.adapters.boundary import UnitBox
from robustode.attacks.norms import distance, per_sample
from robustode.models.base import Classifier

_ORDER = {"l1": 1, "l2": 2, "linf": math.inf}
_WORD = {"l1": "L1", "l2": "L2", "linf": "Linf"}
_START = {"l1": 5.0, "l2": 0.5, "linf": 0.05}  # first radius of the bisection, where the range of the inputs is 1
_STAND_INS = (("adv_lib.distances.lpips", "LPIPS"), ("adv_lib.utils.visdom_logger", "VisdomLogger"))


def _adv_lib() -> Any:
    for name, attribute in _STAND_INS:
        if name not in sys.modules:
            module = types.ModuleType(name)
            setattr(module, attribute, object)
            sys.modules[name] = module
    return importlib.import_module("adv_lib.attacks")


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


def _enter(model: Classifier, x: Tensor) -> tuple[UnitBox, Tensor]:
    box = UnitBox(model, x, dtype=torch.float32)  # both libraries mix in float32 work arrays
    return box, box.enter(x).clone()  # some detach their inputs in place, which a view does not allow


def alma(model, x, y, *, norm, eps, generator, steps: int = 1000, alpha: float = 0.9, lr_init: float = 0.1,
         init_lr_distance: float | None = None):  # fmt: skip
    """ALMA (Rony et al. 2021, arXiv 2011.11857), L1 and L2."""
    box, u = _enter(model, x)
    attack = _adv_lib().alma
    return box.leave(attack(box, u, y, num_steps=steps, α=alpha, distance=norm, lr_init=lr_init,
                            init_lr_distance=init_lr_distance))  # fmt: skip


def fmn(model, x, y, *, norm, eps, generator, steps: int = 10, alpha_init: float = 1.0, gamma_init: float = 0.05):
    """FMN (Pintor et al. 2021, arXiv 2102.12827) in the version of adv-lib, its L2 projection corrected.

    The factor of the projection is min(1, ε / ‖δ‖). adv-lib 0.2.8 takes ε / ‖δ‖, which pushes points inside the ball
    out to its sphere; foolbox 3.3.4 takes min(1, ‖x‖ / ‖x‖) = 1, which projects nothing.
    """
    box, u = _enter(model, x)
    _adv_lib()
    importlib.import_module("adv_lib.attacks.fast_minimum_norm").l2_projection_ = _l2_ball
    return box.leave(_adv_lib().fmn(box, u, y, _ORDER[norm], steps=steps, α_init=alpha_init, γ_init=gamma_init))


def _l2_ball(δ: Tensor, ε: Tensor) -> Tensor:  # noqa: PLC2401 (it is called by these names)
    flat = δ.flatten(1)
    norm = flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return flat.mul_((ε.unsqueeze(1) / norm).clamp(max=1))


def pdpgd(model, x, y, *, norm, eps, generator, steps: int = 500, primal_lr: float = 0.1,
          dual_ratio_init: float = 0.01):  # fmt: skip
    """Primal-dual proximal gradient descent (Matyasko, Chau 2021, arXiv 2106.01538)."""
    box, u = _enter(model, x)
    attack = _adv_lib().pdpgd
    return box.leave(attack(box, u, y, _ORDER[norm], num_steps=steps, primal_lr=primal_lr,
                            dual_ratio_init=dual_ratio_init))  # fmt: skip


def pdgd(model, x, y, *, norm, eps, generator, steps: int = 500, primal_lr: float = 0.1, dual_ratio_init: float = 0.01):
    """Primal-dual gradient descent (Matyasko, Chau 2021, arXiv 2106.01538), L2."""
    box, u = _enter(model, x)
    attack = _adv_lib().pdgd
    return box.leave(attack(box, u, y, num_steps=steps, primal_lr=primal_lr, dual_ratio_init=dual_ratio_init))


def superdeepfool(model, x, y, *, norm, eps, generator, steps: int = 100, df_steps: int = 100, search_iter: int = 10):
    """SuperDeepFool (Abdollahpour et al. 2023, arXiv 2303.12481), L2."""
    box, u = _enter(model, x)
    return box.leave(_adv_lib().sdf(box, u, y, steps=steps, df_steps=df_steps, search_iter=search_iter))


def trust_region(model, x, y, *, norm, eps, generator, iterations: int = 100, step: float = 0.001,
                 adaptive: bool = False):  # fmt: skip
    """Trust region attack (Yao et al. 2019, arXiv 1812.06371), L2 and L∞."""
    box, u = _enter(model, x)
    attack = _adv_lib().tr
    classes = min(9, model.classes - 1)
    return box.leave(attack(box, u, y, iter=iterations, adaptive=adaptive, p=_ORDER[norm], eps=step, c=classes))


def apgd(model, x, y, *, norm, eps, generator, steps: int = 50, searches: int = 10, loss: str = "ce",
         targets: int = 0):  # fmt: skip
    """APGD (Croce, Hein 2020, arXiv 2003.01690) as a minimal-norm attack: bisection over ε, each sample its own.

    The radius starts at `_START` and doubles until the sample is broken; a success sets the upper end to the distance
    of its point. `targets` > 0 is the targeted version, against so many classes each time. At the end the best point is
    drawn back to the boundary on its ray (10 forwards).
    """
    box, u = _enter(model, x)
    order, library = _ORDER[norm], importlib.import_module("adv_lib.attacks.auto_pgd") if _adv_lib() else None
    low, high = torch.zeros(len(u)), torch.full((len(u),), math.inf)
    radius, best = torch.full((len(u),), _START[norm]), u.clone()
    options = {"norm": order, "n_iter": steps, "loss_function": loss}
    for _ in range(searches):
        if targets:
            found = library.apgd_targeted(box, u, y, radius, num_targets=min(targets, model.classes - 1), **options)
        else:
            found = library.apgd(box, u, y, radius, **options)
        with torch.no_grad():
            broken = box(found).argmax(1) != y
        gap = distance(u, found, norm).float()
        better = broken & (gap < high)
        best = torch.where(per_sample(better, u), found.detach(), best)
        high, low = torch.where(better, gap, high), torch.where(broken, low, radius)
        low = torch.minimum(low, high)
        radius = torch.where(high.isinf(), 2 * radius, (low + high) / 2)
    return box.leave(_to_boundary(box, u, best, y))


@torch.no_grad()
def _to_boundary(box: UnitBox, u: Tensor, best: Tensor, y: Tensor, halvings: int = 10) -> Tensor:
    low, high = torch.zeros(len(u)), torch.ones(len(u))
    for _ in range(halvings):
        middle = (low + high) / 2
        broken = box(u + per_sample(middle, u) * (best - u)).argmax(1) != y
        low, high = torch.where(broken, low, middle), torch.where(broken, middle, high)
    return u + per_sample(high, u) * (best - u)


def fab(model, x, y, *, norm, eps, generator, steps: int = 100, restarts: int = 1, radius: float = 0.0,
        targets: int = 0):  # fmt: skip
    """FAB and FAB-T (Croce, Hein 2020, arXiv 1907.02044) of the original AutoAttack, as minimal-norm attacks.

    The nearest point of all restarts and targets is taken; no radius decides what counts, as one does in `perturb`.
    `radius` is that of the random starts (0: `_START`); `targets` > 0 is the targeted version.
    """
    box, u = _enter(model, x)
    original = importlib.import_module("pyautoattack.fab_pt")
    attack = original.FABAttack_PT(
        box, norm=_WORD[norm], n_iter=steps, eps=radius or _START[norm], targeted=bool(targets), device=u.device
    )
    torch.manual_seed(_seed(generator))
    best, nearest = u.clone(), torch.full((len(u),), math.inf, dtype=torch.float64)
    for target in range(min(targets, model.classes - 1) or 1):
        attack.target_class = target + 2  # counted from the largest logit, as `perturb` does
        for restart in range(restarts):
            with torch.no_grad():
                found = attack.attack_single_run(u, y, use_rand_start=restart > 0, is_targeted=bool(targets))
                broken = box(found).argmax(1) != y
            gap = distance(u, found, norm)
            better = broken & (gap < nearest)
            best = torch.where(per_sample(better, u), found.detach(), best)
            nearest = torch.where(better, gap, nearest)
    return box.leave(best)


def autoattack(model, x, y, *, norm, eps, generator, version: str = "standard", square: bool = True):
    """The original AutoAttack (arXiv 2003.01690) at radius ε; without `square` its last attack is left out."""
    box, u = _enter(model, x)
    library = importlib.import_module("pyautoattack.autoattack")
    with contextlib.redirect_stdout(None):
        attack = library.AutoAttack(
            box, norm=_WORD[norm], eps=eps / box.span, seed=_seed(generator), version=version, device=u.device
        )
        if not square:
            attack.attacks_to_run.remove("square")
        return box.leave(attack.run_standard_evaluation(u, y, batch_size=len(u))[0])
