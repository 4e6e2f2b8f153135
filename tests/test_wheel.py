"""What a built wheel contains: the package with cards, protocols and checkpoints, and nothing else at top level."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_content(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"robustode", "robustode-0.1.0.dist-info"}
    kept = {name.removeprefix("robustode/_protocols/") for name in names if "/_protocols/" in name}
    repository = {
        path.relative_to(ROOT).as_posix()
        for folder in ("attacks", "evaluations")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert kept == repository
    assert "attacks/suites/standard.toml" in kept
    assert {"robustode/reporting/report.html.j2", "robustode/evaluation/verify_script.py"} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".orig"))]


def test_checkpoints_are_small(wheel):
    sizes = {i.filename: i.file_size for i in zipfile.ZipFile(wheel).infolist() if i.filename.endswith(".safetensors")}
    assert {Path(name).stem for name in sizes} == {"snode-digits", "layered-digits", "resnet-digits"}
    assert sum(sizes.values()) < 1_000_000


def test_cards_are_found_inside_the_wheel(wheel, tmp_path):
    """Unpacked away from the repository, the package finds its cards and protocols by package resources."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from robustode.attacks.cards import card_names, resolve;"
        "from robustode.evaluation.protocol import read_protocol;"
        "import robustode; print(robustode.__file__); print(len(card_names()), len(resolve('standard')));"
        "print(read_protocol('quickstart').title)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first, counts, title = done.stdout.splitlines()
    assert str(tmp_path) in first
    assert counts.split() == [str(len(list((ROOT / "attacks").glob("*.toml")))), "17"]
    assert "digits" in title
