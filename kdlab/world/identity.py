"""Who a rendered face is: factors drawn once per identity, and the shape and skin they make.

Everything here depends on (seed, identity) alone. Colours are sRGB, 0..1, painted on the mean
head's surface (metres, see head.py), so a brow stays on its brow ridge whatever the shape.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.head import (
    ATLAS,
    EYE_PATCH,
    LID_PATCH,
    MOUTH_PATCH,
    SKIN_ROWS,
    Head,
    vertex_normals,
)

GROUPS = ("african", "asian", "caucasian")
# Typical skin of each ancestry, sRGB; our choice by eye, varied per identity.
_SKIN = torch.tensor([[0.40, 0.27, 0.20], [0.83, 0.66, 0.53], [0.86, 0.68, 0.58]])
_HAIR = torch.tensor([[0.06, 0.05, 0.045], [0.13, 0.085, 0.06], [0.28, 0.18, 0.11],
                      [0.50, 0.36, 0.20], [0.33, 0.14, 0.07]])
_IRIS = torch.tensor([[0.16, 0.09, 0.05], [0.30, 0.19, 0.09], [0.33, 0.36, 0.20],
                      [0.30, 0.42, 0.52]])


def generator(*key: int) -> torch.Generator:
    """A random stream of its own for every key; the same on every machine."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def draw_identity(seed: int, identity: int, dimension: int) -> dict[str, Tensor | float]:
    """The factors of an identity: name -> number or vector; all that makes it who it is."""
    rng = generator(seed, identity, 1)

    def uniform(low=0.0, high=1.0):
        return low + (high - low) * float(torch.rand((), generator=rng))

    def normal(sd=1.0):
        return sd * float(torch.randn((), generator=rng).clamp(-2.5, 2.5))

    def choose(weights):
        return int(torch.multinomial(torch.tensor(weights), 1, generator=rng))

    # A stream of its own, longest first: a world of another dimension has the same people in
    # all else, and the same leading coefficients.
    shape = torch.randn(110, generator=generator(seed, identity, 5)).clamp(-2.5, 2.5)[:dimension]
    # Normalised squared normals are Dirichlet(0.5): mostly one ancestry, often two.
    ancestry = torch.randn(3, generator=rng).square() + 1e-3
    ancestry = ancestry / ancestry.sum()
    group = int(ancestry.argmax())
    european = float(ancestry[2])
    female = uniform() < 0.5
    age = uniform(0.0, 0.75)  # 0 young adult, 1 old
    dark = [0.75, 0.23, 0.02, 0.0, 0.0] if european < 0.5 else [0.2, 0.3, 0.27, 0.17, 0.06]
    hair = _HAIR[choose(dark)] * (1 + normal(0.12))
    grey = max(0.0, min(1.0, (age - 0.35) * 2.2 + normal(0.3))) if age > 0.3 else 0.0
    hair = hair * (1 - grey) + torch.tensor([0.62, 0.61, 0.60]) * grey
    bald = not female and uniform() < 0.08 + 0.25 * age
    beard = max(0.0, normal(0.45) - 0.05) if not female else 0.0
    return {
        "shape": shape,
        "ancestry": ancestry, "group": group, "female": float(female), "age": age,
        "muscle": uniform(-0.3, 0.3), "weight": uniform(-0.4, 0.4),
        "skin": (_SKIN.T @ ancestry) * (1 + normal(0.10)) + torch.randn(3, generator=rng) * 0.015,
        "redness": uniform(0.05, 0.22), "mottle": uniform(0.01, 0.05),
        "socket": uniform(0.05, 0.30), "freckles": max(0.0, normal(0.5) - 0.4) * european,
        "lip": torch.tensor([uniform(0.88, 1.0), uniform(0.58, 0.78), uniform(0.60, 0.80)]),
        "makeup": uniform(0.2, 1.0) if female else uniform(0, 0.15),
        "hair": hair.clamp(0.02, 0.9), "bald": float(bald),
        "hairline": normal(0.007), "recession": max(0.0, normal(0.012)) * (1 - female),
        "sides": uniform(-0.03, 0.02) if not female else uniform(-0.07, 0.0),
        "thickness": (uniform(0.004, 0.018) if not female else uniform(0.010, 0.026)),
        "parting": normal(0.02), "strands": uniform(0.15, 0.4),
        "brow": {"height": normal(0.0018), "width": 0.0038 + abs(normal(0.0013)),
                 "tilt": normal(0.10), "arch": 7 + normal(3), "density": uniform(0.6, 0.98),
                 "inner": normal(0.0025), "outer": normal(0.003)},
        "iris": (_IRIS[choose([0.6, 0.4, 0.0, 0.0] if european < 0.5 else [0.2, 0.25, 0.25, 0.3])]
                 * (1 + normal(0.15))).clamp(0.02, 0.9),
        "beard": min(beard, 0.9), "moustache": min(max(0.0, beard + normal(0.15)), 0.9)
        if not female else 0.0, "beard_line": normal(0.006),
    }


