"""The table of exposure: whose grey levels it counts, and where in the README it stands."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.data.faces import FaceSet
from kdlab.world.identity import GROUPS

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "exposure.py"


@pytest.fixture
def module(monkeypatch):
    """The script, with flat faces for people: 50, 100 or 150 by group, each person's own shift."""
    spec = importlib.util.spec_from_file_location("exposure", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def flat(world, identities, per_identity, crops):
        assert min(identities) == module.FIRST and crops == ("arcface",)
        people = np.arange(len(identities))
        group = np.repeat(people % 3, per_identity)
        level = 50 * (1 + group) + np.repeat(people // 3, per_identity)
        pictures = np.full((len(group), 3, 112, 112), 255, np.uint8)  # burnt beside the face
        pictures[module.FACE] = level[:, None, None, None]
        return FaceSet({"arcface": pictures}, np.repeat(people, per_identity), "key",
                       {"group": group})

    monkeypatch.setattr(module, "rendered", flat)
    return module


def test_a_row_for_each_group_of_its_own_faces(module):
    rows = [row.strip("| ").split(" | ") for row in module.table(9, 2).splitlines()[2:]]
    assert [row[0] for row in rows] == list(GROUPS)
    for k, row in enumerate(rows):
        assert row[1] == "3 x 2" and row[3:] == ["0.0 [0.0, 0.0]"] * 2
        mean, interval = row[2].split(" ", 1)
        low, high = (float(x) for x in interval.strip("[]").split(", "))
        assert float(mean) == 50 * (k + 1) + 1  # people at +0, +1 and +2
        assert 50 * (k + 1) <= low < float(mean) < high <= 50 * (k + 1) + 2


def test_an_interval_is_of_people_and_repeats(module):
    values = np.random.default_rng(1).normal(100, 10, 400)
    told = module.interval(values, np.random.default_rng(0))
    assert told == module.interval(values, np.random.default_rng(0))
    low, high = (float(x) for x in told.split("[")[1].strip("]").split(", "))
    assert high - low == pytest.approx(2 * 1.96 * 10 / 400**0.5, rel=0.15)  # normal theory


def test_the_readme_changes_between_the_marks_alone(module, monkeypatch, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- exposure -->\nold\n<!-- /exposure -->\nafter\n")
    monkeypatch.setattr(module, "README", readme)
    monkeypatch.setattr("sys.argv", ["exposure.py", "--identities", "6", "--per-identity", "1"])
    module.main()
    once = readme.read_text()
    assert once == (f"before\n<!-- exposure -->\n{module.table(6, 1)}\n<!-- /exposure -->\nafter\n")
    module.main()
    assert readme.read_text() == once
