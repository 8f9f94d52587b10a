"""Rendered sets on disk: found again, never stale, whole after every accident."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from kdlab.align import SIZES
from kdlab.cache import locked
from kdlab.world import FaceWorld, rendered
from kdlab.world import faces as faces_module
from kdlab.world.identity import GROUPS

IDENTITIES, PER_IDENTITY, CROPS = range(5, 9), 2, ("arcface",)


@pytest.fixture(scope="module")
def world():
    return FaceWorld(0)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """An uninterrupted set in a cache of its own, and its bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDLAB_CACHE", str(tmp_path_factory.mktemp("whole")))
        faces = rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    return faces, np.array(faces.crops["arcface"])


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "world"


@pytest.fixture
def calls(monkeypatch):
    """Which identities are rendered from now on; `calls.stop_at` interrupts at one of them."""
    class Calls(list):
        stop_at = None

    seen, render = Calls(), FaceWorld.render

    def spy(self, pairs, crops=("arcface",)):
        if pairs[0][0] == seen.stop_at:
            raise KeyboardInterrupt
        out = render(self, pairs, crops)
        seen.append(pairs[0][0])
        return out

    monkeypatch.setattr(FaceWorld, "render", spy)
    return seen


@pytest.fixture
def blank(monkeypatch):
    """Rendering that costs nothing, for tests that look at no pixel."""
    def render(self, pairs, crops=("arcface",)):
        return {c: torch.zeros(len(pairs), 3, SIZES[c], SIZES[c], dtype=torch.uint8) for c in crops}

    monkeypatch.setattr(FaceWorld, "render", render)


def equal(faces, whole):
    return faces.key == whole[0].key and np.array_equal(faces.crops["arcface"], whole[1])


