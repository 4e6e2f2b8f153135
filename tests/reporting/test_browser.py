"""The report in a browser: every chart drawn, hover and toggles at work, no error, no request, readable when narrow."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch

from robustode.evaluation.depth import COLUMNS, GROWTH, REACH
from robustode.evaluation.noise import DRAWN
from robustode.evaluation.noise_rows import DTYPES
from robustode.evaluation.rundir import RunDir
from robustode.evaluation.shards import save_tensors
from robustode.reporting.html import write_report
from tests import runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MODELS = {"snode-a": 0.25, "resnet-b": 0.12, "layered-c": 0.18, "conv-d": 0.15, "wide-e": 0.2}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


def depth_of(labels):
    rows = [
        (label, quantity, t, 1 + t, 1.0, 2 + t, 64)
        for label in labels
        for quantity in (GROWTH, REACH)
        for t in np.linspace(0, 3, 21)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def noise_of(labels):
    """P(correct) of 100 samples at two levels, predicted and drawn."""
    rng = np.random.default_rng(0)
    parts = []
    for label in labels:
        for sigma in (0.1, 0.2):
            p = rng.uniform(0, 1, 100)
            for method in ("auto", DRAWN):
                columns = dict.fromkeys(DTYPES, 0) | {
                    "model": label,
                    "sigma": sigma,
                    "method": method,
                    "weights": "none",
                }
                columns |= {"sample": np.arange(100), "p_correct": p, "linear_valid": None, "disagreement": None}
                columns |= {"draws": 50 if method == DRAWN else None}
                parts.append(pd.DataFrame(columns, index=range(100)).astype(DTYPES))
    return pd.concat(parts, ignore_index=True)


def store(folder, labels):
    generator = torch.Generator().manual_seed(0)
    for label in labels:
        x = torch.rand(20, 1, 8, 8, generator=generator)
        values = {"sample": torch.arange(20), "label": torch.zeros(20), "pred": torch.ones(20)}
        values = {name: value.long() for name, value in values.items()}
        moved = {"x": x, "x_adv": (x + 0.1).clamp(0, 1), "distance": torch.linspace(0.1, 2, 20, dtype=torch.float64)}
        save_tensors({**values, **moved}, folder / "adversarials" / f"{label}-l2.safetensors")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Five models, six attacks, a thousand samples, with pictures, depth and an audit."""
    folder = tmp_path_factory.mktemp("report")
    frame, meta = runs.synthetic(MODELS, n=1000)
    store(folder, MODELS)
    said = {"value": 0.5, "threshold": 0.1, "text": "no gradient", "advice": "", "source": "", "samples": []}
    findings = [{"model": label, "check": "zero-gradient", "status": "fail", **said} for label in MODELS]
    audit = {"scope": "full", "adaptive_attack": None, "findings": findings}
    run = RunDir(path=folder, meta=meta, records=frame, depth=depth_of(MODELS), audit=audit, noise=noise_of(MODELS))
    return write_report([run], folder / "report.html")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, report):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: page.said.append(f"error: {error}"))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn || document.documentElement.dataset.failed")
    yield page
    context.close()


def lines(page, chart):
    """How many curves a chart shows."""
    return page.locator(f"#{chart} svg.marks .mark-line path[stroke]:not([stroke=none])").count()


def test_every_chart_is_drawn_without_error_or_request(page, report):
    charts = page.locator("figure .chart")
    assert page.evaluate("document.documentElement.dataset.drawn") == str(charts.count()) == "12"
    assert page.locator("figure .chart svg.marks").count() == 12
    for i in range(12):
        box = charts.nth(i).locator("svg.marks").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
    assert page.said == []
    assert page.asked == [report.as_uri()] or all(url.startswith("data:") for url in page.asked[1:])
    assert page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"


def test_it_is_small_and_opens(browser, report, record_property):
    assert report.stat().st_size < 3_000_000
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(report.as_uri())
    page.wait_for_function("document.documentElement.dataset.drawn")
    seconds = time.perf_counter() - start
    page.close()
    record_property("seconds until every chart is drawn", round(seconds, 2))


def test_hover_shows_the_numbers(page):
    place = page.locator("#robust_accuracy_linf .chart svg.marks")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    said = tooltip.inner_text()
    assert "robust accuracy" in said
    assert "95 % interval" in said
    assert any(label in said for label in MODELS), said
    assert "undefined" not in said


def test_models_are_hidden_everywhere_and_come_back(page):
    assert lines(page, "robust_accuracy_linf") == len(MODELS)
    strips = page.locator("section[data-of='resnet-b']")
    assert strips.first.is_visible()
    page.locator("input[data-model='resnet-b']").uncheck()
    page.wait_for_function("document.querySelector(\"section[data-of='resnet-b']\").hidden")
    page.wait_for_timeout(200)
    assert lines(page, "robust_accuracy_linf") == len(MODELS) - 1
    assert lines(page, "depth_growth") == len(MODELS) - 1
    assert not strips.first.is_visible()
    page.locator("input[data-model='resnet-b']").check()
    page.wait_for_timeout(200)
    assert lines(page, "robust_accuracy_linf") == len(MODELS)


def test_a_choice_changes_what_is_drawn(page):
    path = page.locator("#robust_accuracy_linf svg .mark-line path").first
    worst = path.get_attribute("d")
    page.locator("#robust_accuracy_linf select").select_option("fgsm-linf")
    page.wait_for_timeout(200)
    assert path.get_attribute("d") != worst


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
    box = page.locator("#robust_accuracy_linf svg.marks").bounding_box()
    assert box["x"] + box["width"] <= width


def test_dark_pages_have_light_ink(page):
    ink = "getComputedStyle(document.querySelector('#robust_accuracy_linf svg .role-axis-label text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ink)
    assert light == "rgb(31, 41, 51)"
    assert dark == "rgb(228, 232, 236)"


def test_print_hides_the_controls(page):
    page.emulate_media(media="print")
    assert not page.locator(".models").is_visible()
    assert page.locator("#robust_accuracy_linf svg.marks").is_visible()
