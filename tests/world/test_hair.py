import math

import pytest
import torch
import torch.nn.functional as F

from kdlab.world.hair import (
    COLUMNS,
    PATCH,
    ROWS,
    STYLES,
    hair_grid,
    hair_patch,
    hair_points,
)
from kdlab.world.head import load_head
from kdlab.world.raster import interpolate, rasterise
from kdlab.world.skull import CENTRE, scalp, skull_coordinates, skull_radius


@pytest.fixture(scope="module")
def head():
    return load_head()


def person(style, **changes):
    return {"style": style, "volume": 0.5, "length": 0.5, "curl": 0.3, "parting": 0.02,
            "hairline": 0.0, "recession": 0.0, "sides": -0.01, "strands": 0.3} | changes


def people(style):
    """The extremes of the factors, which is where hair goes wrong."""
    yield person(style)
    yield person(style, volume=0.0, length=0.0, curl=0.0, parting=-0.05, sides=0.02,
                 recession=0.03, hairline=0.018, strands=0.15)
    yield person(style, volume=1.0, length=1.0, curl=1.0, parting=0.05, sides=-0.07,
                 hairline=-0.018, strands=0.4)


def patch(who, seed=0):
    return hair_patch(who, torch.Generator().manual_seed(seed))


def rows_of(points):
    return points.reshape(ROWS, COLUMNS, 3)


def surface(head, points):
    """Distance from the axis (below CENTRE) or from CENTRE (above) to the outermost skin or ear
    in each point's direction, by asking every triangle."""
    start = torch.tensor(CENTRE).expand_as(points).clone()
    start[:, 2] = torch.minimum(start[:, 2], points[:, 2])
    ray = F.normalize(points - start, dim=-1)
    a, b, c = (corner[None] for corner in head.mean[head.faces].unbind(1))
    normal = torch.linalg.cross(b - a, c - a)
    far = ((a - start[:, None]) * normal).sum(-1) / (ray[:, None] * normal).sum(-1)  # (W, T)
    hit = start[:, None] + far[..., None] * ray[:, None]
    inside = torch.stack([(torch.linalg.cross(q - p, hit - p) * normal).sum(-1)
                          for p, q in ((a, b), (b, c), (c, a))])
    inside = ((inside >= 0).all(0) | (inside <= 0).all(0)) & (far > 0)
    return torch.where(inside, far, 0).amax(1), (points - start).norm(dim=-1)


def thickness(head, who):
    azimuth, fall, radius = skull_coordinates(hair_points(head, who)).unbind(-1)
    return radius - skull_radius(head, azimuth, fall, ears=False)


def test_one_topology_for_every_style(head):
    faces, texture = hair_grid()
    assert len(faces) <= 3000 and faces.dtype == torch.int64
    assert faces.unique().tolist() == list(range(ROWS * COLUMNS))
    assert texture.shape == (ROWS * COLUMNS, 2) and texture.min() == 0
    assert texture.amax(0).tolist() == [PATCH[2] - 1, PATCH[1] - 1]
    half = len(faces) // 2
    assert torch.equal(faces[half:], faces[:half].flip(1))  # both orders: both sides show
    assert all(hair_points(head, person(style)).shape == (ROWS * COLUMNS, 3) for style in STYLES)


