"""The usual neural-ODE image classifier at tolerance 0.1: its adjoint hides the gradient from PGD, and is found out."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchdiffeq import odeint, odeint_adjoint

import robustode as ro
from robustode.attacks.cards import resolve
from robustode.audit.checks import solver_gradient
from robustode.audit.finding import Verdict
from tests.audit.cases import make_case

EPS = 0.1


class Field(nn.Module):
    """Two convolutions, and a decay that makes the flow contract."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, t, h):
        return self.second(torch.tanh(self.first(h))) - 2 * h


class ODENet(nn.Module):
    """A convolutional stem, an ODE block, a linear head, as in torchdiffeq's MNIST example."""

    bounds, classes, input_shape = (0.0, 1.0), 10, (1, 8, 8)

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.solve, self.tol = odeint, 0.1
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.ReLU())
        self.field, self.head = Field(width), nn.Linear(16 * width, 10)

    def forward(self, x):
        depths = torch.tensor([0.0, 1.0]).to(x)
        h = self.solve(self.field, self.stem(x), depths, rtol=self.tol, atol=self.tol, method="dopri5")[-1]
        return self.head(h.flatten(1))


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, data = ODENet(), ro.load_data("digits", split="train")
        optimiser = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(5):
            for part in torch.randperm(len(data.y)).split(128):
                optimiser.zero_grad()
                cross_entropy(model(data.x[part]), data.y[part]).backward()
                optimiser.step()
    return model.eval()


def audited(model, solve, tol):
    """(claimed, deserved, finding) of 60 images after PGD-20."""
    model.solve, model.tol = solve, tol
    data = ro.load_data("digits", limit=60)
    pgd = resolve("torchattacks:PGD", norms=["linf"], params={"steps": 20, "alpha": 2.5 * EPS / 20})[0]
    case = make_case(model, data.x, data.y, attacks=(pgd,), budgets={"linf": (EPS,)})
    claimed = len(case.survivors("linf", EPS))
    found = solver_gradient.CHECK(case)
    return claimed, claimed - len(case.evidence.broken("solver-gradient", "linf", EPS)), found


@pytest.mark.slow
def test_what_the_adjoint_at_a_loose_tolerance_hides_is_found(trained):
    claimed, deserved, found = audited(trained, odeint_adjoint, 0.1)
    assert found.status is Verdict.FAIL, found.text
    assert found.value > found.threshold == 2  # survivors that fall to the fine gradient only
    assert deserved <= 0.7 * claimed
    # why: gradients of a margin are right, those of the mean cross-entropy drown in the adjoint's absolute tolerance
    assert found.details["cosine"] > 0.98
    assert found.details["cosine_cross_entropy"] < 0.9
    assert "of the mean cross-entropy" in found.text


@pytest.mark.slow
@pytest.mark.parametrize(("solve", "tol"), [(odeint_adjoint, 1e-5), (odeint, 0.1)])
def test_the_same_network_whose_gradients_are_right_is_not_blamed(trained, solve, tol):
    _, _, found = audited(trained, solve, tol)
    assert found.status is Verdict.PASS, found.text
    assert found.details["cosine_cross_entropy"] > 0.95
