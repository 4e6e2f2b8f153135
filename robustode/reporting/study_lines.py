"""Figures of a study with a line for each arm: against the budget, the noise, and the number of Euler steps."""

from __future__ import annotations

from typing import Any

from robustode.evaluation.study import FACTORS, Arm
from robustode.evaluation.study_runner import StudyRun
from robustode.reporting import study_look as look
from robustode.reporting.formatting import norm_name
from robustode.reporting.plot import COLOURS, DASHES, Plot, new_figure, style
from robustode.reporting.study_arms import grid_values
from robustode.reporting.study_frame import arms, caption, coverage, outcomes, pick, plans
from robustode.reporting.study_paired import curves

_CE = (
    "Arms trained with the cross-entropy, stopped at the same validation accuracy; means over seeds. Coloured: the arm "
    "of the primary outcome, the layered twins (independent initialisation, L2 gradient: the paper's ResNet) and extra "
    "arms; grey: the others."
)


def robust_accuracy(run: StudyRun, norm: str) -> Plot:
    """Return robust accuracy against ε of the CE arms, a panel per data set; the primary pair and twins stand out."""
    shown = plans(run)
    with style():
        figure, panels = new_figure(len(shown), (1.6 + 2.9 * len(shown), 3.9))
        for axes, plan in zip(panels, shown, strict=True):
            frame = curves(run, plan.name, norm)
            for arm in _ce(run, plan.name):
                own = pick(frame, "arm", arm.name)
                axes.plot(own["eps"], 100 * own["robust_accuracy"], **_line(run, arm))
            axes.set(xlim=(0, frame["eps"].max()), ylim=(0, 100), xlabel=f"{norm_name(norm)} budget ε")
            axes.set_title(plan.name, loc="left")
            look.grid(axes)
        panels[0].set_ylabel("robust accuracy (%)")
        look.legend_above(figure, panels[0], 2 if len(shown) > 1 else 1, last_first=True)
    text = f"Robust accuracy against the {norm_name(norm)} budget ε, worst case of all attacks of the study. {_CE}"
    return Plot(name=f"study_robust_{norm}", caption=caption(text, coverage(run)), figure=figure)


def noise(run: StudyRun) -> Plot:
    """Return accuracy under Gaussian noise against σ of the CE arms, a panel per data set."""
    shown, sigmas = plans(run), run.study.evaluation.noise
    with style():
        figure, panels = new_figure(len(shown), (1.6 + 2.9 * len(shown), 3.9))
        for axes, plan in zip(panels, shown, strict=True):
            units = outcomes(run, plan.name)
            for arm in _ce(run, plan.name):
                own = pick(units, "arm", arm.name)
                values = [own["test_accuracy"].mean(), *(own[f"noise.{sigma:g}"].mean() for sigma in sigmas)]
                look_of = _line(run, arm)
                dots = {**look.marker(arm), "ms": 4.6} if _stands_out(run, arm) else {}
                axes.plot([0.0, *sigmas], [100 * value for value in values], **look_of, **dots)
            axes.set(xlim=(0, 1.02 * max(sigmas)), ylim=(0, 100), xlabel="standard deviation σ of the noise")
            axes.set_title(plan.name, loc="left")
            look.grid(axes)
        panels[0].set_ylabel("accuracy (%)")
        look.legend_above(figure, panels[0], 2 if len(shown) > 1 else 1, last_first=True)
    text = f"Accuracy under Gaussian noise on the input, not clipped (σ = 0: on the whole test set). {_CE}"
    return Plot(name="noise", caption=caption(text, coverage(run)), figure=figure)


def grids(run: StudyRun) -> Plot:
    """Return accuracy against the number of Euler steps of the CE arms: a panel per data set and operator."""
    asked, own_steps = run.study.evaluation, int(run.study.network.get("steps", 30))
    at = sorted({*asked.steps, own_steps})
    shown, operators = plans(run), [level for level in FACTORS["operator"] if level in run.study.factors["operator"]]
    cases = [(plan, operator) for plan in shown for operator in operators]
    with style():
        figure, panels = _panels(len(shown), len(operators))
        for axes, (plan, operator) in zip(panels, cases, strict=True):
            units = outcomes(run, plan.name)
            for arm in _ce(run, plan.name):
                if arm.levels["operator"] == operator and not look.extra(run.study, arm):
                    own = pick(units, "arm", arm.name)
                    values = [100 * grid_values(own, steps, own_steps)["accuracy"] for steps in at]
                    dash = DASHES[FACTORS["initialisation"].index(arm.levels["initialisation"])]
                    text = f"{look.WORDS[arm.levels['optimiser']]}, {arm.levels['initialisation']}"
                    axes.plot(at, values, color=look.colour(arm), ls=dash, label=text, ms=4.6, **look.marker(arm))
            axes.set_title(f"{plan.name}, {look.WORDS[operator]}", loc="left")
            _step_axis(axes, at, own_steps)
        for axes in panels[:: len(operators)]:
            axes.set_ylabel("accuracy (%)")
        for axes in panels[-len(operators) :]:
            axes.set_xlabel("Euler steps (log scale)")
        look.legend_above(figure, panels[0], 3)
    text = (
        f"Accuracy of the cross-entropy arms with the weights taken at other numbers of Euler steps; trained with "
        f"{own_steps} (dotted line, whole test set). Means over seeds."
    )
    return Plot(name="grids", caption=caption(text, coverage(run)), figure=figure)


def _panels(lines: int, columns: int) -> tuple[Any, list[Any]]:
    """Return a figure with panels in rows, whose accuracy axes are shared in a row."""
    figure, _ = new_figure(1, (1.2 + 2.9 * columns, 0.9 + 2.4 * lines))
    figure.clear()
    panels = figure.subplots(lines, columns, sharex=True, sharey="row", squeeze=False)
    return figure, [axes for row in panels for axes in row]


def _step_axis(axes: Any, at: list[int], own: int) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.axvline(own, color=look.GREY, ls=":", lw=1, zorder=0)
    look.grid(axes)


def _ce(run: StudyRun, data: str) -> list[Arm]:
    """Return the CE arms at the common target, those that stand out last, so that they lie on top."""
    found = [arm for arm in arms(run, data) if arm.levels["cost"] == "ce" and not arm.higher]
    return sorted(found, key=lambda arm: _stands_out(run, arm))


def _stands_out(run: StudyRun, arm: Arm) -> int:
    """Return 2 for the arms of the primary outcome, 1 for other twins, 0 for the rest."""
    asked = run.study.primary
    if arm.name in (asked.arm, asked.against):
        return 2
    twin = arm.levels["operator"] == "l2" and arm.levels["initialisation"] == "independent"
    return int(twin and not look.extra(run.study, arm))


def _line(run: StudyRun, arm: Arm) -> dict[str, Any]:
    """Return colour, width, dash and name in the legend of an arm's line."""
    rank = _stands_out(run, arm)
    if look.extra(run.study, arm):
        return {"color": COLOURS[3], "lw": 1.5, "ls": DASHES[2], "label": arm.name}
    if rank == 0:
        return {"color": look.GREY, "lw": 0.8, "alpha": 0.7, "label": "_"}
    dash = "-" if arm.name == run.study.primary.arm else DASHES[1]
    return {"color": look.colour(arm), "lw": 2.2 if rank == 2 else 1.5, "ls": dash, "label": look.label(arm)}
