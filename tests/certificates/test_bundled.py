"""The bundled models: no attack is nearer than a certified radius, and the interval is not empty."""

from __future__ import annotations

import pytest
import torch

from robustode.attacks.norms import distance
from robustode.attacks.sensitivity import SensitivityAttack
from robustode.certificates import certify
from robustode.data import load_data
from robustode.models import load_model
from tests.certificates.breaking import lowest_margins


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize(("name", "methods", "n"), [("snode", None, 6), ("layered", None, 6), ("resnet", ["ibp"], 4)])
def test_no_attack_is_nearer(name, methods, n, norm):
    model = load_model(f"zoo:{name}-digits")
    data = load_data("digits", split="test", limit=n + 2)
    with torch.no_grad():
        right = (model(data.x).argmax(1) == data.y).nonzero()[:n, 0]
    x, y = data.x[right], data.y[right]
    found = certify(model, x, y, norm=norm, methods=methods)
    assert (found.radius > 0).all()
    x_adv = SensitivityAttack(norm=norm)(model, x, y).x_adv
    with torch.no_grad():
        broken = model(x_adv).argmax(1) != y
    nearest = distance(x, x_adv, norm)
    assert broken.any()
    assert (found.radius < nearest)[broken].all()
    assert (lowest_margins(lambda v: model(v.float()), x.double(), y, found.radius, norm, model.bounds) > 0).all()
    if name == "snode":
        assert (found.radius > 0.1 * nearest)[broken].all()
