"""solver-reference and solver-gradient: a solver that hides the gradient is exposed, an accurate one is not."""

import pytest
import torch
from torch import nn
from torchdiffeq import odeint

import robustode as ro
from robustode.audit.checks import solver_gradient, solver_reference
from robustode.audit.finding import Verdict
from robustode.audit.variants import solver_variants
from tests.audit.cases import make_case

BUDGETS = {"linf": (0.15,)}


class Node(nn.Module):
    """h' = drift + a sin(ω h) from 0 to 1, h(0) = 4 x − 2; the class is the sign of the sum of h(1)."""

    bounds, classes, input_shape = (0.0, 1.0), 2, (2,)

    def __init__(self, tol: float, *, amplitude: float = 0.0, frequency: float = 1.0, drift: float = 0.0) -> None:
        super().__init__()
        self.tol, self.amplitude, self.frequency = tol, amplitude, frequency
        self.drift = nn.Parameter(torch.tensor(drift))

    def forward(self, x):
        def field(t, h):
            return self.drift + self.amplitude * torch.sin(self.frequency * h)

        depths = torch.tensor([0.0, 1.0], dtype=x.dtype)
        h = odeint(field, 4 * x - 2, depths, rtol=self.tol, atol=self.tol, method="dopri5")[-1].sum(1)
        return torch.stack([h, -h], 1)


def case_of(model: Node, attacks=("pgd-linf",)):
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    x = x[(x.sum(1) - 1).abs() > 0.1]
    return make_case(model.eval(), x, (x.sum(1) < 1).long(), attacks=attacks, budgets=BUDGETS, full=True)


def test_a_loose_tolerance_that_shatters_the_gradient_is_exposed():
    case = case_of(Node(0.1, amplitude=0.3, frequency=200.0))
    claimed = len(case.survivors("linf", 0.15))
    found = solver_gradient.CHECK(case)
    assert found.status is Verdict.FAIL
    assert found.value < 0.9
    assert case.evidence.broken("solver-gradient", "linf", 0.15).tolist()
    deserved = claimed - len(case.evidence.broken("solver-gradient", "linf", 0.15))
    assert claimed > deserved + case.slack
    assert found.advice


def test_an_accurate_solve_passes_both():
    case = case_of(Node(1e-6, amplitude=0.3, frequency=2.0))
    reference, gradient = solver_reference.CHECK(case), solver_gradient.CHECK(case)
    assert (reference.status, gradient.status) == (Verdict.PASS, Verdict.PASS), (reference.text, gradient.text)
    assert gradient.value == pytest.approx(1.0, abs=1e-4)
    for way, share in gradient.details["four_ways"].items():
        assert share == pytest.approx(1.0, abs=1e-3), way
    assert reference.details["rejected"] == 0
    assert reference.details["evaluations"] > 0
    assert reference.details["sweep"][-1]["logits"] < 1e-3 < reference.details["sweep"][0]["logits"] + 1e-2


def test_labels_that_are_the_solver_s_are_found():
    """A stiff decay that the loose solver overshoots: its labels differ from those of the ODE."""

    class Stiff(Node):
        def forward(self, x):
            h = odeint(
                lambda t, h: -80 * h,
                4 * x - 2,
                torch.tensor([0.0, 1.0], dtype=x.dtype),
                rtol=self.tol,
                atol=self.tol,
                method="dopri5",
                options={"first_step": 0.05},
            )[-1].sum(1)
            return torch.stack([h, -h], 1)

    case = case_of(Stiff(0.1), attacks=())
    found = solver_reference.CHECK(case)
    assert found.status is Verdict.FAIL
    assert found.details["stiffness"] > 3


@pytest.mark.parametrize("check", [solver_reference.CHECK, solver_gradient.CHECK])
def test_models_without_an_adaptive_solve(check):
    model, data = ro.load_model("zoo:snode-digits"), ro.load_data("digits", limit=20)
    found = check(make_case(model, data.x, data.y, budgets=BUDGETS))
    assert found.status is Verdict.NOT_APPLICABLE


def test_variants_of_each_kind():
    snode = ro.load_model("zoo:snode-digits")
    assert [name for name, _ in solver_variants(snode)] == [f"{snode.steps // 2} steps", f"{2 * snode.steps} steps"]
    assert [name for name, _ in solver_variants(Node(0.1))] == ["frozen steps", "tight tolerance"]
    assert solver_variants(ro.load_model("zoo:layered-digits")) == []
    x = torch.rand(5, 2)
    model = Node(1e-1, amplitude=0.3, frequency=2.0)
    exact = Node(1e-9, amplitude=0.3, frequency=2.0).double()(x.double())
    for name, variant in solver_variants(model):
        assert (variant(x) - exact).abs().max() < 1e-4, name
    assert (model(x) - exact).abs().max() > 1e-4
