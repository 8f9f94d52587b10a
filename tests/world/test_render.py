"""Pictures: reproducible to the bit, aligned as photographs are, lit from where the light is."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from kdlab.align import SIZES, TEMPLATES, similarity
from kdlab.world import NUISANCE, FaceWorld, portrait
from kdlab.world.identity import generator
from kdlab.world.render import _blur, backdrop, photograph

PAIRS = [(0, 0), (0, 1), (1, 0), (7, 3)]
CROPS = ("arcface", "dlib")
FRONTAL = {"yaw_sd": 0, "pitch_sd": 0, "roll_sd": 0, "expression": 0, "light": 0}


@pytest.fixture(scope="module")
def world():
    return FaceWorld(0)


@pytest.fixture(scope="module")
def pictures(world):
    return world.render(PAIRS, CROPS)


def fingerprint(out):
    return hashlib.sha256(b"".join(out[name].numpy().tobytes() for name in sorted(out))).hexdigest()


def in_crop(landmarks, crop):
    """Landmarks of the uncropped picture -> pixels of the crop."""
    matrix = similarity(landmarks, TEMPLATES[crop])
    return landmarks.double() @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]


def test_shapes_and_types(pictures):
    for crop in CROPS:
        assert pictures[crop].shape == (4, 3, SIZES[crop], SIZES[crop])
        assert pictures[crop].dtype == torch.uint8
    assert pictures["landmarks"].shape == (4, 5, 2)


def test_alone_and_together_are_the_same_to_the_bit(world, pictures):
    for k, pair in enumerate(PAIRS):
        alone = world.render([pair], CROPS)
        assert all(torch.equal(alone[name][0], pictures[name][k]) for name in alone)


def test_twice_and_in_another_world_object_are_the_same(pictures):
    assert fingerprint(FaceWorld(0).render(PAIRS, CROPS)) == fingerprint(pictures)


def test_which_crops_are_cut_changes_no_crop(world, pictures):
    only = world.render(PAIRS[:2], ("dlib",))
    assert set(only) == {"dlib", "landmarks"}
    assert torch.equal(only["dlib"], pictures["dlib"][:2])


def test_another_process_with_other_threads_renders_the_same(pictures):
    script = (
        "import sys, hashlib, torch\n"
        "torch.set_num_threads(2)\n"
        "from kdlab.world import FaceWorld\n"
        f"out = FaceWorld(0).render({PAIRS[:2]}, {CROPS})\n"
        "print(hashlib.sha256(b''.join(out[n].numpy().tobytes() for n in sorted(out)))"
        ".hexdigest())\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "2"}, check=True)
    assert done.stdout.strip() == fingerprint({name: x[:2] for name, x in pictures.items()})


def test_another_seed_is_another_population(pictures):
    assert not torch.equal(FaceWorld(1).render(PAIRS[:1])["arcface"][0], pictures["arcface"][0])


def umeyama(source, target):
    """The best similarity by singular values (Umeyama 1991), applied to `source`."""
    s, t = source - source.mean(0), target - target.mean(0)
    U, D, V = np.linalg.svd(t.T @ s)
    S = np.diag([1.0, np.sign(np.linalg.det(U @ V))])
    scale = np.trace(np.diag(D) @ S) / (s**2).sum()
    return scale * s @ (U @ S @ V).T + target.mean(0)


@pytest.mark.parametrize("crop", CROPS)
def test_landmarks_land_as_near_the_template_as_a_similarity_can(pictures, crop):
    template = TEMPLATES[crop].numpy()
    got = in_crop(pictures["landmarks"], crop).numpy()
    for face, landmarks in zip(got, pictures["landmarks"].double().numpy(), strict=True):
        best = umeyama(landmarks, template)
        np.testing.assert_allclose(face, best, rtol=0, atol=1e-6)


def test_frontal_faces_fit_the_arcface_template():
    frontal = FaceWorld(0, **FRONTAL)
    marks = frontal.render([(i, 0) for i in range(8)])["landmarks"]
    off = (in_crop(marks, "arcface") - TEMPLATES["arcface"]).mean(0).norm(dim=1)
    assert (off < 2).all()  # pixels, the mean of eight people


def test_landmarks_are_where_the_picture_shows_them(world):
    """Whiten the texture under one landmark: the picture brightens at that landmark."""
    head = world.head
    image = FaceWorld(0, **FRONTAL, noise=0, grey=0).image(0, 0)
    image |= {"blur": 0.25, "gaze": torch.zeros(2)}
    plain = torch.full((4, 320, 384), 0.3)
    plain[3] = 0  # no gloss
    atlases = [plain]
    for vertices in head.landmarks:
        corner = torch.isin(head.faces, vertices)
        texels = head.texture[corner].round().long()
        if len(vertices) < 10:  # on skin; some lip triangles are the mouth's inside
            texels = texels[texels[:, 1] < 256]
        mark = plain.clone()
        for column, row in texels.unique(dim=0).tolist():
            mark[:3, row - 2:row + 3, column - 2:column + 3] = 1
        atlases.append(mark)
    shape = world.person(0)[0]
    out = photograph(head, shape.expand(6, -1, -1), torch.stack(atlases), [image] * 6,
                     [(0, 0, 0)] * 6, ("arcface",))
    marks = in_crop(out["landmarks"][:1], "arcface")[0]
    brighter = (out["arcface"][1:].float() - out["arcface"][:1].float()).mean(1)
    row, column = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    for k, light in enumerate(brighter):
        if k < 2:  # both eyes wear one texture: look at this one
            light = light * ((column < 56) if k == 0 else (column >= 56))
        light = light * (light > 0.5 * light.max())
        spot = torch.stack([(light * column).sum(), (light * row).sum()]) / light.sum()
        assert (spot - marks[k]).norm() < 2.5, k  # pixels, 4 mm on the face


def test_pictures_are_well_exposed(world):
    middle = world.render([(i, 0) for i in range(8)])["arcface"][:, :, 30:100, 30:82].float()
    for face in middle:
        assert 50 < face.mean() < 205 and face.std() > 8
        # Hard light on glossy dark skin burns out most: 9 % of one of these.
        assert (face == 255).float().mean() < 0.10 and (face == 0).float().mean() < 0.05


def test_grey_pictures_have_equal_channels():
    grey = FaceWorld(0, grey=1.0).render(PAIRS[:2])["arcface"]
    assert (grey[:, :1] == grey).all()
    colour = FaceWorld(0, grey=0.0).render(PAIRS[:2])["arcface"]
    assert (colour[:, 0] != colour[:, 2]).float().mean() > 0.5


def test_mirrored_light_brightens_the_other_cheek(world):
    image = FaceWorld(0, **FRONTAL, noise=0, grey=0).image(0, 0)
    light = torch.tensor([0.8, -0.55, 0.2])
    light = light / light.norm()
    images = [image | {"light": light * torch.tensor([side, 1.0, 1]), "key": 1.0, "ambient": 0.3}
              for side in (1.0, -1.0)]
    shape, atlas = world.person(0)
    out = photograph(world.head, shape.expand(2, -1, -1), atlas.expand(2, -1, -1, -1), images,
                     [(0, 0, 0)] * 2, ("arcface",))["arcface"].float().mean(1)
    cheeks = [out[:, 65:85, 28:42].mean((1, 2)), out[:, 65:85, 70:84].mean((1, 2))]
    (left_a, left_b), (right_a, right_b) = cheeks
    assert right_a > left_a + 20 and left_b > right_b + 20  # of 255


def test_yaw_moves_the_nose_to_the_right_of_the_eyes(world):
    image = FaceWorld(0, **FRONTAL).image(0, 0)
    shape, atlas = world.person(0)
    out = photograph(world.head, shape.expand(2, -1, -1), atlas.expand(2, -1, -1, -1),
                     [image | {"yaw": 0.4}, image | {"yaw": -0.4}], [(0, 0, 0)] * 2, ("arcface",))
    middle = out["landmarks"][:, :2, 0].mean(1)
    offset = out["landmarks"][:, 2, 0] - middle
    assert offset[0] > 5 and offset[1] < -5


def test_an_open_mouth_lowers_the_lip_corners_and_no_eye(world):
    image = FaceWorld(0, **FRONTAL).image(0, 0)
    shape, atlas = world.person(0)
    out = photograph(world.head, shape.expand(2, -1, -1), atlas.expand(2, -1, -1, -1),
                     [image, image | {"expression": {"jawOpen": 0.4}}], [(0, 0, 0)] * 2,
                     ("arcface",))
    shut, wide = out["landmarks"]
    span = [(m[3:, 1].mean() - m[:2, 1].mean()) / (m[1] - m[0]).norm() for m in (shut, wide)]
    assert span[1] > span[0] + 0.02


def test_more_noise_and_more_blur_do_what_they_say():
    sharp = FaceWorld(0, noise=0, grey=0).render(PAIRS[:1])["arcface"].float()
    noisy = FaceWorld(0, noise=3, grey=0).render(PAIRS[:1])["arcface"].float()
    soft = FaceWorld(0, noise=0, grey=0, blur=6).render(PAIRS[:1])["arcface"].float()

    def detail(x):
        return (x[..., 1:] - x[..., :-1]).abs().mean()

    assert detail(noisy) > 1.2 * detail(sharp) and detail(soft) < 0.95 * detail(sharp)


def test_no_blur_leaves_a_picture():
    assert FaceWorld(0, blur=0).render(PAIRS[:1])["arcface"].float().mean() > 30


def test_blur_keeps_brightness_and_each_picture_its_own_width():
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 40, 40, generator=rng)
    flat = _blur(torch.ones(2, 3, 20, 20), [0.4, 2.0])
    torch.testing.assert_close(flat, torch.ones_like(flat), rtol=0, atol=1e-5)
    both = _blur(images, [0.4, 2.0])
    torch.testing.assert_close(both[1:], _blur(images[1:], [2.0]), rtol=0, atol=1e-6)
    assert both[1].std() < 0.5 * both[0].std()


def test_backdrops_are_light_in_range():
    images = [FaceWorld(0).image(0, j) for j in range(3)]
    behind = backdrop(images, [generator(0, 0, j, 3) for j in range(3)], "cpu")
    assert torch.isfinite(behind).all() and 0 <= behind.min() and behind.max() <= 1


def test_unknown_crop_is_named(world):
    with pytest.raises(ValueError, match="arcface, dlib, not 'square'"):
        world.render(PAIRS[:1], ("square",))


def test_every_nuisance_changes_the_pictures(pictures):
    for name, value in NUISANCE.items():
        other = FaceWorld(0, **{name: 1.0 if name == "grey" else value / 2})
        changed = other.render(PAIRS[:2])["arcface"]
        assert not torch.equal(changed, pictures["arcface"][:2]), name


def test_a_portrait_with_nothing_replaced_is_the_picture(world, pictures):
    assert torch.equal(portrait(world, 7, 3), pictures["arcface"][3])
    assert torch.equal(portrait(world, 7, 3, "dlib"), pictures["dlib"][3])
    assert not torch.equal(portrait(world, 7, 3, yaw=0.7), pictures["arcface"][3])


def test_a_portrait_s_unknown_factor_is_named(world):
    with pytest.raises(ValueError, match="unknown factor yaww; there are yaw, pitch"):
        portrait(world, 0, yaww=1.0)
