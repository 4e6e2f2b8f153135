"""Choosing the logits: the message names what came and every choice, and each choice gives the right numbers."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch

from robustode.errors import ModelError
from robustode.models.output import check_logits, choices, select

LOGITS = torch.tensor([[1.0, -2.0, 3.0]])
FEATURES = torch.arange(5.0)[None]
TRAJECTORY = torch.arange(12.0).reshape(4, 1, 3)  # (time, batch, classes)


def error(output, choice=None):
    with pytest.raises(ModelError) as caught:
        check_logits(output, choice, who="Net")
    return str(caught.value)


def test_plain_logits_and_object_with_logits_are_taken():
    assert check_logits(LOGITS, None, who="Net") == 3
    answer = SimpleNamespace(logits=LOGITS, hidden=FEATURES)
    assert select(answer, None) is LOGITS
    assert check_logits(answer, None, who="Net") == 3


def test_dict_with_key_logits_is_not_guessed():
    message = error({"logits": LOGITS, "features": FEATURES})
    assert "expected logits of shape (1, classes)" in message
    assert "got dict (logits: tensor (1, 3), features: tensor (1, 5))" in message
    assert "Choose with --output: logits or features" in message
    assert select({"logits": LOGITS, "features": FEATURES}, "logits") is LOGITS


def test_ordered_dict_with_attribute_logits_is_taken():
    class Answer(OrderedDict):
        logits = LOGITS

    assert select(Answer(logits=LOGITS), None) is LOGITS


def test_tuple_list_and_namedtuple_by_index():
    message = error((LOGITS, torch.tensor(0.5), FEATURES))
    assert "got tuple (0: tensor (1, 3), 1: tensor (), 2: tensor (1, 5))" in message
    assert "Choose with --output: 0 or 2" in message
    assert select((FEATURES, LOGITS), "1") is LOGITS
    assert "Choose with --output: 1" in error([torch.zeros(3, 3), LOGITS])
    assert select(namedtuple("Pair", "a b")(FEATURES, LOGITS), "1") is LOGITS


def test_object_without_logits_by_attribute():
    answer = SimpleNamespace(scores=LOGITS, _private=FEATURES)
    message = error(answer)
    assert "got SimpleNamespace (scores: tensor (1, 3))" in message
    assert "Choose with --output: scores" in message
    assert select(answer, "scores") is LOGITS


def test_trajectory_time_first_and_batch_first():
    message = error(TRAJECTORY)
    assert "got tensor (4, 1, 3)" in message
    assert message.endswith("Choose with --output: last (the final time of (time, batch, classes))")
    assert torch.equal(select(TRAJECTORY, "last"), torch.tensor([[9.0, 10.0, 11.0]]))
    message = error(TRAJECTORY.transpose(0, 1))
    assert message.endswith("Choose with --output: last:1 (the final time of (batch, time, classes))")
    assert torch.equal(select(TRAJECTORY.transpose(0, 1), "last:1"), torch.tensor([[9.0, 10.0, 11.0]]))


def test_tuple_that_holds_a_trajectory_is_offered_as_a_path():
    output = (torch.linspace(0, 1, 4), TRAJECTORY)
    assert choices(output) == ["1,last"]
    assert torch.equal(select(output, "1, last"), TRAJECTORY[-1])
    assert "Choose with --output: 1,last (the final time" in error(output, "1")


@pytest.mark.parametrize("column", [torch.tensor([[2.0]]), torch.tensor([2.0])])
def test_single_column_becomes_two_logits(column):
    assert error(column).endswith("Choose with --output: binary (one logit z becomes (0, z))")
    assert torch.equal(select(column, "binary"), torch.tensor([[0.0, 2.0]]))
    assert check_logits(column, "binary", who="Net") == 2


def test_binary_of_a_batch_keeps_the_sigmoid():
    z = torch.tensor([[2.0], [-1.0], [0.5]])
    assert torch.allclose(select(z, "binary").softmax(1)[:, 1], z.sigmoid()[:, 0])


def test_lost_batch_dimension_and_images_have_no_choice():
    for output, shape in ((torch.zeros(3), "(3,)"), (torch.zeros(()), "()"), (torch.zeros(1, 3, 2, 2), "(1, 3, 2, 2)")):
        message = error(output)
        assert f"got tensor {shape}" in message
        assert message.endswith("Let forward return logits of shape (batch, classes), also for a batch of one.")


def test_integer_and_non_finite_outputs():
    assert "expected floating-point logits, got torch.int64. Return the logits" in error(torch.zeros(1, 3).long())
    assert "expected finite logits, got 2 of 3 not finite" in error(torch.tensor([[1.0, float("nan"), float("inf")]]))


@pytest.mark.parametrize(
    ("output", "choice", "message"),
    [
        ((LOGITS, FEATURES), "2", "unknown output of a tuple: expected one of 0, 1, got '2'"),
        ({"logits": LOGITS}, "logit", "got 'logit'. Did you mean 'logits'?"),
        (LOGITS, "0", "unknown output of a tensor (1, 3): expected one of binary, last, last:1, got '0'"),
        (LOGITS, "binary", "output 'binary': expected one logit per sample, (batch,) or (batch, 1), got tensor (1, 3)"),
        (LOGITS, "last", "output 'last': expected a trajectory of at least 3 axes, got tensor (1, 3)"),
        (None, None, "got NoneType"),
    ],
)
def test_wrong_choice(output, choice, message):
    assert message in error(output, choice)
