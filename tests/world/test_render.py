"""Pictures: reproducible to the bit, aligned as photographs are, lit from where the light is."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from kdlab.align import SIZES, TEMPLATES, similarity
from kdlab.world import NUISANCE, RANGES, FaceWorld, portrait
from kdlab.world.render import photograph

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
    image = FaceWorld(0, **FRONTAL, noise=0, grey=0, jpeg=0).image(0, 0)
    image |= {"blur": 0.25, "gaze": torch.zeros(2), "age": 25.0, "glasses": 0.0}
    bare = next(world.person(i) for i in range(50) if world.identity(i)["style"] == "buzz")
    plain = torch.zeros(7, 320, 384)
    plain[:3] = 0.1
    people = [bare._replace(atlas=plain)]
    for vertices in head.landmarks:
        corner = torch.isin(head.faces, vertices)
        texels = head.texture[corner].round().long()
        if len(vertices) < 10:  # on skin; some lip triangles are the mouth's inside
            texels = texels[texels[:, 1] < 256]
        mark = plain.clone()
        for column, row in texels.unique(dim=0).tolist():
            mark[:3, row - 2:row + 3, column - 2:column + 3] = 1
        people.append(bare._replace(atlas=mark))
    out = photograph(head, people, [image] * 6, [(0, 0, 0)] * 6, ("arcface",))
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
        assert (face == 255).float().mean() < 0.02 and (face == 0).float().mean() < 0.05


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
    out = photograph(world.head, [world.person(0)] * 2, images, [(0, 0, 0)] * 2,
                     ("arcface",))["arcface"].float().mean(1)
    cheeks = [out[:, 65:85, 28:42].mean((1, 2)), out[:, 65:85, 70:84].mean((1, 2))]
    (left_a, left_b), (right_a, right_b) = cheeks
    assert right_a > left_a + 20 and left_b > right_b + 20  # of 255


def test_yaw_moves_the_nose_to_the_right_of_the_eyes(world):
    image = FaceWorld(0, **FRONTAL).image(0, 0)
    out = photograph(world.head, [world.person(0)] * 2,
                     [image | {"yaw": 0.4}, image | {"yaw": -0.4}], [(0, 0, 0)] * 2, ("arcface",))
    middle = out["landmarks"][:, :2, 0].mean(1)
    offset = out["landmarks"][:, 2, 0] - middle
    assert offset[0] > 5 and offset[1] < -5


def test_an_open_mouth_lowers_the_lip_corners_and_no_eye(world):
    image = FaceWorld(0, **FRONTAL).image(0, 0)
    out = photograph(world.head, [world.person(0)] * 2,
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


def test_unknown_crop_is_named(world):
    with pytest.raises(ValueError, match="arcface, dlib, not 'square'"):
        world.render(PAIRS[:1], ("square",))


def test_every_nuisance_changes_the_pictures(world):
    pairs = [(i, j) for i in range(3) for j in range(4)]  # a share of pictures is none of one
    plain = world.render(pairs)["arcface"]
    for name, value in NUISANCE.items():
        low, high = RANGES[name]
        other = FaceWorld(0, **{name: low if value > (low + high) / 2 else high})
        assert not torch.equal(other.render(pairs)["arcface"], plain), name


def test_a_portrait_with_nothing_replaced_is_the_picture(world, pictures):
    assert torch.equal(portrait(world, 7, 3), pictures["arcface"][3])
    assert torch.equal(portrait(world, 7, 3, "dlib"), pictures["dlib"][3])
    assert not torch.equal(portrait(world, 7, 3, yaw=0.7), pictures["arcface"][3])


def test_a_portrait_s_unknown_factor_is_named(world):
    with pytest.raises(ValueError, match="unknown factor yaww; there are yaw, pitch"):
        portrait(world, 0, yaww=1.0)


def test_a_mask_covers_the_mouth_and_glasses_ring_the_eyes(world):
    plain, masked, glasses = (portrait(world, 1, yaw=0.0, pitch=0.0, roll=0.0, expression={},
                                       blur=0.3, noise=0.0, jpeg=0.0, grey=0.0, mask_drop=0.0,
                                       mask_colour=torch.tensor([0.5, 0.7, 0.9]), **worn).float()
                              for worn in ({"mask": 0.0, "glasses": 0.0},
                                           {"mask": 1.0, "glasses": 0.0},
                                           {"mask": 0.0, "glasses": 1.0}))
    mouth, eyes, brow = np.s_[:, 85:97, 45:67], np.s_[:, 42:62, 25:87], np.s_[:, 18:26, 45:67]
    assert (masked[mouth][2] - masked[mouth][0]).mean() > 10  # bluish cloth
    assert (plain[mouth][2] - plain[mouth][0]).mean() < 0  # reddish lips
    change = (glasses - plain).abs().mean(0)
    assert change[eyes[1:]].mean() > 3 * change[brow[1:]].mean()


def test_age_changes_the_face(world):
    child, young, old = (portrait(world, 1, age=age, noise=0.0, jpeg=0.0) for age in (8, 25, 75))
    assert (child.float() - young.float()).abs().mean() > 3
    assert (old.float() - young.float()).abs().mean() > 3


def test_less_contrast_and_more_noise_for_a_group_show_in_its_pictures():
    fair = FaceWorld(0, grey=0, jpeg=0)
    i = next(k for k in range(50) if fair.identity(k)["group"] == 1)
    plain = fair.render([(i, 0)])["arcface"].float()
    flat = FaceWorld(0, grey=0, jpeg=0, bias={"group": "asian", "contrast": 0.5})
    noisy = FaceWorld(0, grey=0, jpeg=0, bias={"group": "asian", "noise": 0.1})
    assert flat.render([(i, 0)])["arcface"].float().std() < 0.65 * plain.std()
    detail = lambda x: (x[..., 1:] - x[..., :-1]).abs().mean()  # noqa: E731
    assert detail(noisy.render([(i, 0)])["arcface"].float()) > 1.5 * detail(plain)


@pytest.mark.parametrize("pairs", [[], [(0, -1)], [(-1, 0), (0, 0)]])
def test_pictures_that_are_not_there_are_refused(world, pairs):
    with pytest.raises(ValueError, match="pairs of numbers from 0 on"):
        world.render(pairs)


def test_company_and_order_change_nothing_with_masks_and_glasses_either():
    """Layers that few of a batch wear are drawn for these alone."""
    world = FaceWorld(0, mask=0.4, glasses=2, profile=0.5, age_sd=10)
    pairs = [(1, 0), (4, 1), (1, 2), (6, 3), (4, 4), (1, 5)]
    images = [world.image(*pair) for pair in pairs]
    assert {image["mask"] for image in images} == {image["glasses"] for image in images} == {0, 1}
    together, back = world.render(pairs, CROPS), world.render(pairs[::-1], CROPS)
    for name, pictures in together.items():
        assert torch.equal(back[name].flip(0), pictures)
        for k, pair in enumerate(pairs):
            assert torch.equal(world.render([pair], CROPS)[name][0], pictures[k]), (name, pair)


def test_workers_side_by_side_render_what_one_renders(world, pictures):
    threads = torch.get_num_threads()
    fresh = FaceWorld(0)  # nobody is dressed yet: the workers race for the caches
    try:
        with ThreadPoolExecutor(4) as workers:
            found = list(workers.map(lambda pair: fresh.render([pair], CROPS), PAIRS * 3))
    finally:
        torch.set_num_threads(threads)
    for k, out in enumerate(found):
        assert all(torch.equal(out[name][0], pictures[name][k % len(PAIRS)]) for name in out)


@pytest.mark.parametrize("asked, words", [
    ({"identity": -1}, "from 0 on, not -1 and 0"), ({"image": -3}, "from 0 on, not 0 and -3"),
    ({"expression": {"smirk": 0.5}}, "unknown expression smirk; there are .*jawOpen"),
    ({"noise": float("nan")}, "noise must be a number, not nan"),
    ({"yaw": float("inf")}, "yaw must be a number, not inf"),
    ({"gaze": (0.1, 0.2, 0.3)}, r"gaze must be numbers of shape \(2,\), not"),
    ({"light": torch.full((3,), torch.nan)}, r"light must be numbers of shape \(3,\), not"),
    ({"crop": "square"}, "arcface, dlib, not 'square'")])
def test_a_portrait_that_cannot_be_is_explained(world, asked, words):
    with pytest.raises(ValueError, match=words):
        portrait(world, **{"identity": 0} | asked)


def test_a_portrait_takes_factors_of_any_kind_of_number(world):
    plain = portrait(world, 7, 3, yaw=0.25, mask=1.0, cloth=torch.tensor([0.2, 0.3, 0.5]))
    other = portrait(world, 7, 3, yaw=np.float64(0.25), mask=True, cloth=[0.2, 0.3, 0.5])
    assert torch.equal(plain, other)
