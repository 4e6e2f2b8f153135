"""saturation: float32 gives 1 exactly beyond a margin of 25 ln 2 = 17.3, and below 24 ln 2 = 16.6 never."""

import pytest
import torch

from robustode.audit.checks.saturation import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case


def found_of(gaps, scale):
    x, y = at_distances(gaps)
    return CHECK(make_case(Lines(scale=scale), x, y))


@pytest.mark.parametrize(("count", "status"), [(0, Verdict.PASS), (2, Verdict.PASS), (3, Verdict.FAIL)])
def test_more_than_one_percent_fails(count, status):
    gaps = torch.full((200,), 0.16)  # margins of 16
    gaps[:count] = 0.18
    found = found_of(gaps, 100.0)
    assert found.status is status
    assert found.value == count / 200
    assert found.samples == tuple(range(count))


def test_ties_at_the_top_count():
    gaps = torch.full((10,), 0.1)
    gaps[4] = 0.0
    found = found_of(gaps, 10.0)
    assert found.status is Verdict.FAIL
    assert found.samples == (4,)
    assert "1 a tie" in found.text
