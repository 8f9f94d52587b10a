"""Glasses and mask: tied to the head, where they belong, and of the asked size."""

import math

import pytest
import torch

from kdlab.world import glasses, mask
from kdlab.world.glasses import (
    BAR,
    GLASSES_TINT,
    LENS_FACES,
    RIM,
    bound_glasses,
    glasses_grid,
    glasses_points,
)
from kdlab.world.head import SKIN_ROWS, load_head
from kdlab.world.mask import (
    bound_mask,
    mask_grid,
    mask_points,
)
from kdlab.world.raster import rasterise
from kdlab.world.worn import (
    PATCH,
    bind,
    follow,
    patches,
)

FRAMES = [{"shape": 0.0, "width": 0.023, "height": 0.022, "rim": 0.0008},
          {"shape": 1.0, "width": 0.028, "height": 0.022, "rim": 0.0025},
          {"shape": 0.5, "width": 0.026, "height": 0.014, "rim": 0.0015}]


@pytest.fixture(scope="module")
def head():
    return load_head()


def stretched(head):
    """Another head: the first component, two standard deviations out."""
    return head.mean + 2 * head.components[0]


def outward(points, faces):
    """Normals of triangles that are clockwise from outside, times twice the area: (T, 3)."""
    a, b, c = points[faces].unbind(1)
    return torch.linalg.cross(c - a, b - a)


def hidden(head, vertices, points, where, yaw):
    """Which of the head's vertices `where` lie behind the mask, seen at a yaw in degrees."""
    turn = math.radians(yaw)
    x, y, z = torch.cat([vertices, points]).unbind(-1)
    across = x * math.cos(turn) - y * math.sin(turn)
    depth = x * math.sin(turn) + y * math.cos(turn)
    flat = torch.stack([120 + across * 1000, 150 - z * 1000], -1)  # a millimetre a pixel
    faces = torch.cat([head.faces, mask_grid()[0] + len(vertices)])
    seen = rasterise(flat[None], depth[None], faces, 280, 240)[0]
    column, row = flat[where].round().long().unbind(-1)
    return seen[row, column] >= len(head.faces)


def nose_tip(head):
    """The foremost vertex is the tip of the nose."""
    return head.mean[:, 1].argmin()[None]


def mouth(head):
    """Corners and all round: the front of the face at the height of the corners."""
    corner = head.mean[torch.cat(head.landmarks[3:])]
    x, y, z = head.mean.unbind(-1)
    front = (y < -0.035) & ((z - corner[:, 2].mean()).abs() < 0.008)
    return (front & (x.abs() <= corner[:, 0].abs().max())).nonzero()[:, 0]


# Tied to the head


def test_binding_takes_the_nearest_skin_with_weights_that_sum_to_one(head):
    points = mask_points(head)
    index, weight = bind(head, points, k=4)
    skin = head.faces[(head.texture[..., 1] < SKIN_ROWS).all(1)].unique()
    assert torch.isin(index, skin).all()
    assert torch.allclose(weight.sum(-1), torch.ones(len(points)))
    assert (weight > 0).all()
    distance = (points[:, None] - head.mean[skin]).norm(dim=-1)
    mine = (points[:, None] - head.mean[index]).norm(dim=-1)
    assert torch.allclose(mine, distance.topk(4, largest=False)[0], atol=1e-6)
    # Inverse squares: twice as far, a quarter of the weight.
    assert torch.allclose(weight * mine**2, (weight * mine**2)[:, :1].expand(-1, 4), rtol=1e-3)


def test_binding_avoids_eyes_and_mouth_unless_asked(head):
    eye = head.eye_centres[:1] - torch.tensor([0, 0.016, 0])
    eyeballs = head.faces[head.eye].unique()
    assert not torch.isin(bind(head, eye, k=8)[0], eyeballs).any()
    assert torch.isin(bind(head, eye, eyeballs, 8)[0], eyeballs).all()
    index, weight = bind(head, eye, k=1)
    assert index.shape == (1, 1) and weight.item() == 1


def test_binding_to_too_few_vertices_says_so(head):
    with pytest.raises(ValueError, match="k must be 1 to 3"):
        bind(head, head.mean[:5], torch.arange(3), 4)


