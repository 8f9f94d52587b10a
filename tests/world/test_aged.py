"""People by age class and ancestry group, in the numbers asked for."""

import numpy as np
import pytest

from kdlab.world import FaceWorld
from kdlab.world.aged import CLASSES, aged, cells
from kdlab.world.identity import GROUPS


@pytest.mark.parametrize("per_class, skew", [(9, 1 / 3), (10, 0.8), (10, 0), (10, 1), (50, 0.6)])
def test_cells_add_up(per_class, skew):
    count = cells(per_class, skew)
    assert count.shape == (len(CLASSES), len(GROUPS)) and (count.sum(1) == per_class).all()
    assert (np.diag(count) == round(skew * per_class)).all()
    for c, row in enumerate(count):
        assert np.ptp(np.delete(row, c)) <= 1
    if skew == 1 / 3:
        assert (count == per_class // 3).all()


def test_pictures_are_of_the_people_described(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path))
    world = FaceWorld(5, ages=(10, 75))
    made = aged(world, 4, skew=0.5, first=100)
    assert made.pixels.shape == (12, 3, 48, 48) and made.pixels.dtype == np.uint8
    count = np.bincount(3 * made.labels + made.groups, minlength=9).reshape(3, 3)
    assert (count == cells(4, 0.5)).all()
    again = aged(world, 4, skew=0.5, first=100)
    assert (again.pixels == made.pixels).all() and (again.labels == made.labels).all()
    assert len(np.unique(made.pixels.reshape(12, -1), axis=0)) == 12


def test_a_world_without_the_young_says_so():
    with pytest.raises(ValueError, match="are young.*widen the world's ages"):
        aged(FaceWorld(0, ages=(40, 75)), 3)


@pytest.mark.parametrize("per_class, skew, said", [(2, 0.5, "3 or more"), (9, 1.5, "0 to 1")])
def test_what_is_no_such_set(per_class, skew, said):
    with pytest.raises(ValueError, match=said):
        cells(per_class, skew)
