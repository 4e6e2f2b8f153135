"""The report page: well formed, complete, offline, safe, and the same bytes for the same runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from robustode.evaluation import records
from robustode.evaluation.rundir import RunDir
from robustode.reporting.html import render, write_report
from tests import runs

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects ids, references and text, and insists on balanced tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.text = [], [], [], set(), ""
        self.scripts = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("id"))
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self._attributes(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def _attributes(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.references.append(value)


def run_of(labels, *, n=40, **meta_changes):
    frame, meta = runs.synthetic(labels, n=n)
    return RunDir(path=runs.Path("runs/x"), meta={**meta, **meta_changes}, records=frame, timings=runs.timings(frame))


@pytest.fixture(scope="module")
def text():
    return render([run_of({"a": 0.25, "b": 0.12})])


def test_page_is_well_formed_with_unique_ids(text):
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    local = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert local <= set(page.ids)


def test_page_works_offline(text):
    page = Page(text)
    assert page.tags.isdisjoint({"link", "iframe"})
    assert "<script src" not in text
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")  # no request can leave the page
    assert "http" not in policy[1]
    text = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text


def test_page_holds_every_table_figure_and_provenance(text):
    page = Page(text)
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])
    assert len(charts) == text.count("<figure") == 8
    assert {chart["name"] for chart in charts} <= set(page.ids)
    assert all(chart["spec"]["width"] == "container" for chart in charts)
    for wanted in (
        "Robustness of a and b on toy", "Robust accuracy, L∞", "Smallest adversarial distance, L2",
        "Cost of the attacks", "One-step success by direction, L∞", "Differences of robust accuracy, L2",
        "robustode eval --model a.safetensors", "robustode train snode --data toy --out b.safetensors", "torch 2.13.0",
        "zoo:a", "h-b", "sNODE", "1,234",
        '"suite": "standard"', "2026-01-02T03:04:05+00:00", "worst case of all attacks",
    ):  # fmt: skip
        assert wanted in page.text, wanted
    assert "Read this first" not in page.text


def test_summary_has_one_row_a_model_and_a_column_a_budget(text):
    head, body = re.search(r"<h2 id=.summary.>.*?<thead>(.*?)</thead>(.*?)</table>", text, re.DOTALL).groups()
    assert re.findall(r"<th[^>]*>(.*?)</th>", head) == [
        "model", "clean", "L∞ 0.1", "L∞ 0.2", "L∞ 0.3", "L2 0.5", "L2 1",
    ]  # fmt: skip
    assert body.count("<tr>") == 2


def test_notes_stand_at_the_top():
    errors = [{"model": "a", "attack": "pgd-linf", "count": 3, "message": "ValueError: <b>"}]
    skipped = [{"attack": "cw-l2", "reason": "not installed"}]
    text = render([run_of({"a": 0.25}, status="partial", skipped=skipped, errors=errors, eot=4)])
    top = text[text.index("<aside") : text.index("</aside>")]
    assert "Partial run: skipped cw-l2: not installed." in top
    assert "pgd-linf raised on 3 samples of a: ValueError: &lt;b&gt;." in top
    assert "averaged over 4 passes (EOT)" in top
    assert text.index("<aside") < text.index(">Summary</h2>")


def test_names_cannot_inject_markup():
    label = "<script>x</script>--><i>&\"'"
    page = Page(render([run_of({label: 0.2})]))
    assert "i" not in page.tags
    assert page.scripts == ["charts", None, None]
    assert label in page.text


def test_the_verdict_of_the_audit_stands_at_the_top():
    def finding(model, check, status):
        said = {
            "value": 0.5,
            "threshold": 0.1,
            "text": f"{check} said",
            "advice": "Do this.",
            "source": "",
            "samples": [],
        }
        return {"model": model, "check": check, "status": status, **said}

    found = [finding("a", "finite", "pass"), finding("a", "noise", "fail"), finding("b", "finite", "warn")]
    audit = {"scope": "full", "adaptive_attack": None, "findings": found}
    text = render([replace(run_of({"a": 0.25, "b": 0.12}), audit=audit)])
    first, second = re.findall(r'<div class="verdict (\w+)">(.*?)</div>', text, re.DOTALL)
    assert (first[0], second[0]) == ("fail", "warn")
    assert (
        "Audit of a</strong> (full): defects found; 1 checks passed, 0 warned, 1 failed; adaptive attack: none"
        in first[1]
    )
    assert "noise: DEFECT FOUND</strong>: noise said. Do this." in first[1]
    assert "finite" not in first[1]
    assert text.index("verdict fail") < text.index("<table")
    assert "Not audited." in render([run_of({"a": 0.25})])


def test_one_model_has_no_comparison_and_several_runs_have():
    alone = render([run_of({"a": 0.25})])
    assert "Differences of robust accuracy" not in alone
    other = run_of({"b": 0.12}, machine={"cpu": "other"})
    both = render([run_of({"a": 0.25}), other])
    assert "Differences of robust accuracy" in both
    assert both.count("<h3>Run ") == 2
    assert "different machines; do not compare seconds" in both
    assert '<th scope="row">run</th><td>runs/x</td>' in both
    assert '<th scope="row">run</th>' not in alone


def test_a_run_without_attacks_has_a_page():
    meta = runs.run_meta([runs.model_meta("a", n=4, correct=3)])
    page = Page(render([RunDir(path=runs.Path("r"), meta=meta, records=records.empty())]))
    assert "75.0 % [30.1, 95.4]" in page.text
    assert "figure" not in page.tags
    assert "script" not in page.tags


def test_equal_runs_give_equal_bytes(tmp_path):
    first = write_report([run_of({"a": 0.25, "b": 0.12})], tmp_path / "one.html")
    second = write_report([run_of({"a": 0.25, "b": 0.12})], tmp_path / "two.html")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) < 1_500_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]
