import pytest
import torch

from kdlab.world.ageing import grey_hair, skin_at_age
from kdlab.world.head import ATLAS, EYE_PATCH, MOUTH_PATCH, SKIN_ROWS, load_head
from kdlab.world.skin import GAMMA, noise, paint

RED, GREEN, BLUE, GLOSS, HAIR, BEARD, WRINKLE = range(7)
LIGHT, DARK = torch.tensor([0.86, 0.68, 0.58]), torch.tensor([0.40, 0.27, 0.20])


def person(**changes) -> dict:
    return {
        "skin": LIGHT, "ancestry": torch.tensor([0.05, 0.05, 0.9]), "age": 30.0, "female": 0.0,
        "redness": 0.15, "mottle": 0.03, "socket": 0.15, "freckles": 0.0,
        "lip": torch.tensor([0.95, 0.66, 0.70]), "makeup": 0.1,
        "hair": torch.tensor([0.2, 0.13, 0.08]), "strands": 0.3, "greying": 0.5, "dyed": 0.0,
        "brow": {"height": 0.0, "width": 0.0045, "tilt": 0.0, "arch": 7.0, "density": 0.9,
                 "inner": 0.0, "outer": 0.0},
        "iris": torch.tensor([0.30, 0.42, 0.52]), "beard": 0.0, "moustache": 0.0,
        "beard_line": 0.0} | changes


def painted(seed=3, scalp=None, **changes):
    scalp = torch.zeros(SKIN_ROWS, ATLAS[1]) if scalp is None else scalp
    return paint(load_head(), person(**changes), torch.Generator().manual_seed(seed), scalp)


def near(x, y_below, z, radius=0.004):
    """Texels of the mean head close to a point of the face."""
    P = load_head().atlas_points
    return ((P[..., 0] - x) ** 2 + (P[..., 2] - z) ** 2 < radius**2) & (P[..., 1] < y_below)


def pixels(atlas, age, tint=(0.05, 0.03, 0.02)):
    surface = atlas[:, :SKIN_ROWS].flatten(1).T
    return skin_at_age(surface, torch.full((len(surface),), float(age)),
                       torch.tensor(tint).expand(len(surface), 3))


def eye_of(atlas):
    row, column, side = EYE_PATCH
    return atlas[:3, row:row + side, column:column + side]


def test_shape_range_and_repeatability():
    atlas = painted()
    assert atlas.shape == (7, *ATLAS)
    assert atlas.isfinite().all() and atlas.min() >= 0 and atlas.max() <= 1
    assert torch.equal(atlas, painted())
    assert not torch.equal(atlas, painted(seed=4))


def test_any_number_of_threads_paints_the_same():
    before, atlases = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            atlases.append(painted(beard=0.8, moustache=0.8, freckles=0.5))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(atlases[0], other) for other in atlases[1:])


def test_noise_has_the_size_asked_for_and_spread_about_one():
    values = noise(torch.Generator().manual_seed(0), 30, 40, (120, 160))
    assert values.shape == (120, 160)
    assert 0.5 < values.std() < 1.2


def test_pupil_iris_and_white_are_where_the_eye_looks():
    eye = eye_of(painted())
    middle = EYE_PATCH[2] // 2
    pupil, iris, white = (eye[:, middle, middle + k] for k in (0, 8, 20))  # 0, 4 and 11 mm
    assert pupil.max() < 0.02
    assert iris[2] > iris[0]  # blue eyes
    assert white.min() > 0.2 and white.max() - white.min() < 0.3 * white.max()
    assert eye[:, 6, middle + 20].mean() < 0.7 * white.mean()  # the upper lid's shade


def test_limbal_ring_is_darker_than_the_iris():
    eye = eye_of(painted()).mean(0)
    middle = EYE_PATCH[2] // 2
    assert eye[middle, middle + 10] < eye[middle, middle + 7]


