"""The LaTeX of every table compiles as it stands, where a TeX engine is present."""

from __future__ import annotations

import shutil
import subprocess

import pandas as pd
import pytest

from robustode.evaluation import records
from robustode.evaluation.noise import DRAWN
from robustode.evaluation.noise_rows import DTYPES
from robustode.evaluation.rundir import RunDir
from robustode.reporting.compare import paired
from robustode.reporting.html import summary
from robustode.reporting.noise import noise_tables
from robustode.reporting.views import all_tables
from tests import runs

ENGINE = shutil.which("pdflatex")
HEAD = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{array,booktabs,graphicx}\\begin{document}\n"


def noise(label):
    """P(correct) of 4 samples at one level, predicted and drawn."""
    parts = []
    for method in ("auto", DRAWN):
        columns = dict.fromkeys(DTYPES, 0) | {"model": label, "sigma": 0.1, "method": method, "weights": "int8"}
        columns |= {"sample": range(4), "p_correct": 0.5, "linear_valid": None, "draws": 9 if method == DRAWN else None}
        parts.append(pd.DataFrame(columns).astype(DTYPES))
    return pd.concat(parts, ignore_index=True)


def tables():
    frame, meta = runs.synthetic({"snode_a&b": 0.25, "50%#~^\\{x}": 0.12}, n=40)
    said = {"value": 0.5, "threshold": 1e-4, "text": "‖J‖ ≥ 2 × ε ± σ; θ² ∞ – “x” <y> |z|", "advice": "", "source": ""}
    findings = [{"model": "snode_a&b", "check": "noise", "status": "fail", "samples": [1], **said}]
    audit = {"scope": "full", "adaptive_attack": None, "findings": findings}
    run = RunDir(path=runs.Path("r"), meta=meta, records=frame, timings=runs.timings(frame), audit=audit)
    every = [*all_tables(run.records, meta, run.timings, audit), *paired(frame, meta)]
    clean = all_tables(records.empty(), meta)
    levels = [noise(frame.model.iloc[0]), noise(frame.model.iloc[-1])]
    every += noise_tables(pd.concat(levels, ignore_index=True), meta, None)
    return [*every, summary(every, frame, meta), *clean]


@pytest.mark.slow
@pytest.mark.skipif(ENGINE is None, reason="no TeX engine is installed")
def test_every_table_compiles(tmp_path):
    every = tables()
    assert len(every) >= 10
    text = HEAD + "\\clearpage\n".join(table.latex() for table in every) + "\\end{document}\n"
    (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
    command = [str(ENGINE), "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "tables.log").read_text(encoding="latin-1")
    assert "Missing character" not in log
    assert "Overfull" not in log
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
