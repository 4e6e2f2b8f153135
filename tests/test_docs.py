"""The pages of docs/: their commands and code run, what they show is printed, and what they name exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import follow

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page(page, tmp_path):
    follow(page, tmp_path)
