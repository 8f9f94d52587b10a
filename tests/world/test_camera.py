"""The camera: equal exposure, soft highlights, honest blur, noise, JPEG; alone as in a batch."""

import hashlib
import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from kdlab.world.backdrop import _plane, backdrop
from kdlab.world.camera import LUMINANCE, MID, blur, develop, enlarge, jpeg, meter, tone

SIZE = (238, 231)
SCENES = ("studio", "wall", "room", "outdoor", "night")
PLAIN = {"exposure": 1.0, "blur": 0.0, "gamma": 1.0, "contrast": 1.0, "grey": 0.0, "noise": 0.0,
         "jpeg": 0, "scene": "wall", "backdrop": 0.5, "roll": 0.1,
         "background": torch.tensor([[0.7, 0.5, 0.3], [0.2, 0.4, 0.6]]),
         "cloth": torch.tensor([0.2, 0.3, 0.5]), "light": torch.tensor([0.5, -0.8, 0.33])}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(albedo, highlight=0.0):
    """A sphere lit from the upper left on dark ground, a highlight on it: light (3, H, W), face."""
    H, W = SIZE
    y, x = torch.meshgrid(torch.linspace(-1.2, 1.2, H), torch.linspace(-1.2, 1.2, W), indexing="ij")
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    face = (z > 0).float()[None]
    light = (-0.4 * x - 0.5 * y + 0.77 * z).clamp(min=0) + 0.2
    spot = ((-0.2 * x - 0.25 * y + 0.94 * z).clamp(min=0) / 0.994) ** 300 * highlight
    return (torch.tensor(albedo)[:, None, None] * light + spot) * face + 0.1 * (1 - face), face


def shot(colour, face, seed=0, **changes):
    return develop(colour[None], face[None], [PLAIN | changes], [rng(seed)])[0]


def smooth(seed=0):
    """A smooth picture, (3, H, W) of whole numbers 0..255."""
    values = torch.rand(1, 3, 9, 8, generator=rng(seed)) * 220 + 15
    return torch.nn.functional.interpolate(values, SIZE, mode="bicubic")[0].clamp(0, 255).round()


@pytest.mark.parametrize("sideways", [0.0, 0.5])
def test_skin_of_every_tone_is_exposed_equally(sideways):
    light = 1 + sideways * torch.linspace(-1, 1, SIZE[1])
    face = torch.zeros(1, *SIZE)
    face[:, 60:180, 60:170] = 1
    means = []
    for skin in ([0.05, 0.035, 0.025], [0.18, 0.11, 0.08], [0.60, 0.42, 0.33]):
        colour = torch.tensor(skin)[:, None, None] * light.expand(*SIZE) * face + 0.02
        picture = shot(colour, face)
        luma = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
        means.append(float(luma[face[0] > 0].mean()))
    assert max(means) < 1.02 * min(means)
    assert 110 < means[0] < 140


def test_metered_skin_gives_mid_grey_times_exposure():
    colour, face = torch.full((3, *SIZE), 0.07), torch.ones(1, *SIZE)
    for exposure in (0.8, 1.0, 1.2):
        expected = 255 * (MID * exposure) ** (1 / 2.2)
        assert abs(float(shot(colour, face, exposure=exposure).mean()) - expected) < 0.5


def test_without_skin_the_middle_is_metered():
    colour = torch.full((3, *SIZE), 0.9)
    colour[:, 50:190, 50:180] = 0.1
    none = torch.zeros(1, *SIZE)
    assert float(meter(colour, none)) == pytest.approx(0.1, rel=0.01)
    picture = shot(colour, none)
    assert float(picture[:, 119, 115].mean()) == pytest.approx(255 * MID ** (1 / 2.2), abs=1)


def test_a_black_picture_stays_finite():
    picture = shot(torch.zeros(3, *SIZE), torch.ones(1, *SIZE), noise=0.02, jpeg=50, contrast=1.3)
    assert torch.isfinite(picture).all()


@pytest.mark.parametrize("skin", [[0.05, 0.035, 0.025], [0.60, 0.42, 0.33]])
@pytest.mark.parametrize("contrast", [0.8, 1.0, 1.25])
def test_highlights_of_eight_times_mid_grey_are_not_burnt_out(skin, contrast):
    colour, face = ball(skin)
    seen = meter(colour, face)
    colour, _ = ball(skin, 8 * float(seen))
    picture = develop(colour[None], face[None], [PLAIN | {"contrast": contrast}], [rng()])[0]
    burnt = (picture.round() >= 255).any(0) & (face[0] > 0)
    assert burnt.sum() < 0.01 * face.sum()
    assert (225 if contrast >= 1 else 195) < picture.max()  # yet they shine, in haze less


