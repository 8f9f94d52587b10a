"""Every notebook of the course, top to bottom in the smoke profile, through papermill."""

import ast

import pytest

from kdlab import home, stored
from kdlab.course import read
from kdlab.profiles import index


@pytest.mark.notebooks
@pytest.mark.parametrize("name", index())
def test_the_notebook_runs(name, executed):
    row, _ = executed(name)
    assert row.ok, f"{row.state} after {row.seconds:.0f} s: {row.error}"


def test_first_light_uses_the_rates_that_the_study_chose():
    chosen = stored("first_light").summary["lr"]
    cells = read(home() / "notebooks" / "00_start.ipynb").cells
    cell = next(c for c in cells if "parameters" in c.metadata.get("tags", []))
    values = {node.targets[0].id: node.value.value for node in ast.parse(cell.source).body}
    for method in ("arcface", "adadistill", "feature_only"):
        assert values[f"RATE_{method.upper()}"] == chosen[method]
