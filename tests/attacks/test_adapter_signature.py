"""Parameters against signatures."""

from __future__ import annotations

from typing import Literal, Optional

import numpy as np
import pytest

from robustode.attacks.adapters.signature import check_parameters
from robustode.errors import AttackError


def annotated(a: int, b: float = 1, c: bool = False, d: Literal["x", "y"] = "x", e: Optional[float] = None, f=None):  # noqa: UP045
    return a, b, c, d, e, f


def by_default(steps=10, alpha=0.1, flag=True, word="ce", size=(2, 10), weight=1, free=None):
    return steps, alpha, flag, word, size, weight, free


class Made:
    def __init__(self, n: int = 1, **rest) -> None:
        self.n, self.rest = n, rest


ACCEPTED = [
    (annotated, {"a": 1}),
    (annotated, {"a": np.int64(1), "b": 2, "c": True, "d": "y", "e": None, "f": object()}),
    (annotated, {"a": 1, "b": np.float32(2), "e": 3}),
    (by_default, {"steps": 3, "alpha": 1, "flag": False, "word": "dlr", "size": [1, 2], "weight": 0.5, "free": "any"}),
    (Made, {"n": 2, "whatever": 3}),
]
REFUSED = [
    (annotated, {}, "parameters of it: expected a value for a, got none"),
    (annotated, {"a": 1.0}, "parameter 'a' of it: expected an integer, got 1.0"),
    (annotated, {"a": True}, "parameter 'a' of it: expected an integer, got True"),
    (annotated, {"a": 1, "b": "2"}, "parameter 'b' of it: expected a number, got '2'"),
    (annotated, {"a": 1, "c": 1}, "parameter 'c' of it: expected true or false, got 1"),
    (annotated, {"a": 1, "d": "z"}, "parameter 'd' of it: expected 'x' or 'y', got 'z'"),
    (annotated, {"a": 1, "e": "z"}, "parameter 'e' of it: expected a number, got 'z'"),
    (by_default, {"steps": 0.5}, "parameter 'steps' of it: expected an integer, got 0.5"),
    (by_default, {"word": 3}, "parameter 'word' of it: expected a text, got 3"),
    (by_default, {"size": 3}, "parameter 'size' of it: expected a list, got 3"),
    (by_default, {"stesp": 3}, "got 'stesp'. Did you mean 'steps'?"),
    (by_default, {"hidden": 3}, "parameter 'hidden' of it: got 3. Not yours."),
    (Made, {"n": "2"}, "parameter 'n' of it: expected an integer, got '2'"),
]


@pytest.mark.parametrize(("function", "params"), ACCEPTED)
def test_accepted(function, params):
    check_parameters(function, params, what="it", real=("weight",))
    function(**params)


@pytest.mark.parametrize(("function", "params", "message"), REFUSED)
def test_refused(function, params, message):
    with pytest.raises(AttackError) as error:
        check_parameters(function, params, what="it", reserved={"hidden": "Not yours."}, real=("weight",))
    assert str(error.value).endswith(message)