def test_the_shoulder_keeps_hue_order_and_middle_tones():
    skin = torch.tensor([0.30, 0.18, 0.12])
    steps = torch.linspace(0.1, 12, 240)
    light = (skin[:, None] * steps)[:, None]  # (3, 1, 240)
    out = tone(light)
    hue = (light[1] - light[2]) / (light[0] - light[2])
    torch.testing.assert_close((out[1] - out[2]) / (out[0] - out[2]), hue, rtol=1e-3, atol=1e-3)
    weights = torch.tensor(LUMINANCE)[:, None, None]
    luminance = (out * weights).sum(0)[0]
    assert (luminance.diff() > 0).all() and out.max() < 0.985
    dark = steps < 1
    torch.testing.assert_close(out[..., dark], light[..., dark], rtol=0.05, atol=0)


def test_contrast_is_a_factor_about_mid_grey_and_keeps_the_ends():
    ramp = torch.linspace(0.12, 0.36, SIZE[1]).expand(3, *SIZE).clone()
    face = torch.ones(1, *SIZE)
    ramp *= MID / meter(ramp, face)
    plain = shot(ramp, face)
    for contrast in (0.7, 1.3):
        ratio = float(shot(ramp, face, contrast=contrast).std() / plain.std())
        assert ratio == pytest.approx(contrast, rel=0.03)
    mid = 255 * MID ** (1 / 2.2)
    at = (plain - mid).abs() < 0.6
    assert abs(float(shot(ramp, face, contrast=1.3)[at].mean()) - mid) < 1


def test_gamma_above_one_darkens_the_middle():
    colour, face = torch.full((3, *SIZE), 0.3), torch.ones(1, *SIZE)
    assert shot(colour, face, gamma=1.2).mean() < shot(colour, face).mean() - 10


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.8])
def test_blur_has_the_width_it_says_and_keeps_the_light(sigma):
    point = torch.zeros(1, 41, 41)
    point[0, 20, 20] = 1
    out = blur(point, sigma)[0]
    assert float(out.sum()) == pytest.approx(1, abs=1e-5)
    for axis in (0, 1):
        spread = (out.sum(axis) * (torch.arange(41) - 20.0) ** 2).sum().sqrt()
        # A Gaussian sampled as coarsely as every two sigma comes out 8 % narrow.
        assert float(spread) == pytest.approx(sigma, rel=0.06 if sigma > 0.5 else 0.08)


def test_blur_scales_with_the_picture_and_a_lens_is_never_perfect():
    colour = torch.full((3, *SIZE), 0.1)
    colour[..., 115:] = 0.4
    face = torch.ones(1, *SIZE)

    def steepest(picture):
        return float(picture.diff(dim=-1).max())

    wide = develop(colour[None], face[None], [PLAIN | {"blur": 1.0}], [rng()], scale=1.75)[0]
    narrow = develop(colour[None], face[None], [PLAIN | {"blur": 1.0}], [rng()], scale=1.0)[0]
    assert steepest(wide) < 0.7 * steepest(narrow)
    sharp = shot(colour, face)
    assert steepest(narrow) < 0.8 * steepest(sharp)
    assert torch.equal(sharp, shot(colour, face, blur=0.2))
    assert steepest(sharp) < 0.8 * float(sharp[0, 0, -1] - sharp[0, 0, 0])


def test_noise_has_its_spread_is_stronger_in_shadow_and_slightly_correlated():
    colour, face = torch.full((3, *SIZE), 0.2), torch.ones(1, *SIZE)
    noise = shot(colour, face, noise=0.02) - shot(colour, face)
    assert float(noise.std()) == pytest.approx(255 * 0.02, rel=0.04)
    assert abs(float(noise.mean())) < 0.2
    # 2 a / (1 + 2 a^2) at a = 0.15
    beside = float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())
    assert beside == pytest.approx(0.287, abs=0.04)
    dark = colour.clone()
    dark[..., :115] = 0.01
    face[..., :115] = 0
    noise = shot(dark, face, noise=0.02) - shot(dark, face)
    assert noise[..., :100].std() > 1.15 * noise[..., 130:].std()


def test_noise_differs_between_pictures_and_repeats_for_one():
    colour, face = torch.full((3, *SIZE), 0.2), torch.ones(1, *SIZE)
    a, b = (shot(colour, face, seed, noise=0.02) for seed in (1, 2))
    assert torch.equal(a, shot(colour, face, 1, noise=0.02))
    a, b = a - a.mean(), b - b.mean()
    assert abs(float((a * b).mean() / (a.std() * b.std()))) < 0.05


@pytest.mark.parametrize("quality", [0, 40])
def test_grey_pictures_have_equal_channels(quality):
    colour, face = ball([0.4, 0.25, 0.2], 2.0)
    picture = shot(colour, face, grey=1.0, noise=0.02, jpeg=quality)
    assert torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])
    assert picture.std() > 10


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_loses_what_pillow_loses(quality):
    colour, face = ball([0.5, 0.32, 0.25], 1.0)
    for picture in (smooth(), shot(colour, face).round()):
        array = picture.permute(1, 2, 0).to(torch.uint8).numpy()
        held = io.BytesIO()
        Image.fromarray(array).save(held, "JPEG", quality=quality, subsampling="4:2:0")
        pillow = torch.from_numpy(np.array(Image.open(held))).permute(2, 0, 1).float()
        ours = jpeg(picture, quality)
        assert float((ours - pillow).abs().mean()) < 0.8
        # The two errors go together, not only small; Pillow's has roundings to whole numbers.
        a, b = (ours - picture).flatten(), (pillow - picture).flatten()
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.65