def test_the_first_half_of_the_triangles_shows_from_outside(head):
    faces = hair_grid()[0]
    points = hair_points(head, person("buzz"))
    a, b, c = points[faces[:len(faces) // 2]].unbind(1)
    normal = torch.linalg.cross(c - a, b - a)  # outward, as in head.face_normals
    some = normal.norm(dim=-1) > 1e-9  # roots share one point: triangles without area
    assert some.float().mean() > 0.95
    assert ((normal * (a - torch.tensor(CENTRE))).sum(-1) > 0)[some].all()


@pytest.mark.parametrize("style", STYLES)
def test_hair_is_outside_the_skull(head, style):
    for who in people(style):
        points = hair_points(head, who)
        assert points.isfinite().all()
        azimuth, fall, radius = skull_coordinates(points).unbind(-1)
        assert (radius >= skull_radius(head, azimuth, fall, ears=False)).all()


@pytest.mark.parametrize("style", ["buzz", "bun", "bald_sides"])
def test_outside_the_mesh_itself_not_just_its_map(head, style):
    points = hair_points(head, person(style, volume=0.0))[::2]
    reach, radius = surface(head, points)
    beside = (points[:, 0].abs() > 0.062) & (points[:, 2] < 0.06)  # where ears are
    assert (radius >= reach)[~beside].all()
    assert reach.max() > 0.09  # the rays do hit


@pytest.mark.parametrize("style", STYLES)
def test_eyes_nose_and_mouth_stay_free_in_front_view(head, style):
    faces, texture = hair_grid()
    grid = torch.stack(torch.meshgrid(torch.linspace(-0.12, 0.12, 240),
                                      torch.linspace(0.16, -0.13, 290), indexing="xy"), -1)
    x, z = grid.unbind(-1)
    eyes = sum(((x - ex) / 0.019) ** 2 + ((z - ez) / 0.011) ** 2 < 1
               for ex, _, ez in head.eye_centres.tolist()).bool()
    face = eyes | ((x.abs() < 0.02) & (z < 0.03) & (z > -0.03)) \
        | ((x.abs() < 0.03) & (z <= -0.03) & (z > -0.06))
    for who in people(style):
        points = hair_points(head, who)
        flat = torch.stack([(points[:, 0] + 0.12) / 0.24 * 239,
                            (0.16 - points[:, 2]) / 0.29 * 289], -1)[None]
        seen = rasterise(flat, points[None, :, 1], faces, 290, 240)
        out = interpolate(torch.cat([texture, points[:, 1:2]], 1)[None], faces, seen, flat)[0]
        where = (out[..., :2] / torch.tensor([PATCH[2] - 1.0, PATCH[1] - 1.0])) * 2 - 1
        opacity = F.grid_sample(patch(who)[None, 1:], where[None], align_corners=True)[0, 0]
        before = out[..., 2] < 0.03  # hair behind the face's plane is hidden by the head
        assert not ((seen[0] >= 0) & before & face & (opacity > 0.1)).any()
        assert (seen >= 0).any()


def test_styles_differ(head):
    shapes = torch.stack([hair_points(head, person(style)) for style in STYLES])
    apart = torch.cdist(shapes.flatten(1), shapes.flatten(1)) / math.sqrt(shapes.shape[1])
    assert apart[~torch.eye(len(STYLES), dtype=torch.bool)].min() > 0.002


def test_thickness_of_the_styles(head):
    thick = {style: float(thickness(head, person(style)).quantile(0.7)) for style in STYLES}
    assert thick["buzz"] < 0.006 < thick["short"] < 0.016
    assert 0.035 < thick["afro"] < 0.08
    assert thick["buzz"] < thick["short"] < thick["swept"] < thick["curly"] < thick["afro"]


def test_long_reaches_below_the_jaw_and_bob_to_it(head):
    lowest = {style: float(hair_points(head, person(style))[:, 2].min()) for style in STYLES}
    assert lowest["long"] < -0.14
    assert -0.12 < lowest["bob"] < -0.05
    assert lowest["short"] > -0.09


def test_fringe_falls_below_the_hairline(head):
    def front(style):
        return float(rows_of(hair_points(head, person(style)))[-1, 0, 2])

    assert 0.05 < front("fringe") < front("bun") - 0.02


def test_bald_sides_leave_the_crown_bare(head):
    for who in people("bald_sides"):
        assert hair_points(head, who)[:, 2].max() < 0.105  # the crown is at 0.144
    crown = torch.tensor([[0.0, 0.05, 0.144], [0.0, -0.02, 0.12]])
    assert scalp(crown, person("bald_sides")).max() < 0.05
    assert scalp(crown, person("short")).min() > 0.8


def test_cap_styles_close_over_the_forehead_and_parted_ones_do_not(head):
    for style, closed in (("short", True), ("afro", True), ("long", False), ("bald_sides", False)):
        rows = rows_of(hair_points(head, person(style)))
        gap = (rows[:, 0] - rows[:, -1]).norm(dim=-1).max()
        assert (gap < 1e-4) == closed, style


@pytest.mark.parametrize("factor,style", [("volume", "short"), ("length", "long"),
                                          ("curl", "long"), ("parting", "bob"),
                                          ("sides", "short"), ("hairline", "bun"),
                                          ("recession", "swept"), ("strands", "curly")])
def test_factors_move_hair_a_little_at_a_time(head, factor, style):
    start = person(style)
    moved = hair_points(head, start | {factor: start[factor] + 1e-4}) - hair_points(head, start)
    assert 0 < moved.abs().max() < 1e-3


@pytest.mark.parametrize("style", STYLES)
def test_patch_is_hair_with_ragged_tips(style):
    bright, opacity = patch(person(style))
    assert (bright.shape, opacity.shape) == (PATCH[1:], PATCH[1:])
    assert 0 <= bright.min() and bright.max() <= 1 and 0 <= opacity.min() and opacity.max() <= 1
    body = opacity[30:90, 20:-20]
    assert body.mean() > (0.6 if style == "buzz" else 0.95)
    assert opacity[-1].max() < 0.1
    assert bright[30:90].std() > 0.04 and 0.4 < bright[30:90].mean() < 0.7
    tips = (opacity > 0.5).sum(0).float()[20:-20]
    assert tips.std() > 0.5  # rows: strands end at different heights


def test_patch_closes_round_the_head_and_follows_its_seed():
    who = person("short")
    first = patch(who)
    assert torch.equal(first, patch(who)) and not torch.equal(first, patch(who, seed=1))
    step = (first[:, :, 1:] - first[:, :, :-1]).abs().mean()
    assert (first[:, :, 0] - first[:, :, -1]).abs().mean() <= 2 * step


def test_points_are_deterministic(head):
    for style in STYLES:
        who = person(style)
        assert torch.equal(hair_points(head, who), hair_points(head, who))


def test_unknown_style_is_named(head):
    with pytest.raises(ValueError, match="'mohawk'.*buzz"):
        hair_points(head, person("mohawk"))


def test_scalp_follows_the_hairline_and_spares_ears_and_face(head):
    who = person("short")
    forehead = torch.tensor([[0.0, -0.03, 0.085], [0.0, -0.02, 0.115]])
    low, high = scalp(forehead, who)
    assert low < 0.1 and high > 0.8
    assert scalp(forehead, who | {"hairline": -0.03})[0] > 0.8
    ear = head.mean[(head.mean[:, 0].abs() > 0.078)]
    assert scalp(ear, who).max() < 0.1
    assert scalp(head.eye_centres, who).max() < 0.01
