"""A set of faces gives its pictures at the size that is asked for."""

import tracemalloc

import numpy as np
import pytest
import torch

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


def test_rows_are_read_in_the_order_asked(faces):
    whole = faces.pixels("arcface", 40)
    for rows in ([2, 0, 2], np.array([2, 0, 2], np.uint8), torch.tensor([2, 0, 2])):
        assert torch.equal(faces.read("arcface", 40, rows), whole[[2, 0, 2]])
    assert (faces.read("arcface", 112, [1]).numpy() == faces.crops["arcface"][[1]]).all()
    assert faces.read("arcface", 40, []).shape == (0, 3, 40, 40)
    assert faces.sizes == {"arcface": 112} and faces.groups is None


def test_what_is_read_is_a_copy(faces):
    before = faces.crops["arcface"].copy()
    faces.read("arcface", 112, np.arange(3)).fill_(0)
    faces.pixels("arcface").fill_(0)
    assert (faces.crops["arcface"] == before).all()


def test_parts_meet(faces, monkeypatch):
    rows = np.arange(40) % 3
    whole = faces.read("arcface", 56, rows)
    monkeypatch.setattr("kdlab.data.faces._PART", 7)
    assert torch.equal(faces.read("arcface", 56, rows), whole)


def test_a_memory_map_is_read_by_rows_never_whole(tmp_path):
    """The file says 3 GB and holds nothing but holes; two pictures of it cost their own bytes."""
    shape = (80_000, 3, 112, 112)
    path = tmp_path / "arcface.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    images[79_999] = 7
    del images
    big = FaceSet({"arcface": np.load(path, mmap_mode="r")}, np.zeros(shape[0], np.int64), "key")
    tracemalloc.start()
    found = big.read("arcface", 56, [0, 79_999])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0].max() == 0 and found[1].min() == 7
    assert peak < 1_000_000
    path.unlink()


@pytest.mark.parametrize("rows, error, says", [
    ([3], IndexError, "pictures 0 to 2, asked were 3 to 3"), ([-1], IndexError, "0 to 2"),
    ([0.0], ValueError, "picture numbers"), ([True, False, True], ValueError, "picture numbers"),
    ([[0]], ValueError, "picture numbers")])
def test_rows_that_name_no_picture_are_refused(faces, rows, error, says):
    with pytest.raises(error, match=says):
        faces.read("arcface", 112, rows)
