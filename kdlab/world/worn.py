"""How worn things are tied to a head, and what glasses and masks look like.

Both are modelled on the mean head (kdlab.world.glasses, kdlab.world.mask) and then follow a head's
vertices through shape, age and expression. Their brightness and opacity come from one small
picture, `patches`, that their texture coordinates (x, y) point into; the colour is a tint.
"""

import functools

import torch
from torch import Tensor

from kdlab.world.head import SKIN_ROWS, Head

PATCH = (64, 128)  # rows, columns
SHEET = (0, 0, 64, 80)  # first row, first column, rows, columns: the mask's cloth
SHADOW = 5  # rows of it above the cloth's edge: the shadow the mask throws on the face
LENS = (0, 84, 40, 40)
SOLID = (44, 84, 16, 40)  # across a bar (rows): frames, and the mask's loops


def bind(head: Head, points: Tensor, to: Tensor | None = None, k: int = 4
         ) -> tuple[Tensor, Tensor]:
    """Tie points (W, 3) of the mean head to its k nearest vertices.

    to: vertex numbers to choose from; None: the rendered skin, not eyeballs or mouth's inside.
    Returns index (W, k) and weight (W, k), inverse squares of the distances, each row summing
    to 1.   Raises ValueError where there are fewer than k vertices to choose from.
    """
    if to is None:
        to = skin_vertices(head.faces, head.texture)
    if not 1 <= k <= len(to):
        raise ValueError(f"bind: k must be 1 to {len(to)}, the vertices to choose from, not {k}")
    away = (points.double()[:, None] - head.mean[to].double()).norm(dim=-1)
    distance, order = away.topk(k, largest=False)
    weight = 1 / distance.to(points.dtype).square().clamp(min=1e-8)  # 0.1 mm is on the vertex
    return to[order], weight / weight.sum(-1, keepdim=True)


def follow(points: Tensor, index: Tensor, weight: Tensor, vertices: Tensor, mean: Tensor
           ) -> Tensor:
    """Bound points moved with heads: (W, 3) or (B, W, 3), heads (B, V, 3) -> (B, W, 3).

    Adds the weighted displacement from `mean` (V, 3) of the vertices of `bind`. One term after
    the other, so that a head gives the same bits in any batch.
    """
    moved = vertices - mean
    for i, w in zip(index.unbind(1), weight.unbind(1), strict=True):
        points = points + w[:, None] * moved[:, i]
    return points


@functools.lru_cache(maxsize=4)
def skin_vertices(faces: Tensor, texture: Tensor) -> Tensor:
    """Numbers of the vertices of skin: the texture of all else lies in patches below it."""
    return faces[(texture[..., 1] < SKIN_ROWS).all(1)].unique()


@functools.cache
def patches() -> Tensor:
    """Brightness and opacity of everything worn: (2, *PATCH), 0..1."""
    out = torch.zeros(2, *PATCH)

    row, column, rows, columns = SHEET
    cloth = rows - SHADOW
    v = ((torch.arange(rows) - SHADOW) / (cloth - 1))[:, None]  # 0 upper edge .. 1 lower edge
    u = torch.linspace(-1, 1, columns)
    bright = 0.93 - 0.10 * u**4 + 0 * v
    for fold in (0.36, 0.52, 0.68):  # three pleats: lit lip, dark crease, soft shade below
        at = (v - fold - 0.03 * (1 - u**2)) * cloth
        bright = bright + 0.06 * torch.exp(-((at + 1.5) / 1.2) ** 2)
        bright = bright - 0.30 * torch.exp(-(at / 0.8) ** 2)
        bright = bright - 0.12 * torch.exp(-((at - 2) / 2.2) ** 2) * (at > 0)
    border = torch.minimum(torch.minimum(v * cloth, (1 - v) * cloth),
                           (1 - u.abs()) * columns / 2)
    bright = bright - 0.16 * torch.exp(-((border - 4) / 0.8) ** 2)  # the seam
    bright = bright + 0.05 * (border < 3)
    wire = torch.exp(-((v * cloth - 2) / 1.2) ** 2) * (u.abs() < 0.35)
    bright = bright + 0.04 * wire
    shadow = (torch.arange(rows) < SHADOW)[:, None]
    fade = 0.40 * ((torch.arange(rows)[:, None] + 0.5) / SHADOW) ** 1.5
    out[0, row:row + rows, column:column + columns] = torch.where(shadow, 0.0, bright)
    out[1, row:row + rows, column:column + columns] = torch.where(shadow, fade, 1.0)

    row, column, rows, columns = LENS
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns),
                          indexing="ij")
    across = (x + 0.7 * y) / 1.22  # along the streak's normal
    streak = (torch.exp(-((across + 0.35) / 0.16) ** 2)
              + 0.6 * torch.exp(-((across + 0.02) / 0.06) ** 2))
    streak = streak * torch.sigmoid((0.35 - y) / 0.15)
    out[0, row:row + rows, column:column + columns] = 1
    out[1, row:row + rows, column:column + columns] = 0.03 + 0.15 * streak

    row, column, rows, columns = SOLID
    across = torch.linspace(-1, 1, rows)[:, None]  # a bar is round: its edges darker
    half = columns // 2
    out[0, row:row + rows, column:column + half] = 1 - 0.35 * across**2
    out[0, row:row + rows, column + half:column + columns] = 0.9
    out[1, row:row + rows, column:column + columns] = 1
    return out.clamp(0, 1)
