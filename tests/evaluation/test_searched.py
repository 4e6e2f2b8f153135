"""Attacks search in a shorter precision where that is asked for; what they find is judged in full."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.api import evaluate, merge_parts, run_part, run_protocol
from robustode.errors import OptionError, ProtocolError, RunError
from robustode.evaluation.counting import Counted
from robustode.evaluation.eot import Averaged
from robustode.evaluation.protocol import build_protocol
from robustode.evaluation.searched import Autocast, Searched, searched
from robustode.models import load_model
from robustode.sensitivity.linearise import linearise
from robustode.solvers.graphs import Graphs
from robustode.solvers.rounded import Rounded
from tests.cli.command import refused
from tests.problems import random_affine, random_points, random_snode
from tests.solvers.recapture import recapture

SNODE, RESNET = "zoo:snode-digits", "zoo:resnet-digits"
LIMIT = 60


def run(model, card, precision, **options):
    found = evaluate(model, attacks=card, limit=LIMIT, audit="none", search_precision=precision, **options)
    return found, found.records.sort_values(["eps", "sample"]).reset_index(drop=True)


@pytest.fixture
def asked(monkeypatch):
    """Rows that were asked in bfloat16, of modules and of the products of an sNODE."""
    rows = {"autocast": 0, "rounded": 0}
    forward, product = Autocast.forward, Rounded.product

    def counted_forward(self, x):
        rows["autocast"] += len(x)
        return forward(self, x)

    def counted_product(self, z, weight):
        rows["rounded"] += len(z)
        return product(self, z, weight)

    monkeypatch.setattr(Autocast, "forward", counted_forward)
    monkeypatch.setattr(Rounded, "product", counted_product)
    return rows


@pytest.mark.parametrize(("model", "how"), [(SNODE, "rounded"), (RESNET, "autocast")])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_sensitivity_attack_comes_back_to_the_model_itself(model, how, norm, asked):
    _, full = run(model, f"sensitivity-{norm}", "full")
    assert asked == {"autocast": 0, "rounded": 0}
    _, short = run(model, f"sensitivity-{norm}", "bfloat16")
    assert asked[how] > 5 * LIMIT
    assert (short["status"] == full["status"]).all()
    ratio = (short["distance"] / full["distance"])[full["status"] == "success"]
    assert ratio.median() == pytest.approx(1, abs=5e-3)
    assert np.exp(np.log(ratio).mean()) < 1.01
    # every point is one of the model in full, at its boundary: bfloat16 could not tell
    broken = short[short["status"] == "success"]
    assert (broken["adv_margin"] < 0).all()
    assert (broken["adv_margin"].abs() / broken["clean_margin"]).median() < 1e-3


@pytest.mark.parametrize(("model", "how"), [(SNODE, "rounded"), (RESNET, "autocast")])
def test_an_attack_in_a_ball_searches_in_the_shorter_precision_throughout(model, how, asked):
    eps = {"linf": [0.05, 0.1]}
    _, full = run(model, "pgd-linf", "full", eps=eps)
    _, short = run(model, "pgd-linf", "bfloat16", eps=eps)
    assert asked[how] >= short["forwards"].sum() > 0
    assert (short["status"] != full["status"]).mean() <= 0.03
    np.testing.assert_array_equal(short["forwards"], full["forwards"])  # and its passes are counted alike
    np.testing.assert_array_equal(short["backwards"], full["backwards"])
    np.testing.assert_array_equal(short["clean_margin"], full["clean_margin"])  # judged in full


def test_a_minimal_norm_attack_of_a_library_sees_the_model_itself(asked):
    first, second = (run(RESNET, "ddn-l2", precision)[1] for precision in ("full", "bfloat16"))
    assert asked == {"autocast": 0, "rounded": 0}
    np.testing.assert_array_equal(first["distance"], second["distance"])


def test_workers_search_alike():
    options = {"shard": 30}
    _, local = run(SNODE, "sensitivity-l2", "bfloat16", **options)
    _, sent = run(SNODE, "sensitivity-l2", "bfloat16", engine="processes", workers=1, **options)
    _, full = run(SNODE, "sensitivity-l2", "full", **options)
    pd.testing.assert_frame_equal(local, sent)
    assert not (local["forwards"] == full["forwards"]).all()


def test_the_precision_is_part_of_the_protocol_and_said(tmp_path):
    first, _ = run(SNODE, "fgsm-linf", "full")
    second, _ = run(SNODE, "fgsm-linf", "bfloat16", out=tmp_path / "run")
    assert first.meta["protocol_hash"] != second.meta["protocol_hash"]
    words = "Attacks were allowed to search in bfloat16; every point was judged in float32."
    assert words in (tmp_path / "run" / "report.html").read_text()
    assert words in " ".join((tmp_path / "run" / "tables" / "robust_accuracy_linf.md").read_text().split())


def test_parts_made_on_a_gpu_are_put_together_without_one(tmp_path, monkeypatch):
    protocol = build_protocol(
        {"models": [SNODE], "attacks": "fgsm-linf", "limit": 20, "search_precision": "tf32", "audit": "none"}
    )
    with pytest.raises(OptionError, match="tf32"):
        run_part(protocol, tmp_path / "run", (0, 1))
    with monkeypatch.context() as patch:
        patch.setattr("robustode.api.check_search", lambda plan: plan)
        run_part(protocol, tmp_path / "run", (0, 1))
    run = merge_parts([tmp_path / "run"], tmp_path / "run")
    assert len(run.records) > 0
    assert run.meta["protocol"]["search_precision"] == "tf32"
    with pytest.raises(OptionError, match="tf32"):
        run_protocol(protocol, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_counted_model_answers_with():
    model = random_snode(dtype=torch.float32, steps=12)
    counted = Counted(model, searched(model, precision="bfloat16"))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    with torch.no_grad():
        own, short = model(x), model.searched(products=torch.bfloat16)(x)
        coarse = model.searched(products=torch.bfloat16).at_steps(4)(x)
        assert not torch.equal(own, short)
        assert counted.shorter_precision() is None
        assert torch.equal(counted(x), own)
        with counted.searching(whole=True):
            assert torch.equal(counted(x), short)
        with counted.searching(whole=False):
            assert torch.equal(counted(x), own)
            assert torch.equal(counted.linearise(x).logits, own)
            counted.reset()
            level = counted.shorter_precision()
            assert torch.equal(level(x), short)
            assert torch.equal(counted.at_steps(4)(x), coarse)
            assert counted.forwards == 6 + 6 * 4 / 12
        assert torch.equal(counted(x), own)
        assert counted.shorter_precision() is None


def test_a_search_that_fails_leaves_the_model_as_it_was():
    model = random_affine(dtype=torch.float32)
    counted = Counted(model, searched(model, precision="bfloat16"))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    with pytest.raises(ZeroDivisionError), counted.searching(whole=True):
        1 / 0  # noqa: B018
    assert torch.equal(counted(x), model(x))


def test_tf32_is_set_for_the_search_and_not_for_passes_in_full():
    seen = []

    class Asks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            inner = random_affine(dtype=torch.float32)
            self.inner, self.bounds, self.classes, self.input_shape = inner, inner.bounds, 4, inner.input_shape

        def forward(self, x):
            seen.append(torch.get_float32_matmul_precision())
            logits = self.inner(x)
            if logits.requires_grad:
                logits.register_hook(lambda gradient: seen.append(torch.get_float32_matmul_precision()))
            return logits

    model = Asks()
    counted = Counted(model, searched(model, precision="tf32"))
    x = random_points(model.input_shape, 2, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    w = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    counted(x)
    with counted.searching(whole=False):
        counted(x)
        counted.bare(x)  # as `assess` and `settle` ask it
        counted.linearise(x).vjp(w)
        level = counted.shorter_precision()
        level(x)
        level.linearise(x).vjp(w)
    assert seen == [before, *["highest"] * 4, *["high"] * 3]
    assert torch.get_float32_matmul_precision() == before
    seen.clear()
    with counted.searching(whole=True):
        counted(x)
    with Counted(model, searched(model)).searching(whole=True):
        counted(x)
    assert seen == ["high", "highest"]


def test_an_adaptive_snode_has_no_shorter_precision():
    model = load_model(SNODE).with_solver(method="dopri5")
    assert searched(model, precision="bfloat16").reduced is None
    assert searched(model, precision="bfloat16", graphs=True).full is model
    assert searched(Averaged(model, 3), precision="bfloat16").reduced is None


def test_averages_are_searched_through_and_counted_with_their_draws():
    model = random_snode(dtype=torch.float32, steps=12)
    counted = Counted(Averaged(model, 3), searched(Averaged(model, 3), precision="bfloat16"))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    with torch.no_grad(), counted.searching(whole=False):
        assert torch.allclose(counted.shorter_precision()(x), model.searched(products=torch.bfloat16)(x))
    assert counted.forwards == 18
    adaptive = Averaged(model.with_solver(method="dopri5"), 3)
    counted = Counted(adaptive, searched(adaptive, precision="bfloat16"))
    with torch.no_grad(), counted.searching(whole=True):
        counted(x)
        counted(x[:3])
    adaptive(x)
    taken = adaptive.last_nfe.sum()
    adaptive(x[:3])
    assert counted.evaluations == taken + adaptive.last_nfe.sum()


def test_sweeps_are_captured_where_that_is_asked_for(monkeypatch):
    made = []

    def graphs():
        made.append(Graphs(recapture))
        return made[-1]

    monkeypatch.setattr("robustode.evaluation.searched.Graphs", graphs)
    monkeypatch.setattr("robustode.api.check_search", lambda plan: plan)
    _, plain = run(SNODE, "sensitivity-l2", "full")
    assert not made
    _, captured = run(SNODE, "sensitivity-l2", "full", cuda_graphs=True)
    assert len(made) == 1
    assert len(made[0]) >= 6
    np.testing.assert_allclose(captured["distance"], plain["distance"], rtol=1e-3)
    run(SNODE, "pgd-l2", "bfloat16", cuda_graphs=True, eps={"l2": [0.5]})
    assert len(made) == 3  # in full, and rounded
    assert [len(one) > 0 for one in made] == [True, False, True]


def test_captures_are_forgotten_where_memory_runs_out():
    graphs = Graphs(recapture)
    model = random_snode(dtype=torch.float32)
    counted = Counted(model, Searched(full=model.searched(graphs=graphs), graphs=(graphs,)))
    x = random_points(model.input_shape, 6, dtype=torch.float32)
    w = torch.randn(6, model.classes, generator=torch.Generator().manual_seed(0))
    with counted.searching(whole=False):
        linear = counted.linearise(x)
        expected = linear.vjp(w)
        assert len(graphs) == 2
        counted.release()
        assert len(graphs) == 0
        counted.linearise(1 - x).vjp(w)
        assert torch.equal(linear.vjp(w), expected)  # what stood on them still does


def test_autocast_gives_logits_and_gradients_in_the_dtype_of_the_input():
    model = load_model(RESNET).requires_grad_(False)
    x = random_points(model.input_shape, 8, dtype=torch.float32).requires_grad_(True)
    short = Autocast(model)
    own, right = short(x), model(x)
    assert own.dtype == torch.float32
    assert 0 < (own - right).abs().max() < 0.05 * right.abs().max()
    first, second = (torch.autograd.grad(out.logsumexp(1).sum(), x)[0].flatten(1) for out in (own, right))
    assert torch.nn.functional.cosine_similarity(first, second).median() > 0.99


def test_products_with_a_jacobian_under_autocast_are_not_differences_of_rounded_logits():
    model = load_model(RESNET).requires_grad_(False)
    x, delta = (random_points(model.input_shape, 8, seed=seed, dtype=torch.float32) for seed in (1, 2))
    own, right = linearise(Autocast(model), x).jvp(delta), linearise(model, x).jvp(delta)
    assert ((own - right).norm(dim=1) < 0.3 * right.norm(dim=1)).all()


def test_a_run_is_resumed_in_its_own_precision(tmp_path):
    run(SNODE, "fgsm-linf", "bfloat16", out=tmp_path / "run")
    with pytest.raises(RunError, match='search_precision: "bfloat16" then, "full" now'):
        run(SNODE, "fgsm-linf", "full", out=tmp_path / "run", resume=True)


def test_what_cannot_be():
    with pytest.raises(ProtocolError, match="expected one of bfloat16, full, tf32, got 'half'"):
        run(SNODE, "fgsm-linf", "half")
    double = load_model(SNODE, dtype="float64")
    with pytest.raises(OptionError, match="expected full, as it computes in float64, got bfloat16"):
        run(double, "fgsm-linf", "bfloat16", data="digits")
    with pytest.raises(OptionError, match=r"search precision tf32: expected device 'cuda', got device 'cpu'\. Add"):
        run(SNODE, "fgsm-linf", "tf32")
    words = refused(f"eval --model {SNODE} --limit 20 --cuda-graphs --out x")
    assert "CUDA graphs: expected device 'cuda', got device 'cpu'. Add --device cuda, or leave them out." in words
    words = refused(f"eval --model {RESNET} --limit 20 --cuda-graphs --out x")
    assert "CUDA graphs: expected an sNODE on a fixed grid among the models, got none" in words
    words = refused(f"eval --model {SNODE} --limit 20 --search-precision bf16 --out x")
    assert "search_precision: expected one of bfloat16, full, tf32, got 'bf16'" in words
