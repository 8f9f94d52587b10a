"""Every notebook of the course, top to bottom in the smoke profile, through papermill."""

import pytest

from kdlab.course import run
from kdlab.profiles import index


@pytest.mark.notebooks
@pytest.mark.parametrize("name", index())
def test_the_notebook_runs(name, tmp_path):
    row, = run([name], "smoke", out=tmp_path)
    assert row.ok, f"{row.state} after {row.seconds:.0f} s: {row.error}"
