"""Hair as a mesh of its own round the head: ten styles on one grid of strands.

The grid has ROWS points along each strand (root to tip) and COLUMNS strands, from the front edge
on the image's left round the back to the front edge on the right. A strand is a path on the skull,
lifted off it; see kdlab.world.skull for `fall`, the way down from the crown.

Nothing here is random but the patch: lumps and clumps come from sines whose phases are the
identity's `strands` and `parting`, so a slider moves the hair instead of reshuffling it.
All lengths are metres on the mean head, all numbers without a source our choice by eye.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.head import Head
from kdlab.world.skull import CENTRE, DEEPEST, FALL, between, hairline, place, skull_radius

ROWS, COLUMNS = 14, 49
PATCH = (2, 128, 256)  # brightness and opacity; rows along the strand, columns round the head
CLEARANCE = 0.0025  # the least distance from the skull: more than a triangle's sag
_TURN = 0.46  # share of the rows before the body turns down to the skin

# Thickness in metres at the crown, over the forehead, at the sides and the back, at volume 0.5;
# then at the tips, and the size of lumps as a share of the thickness.
_BODY = {
    "buzz": (0.0035, 0.0032, 0.0030, 0.0030, 0.0025, 0.03),
    "short": (0.0120, 0.0130, 0.0070, 0.0080, 0.0030, 0.12),
    "swept": (0.0200, 0.0300, 0.0090, 0.0110, 0.0050, 0.12),
    "fringe": (0.0170, 0.0130, 0.0130, 0.0140, 0.0050, 0.10),
    "bob": (0.0170, 0.0130, 0.0160, 0.0190, 0.0060, 0.08),
    "long": (0.0160, 0.0120, 0.0190, 0.0150, 0.0080, 0.12),
    "bun": (0.0085, 0.0070, 0.0055, 0.0060, 0.0025, 0.06),
    "curly": (0.0300, 0.0220, 0.0260, 0.0300, 0.0060, 0.24),
    "afro": (0.0580, 0.0500, 0.0500, 0.0520, 0.0050, 0.07),
    "bald_sides": (0.0060, 0.0060, 0.0090, 0.0080, 0.0030, 0.15),
}
STYLES = tuple(_BODY)
_FREE = ("bob", "long", "bald_sides")  # the front edges part instead of meeting over the forehead
_PARTED = ("bob", "long")
_OVER_EARS = ("bob", "long", "curly", "afro")


@functools.cache
def hair_grid() -> tuple[Tensor, Tensor]:
    """The same for every style: faces (F, 3) int64, the first half seen from
    outside, the second from inside; texture (W, 2) patch
    pixels (x, y) of every point."""
    row, column = torch.meshgrid(torch.arange(ROWS - 1), torch.arange(COLUMNS - 1), indexing="ij")
    a = (row * COLUMNS + column).reshape(-1)
    b, c, d = a + 1, a + COLUMNS, a + COLUMNS + 1
    faces = torch.cat([torch.stack([a, d, b], 1), torch.stack([a, c, d], 1)])
    y, x = torch.meshgrid(torch.linspace(0, PATCH[1] - 1, ROWS),
                          torch.linspace(0, PATCH[2] - 1, COLUMNS), indexing="ij")
    return torch.cat([faces, faces.flip(1)]), torch.stack([x, y], -1).reshape(-1, 2)


def _waves(who: dict, azimuth: Tensor, along: Tensor, fine: float) -> Tensor:
    """Lumps of a body of hair: smooth, closed round the head, about -1..1."""
    phase = 40 * who["strands"] + 150 * who["parting"]
    total = torch.zeros_like(azimuth + along)
    for k, (turns, rows) in enumerate(((3, 0.5), (5, 1.1), (8, 0.7), (11, 1.7), (15, 1.3))):
        turns = round(turns * fine)
        total = total + torch.sin(turns * azimuth + 2 * math.pi * rows * fine * along
                                  + (1.7 * k + 1) * phase) / (1 + 0.4 * k)
    return total / 2


def _paths(head: Head, who: dict) -> tuple[Tensor, Tensor, Tensor]:
    """Where strands run: azimuth and fall (ROWS, COLUMNS); thickness left at a row (ROWS, 1).

    A body of hair turns down to the skin on a quarter of an ellipse, rows at equal angles; the
    last row lies on the skin, where the tips thin out.
    """
    style, length = who["style"], who["length"]
    column = torch.linspace(-1, 1, COLUMNS)
    side, back = column.sign(), 1 - column.abs()  # back: 0 the front edge, 1 the nape
    tip = back * math.pi
    low = hairline(who, tip)
    lean = min(max(who["parting"], -0.04), 0.04) / 0.1  # the parting off the middle, radians
    root = torch.stack([torch.zeros(COLUMNS), torch.full((COLUMNS,), 0.35)])  # the whorl
    if style in ("short", "swept"):  # the tips fall a little over the hairline
        low = low - 0.010 * length * torch.cos(tip).clamp(min=0)
        if style == "swept":  # from the side with the parting over to the other
            root = torch.tensor([[math.copysign(0.45, lean) + lean], [0.05]]).expand(2, COLUMNS)
    elif style == "fringe":
        cut = 0.066 - 0.010 * length
        low = between(tip, [cut, cut, cut - 0.004, 0.030, -0.005 - 0.03 * length,
                             -0.01 - 0.03 * length, -0.05 - 0.02 * length])
        root = root * torch.tensor([[1.0], [-0.2]])
    elif style == "curly":
        drop = -0.02 - 0.09 * length
        low = between(tip, [0.078, 0.078, 0.068, 0.040, drop + 0.02, drop, drop - 0.02])
    elif style in ("bob", "long"):
        opening = math.radians(62 + 100 * abs(who["strands"] - 0.27))  # how far the face shows
        tip = opening + back * (math.pi - opening)
        low = (-0.055 - 0.040 * length if style == "bob" else -0.15 - 0.05 * length) + 0 * tip
    elif style == "bald_sides":
        tip = 1.25 + back * (math.pi - 1.25)
        low = hairline(who, tip)
    elif style == "bun":
        root[1] = 0.15 + 0.75 * length  # from the crown to the back of the head
    if style in _PARTED:  # roots along a line from the forehead to the crown
        front = _fall_at(head, torch.zeros(1), hairline(who, torch.zeros(1)))
        root = torch.stack([torch.full((COLUMNS,), lean),
                            0.3 - (1 - back / 0.55).clamp(min=0) * (0.3 + 0.94 * front)])
    end = torch.stack([side * torch.sin(tip), -torch.cos(tip)]) * _fall_at(head, tip * side, low)
    if style == "bald_sides":
        root = end / end.norm(dim=0) * _fall_at(head, tip * side, 0.058 + 0.022 * back.sqrt())
    share = torch.linspace(0, 1, ROWS)[:, None]
    last = share[-2]
    turn = ((share - _TURN) / (last - _TURN)).clamp(0, 1) * math.pi / 2
    if style not in ("bob", "long"):
        way = 0.93 * _TURN / (_TURN + (last - _TURN) * 2 / math.pi)
        share = torch.where(turn > 0, way + (0.93 - way) * turn.sin(), share * way / _TURN)
        share[-1] = 1
    if style == "bun":  # the first rows are the ball's
        share = ((share - share[6]) / (1 - share[6])).clamp(min=0) * 0.86 + 0.14
    plane = root[:, None] + share * (end - root)[:, None]  # (2, ROWS, COLUMNS)
    azimuth, fall = torch.atan2(plane[0], -plane[1]), plane.norm(dim=0)
    return azimuth, fall.clamp(max=DEEPEST), turn.cos()


def _fall_at(head: Head, azimuth: Tensor, height: Tensor) -> Tensor:
    """The fall at which the skull has a height, at an azimuth."""
    fall = torch.full_like(azimuth, 1.0)
    for _ in range(8):
        radius = skull_radius(head, azimuth, fall, ears=False)
        fall = 0.5 * fall + 0.5 * torch.acos(((height - CENTRE[2]) / radius).clamp(0, 0.99))
    return torch.where(height > CENTRE[2], fall, math.pi / 2 + (CENTRE[2] - height) / FALL)


def hair_points(head: Head, who: dict) -> Tensor:
    """The hair of an identity round the mean head: (W, 3) metres, outside the skull everywhere.

    On the CPU, as everything made once per identity. Raises ValueError for an unknown style.
    """
    style = who["style"]
    if style not in STYLES:
        raise ValueError(f"no hair style {style!r}; choose one of {', '.join(STYLES)}")
    azimuth, fall, left = _paths(head, who)
    share = torch.linspace(0, 1, ROWS)[:, None]
    crown, front, side, back, tip, lump = _BODY[style]
    curl, volume = who["curl"], 0.65 + 0.7 * who["volume"]
    if style in ("long", "bob", "curly"):  # waves widen towards the tips
        azimuth = azimuth + (0.10 * curl * share * azimuth.sin()
                             * _waves(who, 4 * azimuth, 2 * share, 1.0))
    skull = skull_radius(head, azimuth, fall, ears=style in _OVER_EARS)
    hanging = torch.where(fall > 1.5, skull, 0).cummax(0)[0]
    if style in ("bob", "long", "curly", "fringe"):
        inward = 0.10 if style == "bob" else 0.05
        skull = torch.maximum(skull, hanging * (1 - inward * share**4))
    face = (torch.cos(azimuth) * 0.5 + 0.5) ** 2
    nape = (0.5 - torch.cos(azimuth) * 0.5) ** 2
    around = face * front + nape * back + (1 - face - nape) * side
    lower = (fall / 1.3).clamp(0, 1) ** 1.5
    body = (crown * (1 - lower) + around * lower) * volume
    body = body * (1 + lump * (1 + curl) * _waves(who, azimuth, share, 1.5 if lump > 0.2 else 1.0))
    if style in _FREE:  # the front edges lie close to the face
        edge = ((1 - torch.linspace(-1, 1, COLUMNS).abs()) / 0.2).clamp(max=1)
        body = CLEARANCE + (body - CLEARANCE) * torch.sqrt(1 - (1 - edge) ** 2)
    if style in ("bob", "long"):
        left = 0.5 + 0.5 * left
    if style in _PARTED or style == "swept":
        body = 0.005 + (body - 0.005) * (1 - torch.exp(-share / 0.06))  # flat at the parting
    if style == "bald_sides":
        left = left * (share / 0.35).clamp(0, 1)
    tip = torch.minimum(body, torch.tensor(tip))
    body = tip + (body - tip) * left
    points = place(azimuth, fall, skull + body.clamp(min=CLEARANCE))
    if style == "bun":
        points[:6] = _ball(head, who, azimuth[6], points[6])
    return points.reshape(-1, 3)


def _ball(head: Head, who: dict, azimuth: Tensor, base: Tensor) -> Tensor:
    """The bun itself: six rows from its pole to where it sits on the head, (6, COLUMNS, 3)."""
    foot = base[:-1].mean(0)
    out = F.normalize(foot - foot.new_tensor(CENTRE), dim=0)
    foot = foot + 0.004 * out  # the skull is round: its top is above the ring's middle
    radius = 0.022 + 0.014 * who["volume"]
    ring = base - foot
    ring = F.normalize(ring - (ring * out).sum(-1, keepdim=True) * out, dim=-1)
    angle = torch.linspace(0, 2.2, 6)[:, None, None]
    knot = 1 + 0.10 * _waves(who, azimuth, torch.linspace(0, 1, 6)[:, None], 1.0)[..., None]
    return foot + out * radius * 0.65 + radius * knot * (angle.cos() * out + angle.sin() * ring)


def _field(rng: torch.Generator, rows: int, columns: int) -> Tensor:
    """Smooth noise over a patch, sd about 1, closed round the columns."""
    values = torch.randn(rows, columns, generator=rng)
    values = torch.cat([values, values[:, :1]], 1)[None, None]
    return F.interpolate(values, PATCH[1:], mode="bilinear", align_corners=True)[0, 0]


def hair_patch(who: dict, rng: torch.Generator) -> Tensor:
    """Brightness (about 0.6 in the body) and opacity of an identity's hair: PATCH, 0..1."""
    style, curl = who["style"], who["curl"]
    along = torch.linspace(0, 1, PATCH[1])[:, None]
    column = torch.linspace(-1, 1, PATCH[2])
    clumps, locks, hairs = _field(rng, 3, 28), _field(rng, 4, 80), _field(rng, 6, PATCH[2] - 1)
    ends, grain = _field(rng, 1, 64), _field(rng, 96, PATCH[2] - 1)
    coils = _field(rng, 26, 56), _field(rng, 60, 130)
    # Waves: rows slide sideways, a clump together.
    slide = curl * 4 * torch.sin(2 * math.pi * (3.0 * along + 0.06 * clumps[:1]))
    across = (column + slide * 2 / (PATCH[2] - 1) + 3) % 2 - 1
    grid = torch.stack([across, (2 * along - 1).expand_as(across)], -1)[None]
    strands = F.grid_sample((0.4 * locks + 0.55 * hairs)[None, None], grid,
                            align_corners=True)[0, 0]
    coil = 1 - (coils[0] + 0.6 * coils[1]).abs()  # bright ridges, dark gaps
    tight = {"curly": 0.8, "afro": 1.0}.get(style, 0.0)
    relief = (1 - tight) * strands + tight * (0.9 * coil + 0.35 * grain)
    relief = 0.6 * grain if style == "buzz" else relief
    gap = torch.sigmoid((clumps + 0.4 * locks + 1.3) / 0.35)  # dark between clumps
    sheen = torch.exp(-((along - 0.42 - 0.05 * clumps) / 0.13) ** 2) * (1 - tight)
    bright = 0.60 * (1 + who["strands"] * 1.1 * relief) * (0.70 + 0.30 * gap)
    bright = bright * (0.90 + 0.45 * sheen * (1 + 0.3 * locks))
    root = 0.3 if style in ("bob", "long", "swept", "fringe") else 0.12
    bright = bright * (1 - root * torch.exp(-along / 0.05))

    # Strands end at different heights; the hairline's are finer and end sooner.
    ragged = {"fringe": 0.07, "long": 0.09, "bob": 0.03, "short": 0.06,
              "afro": 0.02}.get(style, 0.04)
    end = 0.985 - ragged * (0.55 * ends.abs() + 0.5 * locks[-1:].abs() + 0.35 * hairs[-1:])
    opacity = torch.sigmoid((end - along) / (0.010 + 0.20 * ragged))
    opacity = opacity * (1 - along**50)
    if style == "buzz":
        opacity = opacity * (0.70 + 0.18 * grain).clamp(0.3, 0.95)
    if style == "bald_sides":
        opacity = opacity * torch.sigmoid((along - 0.08 - 0.05 * ends) / 0.03)
    if style in _FREE:  # the front edges are strands too
        edge = 1 - column.abs()
        opacity = opacity * torch.sigmoid((edge - 0.012 - 0.007 * clumps) / 0.005)
    return torch.stack([bright, opacity]).clamp(0, 1)
