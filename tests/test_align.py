"""Alignment: the fit against the textbook's SVD, the warp against what it must leave alone."""

import numpy as np
import pytest
import torch

from kdlab.align import SIZES, TEMPLATES, align, similarity, warp


def umeyama(source, target):
    """Umeyama 1991, eqs. 34 to 42, as printed: singular values, sign, scale, shift."""
    n = len(source)
    ms, mt = sum(source) / n, sum(target) / n
    covariance = sum(np.outer(t - mt, s - ms) for s, t in zip(source, target, strict=True)) / n
    U, D, V = np.linalg.svd(covariance)
    S = np.diag([1.0, np.sign(np.linalg.det(U) * np.linalg.det(V))])
    R = U @ S @ V
    scale = np.trace(np.diag(D) @ S) / (sum((s - ms) @ (s - ms) for s in source) / n)
    return np.column_stack([scale * R, mt - scale * R @ ms])


def test_similarity_equals_umeyama():
    random = np.random.default_rng(0)
    source = random.normal(50, 20, (20, 5, 2))
    for target in TEMPLATES.values():
        expected = np.stack([umeyama(face, target.numpy()) for face in source])
        got = similarity(torch.from_numpy(source), target).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("crop", TEMPLATES)
def test_moved_template_is_brought_back_exactly(crop):
    template = TEMPLATES[crop]
    angle, scale = 0.4, 1.7
    A = scale * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = template @ A.T.double() + torch.tensor([12.0, -5.0])
    matrix = similarity(source[None], template)[0]
    torch.testing.assert_close(source @ matrix[:, :2].T + matrix[:, 2], template, rtol=0, atol=1e-9)


def test_a_mirrored_face_is_not_reflected():
    source = TEMPLATES["arcface"] * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity(source[None], TEMPLATES["arcface"])[0, :, :2]) > 0


@pytest.mark.parametrize("bad", [torch.ones(1, 5, 2), torch.full((1, 5, 2), torch.nan)])
def test_useless_landmarks_are_refused(bad):
    good = TEMPLATES["arcface"][None]
    with pytest.raises(ValueError, match=r"face 1 \(1 of 2\)"):
        similarity(torch.cat([good, bad]), good[0])


def test_unknown_crop_is_named():
    with pytest.raises(ValueError, match="arcface, dlib, not 'other'"):
        align(torch.zeros(1, 3, 9, 9), TEMPLATES["arcface"][None], "other")


def still(scale=1.0, x=0.0, y=0.0):
    return torch.tensor([[[scale, 0, x], [0, scale, y]]], dtype=torch.float64)


def test_warp_identity():
    image = torch.rand(2, 3, 40, 40) * 255
    out = warp(image, still().expand(2, -1, -1), 40)
    torch.testing.assert_close(out, image, rtol=0, atol=0.01)  # float32 coordinates


def test_warp_by_whole_pixels_moves_pixels_and_replicates_the_border():
    image = torch.rand(1, 1, 10, 12, dtype=torch.float64)
    out = warp(image, still(x=3.0, y=-2.0), 9)[0, 0]  # crop pixel (x, y) = image (x - 3, y + 2)
    for y in range(9):
        for x in range(9):
            expected = image[0, 0, min(max(y + 2, 0), 9), min(max(x - 3, 0), 11)]
            assert abs(out[y, x] - expected) < 1e-9


def test_warp_agrees_with_the_loop_when_it_enlarges():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    out = warp(image, still(2.0, 0.3, -0.7), 12)[0, 0]
    for y in range(12):
        for x in range(12):
            sx, sy = min(max((x - 0.3) / 2, 0), 7), min(max((y + 0.7) / 2, 0), 7)
            x0, y0 = min(int(sx), 6), min(int(sy), 6)
            fx, fy = sx - x0, sy - y0
            p = image[0, 0]
            expected = ((1 - fy) * ((1 - fx) * p[y0, x0] + fx * p[y0, x0 + 1])
                        + fy * ((1 - fx) * p[y0 + 1, x0] + fx * p[y0 + 1, x0 + 1]))
            assert abs(out[y, x] - expected) < 1e-9


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.5, 0.31, 0.11])
def test_constant_picture_stays_constant(scale):
    out = warp(torch.full((1, 3, 64, 64), 77.0), still(scale), 16)
    torch.testing.assert_close(out, torch.full((1, 3, 16, 16), 77.0), rtol=0, atol=1e-3)


def test_fine_checker_shrinks_to_grey():
    board = torch.arange(64)
    checker = 255.0 * ((board[:, None] + board) % 2)[None, None]
    out = warp(checker, still(0.25, -0.375, -0.375), 16)  # crop pixel k covers pixels 4k .. 4k + 3
    assert (out - 127.5).abs().max() < 1
    assert checker.std() > 120  # one sample a pixel would have kept black and white


def test_a_picture_does_not_depend_on_its_batch():
    images = torch.rand(3, 3, 64, 64)
    matrices = torch.cat([still(1.0), still(0.4), still(0.2)])
    together = warp(images, matrices, 16)
    alone = torch.cat([warp(images[i:i + 1], matrices[i:i + 1], 16) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_absurd_landmarks_stay_small():
    tiny = TEMPLATES["arcface"][None] * 1e4
    assert align(torch.zeros(1, 3, 8, 8), tiny, "arcface").shape == (1, 3, 112, 112)


@pytest.mark.parametrize("crop", TEMPLATES)
def test_landmarks_land_on_the_template(crop):
    source = TEMPLATES[crop] * 1.1 + 20
    images = torch.zeros(5, 1, 200, 200)
    for k, (x, y) in enumerate(source.round().long()):
        images[k, 0, y - 2:y + 3, x - 2:x + 3] = 1
    out = align(images, source.expand(5, -1, -1), crop)[:, 0]
    S = SIZES[crop]
    ys, xs = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    for k, blob in enumerate(out):
        centre = torch.stack([(blob * xs).sum(), (blob * ys).sum()]) / blob.sum()
        assert (centre - TEMPLATES[crop][k]).abs().max() < 1.2
