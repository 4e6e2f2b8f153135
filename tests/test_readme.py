"""The README's commands and code run as they stand, in order, in an empty folder."""

import re
from pathlib import Path

import pytest

from tests.pages import blocks, execute, lines, links, place, run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def commands() -> list[str]:
    """Those of robustode; tests/test_user_model.py makes `my_model.py` and runs the one that needs it."""
    all_ = [line for block in blocks(README, "sh") for line in lines(block)]
    return [line for line in all_ if line.startswith("robustode ") and "my_model.py" not in line]


def python(part: str) -> str:
    """The one block of Python code that has `part` in it."""
    (code,) = [block.text for block in blocks(README, "python") if part in block.text]
    return code


@pytest.mark.slow
def test_commands(tmp_path, monkeypatch):
    assert len(commands()) >= 10
    with place(tmp_path):
        for line in commands():
            run(line)
    assert (tmp_path / "runs/snode-digits+resnet-digits-digits-standard/report.html").is_file()
    assert (tmp_path / "runs/comparison/report.html").is_file()
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with place(tmp_path):
        said = execute(python("load_dataset"))
    assert "torch.Size([32, 1, 8, 8])" in said
    assert "torch.Size([1, 8, 8]) ClassLabel" in said


@pytest.mark.slow
def test_python(tmp_path):
    with place(tmp_path):
        said = execute(python("ro.evaluate"))
    median, likely, rows = re.findall(r"[\d.]+", said.replace("dtype=torch.float64", ""))
    assert 0.1 < float(median) < 2
    assert 0.5 < float(likely) <= 1
    assert int(rows) >= 50 * 4


def test_doors_to_other_tools(tmp_path):
    with place(tmp_path):
        said = execute(python("FoolboxSensitivity"))
    rates = [float(rate) for rate in re.findall(r"[01]\.\d*", said)]
    assert rates == sorted(rates)
    assert 0 <= rates[0] < rates[-1] <= 1


def test_links_exist():
    for target in links(README):
        file, _, heading = target.partition("#")
        assert (ROOT / (file or README.name)).is_file(), target
        if not file:
            headings = re.findall(r"^#+ (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in headings}, target
