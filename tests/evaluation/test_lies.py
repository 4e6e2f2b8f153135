"""What attacks return is judged again, whatever they say of it; what they raise becomes rows."""

from __future__ import annotations

import math

import pytest
import torch

from robustode.attacks.base import AttackResult, Status
from robustode.attacks.card import Card
from robustode.attacks.norms import distance
from robustode.evaluation import records
from tests.attacks.adapter_problems import exact_distance
from tests.evaluation.problem import Coupled, affine, as_data
from tests.evaluation.units import WRONG, N, attacked, unit


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("leaves_box", "the attack returned a point outside the box"),
        ("leaves_ball", "outside the ball"),
        ("not_a_number", "the attack returned a value that is not finite"),
        ("clean", ""),
    ],
)
def test_success_is_never_taken_from_the_attack(card, lie, message):
    made, frame = unit(card(lie), radii=(0.02,))
    _, rest = attacked(frame)
    assert (rest["status"] == "failed").all()
    assert (rest["distance"] == math.inf).all()
    assert rest["message"].str.contains(message, regex=False).all()
    assert len(made.sample) == 0
    if lie == "leaves_ball":  # the message has the distance of the point that was returned
        model, data = affine(N, wrong=WRONG)
        exact = float(exact_distance(model, data.x, data.y, "l2")[WRONG])
        assert f"at distance {1.5 * exact:.4g}"[:16] in rest["message"].iloc[0]


class Liar:
    """Says what it likes of points that it does not move."""

    norm, eps = "l2", 0.1

    def __init__(self, **claims):
        self.claims = claims

    def __call__(self, model, x, y, *, target=None, generator=None):
        n = len(x)
        claims = {"x_adv": x, "status": (Status.SUCCESS,) * n, "distance": torch.full((n,), 1e-9, dtype=torch.float64)}
        return AttackResult(**{**claims, "adv_pred": (y + 1) % model.classes, **self.claims})


def test_an_attacks_own_words_do_not_count(monkeypatch, card):
    half = torch.full((N - WRONG,), 0.5)
    liar = Liar(forwards=half * 1000, backwards=half, converged=half > 1, kkt=torch.full_like(half, math.nan))
    monkeypatch.setattr(Card, "build", lambda self, eps: liar)
    _, frame = unit(card("clean"))
    _, rest = attacked(frame)
    assert (rest["status"] == "failed").all()
    assert (rest["adv_pred"] == rest["label"]).all()
    assert (rest["distance"] == math.inf).all()
    assert (rest["forwards"] == 0).all()  # the boundary saw no pass, whatever was claimed
    assert (rest["backwards"] == 0).all()
    assert rest["kkt"].isna().all()
    assert not rest["converged"].any()


def test_an_attack_that_denies_its_success_is_not_believed_either(monkeypatch, card):
    _, data = affine(N, wrong=WRONG)
    pushed = torch.roll(data.x[WRONG:], 1, 0)  # another sample's input: often of another class
    modest = Liar(x_adv=pushed, status=(Status.FAILED,) * (N - WRONG))
    monkeypatch.setattr(Card, "build", lambda self, eps: modest)
    _, frame = unit(card("clean", kind="minimal"))
    assert (records.rows(frame, status="success")["distance"] > 0).sum() > 5


def test_an_attack_that_moves_its_own_input_does_not_move_the_clean_one(card):
    model, data = affine(N, wrong=WRONG)
    _, frame = unit(card("in_place", kind="minimal"), model, data)
    _, rest = attacked(frame)
    exact = exact_distance(model, data.x, data.y, "l2")[WRONG:]
    assert (rest["status"] == "success").all()
    torch.testing.assert_close(torch.tensor(rest["distance"].to_numpy()), 1.01 * exact, rtol=1e-5, atol=0)


