"""transfer: the smooth twin of a masked model breaks it; a model's own solver variants do not."""

import torch

from robustode.audit.checks.transfer import CHECK
from robustode.audit.finding import Verdict
from robustode.audit.variants import solver_variants
from tests.audit.cases import make_case
from tests.audit.problems import EPS, Through, affine, clear_of, distances, healthy_case, quantised
from tests.problems import random_snode


def masked_case(**options):
    """A classifier behind fine quantisation, of samples whose distance is not too near to ε, and its smooth twin."""
    model, x, y = affine(n=60)
    sure = clear_of(distances(model, x, y), EPS, 0.05)
    x, y = x[sure], y[sure]
    masked = Through(model, inputs=quantised(4096))
    case = make_case(masked, x, y, attacks=["pgd-l2"], budgets={"l2": [EPS]}, full=True, **options)
    return model, case


def test_a_smooth_twin_breaks_exactly_what_is_nearer_than_the_radius():
    model, case = masked_case()
    model, case = masked_case(transfer=(("twin", model),))
    survivors = case.survivors("l2", EPS)
    near = distances(model, case.shard.x, case.shard.y)[survivors] < EPS
    found = CHECK(case)
    assert int(near.sum()) > 10
    assert (found.status, found.value) == (Verdict.FAIL, int(near.sum()))
    assert set(found.samples) == set(case.samples(survivors[near]))
    assert found.details["radii"][0]["by"]["PGD-40 on twin"] == int(near.sum())
    assert f"{int(near.sum())} of {len(survivors)} survivors broken at l2 0.15 (PGD-40 on twin" in found.text


def test_the_deployed_model_is_the_judge():
    model, x, y = affine()
    case = make_case(model, x, y, attacks=["pgd-l2"], budgets={"l2": [EPS]}, full=True)
    survivors = len(case.survivors("l2", EPS))
    assert survivors > 10
    weak = Through(model, logits=lambda z: z.flip(1) * torch.tensor([1.0, 1e3]))  # breaks anything, of its own
    case = make_case(model, x, y, attacks=["pgd-l2"], budgets={"l2": [EPS]}, full=True, transfer=(("weak", weak),))
    found = CHECK(case)
    assert (found.status, found.value) == (Verdict.PASS, 0)


def test_solver_variants_of_an_honest_snode_break_nothing():
    found = CHECK(healthy_case())
    assert (found.status, found.value) == (Verdict.PASS, 0)
    names = found.details["radii"][0]["by"]
    assert list(names) == [f"{a} on {n} steps" for n in (10, 40) for a in ("PGD-40", "sensitivity")]


def test_without_another_model_it_is_not_applicable():
    _, case = masked_case()
    found = CHECK(case)
    assert found.status is Verdict.NOT_APPLICABLE
    assert "no other model" in found.text


def test_variants_are_the_same_network_on_other_grids():
    model = random_snode()
    x = torch.rand(5, 1, 3, 4, dtype=torch.float64)
    labels, others = zip(*solver_variants(model), strict=True)
    assert labels == ("6 steps", "24 steps")
    for label, other in zip(labels, others, strict=True):
        assert f"{other.steps} steps" == label
        assert 1e-6 < (other(x) - model(x)).abs().max() < 0.5
    assert solver_variants(affine()[0]) == []