def noise(rng: torch.Generator, rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """Smooth noise, sd about 1: (rows, columns) random numbers stretched to `size`."""
    values = torch.randn(1, 1, rows, columns, generator=rng)
    return F.interpolate(values, size, mode="bicubic", align_corners=True)[0, 0]


def hair_mask(points: Tensor, who: dict, softness: float = 0.0035) -> Tensor:
    """How much of a point of the mean head is covered by hair: (..., 3) metres -> (...) 0..1.

    softness: metres over which the hairline fades.
    """
    x, y, z = points.unbind(-1)
    x = x - who["parting"] * torch.sigmoid((z - 0.09) / 0.01)
    azimuth = torch.atan2(x, 0.02 - y).abs() * 180 / torch.pi
    top = 0.098 + who["hairline"]  # the hairline over the nose
    front = top + (0.03 if who["bald"] else 0.0)
    knots = torch.tensor([0.0, 25, 45, 62, 78, 100, 180], device=points.device)
    line = torch.tensor(
        [front, front + who["recession"], top - 0.012 + who["recession"] * 0.6, 0.055,
         0.02 + who["sides"] * 0.3, 0.01 + who["sides"], -0.045 + who["sides"]],
        device=points.device)
    if who["bald"]:
        line[:3] += 0.2  # the crown is bare, the sides are not
    segment = torch.bucketize(azimuth.contiguous(), knots[1:-1].contiguous())
    share = (azimuth - knots[segment]) / (knots[segment + 1] - knots[segment])
    edge = line[segment] + share * (line[segment + 1] - line[segment])
    mask = torch.sigmoid((z - edge) / softness)
    if who["bald"]:
        mask = mask * torch.sigmoid((0.085 - z) / 0.008)
    return mask


def build_shape(head: Head, who: dict, amplitude: float = 0.8) -> Tensor:
    """The identity's neutral head with its hair, (V, 3) metres.

    0.8 of the sampled spread: more looks deformed, less looks alike.
    """
    count = len(who["shape"])
    shape = who["shape"].to(head.mean.device)[:, None, None]
    vertices = head.mean + amplitude * (shape * head.components[:count]).sum(0)
    factors = {"female": who["female"] - 0.5, "age_old": who["age"], "muscle": who["muscle"],
               "weight": who["weight"], "african": float(who["ancestry"][0]) - 1 / 3,
               "asian": float(who["ancestry"][1]) - 1 / 3}
    for name, value in factors.items():
        vertices = vertices + value * head.directions[name]
    normals = vertex_normals(head.mean[None], head.faces, head.neighbours)[0]
    cover = hair_mask(head.mean, who, softness=0.010)  # wider than a triangle: no saw teeth
    crown = 1 + 0.6 * torch.sigmoid((head.mean[:, 2] - 0.09) / 0.02)
    return vertices + normals * (who["thickness"] * cover * crown)[:, None]


def paint(head: Head, who: dict, rng: torch.Generator) -> Tensor:
    """The identity's texture: (4, rows, columns), sRGB and gloss, all 0..1."""
    device = head.mean.device
    P = head.atlas_points
    x, y, z = P.unbind(-1)
    size = (SKIN_ROWS, ATLAS[1])
    eye_x, eye_z = head.eye_centres[:, 0].abs().mean(), head.eye_centres[:, 2].mean()
    dx, dz = x.abs() - eye_x, z - eye_z
    fields = [noise(rng, *shape, size).to(device) for shape in
              ((12, 18), (64, 96), (128, 192), (10, 192), (24, 384))]
    coarse, medium, fine, locks, strands = fields

    def spot(cx, cz, sx, sz):
        return torch.exp(-((x.abs() - cx) / sx) ** 2 - ((z - cz) / sz) ** 2) * (y < 0.02)

    skin = who["skin"].to(device).clamp(0.08, 0.95)
    colour = skin.expand(*size, 3) * (1 + who["mottle"] * (coarse + 0.5 * medium)
                                      + 0.012 * fine)[..., None]
    red = spot(0, -0.012, 0.016, 0.014) + spot(0.045, -0.012, 0.022, 0.02)
    red = (red + 0.7 * (x.abs() > 0.074)).clamp(0, 1) * who["redness"]
    colour = colour * (1 - red[..., None] * torch.tensor([0.1, 0.75, 0.7], device=device))
    socket = torch.exp(-(dx / 0.019) ** 2 - ((dz + 0.004) / 0.013) ** 2) * (y < 0)
    colour = colour * (1 - who["socket"] * socket[..., None])
    dots = ((medium + fine) > 1.6).float() * spot(0.03, -0.005, 0.035, 0.025)
    colour = colour * (1 - (0.28 * min(who["freckles"], 1.0) * dots)[..., None])
    gloss = 0.30 + 0.25 * spot(0, 0.0, 0.012, 0.06) + 0.15 * (z > 0.05)

    def cover(where, tint, glint):
        nonlocal colour, gloss
        where = where.clamp(0, 1)
        colour = colour * (1 - where[..., None]) + tint * where[..., None]
        gloss = gloss * (1 - where) + glint * where

    hair = who["hair"].to(device)
    lip = skin * who["lip"].to(device)
    lip = lip * (1 - 0.25 * who["makeup"] * torch.tensor([0.0, 1, 0.8], device=device))
    cover(head.atlas_lip * 0.85, lip * (1 + 0.05 * medium[..., None]), 0.6)
    seam = torch.exp(-((z + 0.0425 + 0.10 * x.abs()) / 0.0011) ** 2) * (x.abs() < 0.025)
    cover(0.6 * seam * head.atlas_lip, lip * 0.35, 0.2)

    if who["beard"] + who["moustache"] > 0:
        grain = 0.75 + 0.35 * fine
        jaw = torch.sigmoid((-0.028 + who["beard_line"] + 0.55 * (x.abs() - 0.02).clamp(min=0)
                             + (x.abs() > 0.055) * 0.04 - z) / 0.004) * (y < 0.03)
        jaw = jaw * torch.sigmoid((x.abs() + 0.35 * (-0.05 - z) - 0.004) / 0.002)
        jaw = jaw * (1 - head.atlas_lip)
        upper = spot(0.014, -0.0285, 0.013, 0.0055) * (1 - head.atlas_lip) * (y < -0.03)
        chin = spot(0, -0.075, 0.022, 0.016) * (1 - head.atlas_lip)
        cover(who["beard"] * torch.maximum(jaw, chin) * grain, hair * 0.9, 0.1)
        cover(who["moustache"] * upper * 1.2 * grain, hair * 0.9, 0.1)

    brow = who["brow"]
    along = ((dx + 0.019 + brow["inner"]) / (0.041 + brow["outer"] + brow["inner"])).clamp(0, 1)
    ends = (along > 0) & (along < 1)
    line = 0.0185 + brow["height"] + brow["tilt"] * dx * 0.5 - brow["arch"] * dx**2
    width = brow["width"] * (1.15 - 0.75 * along)
    stroke = torch.exp(-((dz - line) / width) ** 4) * ends * (y < -0.005)
    stroke = stroke * (along * 5).clamp(0, 1) * ((1 - along) * 5).clamp(0, 1)
    cover(stroke * brow["density"] * (0.95 + 0.12 * fine), hair * 0.7 + 0.01, 0.1)

    # Lashes and lid crease: a rim round the eye's opening, stronger above.
    rim = torch.exp(-((((dx / 0.0165) ** 2 + (dz / 0.0075) ** 2).sqrt() - 1) / 0.16) ** 2)
    rim = rim * (y < 0.005) * torch.where(dz > 0, 0.55 + 0.35 * who["makeup"], 0.2)
    cover(rim, skin * 0.25, 0.1)

    mask = hair_mask(P, who)
    shade = 1 + who["strands"] * (0.6 * locks + 0.5 * strands + 0.15 * fine)
    cover(mask, hair * shade.clamp(0.3, 1.9)[..., None], 0.12)

    atlas = torch.zeros(4, *ATLAS, device=device)
    atlas[:3, :SKIN_ROWS] = colour.permute(2, 0, 1)
    atlas[3, :SKIN_ROWS] = gloss
    _paint_patches(atlas, who, skin, noise(rng, 1, 64, (1, 256))[0].to(device))
    return atlas.clamp(0, 1)


def _paint_patches(atlas: Tensor, who: dict, skin: Tensor, rays: Tensor) -> None:
    """The eye (iris 6 mm, pupil 2.4 mm), the mouth's inside and the lids' edges."""
    row, column, side = EYE_PATCH
    step = (torch.arange(side, device=atlas.device) + 0.5 - side / 2) / (side / 2 - 2) * 0.016
    v, u = torch.meshgrid(step, step, indexing="ij")
    radius = (u * u + v * v).sqrt()
    angle = ((torch.atan2(v, u) / torch.pi + 1) * 127.9).long()
    iris = who["iris"].to(atlas.device)[:, None, None] * (1 + 0.22 * rays[angle])
    iris = iris * torch.sigmoid((0.0058 - radius) / 0.0004) + 0.02
    white = torch.tensor([0.84, 0.81, 0.78], device=atlas.device)[:, None, None]
    white = white * (1 - 0.25 * (radius / 0.016) ** 2)
    inside = torch.sigmoid((0.0064 - radius) / 0.0003)
    eye = white * (1 - inside) + iris * inside
    atlas[:3, row:row + side, column:column + side] = eye * torch.sigmoid((radius - .0024) / .0003)
    atlas[3, row:row + side, column:column + side] = 0.3
    for (row, column, side), colour in (
            (MOUTH_PATCH, torch.tensor([0.22, 0.07, 0.07], device=atlas.device)),
            (LID_PATCH, skin * torch.tensor([0.80, 0.60, 0.57], device=atlas.device))):
        atlas[:3, row:row + side, column:column + side] = colour[:, None, None]
        atlas[3, row:row + side, column:column + side] = 0.3