def test_mouth_is_dark_inside_and_teeth_are_light():
    row, column, side = MOUTH_PATCH
    atlas = painted()
    assert atlas[:3, row + side // 2, column + side // 2].max() < 0.1
    assert atlas[:3, row + 10, column + side // 2 + 4].min() > 0.3


def test_freckles_only_where_said_and_only_over_cheeks_and_nose():
    change = (painted(freckles=1.0) - painted(freckles=0.0)).abs().amax(0)[:SKIN_ROWS]
    P = load_head().atlas_points
    assert (change > 0.02).sum() > 50
    spread = P[change > 1e-4]
    assert spread[:, 2].min() > -0.05 and spread[:, 2].max() < 0.03
    assert spread[:, 1].max() < 0.02


def test_without_a_beard_the_channel_is_empty():
    assert painted()[BEARD].max() == 0
    assert painted(beard=0.0, moustache=0.7)[BEARD].max() > 0.3


def test_a_beard_grows_on_chin_and_lip_not_on_forehead_or_lips():
    head, beard = load_head(), painted(beard=0.8, moustache=0.8)[BEARD, :SKIN_ROWS]
    assert beard[near(0.0, -0.02, -0.072)].mean() > 0.35
    assert beard[near(0.012, -0.02, -0.030, 0.003)].mean() > 0.3
    assert beard[head.atlas_points[..., 2] > 0.05].max() < 0.01
    assert beard[head.atlas_lip > 0.95].max() < 0.05
    less = painted(beard=0.2, moustache=0.2)[BEARD, :SKIN_ROWS]
    assert 0 < less.sum() < 0.4 * beard.sum()


def test_brows_lie_over_the_eyes_and_scalp_is_taken_from_its_map():
    head = load_head()
    scalp = (head.atlas_points[..., 2] > 0.1).float()
    hair = painted(scalp=scalp)[HAIR, :SKIN_ROWS]
    eye = head.eye_centres[1]
    assert hair[near(float(eye[0]), 0.0, float(eye[2]) + 0.0175, 0.002)].mean() > 0.3
    assert hair[near(float(eye[0]), 0.0, float(eye[2]) - 0.02)].max() < 0.01
    assert hair[scalp > 0].mean() > 0.6


def test_lips_are_redder_than_the_cheek_and_makeup_deepens_them():
    lip = load_head().atlas_lip > 0.9
    ratio = [a[RED, :SKIN_ROWS][lip].mean() / a[GREEN, :SKIN_ROWS][lip].mean()
             for a in (painted(redness=0.0), painted(redness=0.0, makeup=1.0))]
    skin = (LIGHT[0] / LIGHT[1]) ** GAMMA
    assert skin * 1.1 < ratio[0] < ratio[1]


@pytest.mark.parametrize("tone", [LIGHT, DARK])
@pytest.mark.parametrize("age", [8, 25, 75])
def test_skin_keeps_its_hue_at_every_age(tone, age):
    colour = pixels(painted(skin=tone), age)
    cheek = near(0.03, 0.0, -0.04, 0.008).flatten()
    colour, tone = colour[cheek, :3].mean(0), tone**GAMMA
    assert 0.6 < colour.sum() / tone.sum() < 1.25
    assert torch.allclose(colour / colour.sum(), tone / tone.sum(), atol=0.06)


def test_wrinkles_do_nothing_to_the_young_and_only_darken_with_age():
    atlas = painted()
    flat = atlas.clone()
    flat[WRINKLE] = 0
    assert torch.equal(pixels(atlas, 25), pixels(flat, 25))
    loss = [(pixels(flat, age) - pixels(atlas, age))[:, :3] for age in (35, 50, 65, 75)]
    assert all((more >= less - 1e-6).all() for less, more in zip(loss, loss[1:], strict=False))
    assert loss[-1].mean() > 0.002


def test_wrinkles_differ_between_people_and_leave_eye_and_mouth_alone():
    one, other = painted(seed=1)[WRINKLE], painted(seed=2)[WRINKLE]
    assert (one - other).abs().mean() > 0.02
    assert one[SKIN_ROWS:].max() == 0


def test_a_beard_appears_between_fifteen_and_twenty():
    atlas = painted(beard=0.8, moustache=0.8)
    bare = atlas.clone()
    bare[BEARD] = 0
    assert torch.equal(pixels(atlas, 12), pixels(bare, 12))
    chin = near(0.0, -0.02, -0.072).flatten()
    light = [pixels(atlas, age)[chin, :3].mean() for age in (15, 17, 20)]
    assert light[0] > light[1] > light[2]
    assert torch.equal(pixels(atlas, 20), pixels(atlas, 29))


def test_hair_takes_the_tint_and_bare_skin_does_not():
    surface = torch.tensor([[0.6, 0.4, 0.3, 0.2, 1.0, 0.0, 0.0],
                            [0.6, 0.4, 0.3, 0.2, 0.0, 0.0, 0.0]])
    tint = torch.tensor([[0.1, 0.2, 0.3]]).expand(2, 3)
    out = skin_at_age(surface, torch.tensor([25.0, 25.0]), tint)
    assert torch.allclose(out[0, :3], tint[0])
    assert torch.equal(out[1], surface[1, :4])


def test_a_pixel_is_the_same_in_any_batch():
    rng = torch.Generator().manual_seed(0)
    surface, tint = torch.rand(1001, 7, generator=rng), torch.rand(1001, 3, generator=rng)
    age = torch.rand(1001, generator=rng) * 80
    whole = skin_at_age(surface, age, tint)
    parts = [skin_at_age(surface[i:i + 7], age[i:i + 7], tint[i:i + 7])
             for i in range(0, 1001, 7)]
    assert torch.equal(whole, torch.cat(parts))


def test_children_are_lighter_and_rosier_than_adults():
    atlas = painted()
    cheek = near(0.045, 0.0, -0.01).flatten()
    child, adult = (pixels(atlas, age)[cheek, :3].mean(0) for age in (8, 25))
    assert child.sum() > adult.sum()
    assert child[0] / child[1] > adult[0] / adult[1]


def test_hair_greys_with_age_and_dye_hides_it():
    young, who = torch.tensor([0.2, 0.13, 0.08]), person()
    light = [float(grey_hair(young, age, who).mean()) for age in range(20, 95, 5)]
    assert light == sorted(light)
    assert torch.equal(grey_hair(young, 34, person(greying=1.0)), young)
    assert torch.equal(grey_hair(young, 54, person(greying=0.0)), young)
    assert grey_hair(young, 40, person(greying=1.0)).mean() > young.mean()
    assert grey_hair(young, 80, who).min() > 0.45
    assert torch.equal(grey_hair(young, 80, person(dyed=1.0)), young)
