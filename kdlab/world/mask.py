"""A surgical mask, as a mesh on the mean head.

Sizes are metres, in the axes of head.py; where no source is named they are ours, taken from the
usual mask of 17.5 x 9.5 cm.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.head import Head, unroll
from kdlab.world.worn import SHADOW, SHEET, SOLID, bind, skin_vertices

_ROWS, _COLUMNS, _LOOP = 17, 21, 7  # mask sheet, the top row being the shadow; places on a loop
SHEET_VERTICES = _ROWS * _COLUMNS
_MASK_LIFT = 0.0022  # least distance of cloth and skin


def mask_points(head: Head, drop: float = 0.0) -> Tensor:
    """The mask on the mean head: (W, 3) metres.

    drop: 0 .. 0.02 m that the mask has slid down, in whole millimetres. Cloth folds together over
    the chin; at the cheeks its edge sinks by half the drop, over the nose, where nothing holds it
    any more, by 1.75 times: at 0.02 the tip of the nose shows.
    """
    drop = round(1000 * drop) / 1000
    device = head.atlas_points.device
    u = torch.linspace(-1, 1, _COLUMNS, device=device)
    v = torch.linspace(0, 1, _ROWS - 1, device=device)[:, None]
    azimuth = u * math.radians(76)  # two thirds of the way to the ears, which start at 112
    # The upper edge: 11 mm under the eyes on the nose, then nearly straight over the cheekbones.
    slope = (u.square() + 0.02).sqrt() - 0.02**0.5
    top = 0.0170 - 0.0235 * slope - drop * (0.45 + 1.3 * torch.exp(-(u / 0.45) ** 2))
    bottom = -0.0925 + 0.036 * u**2
    height = top + (bottom - top) * v  # (rows, columns)
    height = torch.cat([height[:1] + 0.005, height])
    azimuth = azimuth.expand_as(height)

    x, y, _ = head.atlas_points.unbind(-1)
    radius = (x.square() + (0.02 - y).square()).sqrt()
    swollen = F.max_pool2d(radius[None, None], 7, 1, 3)[0, 0]  # 3 mm, half a cell of the grid
    skin = _sample(radius, azimuth, height)
    least = _sample(swollen, azimuth, height) + _MASK_LIFT
    sheet = least.clone()
    edge = skin + 0.0015
    for _ in range(60):  # a taut skin over an obstacle: as flat as the face lets it be
        wide = F.pad(sheet[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        mean = (wide[1:-1, 2:] + wide[1:-1, :-2] + wide[2:, 1:-1] + wide[:-2, 1:-1]) / 4
        sheet = torch.maximum(least, mean)
        sheet[:, [0, -1]] = edge[:, [0, -1]]
        sheet[:2], sheet[-1] = edge[:2], edge[-1]
    sheet[0] = skin[0] + 0.0006
    cloth = _on_cylinder(azimuth, height, sheet).reshape(-1, 3)

    # Loops: from the sheet's corners to the top and the foot of the ear's root.
    share = torch.linspace(0, 1, _LOOP, device=device)
    loops = []
    for side in (-1, 1):
        for corner, ear, z in ((1, 113, 0.030), (_ROWS - 1, 118, -0.014)):
            start = height[corner, 0]
            angle = side * torch.deg2rad(75 + (ear - 75) * share)
            middle = start + (z - start) * share
            for half in (0.0013, -0.0013):
                level = middle + half
                lift = _sample(swollen if corner == 1 else radius, angle, level) + 0.0012
                loops.append(_on_cylinder(angle, level, lift))
    return torch.cat([cloth, *loops])


def _sample(values: Tensor, azimuth: Tensor, height: Tensor) -> Tensor:
    """A picture of the skin (rows, columns) read at an azimuth (radians) and a height (metres)."""
    pixel = unroll(_on_cylinder(azimuth, height, torch.tensor(0.1, device=values.device)))
    size = torch.tensor(values.shape[::-1], device=values.device)
    grid = ((pixel + 0.5) / size * 2 - 1).reshape(1, -1, 1, 2)
    out = F.grid_sample(values[None, None], grid, align_corners=False, padding_mode="border")
    return out.reshape(azimuth.shape)


def _on_cylinder(azimuth: Tensor, height: Tensor, radius: Tensor) -> Tensor:
    """Round the vertical axis that head.unroll uses."""
    return torch.stack([radius * azimuth.sin(), 0.02 - radius * azimuth.cos(), height], -1)


@functools.cache
def mask_grid() -> tuple[Tensor, Tensor]:
    """Triangles (F, 3) and texture coordinates (W, 2) of the mask: sheet, then four loops."""
    faces = _cells(0, _ROWS, _COLUMNS)
    base = SHEET_VERTICES
    for _ in range(4):
        strip = _cells(base, 2, _LOOP)
        faces += strip + [t[::-1] for t in strip]  # a band is seen from either side
        base += 2 * _LOOP
    row, column, rows, columns = SHEET
    v = torch.cat([torch.zeros(1), torch.linspace(SHADOW + 0.5, rows - 1, _ROWS - 1)]) + row
    u = torch.linspace(0, columns - 1, _COLUMNS) + column
    v, u = torch.meshgrid(v, u, indexing="ij")
    sheet = torch.stack([u, v], -1).reshape(-1, 2)
    row, column, rows, columns = SOLID
    loop = torch.tensor([[column + 3 * columns / 4, row + 1.0],
                         [column + 3 * columns / 4, row + rows - 2.0]])
    return torch.tensor(faces), torch.cat([sheet, loop.repeat_interleave(_LOOP, 0).repeat(4, 1)])


def _cells(base: int, rows: int, columns: int) -> list[list[int]]:
    """Two triangles for each cell of a grid of vertices, outside facing the front."""
    out = []
    for r in range(rows - 1):
        for c in range(columns - 1):
            a = base + r * columns + c
            out += [[a, a + 1, a + columns + 1], [a, a + columns + 1, a + columns]]
    return out


def bound_mask(head: Head, drop: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """The mask ready for `follow`: points (W, 3), index (W, k), weight (W, k).

    Cloth smooths what is under it: each point follows 24 vertices of the face, not of the neck.
    Made once for each millimetre of drop and shared: do not write into it.
    """
    key = id(head.mean), round(1000 * drop)
    if key not in _MASKS:
        skin = skin_vertices(head.faces, head.texture)
        _, y, z = head.mean[skin].unbind(-1)
        face = (z > -0.070) | (y < 0.5 * (-0.070 - z))  # the rest is behind the chin
        points = mask_points(head, drop)
        _MASKS[key] = head, (points, *bind(head, points, skin[face], 24))
    return _MASKS[key][1]


_MASKS: dict = {}  # with the head, so that its id stays its own
