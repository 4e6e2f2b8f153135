"""solver-reference and solver-gradient: a solver that hides the gradient is exposed, an accurate one is not."""

import pytest
import torch
import torchode
from torch import nn
from torchdiffeq import odeint

import robustode as ro
from robustode.audit.check import Found
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


class ByTorchode(Node):
    """The same field solved by torchode, which controls the steps of each sample."""

    def forward(self, x):
        term = torchode.ODETerm(lambda t, h: self.drift + self.amplitude * torch.sin(self.frequency * h))
        control = torchode.IntegralController(self.tol, self.tol, term=term)
        start = x.new_zeros(len(x))
        problem = torchode.InitialValueProblem(4 * x - 2, start, start + 1)
        h = torchode.AutoDiffAdjoint(torchode.Dopri5(term), control).solve(problem).ys[:, -1].sum(1)
        return torch.stack([h, -h], 1)


@pytest.mark.slow
def test_a_solve_of_torchode_is_judged():
    loose = solver_gradient.CHECK(case_of(ByTorchode(0.1, amplitude=0.3, frequency=200.0)))
    tight = solver_gradient.CHECK(case_of(ByTorchode(1e-6, amplitude=0.3, frequency=2.0)))
    assert (loose.status, tight.status) == (Verdict.FAIL, Verdict.PASS), (loose.text, tight.text)
    assert tight.value == pytest.approx(1.0, abs=1e-4)


def test_a_fixed_step_model_says_what_other_steps_would_answer():
    """h' = −h: Euler's two steps of ½ keep every sign, the one step of 1 gives 0 and with it class 0 everywhere."""

    class Euler(Node):
        def forward(self, x):
            depths, step = torch.tensor([0.0, 1.0], dtype=x.dtype), {"step_size": 0.5}
            h = odeint(lambda t, h: -h, 4 * x - 2, depths, method="euler", options=step)[-1].sum(1)
            return torch.stack([h, -h], 1)

    found = solver_reference.CHECK(case := case_of(Euler(0.0), attacks=()))
    assert found.status is Verdict.NOT_APPLICABLE
    assert "half the steps keep" in found.text
    share = float((case.shard.clean_pred == 0).double().mean())
    kept = {one["name"]: one["labels"] for one in found.details["rediscretised"]}
    assert kept == {"half the steps": pytest.approx(share), "twice the steps": 1.0}
    nothing = solver_reference.CHECK(make_case(ro.load_model("zoo:layered-digits"), *digits(), budgets=BUDGETS))
    assert (nothing.status, nothing.details) == (Verdict.NOT_APPLICABLE, {})


def digits():
    data = ro.load_data("digits", limit=10)
    return data.x, data.y


def test_an_adaptive_snode_of_ours_is_judged_under_both_backends():
    for backend in ("torchdiffeq", "torchode"):
        model = ro.load_model("zoo:snode-digits").with_solver(method="dopri5", rtol=1e-4, atol=1e-4, backend=backend)
        found = solver_reference.CHECK(make_case(model, *digits(), budgets={}))
        assert found.status is Verdict.PASS, found.text
        assert found.text.startswith(f"dopri5 of {backend}, rtol 1e-04")
        assert len(solver_variants(model)) == 2


@pytest.mark.parametrize(
    ("cosine", "count", "status", "value"),
    [
        (0.9, 1, Verdict.PASS, 0.9),
        (0.899, 1, Verdict.FAIL, 0.899),
        (1.0, 2, Verdict.WARN, 2.0),
        (1.0, 3, Verdict.FAIL, 3.0),
    ],
)
def test_thresholds_of_the_gradient(monkeypatch, cosine, count, status, value):
    by = {"PGD-40": 40, "PGD-40" + solver_gradient.FINE: count}
    broken = Found(status=Verdict.FAIL, text="", details={"radii": [{"by": by}]})
    monkeypatch.setattr(solver_gradient, "assault", lambda *_: broken)
    monkeypatch.setattr(solver_gradient, "_cosines", lambda a, b: torch.full((len(a),), cosine, dtype=torch.float64))
    case = case_of(Node(1e-3), attacks=())
    assert case.slack == 2
    found = solver_gradient.CHECK(case)
    assert (found.status, found.value) == (status, pytest.approx(value))


@pytest.mark.parametrize(("gap", "status"), [(0.03, Verdict.PASS), (-0.031, Verdict.FAIL)])
def test_threshold_of_the_reference(monkeypatch, gap, status):
    cell = {"n": 100, "deployed": 0.5, "reference": 0.5 - gap, "gap": gap, "norm": "linf", "eps": 0.15}
    monkeypatch.setattr(solver_reference, "_attacked", lambda *_: cell)
    found = solver_reference.CHECK(case_of(Node(1e-3), attacks=()))
    assert (found.status, found.value) == (status, pytest.approx(abs(gap)))


def test_evaluations_of_attacked_inputs_stand_beside_those_of_the_same_clean_ones():
    found = solver_reference.CHECK(case_of(Node(1e-3, amplitude=0.3, frequency=2.0)))
    assert set(found.details["evaluations_attacked"]) == {"clean", "adversarial"}
    assert min(found.details["evaluations_attacked"].values()) > 0
    assert [one["tolerance"] for one in found.details["sweep"]] == pytest.approx([10.0**-k for k in range(1, 10)])
    assert found.details["sweep"][-1]["logits"] == 0  # that is the reference itself


def test_an_adaptive_model_without_a_reference_is_not_waved_through(monkeypatch):
    monkeypatch.setattr(solver_reference, "reference", lambda *_: None)
    found = solver_reference.CHECK(case_of(Node(1e-3), attacks=()))
    assert found.status is Verdict.WARN
    assert "cannot be solved at tight tolerances" in found.text
