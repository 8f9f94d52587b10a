"""A set of faces gives its pictures at the size that is asked for."""

import numpy as np
import pytest

from kdlab.data.faces import SMALLEST, FaceSet


@pytest.fixture
def faces():
    random = np.random.default_rng(0)
    return FaceSet({"arcface": random.integers(0, 256, (3, 3, 112, 112), np.uint8)},
                   np.arange(3), "key")


def test_the_own_size_is_the_stored_pixels(faces):
    assert (faces.pixels("arcface").numpy() == faces.crops["arcface"]).all()
    assert (faces.pixels("arcface", 112).numpy() == faces.crops["arcface"]).all()


def test_half_the_size_is_the_mean_of_four(faces):
    mean = faces.crops["arcface"].reshape(3, 3, 56, 2, 56, 2).mean((3, 5))
    assert np.abs(faces.pixels("arcface", 56).numpy() - mean).max() <= 0.5


@pytest.mark.parametrize("size", [-1, 0, SMALLEST - 1, 113])
def test_a_size_out_of_range_is_refused(faces, size):
    with pytest.raises(ValueError, match=f"24 to 112 pixels .* not {size}"):
        faces.pixels("arcface", size)


def test_an_unknown_crop_is_named(faces):
    with pytest.raises(KeyError, match="arcface, not 'dlib'"):
        faces.pixels("dlib")
