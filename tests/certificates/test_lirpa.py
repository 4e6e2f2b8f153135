"""`auto-lirpa`: how the package is called, by a stand-in with its interface; it cannot be installed with this torch."""

from __future__ import annotations

import importlib.util
import math
import sys
from types import ModuleType

import pytest
import torch

from robustode.certificates import certify
from robustode.certificates.propagate.lirpa import Unrolled
from robustode.errors import OptionError
from robustode.sensitivity.norms import dual
from tests.certificates.networks import CONV, SMALL
from tests.problems import random_affine, random_conv_snode, random_points, random_snode

HERE = importlib.util.find_spec("auto_LiRPA") is not None


class Recorded(ModuleType):
    """Bounds networks that are affine, exactly, and keeps the calls."""

    def __init__(self) -> None:
        super().__init__("auto_LiRPA")
        self.calls: list[dict] = []
        package = self

        class BoundedModule:
            def __init__(self, network, example) -> None:
                self.network = network
                package.example = tuple(example.shape)

            def compute_bounds(self, *, x, C, method, bound_upper):
                (point,) = x
                data, ball = point
                jacobian = torch.autograd.functional.jacobian(lambda p: self.network(p[None])[0], data[0]).flatten(1)
                package.calls.append({"norm": ball.norm, "eps": ball.eps, "method": method, "rows": C})
                norm = {1: "l1", 2: "l2", math.inf: "linf"}[ball.norm]
                lower = C[0] @ self.network(data)[0].detach() - ball.eps * dual(C[0] @ jacobian, norm)
                assert not bound_upper
                return lower[None], None

        class PerturbationLpNorm:
            def __init__(self, *, norm, eps) -> None:
                self.norm, self.eps = norm, eps

        self.BoundedModule, self.BoundedTensor = BoundedModule, lambda x, ball: (x, ball)
        self.perturbations = ModuleType("auto_LiRPA.perturbations")
        self.perturbations.PerturbationLpNorm = PerturbationLpNorm


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("kind", ["affine", "snode"])
def test_the_package_is_called_as_it_wants_to_be(kind, norm, monkeypatch):
    stand_in = Recorded()
    monkeypatch.setitem(sys.modules, "auto_LiRPA", stand_in)
    monkeypatch.setitem(sys.modules, "auto_LiRPA.perturbations", stand_in.perturbations)
    model = random_affine(3, (1, 2, 3)) if kind == "affine" else random_snode(activation="identity", **SMALL)
    x = random_points((1, 2, 3), 3)
    y = model(x).argmax(1)
    found = certify(model, x, y, norm=norm, methods=["auto-lirpa"])
    own = certify(model, x, y, norm=norm, methods=["crown"])
    torch.testing.assert_close(found.radius, own.radius, rtol=1e-6, atol=0)
    assert stand_in.example == (1, 1, 2, 3)
    assert {call["method"] for call in stand_in.calls} == {"CROWN"}
    assert all(call["rows"].shape == (1, 2, 3) for call in stand_in.calls)
    assert {call["norm"] for call in stand_in.calls} == {{"l1": 1, "l2": 2, "linf": math.inf}[norm]}


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_an_unrolled_network_is_the_network(method):
    for model in (random_snode(method=method, **SMALL), random_conv_snode(method=method, **CONV)):
        x = random_points(tuple(model.input_shape), 4)
        torch.testing.assert_close(Unrolled(model)(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(HERE, reason="auto_LiRPA is installed")
def test_it_is_refused_where_it_is_not_installed():
    model = random_affine()
    with pytest.raises(OptionError, match="auto-lirpa: auto_LiRPA is not installed; 'crown' is the same bound"):
        certify(model, random_points((1, 3, 4), 1), torch.tensor([0]), methods=["auto-lirpa"])


@pytest.mark.skipif(not HERE, reason="auto_LiRPA is not installed")
def test_it_is_no_tighter_than_what_is_found():
    model = random_snode(**SMALL)
    x = random_points((1, 2, 3), 2)
    y = model(x).argmax(1)
    theirs = certify(model, x, y, methods=["auto-lirpa"]).radius
    own = certify(model, x, y, methods=["crown"]).radius
    torch.testing.assert_close(theirs, own, rtol=0.2, atol=0)
