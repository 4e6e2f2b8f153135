"""monotone: the fall of raw successes is counted between any two radii; s = 2 up to 200 samples."""

import pytest
import torch

from robustode.audit.checks.monotone import CHECK
from robustode.audit.finding import Verdict
from tests.audit.cases import Lines, at_distances, make_case, own_card

RADII = [0.1, 0.2, 0.3]


def found_of(folder, counts, attacks=()):
    """An attack that breaks so many samples at the three radii."""
    body = f"count = dict(zip({RADII}, {list(counts)}))[eps]\nout = x.clone()\nout[:count, 0] += 0.09\nreturn out"
    x, y = at_distances(torch.full((50,), 0.05))
    return CHECK(make_case(Lines(), x, y, attacks=[own_card(folder, body), *attacks], budgets={"linf": RADII}))


@pytest.mark.parametrize(
    ("counts", "fall", "status"),
    [
        ((5, 6, 7), 0, Verdict.PASS),
        ((5, 4, 9), 1, Verdict.PASS),
        ((5, 6, 4), 2, Verdict.WARN),
        ((20, 17, 50), 3, Verdict.FAIL),
        ((12, 10, 8), 4, Verdict.FAIL),
    ],
)
def test_the_largest_fall_is_compared_with_s(tmp_path, counts, fall, status):
    found = found_of(tmp_path, counts)
    assert (found.status, found.value, found.threshold) == (status, fall, 2.0)


def test_honest_attacks_beside_it_do_not_hide_it(tmp_path):
    found = found_of(tmp_path, (9, 9, 0), ["pgd-foolbox-linf"])
    assert found.value == 9
    assert "own fall by 9 from ε = 0.1 to 0.3" in found.text


def test_pgd_passes_and_one_step_or_one_radius_are_not_looked_at():
    x, y = at_distances(torch.linspace(0.05, 0.4, 40))
    case = make_case(Lines(), x, y, attacks=["pgd-foolbox-linf"], budgets={"linf": RADII})
    assert CHECK(case).status is Verdict.PASS
    for attacks, radii in (["fgm-linf", "one-step-random-linf", "deepfool-linf"], RADII), (["pgd-foolbox-linf"], [0.1]):
        case = make_case(Lines(), x, y, attacks=attacks, budgets={"linf": radii})
        assert CHECK(case).status is Verdict.NOT_APPLICABLE
