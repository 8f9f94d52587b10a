"""The skull as a map, its radius over azimuth and `fall`, on which hair is laid; the hairline.

`fall` is the angle from the crown down to ear height, there below the drop over FALL: so hair
hangs straight down where the skull ends. Lengths are metres on the mean head.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.head import Head
from kdlab.world.raster import interpolate, rasterise

CENTRE = (0.0, 0.03, 0.04)  # within the head at every height; z is the top of the ears
FALL = 0.09  # metres of drop below the centre that count as one radian
_MAP = (96, 181)  # rows of fall, columns of azimuth, of the skull's map
DEEPEST = math.pi / 2 + 0.28 / FALL  # no hair lower than 0.28 m below the centre
_KNOTS = (0, 25, 45, 62, 78, 100, 180)  # azimuth of the hairline's knots, degrees


def skull_coordinates(points: Tensor) -> Tensor:
    """(..., 3) metres -> (..., 3): azimuth (radians, 0 front, + image right), fall, radius."""
    x, y, z = (points - points.new_tensor(CENTRE)).unbind(-1)
    flat = torch.sqrt(x * x + y * y)
    above = z > 0
    fall = torch.where(above, torch.atan2(flat, z), math.pi / 2 - z / FALL)
    radius = torch.where(above, torch.sqrt(flat * flat + z * z), flat)
    return torch.stack([torch.atan2(x, -y), fall, radius], -1)


def place(azimuth: Tensor, fall: Tensor, radius: Tensor) -> Tensor:
    """The inverse of `skull_coordinates`."""
    upper = fall.clamp(max=math.pi / 2)
    flat = radius * torch.sin(upper)
    z = torch.where(fall < math.pi / 2, radius * torch.cos(upper), (math.pi / 2 - fall) * FALL)
    return torch.stack([flat * torch.sin(azimuth), -flat * torch.cos(azimuth), z], -1) \
        + radius.new_tensor(CENTRE)


@functools.lru_cache(maxsize=4)
def _skull(mean: Tensor, faces: Tensor) -> Tensor:
    """The outermost radius over fall and azimuth: (2, *_MAP), without and with ears."""
    x, y, z = mean.unbind(-1)
    ear = (x.abs() > 0.066) & (y > 0.028) & (y < 0.104) & (z > -0.032) & (z < 0.056)
    rows, columns = _MAP
    scale = mean.new_tensor([(columns - 1) / (2 * math.pi), (rows - 1) / DEEPEST])
    maps = []
    for kept in (faces, faces[~ear[faces].any(1)]):
        corner = skull_coordinates(_split(mean[kept]))  # (T, 3, 3)
        wide = corner[..., 0].amax(1) - corner[..., 0].amin(1) > math.pi
        corner[..., 0] += 2 * math.pi * (wide[:, None] & (corner[..., 0] < 0))
        again = corner[wide] - mean.new_tensor([2 * math.pi, 0, 0])  # the seam, from both sides
        corner = torch.cat([corner, again]).reshape(1, -1, 3)
        own = torch.arange(corner.shape[1], device=mean.device).reshape(-1, 3)
        both = torch.cat([own, own.flip(1)])
        pixels = (corner[..., :2] + mean.new_tensor([math.pi, 0])) * scale
        seen = rasterise(pixels, -corner[..., 2], both, rows, columns)
        radius = interpolate(corner[..., 2:], both, seen, pixels)[0, ..., 0]
        known = seen[0] >= 0
        if maps:  # through the hole where an ear was, the mouth's inside shows
            known &= radius > 0.75 * maps[0]
        maps.append(_grown(radius, known))
    return torch.stack([maps[1], torch.maximum(*maps)])


def _split(corners: Tensor) -> Tensor:
    """Triangles (T, 3, 3) with those near the crown cut small: there the map is far from flat."""
    near = skull_coordinates(corners)[..., 1].amin(1) < 0.7
    small = corners[near]
    for _ in range(3):
        a, b, c = small.unbind(1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        small = torch.cat([torch.stack(t, 1) for t in
                           ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return torch.cat([corners[~near], small])


def _grown(values: Tensor, known: Tensor) -> Tensor:
    """Grow known values of a map that closes round its columns into the unknown ones."""
    image, mask = values[None, None] * known, known[None, None].float()
    while not mask.all():
        pool = [F.avg_pool2d(F.pad(torch.cat([m[..., -2:-1], m, m[..., 1:2]], -1), (0, 0, 1, 1)),
                             3, 1) for m in (image, mask)]
        image = torch.where(mask > 0, image, pool[0] / pool[1].clamp(min=1e-6))
        mask = ((mask > 0) | (pool[1] > 0)).float()
    return image[0, 0]


def skull_radius(head: Head, azimuth: Tensor, fall: Tensor, ears: bool = True) -> Tensor:
    """Radius of the mean head (metres), any shape: what hair may not go below."""
    table = _skull(head.mean, head.faces)[int(ears)]
    grid = torch.stack([azimuth / math.pi, fall / DEEPEST * 2 - 1], -1).reshape(1, 1, -1, 2)
    out = F.grid_sample(table[None, None], grid, align_corners=True, padding_mode="border")
    return out.reshape(azimuth.shape)


def hairline(who: dict, azimuth: Tensor) -> Tensor:
    """Height of the lower edge of growing hair at an azimuth (radians): metres."""
    top, back = 0.098 + who["hairline"], who["recession"]
    sides = min(max(who["sides"], -0.03), 0.02)
    line = [top + 0.35 * back, top + back, top - 0.012 + 0.6 * back, 0.055, 0.02 + 0.3 * sides,
            0.012 + 0.6 * sides, -0.045 + sides]
    return between(azimuth, line)


def between(azimuth: Tensor, line: list[float]) -> Tensor:
    """A smooth line over |azimuth| with one value, and no slope, at each of _KNOTS."""
    knots = torch.deg2rad(torch.tensor(_KNOTS, dtype=azimuth.dtype, device=azimuth.device))
    values = torch.tensor(line, dtype=azimuth.dtype, device=azimuth.device)
    angle = azimuth.abs().contiguous()
    k = torch.bucketize(angle, knots[1:-1])
    share = (angle - knots[k]) / (knots[k + 1] - knots[k])
    return values[k] + share * share * (3 - 2 * share) * (values[k + 1] - values[k])


def scalp(points: Tensor, who: dict, softness: float = 0.0035) -> Tensor:
    """How much hair shades the skin at points of the mean head: (..., 3) metres -> (...) 0..1.

    softness: metres over which the hairline fades.
    """
    x, y, z = points.unbind(-1)
    azimuth = torch.atan2(x, CENTRE[1] - y)
    cover = torch.sigmoid((z - hairline(who, azimuth)) / softness)
    ear = torch.sigmoid((x.abs() - 0.075) / 0.001) * (z < 0.054)  # the skull is 0.074 wide there
    if who["style"] == "bald_sides":
        rim = 0.080 - 0.05 * torch.cos(azimuth).clamp(min=0)
        cover = cover * torch.sigmoid((rim - z) / 0.008) * torch.sigmoid(
            (azimuth.abs() - 1.05) / 0.05)
    return cover * (1 - ear) * {"buzz": 0.62, "bald_sides": 0.7}.get(who["style"], 0.9)
