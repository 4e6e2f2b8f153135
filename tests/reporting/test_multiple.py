"""The corrected p of a table's tests, by hand."""

import pytest

from robustode.reporting.multiple import with_holm


def test_rows_without_a_test_do_not_count():
    rows = [{"p": 0.04}, {"p": None}, {"p": 0.01}]
    assert with_holm(rows) == 2
    assert [row["p_holm"] for row in rows] == [pytest.approx(0.04), None, pytest.approx(0.02)]
    assert with_holm([]) == 0