def test_pixels_labels_and_factors_are_the_world_s(world, whole):
    faces, pixels = whole
    assert len(faces) == 8 and pixels.shape == (8, 3, 112, 112) and pixels.dtype == np.uint8
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for row in (0, 5, 7):
        i, j = int(faces.factors["identity"][row]), int(faces.factors["image"][row])
        assert (i, j) == (IDENTITIES[row // 2], row % 2)
        assert np.array_equal(world.render([(i, j)])["arcface"][0].numpy(), pixels[row])
        image = world.image(i, j)
        for name in ("yaw", "pitch", "grey"):
            assert faces.factors[name][row] == np.float32(image[name])
        assert faces.factors["group"][row] == world.identity(i)["group"]


def test_a_set_in_the_cache_is_not_rendered_again(world, whole, cache, calls):
    first = rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    assert sorted(calls) == list(IDENTITIES) and equal(first, whole)
    calls.clear()
    second = rendered(FaceWorld(0), list(IDENTITIES), PER_IDENTITY, CROPS)
    assert calls == [] and equal(second, whole)
    assert isinstance(second.crops["arcface"], np.memmap)
    assert not second.crops["arcface"].flags.writeable


def test_everything_that_defines_a_pixel_is_in_the_key(cache, blank):
    def key(identities=(1, 2), per_identity=1, crops=CROPS, **world):
        return rendered(FaceWorld(**world), identities, per_identity, crops).key

    keys = [key(), key(seed=1), key(dimension=79), key(yaw_sd=19.0), key(grey=0.0),
            key(identities=(1, 3)), key(identities=(2, 1)), key(per_identity=2),
            key(crops=("dlib",)), key(crops=("arcface", "dlib"))]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0] and key(yaw_sd=20.0) == keys[0]  # the default, said aloud
    assert key(crops=("dlib", "arcface")) == keys[-1]


def test_every_file_that_makes_pixels_is_in_the_key():
    folder = Path(faces_module.__file__).parent
    found, todo = set(), {"faces"}
    while todo:  # what faces.py imports of this folder, and what that imports
        stem = todo.pop()
        found.add(stem)
        text = (folder / f"{stem}.py").read_text().replace("from kdlab.world import identity",
                                                           "from kdlab.world.identity")
        todo |= set(re.findall(r"from kdlab\.world\.(\w+)", text)) - found
    assert {path.stem for path in faces_module._CODE} == found | {"align"}


@pytest.mark.parametrize("old, new, changes", [
    ("A batched z-buffer", "A z-buffer", False), ("# (B, T), twice", "# twice", False),
    ("area > FLAT", "area >= FLAT", True)])
def test_remarks_are_not_in_the_key_but_code_is(monkeypatch, tmp_path, world, old, new, changes):
    before, source = world.key, next(p for p in faces_module._CODE if p.stem == "raster")
    assert old in source.read_text()
    mended = tmp_path / "raster.py"
    mended.write_text(source.read_text().replace(old, new))
    code = [mended if path == source else path for path in faces_module._CODE]
    monkeypatch.setattr(faces_module, "_CODE", code)
    assert (world.key != before) == changes


@pytest.mark.parametrize("accident", ["cut short", "gone"])
def test_a_damaged_set_is_rendered_again_aloud(world, whole, cache, calls, capsys, accident):
    faces = rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    path = cache / faces.key / "arcface.npy"
    del faces
    if accident == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    capsys.readouterr()
    calls.clear()
    assert equal(rendered(world, IDENTITIES, PER_IDENTITY, CROPS), whole)
    assert sorted(calls) == list(IDENTITIES)
    said = capsys.readouterr().out
    assert "is damaged (arcface.npy has" in said and "rendering it again" in said


def test_an_interrupted_run_goes_on_where_it_stopped(world, whole, cache, calls):
    calls.stop_at = IDENTITIES[2]
    with pytest.raises(KeyboardInterrupt):
        rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    folder = cache / whole[0].key
    assert not (folder / "finished.json").exists()
    done = {IDENTITIES[int(k)] for k in (folder / "done.txt").read_text().split()}
    assert {5, 6} <= done | set(calls) and done == set(calls) and IDENTITIES[2] not in done
    calls.stop_at = None
    calls.clear()
    assert equal(rendered(world, IDENTITIES, PER_IDENTITY, CROPS), whole)
    assert set(calls) == set(IDENTITIES) - done and len(calls) == len(set(calls))


def test_two_processes_make_one_set(whole, cache):
    """Both start while the lock is held, so both meet the lock; then one renders, one waits."""
    script = (
        "from kdlab.world import FaceWorld, rendered\n"
        "count, render = [], FaceWorld.render\n"
        "FaceWorld.render = lambda self, *a: count.append(1) or render(self, *a)\n"
        f"faces = rendered(FaceWorld(0), {list(IDENTITIES)}, {PER_IDENTITY}, {CROPS})\n"
        "import hashlib\n"
        "print(faces.key, len(count), hashlib.sha256(faces.crops['arcface']).hexdigest())\n")
    cache.mkdir(parents=True)
    with locked(cache / whole[0].key):
        both = [subprocess.Popen([sys.executable, "-u", "-c", script], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=os.environ | {"KDLAB_HEADLESS": "1"}) for _ in range(2)]
        waiting = [process.stdout.readline() for process in both]
    results = [process.communicate(timeout=120) for process in both]
    assert all(process.returncode == 0 for process in both), results
    assert all(line.startswith("another process is rendering this set") for line in waiting)
    (key_a, count_a, sha_a), (key_b, count_b, sha_b) = (out.split() for out, _ in results)
    assert key_a == key_b == whole[0].key and sha_a == sha_b
    assert sorted([int(count_a), int(count_b)]) == [0, len(IDENTITIES)]
    faces = np.load(cache / key_a / "arcface.npy", allow_pickle=False)
    assert np.array_equal(faces, whole[1])


def test_a_cache_under_a_file_is_refused_with_the_mend(world, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"file/world cannot be used .*KDLAB_CACHE") as caught:
        rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module, name", [(tempfile, "TemporaryFile"), (os, "listdir")])
def test_a_cache_that_denies_writing_or_reading_is_refused(
        world, cache, monkeypatch, module, name):
    def deny(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, name, deny)
    with pytest.raises(OSError, match=r"cache/world cannot be used \(Permission denied\).*"
                                      "readable and writable"):
        rendered(world, IDENTITIES, PER_IDENTITY, CROPS)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="asks a POSIX disk")
