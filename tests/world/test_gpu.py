"""The same people on a GPU; skipped where there is none."""

import pytest
import torch

from kdlab.world import FaceWorld

PAIRS = [(i, j) for i in range(4) for j in range(4)]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def near(a, b):
    """The share of values within one grey level."""
    return ((a.int() - b.int()).abs() <= 1).float().mean()


def test_two_runs_agree():
    first, second = (FaceWorld(0, device="cuda", mask=0.5).render(PAIRS, ("arcface", "dlib"))
                     for _ in range(2))
    assert all(near(first[crop], second[crop]) >= 0.999 for crop in ("arcface", "dlib"))


def test_the_gpu_s_pictures_are_the_cpu_s():
    here, there = (FaceWorld(0, device=device, mask=0.5).render(PAIRS)["arcface"]
                   for device in ("cpu", "cuda"))
    assert near(here, there) >= 0.99  # of two machines: rounding decides a few edges


def test_the_device_is_in_the_key():
    assert FaceWorld(0).key != FaceWorld(0, device="cuda").key
