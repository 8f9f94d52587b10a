"""Each notebook of the course, run once in the smoke profile for all tests that look at it."""

from functools import cache

import pytest

from kdlab.course import run


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """name -> (what became of the run, path of the executed copy); runs when first asked for."""
    out = tmp_path_factory.mktemp("course")

    @cache
    def once(name: str):
        row, = run([name], "smoke", out=out)
        return row, out / f"{name}.ipynb"

    return once