def test_a_full_disk_is_said_before_rendering(world, whole, cache, calls, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match=r"arcface\.npy: No space left on device; free 0 MB"):
            rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    assert calls == []
    assert equal(rendered(world, IDENTITIES, PER_IDENTITY, CROPS), whole)  # and then it works


@pytest.mark.parametrize("identities, per_identity, crops",
                         [([], 1, CROPS), ([1], 0, CROPS), ([1], 1, ())])
def test_an_empty_request_is_refused(world, cache, identities, per_identity, crops):
    with pytest.raises(ValueError, match="at least one identity, one image and one crop"):
        rendered(world, identities, per_identity, crops)
    assert not cache.exists()


def test_one_identity_under_two_labels_is_refused(world, cache):
    with pytest.raises(ValueError, match="asked for twice"):
        rendered(world, [3, 4, 3], 1, CROPS)


def test_an_unknown_crop_is_named(world, cache):
    with pytest.raises(ValueError, match="square"):
        rendered(world, [1], 1, ("square",))


def test_a_negative_identity_is_refused_before_the_disk_is_touched(world, cache):
    with pytest.raises(ValueError, match="from 0 on, not -2"):
        rendered(world, [1, -2], 1, CROPS)
    assert not cache.exists()


@pytest.fixture
def numbered(monkeypatch):
    """Pictures that say whose they are: identity in the first pixel, number in the second."""
    def render(self, pairs, crops=("arcface",)):
        assert len(pairs) <= 16
        out = {c: torch.zeros(len(pairs), 3, SIZES[c], SIZES[c], dtype=torch.uint8) for c in crops}
        for pictures in out.values():
            pictures[:, 0, 0, :2] = torch.tensor(pairs, dtype=torch.uint8)
        return out

    monkeypatch.setattr(FaceWorld, "render", render)


@pytest.mark.parametrize("per_identity", [6, 35])  # 35: more than are rendered at a time
def test_a_group_with_fewer_pictures_has_the_first_of_them(cache, numbered, per_identity):
    world = FaceWorld(0, bias={"group": "asian", "images": 0.5})
    identities = [4, 2, 9, 0, 7, 5]
    faces = rendered(world, identities, per_identity, CROPS)
    fewer = {i for i in identities if GROUPS[world.identity(i)["group"]] == "asian"}
    assert 0 < len(fewer) < len(identities)
    expected = [(i, j) for i in identities
                for j in range(round(per_identity / 2) if i in fewer else per_identity)]
    assert faces.crops["arcface"][:, 0, 0, :2].tolist() == [list(pair) for pair in expected]
    assert faces.factors["identity"].tolist() == [i for i, _ in expected]
    assert faces.factors["image"].tolist() == [j for _, j in expected]
    assert [identities[label] for label in faces.labels] == [i for i, _ in expected]


def test_factors_are_those_of_every_picture(cache, numbered):
    world = FaceWorld(0, mask=0.5, age_sd=5, profile=0.3, bias={"group": "asian", "noise": 0.1})
    faces = rendered(world, [3, 1], 8, CROPS)
    images = [world.image(i, j) for i in (3, 1) for j in range(8)]
    for name in ("yaw", "pitch", "age", "glasses", "mask", "grey"):
        assert np.array_equal(faces.factors[name], np.float32([image[name] for image in images]))
        assert faces.factors[name].dtype == np.float32
    assert faces.factors.keys() == {"yaw", "pitch", "age", "glasses", "mask", "grey", "identity",
                                    "image", "group"}


@pytest.mark.parametrize("place", ["np.savez", "render"])
def test_a_failure_leaves_a_cache_that_is_finished_next_time(
        world, whole, cache, calls, monkeypatch, place):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(*((np, "savez") if place == "np.savez" else (FaceWorld, "render")), fail)
        with pytest.raises(OSError, match="No space left"):
            rendered(world, IDENTITIES, PER_IDENTITY, CROPS)
    drawn = len(calls)
    assert drawn == (len(IDENTITIES) if place == "np.savez" else 0)
    assert torch.get_num_threads() == before
    assert equal(rendered(world, IDENTITIES, PER_IDENTITY, CROPS), whole)
    assert len(calls) == len(IDENTITIES)  # what was drawn is not drawn again