def test_jpeg_of_lower_quality_loses_more():
    picture = shot(*ball([0.5, 0.32, 0.25], 1.0), noise=0.02)
    lost = [float((jpeg(picture, q) - picture).square().mean()) for q in (95, 60, 25, 5)]
    assert lost == sorted(lost) and 2 * lost[0] < lost[2]


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (238, 231)])
def test_jpeg_keeps_the_size_and_a_plain_colour(size):
    plain = torch.tensor([200.0, 120.0, 60.0])[:, None, None].expand(3, *size)
    out = jpeg(plain, 95)
    assert out.shape == plain.shape
    assert (out - plain).abs().max() < 3


@pytest.mark.parametrize("quality", [0, 101])
def test_an_impossible_quality_is_named(quality):
    with pytest.raises(ValueError, match=f"1 to 100, not {quality}"):
        jpeg(torch.zeros(3, 16, 16), quality)


def test_enlarge_is_bilinear():
    small = torch.rand(2, 3, 7, 5, generator=rng())
    expected = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(enlarge(small), expected, rtol=0, atol=1e-6)


def photographs():
    """Ten pictures of five scenes, all settings in use: images, faces, what develop makes."""
    images = [PLAIN | {"scene": SCENES[k % 5], "blur": 0.3 * k, "noise": 0.003 * k, "grey": k == 3,
                       "gamma": 0.9 + 0.02 * k, "contrast": 0.8 + 0.05 * k, "roll": 0.03 * k - 0.1,
                       "jpeg": 0 if k % 2 else 30 + 6 * k, "backdrop": k / 10} for k in range(10)]
    balls = [ball([0.06 * k + 0.05, 0.04 * k + 0.035, 0.03 * k + 0.025], 1.0) for k in range(10)]
    colour, face = (torch.stack(parts) for parts in zip(*balls, strict=True))

    def take(which):
        chosen, rngs = [images[k] for k in which], [rng(k) for k in which]
        light = torch.where(face[which] > 0, colour[which], backdrop(chosen, rngs, SIZE, "cpu"))
        return develop(light, face[which], chosen, rngs)

    return take


def test_values_are_finite_and_0_to_255():
    out = photographs()(list(range(10)))
    assert out.shape == (10, 3, *SIZE)
    assert torch.isfinite(out).all() and 0 <= out.min() and out.max() <= 255


def test_alone_and_together_are_the_same_to_the_bit():
    take = photographs()
    together = take(list(range(10)))
    for k in range(10):
        assert torch.equal(take([k])[0], together[k]), k


def test_another_process_with_other_threads_develops_the_same():
    script = ("import hashlib, runpy, sys, torch\n"
              "torch.set_num_threads(2)\n"
              f"take = runpy.run_path({__file__!r})['photographs']()\n"
              "print(hashlib.sha256(take(list(range(10))).numpy().tobytes()).hexdigest())\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "2"}, check=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = hashlib.sha256(photographs()(list(range(10))).numpy().tobytes()).hexdigest()
    finally:
        torch.set_num_threads(threads)
    assert done.stdout.strip() == here


@pytest.mark.parametrize("scene", SCENES)
def test_backdrops_are_light_in_range_varied_and_dressed(scene):
    images = [PLAIN | {"scene": scene, "roll": 0.0, "cloth": torch.tensor([1.0, 0.0, 0.0])}] * 3
    behind = backdrop(images, [rng(k) for k in range(3)], SIZE, "cpu")
    assert behind.shape == (3, 3, *SIZE)
    assert torch.isfinite(behind).all() and 0 <= behind.min() and behind.max() <= 1
    assert not torch.equal(behind[0], behind[1])
    reddish = behind[:, 0] - behind[:, 1:].mean(1)
    assert (reddish[:, -1, 110:120].mean(1) > 0.01).all()  # the cloth, in the lowest row


def test_night_is_darkest_and_dim_and_bright_backdrops_differ():
    def mean(scene, bright):
        return float(backdrop([PLAIN | {"scene": scene, "backdrop": bright}], [rng(4)], SIZE,
                              "cpu").mean())

    assert all(mean("night", 0.5) < mean(scene, 0.5) for scene in SCENES[:4])
    assert all(mean(scene, 0.1) < mean(scene, 0.9) for scene in SCENES)


def test_the_world_behind_leans_against_the_head_s_roll():
    """A room's walls lean; what is upright in the world shifts sideways down the picture."""
    x, _ = _plane(60, 58, math.radians(20))
    # A head rolled towards the image's left ear up: the upright picture turns the world with it.
    assert float(x[-1, 29] - x[0, 29]) == pytest.approx(
        2 * 60 / 58 * math.sin(math.radians(20)), rel=0.01)


def test_an_unknown_scene_is_named():
    with pytest.raises(ValueError, match="studio, wall, room, outdoor, night, not 'moon'"):
        backdrop([PLAIN | {"scene": "moon"}], [rng()], SIZE, "cpu")