def test_on_the_mean_head_nothing_moves_and_a_shift_shifts(head):
    for points, index, weight in (bound_glasses(head, {"frame": FRAMES[0]}), bound_mask(head)):
        assert torch.equal(follow(points, index, weight, head.mean[None], head.mean)[0], points)
        shift = torch.tensor([0.01, -0.02, 0.03])
        moved = follow(points, index, weight, head.mean[None] + shift, head.mean)[0]
        assert torch.allclose(moved, points + shift, atol=1e-6)


def test_following_gives_the_same_bits_in_any_batch(head):
    points, index, weight = bound_mask(head)
    rng = torch.Generator().manual_seed(0)
    heads = head.mean + 0.01 * torch.randn(5, *head.mean.shape, generator=rng)
    together = follow(points, index, weight, heads, head.mean)
    own = torch.stack([points + 0.001 * b for b in range(5)])
    apart = follow(own, index, weight, heads, head.mean)
    for b in range(5):
        assert torch.equal(together[b:b + 1],
                           follow(points, index, weight, heads[b:b + 1], head.mean))
        assert torch.equal(apart[b:b + 1],
                           follow(own[b:b + 1], index, weight, heads[b:b + 1], head.mean))


# Glasses


@pytest.mark.parametrize("frame", FRAMES)
def test_glasses_are_symmetrical_about_the_eyes(head, frame):
    points = glasses_points(head, {"frame": frame})
    middle = head.eye_centres.mean(0)
    ring = points[:2 * BAR * RIM].reshape(2, RIM, BAR, 3)
    right, left = ring - torch.stack([middle[0], *middle.new_zeros(2)])
    assert torch.allclose(right * torch.tensor([-1.0, 1, 1]), left, atol=1e-6)
    lens = points[GLASSES_TINT == 1].reshape(2, RIM + 1, 3)[:, :RIM]
    for side, eye in enumerate(head.eye_centres.flip(0)):
        low, high = lens[side].aminmax(dim=0)
        share = (eye - low) / (high - low)
        assert 0.25 < share[0] < 0.75 and 0.4 < share[2] < 0.7  # the pupil: about the lens's middle
        nearest = (lens[side][:, [0, 2]] - eye[[0, 2]]).norm(dim=-1).argmin()
        cornea = eye[1] - 0.016
        assert 0.009 < cornea - lens[side, nearest, 1] < 0.018
    # The upper edge leans out, the lower in.
    assert lens[0, RIM // 4, 1] < lens[0, 3 * RIM // 4, 1]


@pytest.mark.parametrize("frame", FRAMES)
def test_lens_and_rim_have_the_asked_size(head, frame):
    points = glasses_points(head, {"frame": frame})
    lens = points[GLASSES_TINT == 1][:RIM]
    low, high = lens.aminmax(dim=0)
    assert (high - low)[2] == pytest.approx(2 * frame["height"], rel=0.01)
    assert 0.94 * 2 * frame["width"] < (high - low)[0] <= 2 * frame["width"] * 1.001
    ring = points[:BAR * RIM].reshape(RIM, BAR, 3)
    wide = (ring[:, 0] - ring[:, 1]).norm(dim=-1)
    assert torch.allclose(wide, torch.full((RIM,), 2 * frame["rim"]), rtol=0.01)
    assert torch.allclose(ring.mean(1), lens, atol=1e-6)


def test_square_frames_have_corners_round_ones_none(head):
    def fill(shape):
        points = glasses_points(head, {"frame": FRAMES[0] | {"shape": shape}})
        x, _, z = points[GLASSES_TINT == 1][:RIM].unbind(-1)
        area = (x * z.roll(-1) - x.roll(-1) * z).sum().abs() / 2
        return float(area / (4 * FRAMES[0]["width"] * FRAMES[0]["height"]))

    # An ellipse fills pi/4 of its box, less the cut for the nose.
    assert 0.68 < fill(0.0) < math.pi / 4 < fill(0.5) < fill(1.0) < 0.95


def front_gap(head, vertices, points):
    """How far each point of rims and bridge lies before the skin beneath it: (P,) metres."""
    flat = torch.stack([100 + vertices[:, 0] * 1000, 150 - vertices[:, 2] * 1000], -1)
    seen = rasterise(flat[None], vertices[None, :, 1], head.faces, 280, 200)[0]
    front = points[:BAR * (2 * RIM + glasses._BRIDGE)]
    column = (100 + front[:, 0] * 1000).round().long()
    row = (150 - front[:, 2] * 1000).round().long()
    skin = vertices[head.faces[seen[row, column]], 1].mean(-1)
    return skin - front[:, 1]


@pytest.mark.parametrize("frame", FRAMES)
def test_glasses_lie_outside_the_mean_face(head, frame):
    points, index, weight = bound_glasses(head, {"frame": frame}, head.mean)
    assert front_gap(head, head.mean, points).min() > 0
    # Arms pass outside the skull and inside the ears.
    arm = points[BAR * (2 * RIM + glasses._BRIDGE):][:BAR * glasses._ARM].reshape(-1, BAR, 3)
    for place in arm[1:5].mean(1):
        near = ((head.mean[:, 1] - place[1]).abs() < 0.006) \
            & ((head.mean[:, 2] - place[2]).abs() < 0.006) & (head.mean[:, 0] > 0)
        assert place[0] > head.mean[near, 0].min()
    before_ear = arm[2].mean(0)
    side = ((head.mean[:, 1:] - before_ear[1:]).norm(dim=-1) < 0.008) & (head.mean[:, 0] > 0)
    assert before_ear[0] > head.mean[side, 0].max()


def test_a_brow_that_would_reach_into_the_glasses_pushes_them_out(head):
    x, y, z = head.mean.unbind(-1)
    ridge = torch.exp(-((z - 0.045) / 0.008) ** 2 - (x / 0.03) ** 2) * (y < -0.02)
    heavy = head.mean - 0.010 * ridge[:, None] * torch.tensor([0.0, 1, 0])
    who = {"frame": FRAMES[1]}
    gaps = []
    for shape in (None, heavy):
        points, index, weight = bound_glasses(head, who, shape)
        gaps.append(front_gap(head, heavy, follow(points, index, weight, heavy[None],
                                                  head.mean)[0]).min())
    assert gaps[0] < -0.002 and gaps[1] > 0
    ends = bound_glasses(head, who, heavy)[0] - bound_glasses(head, who)[0]
    assert (ends[glasses_points(head, who)[:, 1] > 0.05] == 0).all()  # still on the ears


def test_no_expression_bends_a_frame(head):
    points, index, weight = bound_glasses(head, {"frame": FRAMES[0]})
    faces = torch.stack([head.mean + move for move in head.expressions.values()])
    moved = follow(points, index, weight, faces, head.mean)
    assert (moved - points).norm(dim=-1).max() < 0.001


# The mask


@pytest.mark.parametrize("yaw", (-45, 0, 45))
@pytest.mark.parametrize("action", (None, "jawOpen", "mouthSmileLeft"))
def test_mask_covers_nose_and_mouth_but_not_the_eyes(head, yaw, action):
    for neutral in (head.mean, stretched(head)):
        vertices = neutral if action is None else neutral + 0.45 * head.expressions[action]
        points = follow(*bound_mask(head), vertices[None], head.mean)[0]
        below = torch.cat([mouth(head), nose_tip(head)])
        assert hidden(head, vertices, points, below, yaw).float().mean() > 0.98
        eyes = torch.cat(head.landmarks[:2])
        between_lids = (head.mean[eyes, 2] - head.eye_centres[:, 2].mean()).abs() < 0.008
        eyes = eyes[between_lids]
        assert len(eyes) > 20 and not hidden(head, vertices, points, eyes, yaw).any()


def test_a_dropped_mask_shows_the_nose_and_covers_the_mouth(head):
    points = mask_points(head, 0.02)
    assert not hidden(head, head.mean, points, nose_tip(head), 0).any()
    assert hidden(head, head.mean, points, mouth(head), 0).float().mean() > 0.98
    tops = [mask_points(head, drop)[:mask.SHEET_VERTICES, 2].max() for drop in (0, 0.005, 0.02)]
    assert tops[0] > tops[1] > tops[2]


def test_mask_lies_outside_the_mean_face(head):
    points = mask_points(head)
    nearest, index = torch.cdist(points, head.mean).min(1)
    normal = torch.zeros_like(head.mean)
    for corner in head.faces.unbind(1):
        normal.index_add_(0, corner, outward(head.mean, head.faces))
    normal = torch.nn.functional.normalize(normal, dim=-1)
    outside = ((points - head.mean[index]) * normal[index]).sum(-1)
    ears = points[:, 1] > 0.035  # loops vanish behind them
    assert outside[~ears].min() > -0.001
    cloth = points[:mask.SHEET_VERTICES].reshape(mask._ROWS, mask._COLUMNS, 3)[3:-2, 3:-3]
    gap = torch.cdist(cloth.reshape(-1, 3), head.mean).amin(1)
    assert 0.0015 < gap.median() < 0.008


def test_mask_is_symmetrical_and_made_once(head):
    cloth = mask_points(head)[:mask.SHEET_VERTICES].reshape(mask._ROWS, mask._COLUMNS, 3)
    mirror = cloth.flip(1) * torch.tensor([-1.0, 1, 1])
    assert (cloth - mirror).norm(dim=-1).max() < 0.004  # the mean head is not quite
    assert bound_mask(head, 0.0101) is bound_mask(head, 0.0099)
    assert bound_mask(head, 0.012) is not bound_mask(head, 0.010)


# Triangles and their look


def test_grids_name_every_point_and_stay_in_the_patch(head):
    points = {glasses_grid: glasses_points(head, {"frame": FRAMES[0]}),
              mask_grid: mask_points(head)}
    for grid, where in points.items():
        faces, texture = grid()
        assert torch.equal(faces.unique(), torch.arange(len(where)))
        assert len(texture) == len(where) and (texture >= 0).all()
        assert (texture <= torch.tensor(PATCH[::-1]) - 1).all()
    assert len(GLASSES_TINT) == len(points[glasses_grid])
    lenses = glasses_grid()[0][-LENS_FACES:]
    assert (GLASSES_TINT[lenses] == 1).all()
    assert (GLASSES_TINT[glasses_grid()[0][:-LENS_FACES]] == 0).all()
    assert sum(len(grid()[0]) for grid in points) <= 1500


@pytest.mark.parametrize("frame", FRAMES)
def test_triangles_show_their_outside(head, frame):
    points = glasses_points(head, {"frame": frame})
    faces = glasses_grid()[0]
    normal = outward(points, faces)
    assert (normal[-LENS_FACES:, 1] < 0).all()  # lenses look forward
    inside = points.clone()  # the middle of each bar's cross-section
    solid = GLASSES_TINT == 0
    inside[solid] = points[solid].reshape(-1, BAR, 3).mean(1).repeat_interleave(BAR, 0)
    bars = faces[:-LENS_FACES]
    away = (points[bars] - inside[bars]).mean(1)
    assert ((normal[:-LENS_FACES] * away).sum(-1) > 0).float().mean() > 0.99

    points, faces = mask_points(head), mask_grid()[0]
    cloth = (faces < mask.SHEET_VERTICES).all(1)
    middle = points[faces].mean(1) - torch.tensor([0, 0.02, 0])
    facing = (outward(points, faces) * middle)[:, :2].sum(-1)
    assert (facing[cloth] > 0).float().mean() > 0.97


def test_patches_are_brightness_and_opacity(head):
    picture = patches()
    assert picture.shape == (2, *PATCH) and picture.min() >= 0 and picture.max() <= 1

    def at(texture):
        column, row = texture.round().long().unbind(-1)
        return picture[:, row, column]

    texture = glasses_grid()[1]
    assert (at(texture[GLASSES_TINT == 0])[1] == 1).all()
    opacity = at(texture[GLASSES_TINT == 1])[1]
    assert (opacity > 0).all() and (opacity < 0.2).all()
    cloth = mask_grid()[1][:mask.SHEET_VERTICES].reshape(mask._ROWS, mask._COLUMNS, 2)
    assert (at(cloth[1:].reshape(-1, 2))[1] == 1).all()
    assert (at(cloth[0])[1] < 0.1).all() and (at(cloth[0])[0] == 0).all()  # the shadow's end
    # Three dark pleats down the middle of the cloth, and nothing else as dark.
    middle = picture[0, 10:55, 40]  # between the seams
    dark = (middle < middle.median() - 0.15).int()
    assert ((dark[1:] - dark[:-1]) == 1).sum() == 3


def test_same_factors_same_points(head):
    who = {"frame": FRAMES[1]}
    assert torch.equal(glasses_points(head, who), glasses_points(head, who))
    assert torch.equal(mask_points(head, 0.01), mask_points(head, 0.01))