def test_an_own_attack_gets_a_copy_too(monkeypatch, card):
    """One that overwrites its inputs and labels neither changes what it is measured against nor who is judged."""

    def vandal(model, x, y, *, target=None, generator=None):
        y.zero_()
        return Liar(x_adv=x.fill_(0.5))(model, x, y)

    monkeypatch.setattr(Card, "build", lambda self, eps: vandal)
    model, data = affine(N, wrong=WRONG)
    _, frame = unit(card("clean", kind="minimal"), model, data)
    _, rest = attacked(frame)
    centre = torch.full_like(data.x, 0.5)
    expected = torch.where(model(centre).argmax(1) != data.y, distance(data.x, centre, "l2"), math.inf)[WRONG:]
    assert rest["distance"].tolist() == expected.tolist()
    assert set(rest["status"]) == {"success", "failed"}


@pytest.mark.parametrize(("lie", "message"), [
    ("raises", "ValueError: no luck today"),
    ("wrong_shape", "AttackError: return value of attack python:forms.py:wrong_shape: expected a floating tensor"),
])  # fmt: skip
def test_an_attack_that_raises_gives_error_rows(card, lie, message):
    made, frame = unit(card(lie), radii=(0.05, 0.1))
    wrong, rest = attacked(frame)
    assert len(wrong) == 2 * WRONG
    assert (rest["status"] == "error").all()
    assert rest["message"].str.startswith(message).all()
    assert not rest["message"].str.contains("second line").any()
    assert (rest["distance"] == math.inf).all()
    assert rest[["adv_pred", "adv_margin", "forwards", "backwards"]].isna().all().all()
    assert len(made.timings) == 2


def test_an_attack_that_raises_at_one_budget_runs_at_the_others(card):
    _, frame = unit(card("raises", above=0.075), radii=(0.05, 0.1))
    _, rest = attacked(frame)
    assert set(rest.loc[rest["eps"] == 0.05, "status"]) == {"failed"}
    assert set(rest.loc[rest["eps"] == 0.1, "status"]) == {"error"}


def test_a_result_of_the_wrong_shape_is_an_error(monkeypatch, card):
    flat = torch.zeros(N - WRONG, 12)
    monkeypatch.setattr(Card, "build", lambda self, eps: Liar(x_adv=flat))
    _, frame = unit(card("clean"))
    _, rest = attacked(frame)
    assert set(rest["message"]) == {"AttackError: points returned: expected shape (28, 1, 3, 4), got (28, 12)"}


def test_batch_coupled_model_is_attacked_but_judged_alone(card):
    """In a batch the push looks like nothing; alone it is what it is: the harness asks alone."""
    plain, data = affine(N, wrong=0)
    coupled = Coupled(plain)
    constant = as_data(data.x, torch.zeros_like(data.y))  # alone, the answer is always class 0
    _, frame = unit(card("clean"), coupled, constant)
    assert set(frame["clean_pred"]) == {0}
    assert set(frame["status"]) == {"failed"}


def test_points_that_only_the_batch_calls_failures_are_judged_alone(card):
    """The adapter sees a batch in which nothing is broken; alone every one of the returned points is."""

    class OnlyAlone(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.weight, self.bounds, self.classes = model.weight, model.bounds, model.classes
            self.input_shape = model.input_shape

        def forward(self, x):
            z = self.model(x)
            return z if len(x) == 1 else z + 1e3 * torch.nn.functional.one_hot(self.clean, self.classes)[: len(x)]

    plain, data = affine(N, wrong=0)
    model = OnlyAlone(plain)
    model.clean = data.y
    _, frame = unit(card("alone", kind="minimal"), model, data)
    assert set(frame["status"]) == {"success"}


def test_interrupts_are_not_swallowed(monkeypatch, card):
    def interrupted(model, x, y, *, target=None, generator=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Card, "build", lambda self, eps: interrupted)
    with pytest.raises(KeyboardInterrupt):
        unit(card("clean"))


def test_an_attack_that_changes_the_model_is_an_error_and_the_model_is_put_back(card):
    model, data = affine(N, wrong=WRONG)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, frame = unit(card("wreck"), model, data, radii=(0.02,))
    _, rest = attacked(frame)
    assert (rest["status"] == "error").all()
    assert rest["message"].str.contains("the attack changed the model").all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
