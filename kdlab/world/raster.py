"""A batched z-buffer in plain torch: which triangle each pixel sees, and where in it.

Triangles of a face are small: at 200 pixels most span 2 to 6. So instead of asking every pixel
about every triangle, each triangle asks the pixels of its own bounding box; triangles of like size
are handled together, and one scatter keeps the nearest. Same code on CPU and GPU, same answer for
any batch size.
"""

import torch
from torch import Tensor

_BOXES = (2, 3, 4, 6, 8, 12, 20, 40)  # bounding boxes are rounded up to these sides
_DEPTH_STEPS = 2**30  # depth is compared as an integer; the triangle number breaks ties


def rasterise(points: Tensor, depth: Tensor, faces: Tensor, height: int, width: int
              ) -> Tensor:
    """The nearest front-facing triangle under every pixel centre.

    points: (B, V, 2) pixels, x right, y down, pixel centres at integers.   depth: (B, V), larger is
    further, any unit.   faces: (T, 3), clockwise on the screen (y down) when seen from the front.
    Returns (B, H, W) int64 triangle numbers, -1 where none.
    """
    B, T = len(points), len(faces)
    corners = points[:, faces]  # (B, T, 3, 2)
    first, second, third = corners.unbind(2)
    area = _cross(second - first, third - first)  # (B, T), twice the signed area
    limit = torch.tensor([width - 1, height - 1], device=points.device)
    low = torch.minimum(corners.amin(2).ceil().clamp(min=0), limit + 1)
    span = torch.minimum(corners.amax(2).floor(), limit) - low + 1  # (B, T, 2) pixels
    image, triangle = ((area > 1e-6) & (span > 0).all(-1)).nonzero(as_tuple=True)

    near, far = depth.amin(1, keepdim=True), depth.amax(1, keepdim=True)
    scaled = (depth - near) * ((_DEPTH_STEPS - 1) / (far - near).clamp(min=1e-12))
    empty = torch.iinfo(torch.int64).max
    buffer = torch.full((B * height * width,), empty, device=points.device)
    side = span[image, triangle].amax(1)
    smaller = 0
    for box in (*_BOXES, max(height, width)):
        part = ((side > smaller) & (side <= box)).nonzero(as_tuple=True)[0]
        smaller = box
        for some in part.split(max(1, 4_000_000 // box**2)):  # bounds memory, not results
            _scatter(buffer, image[some], triangle[some], corners, scaled, area, low, span,
                     faces, box, height, width, T)
    return torch.where(buffer < empty, buffer % T, -1).reshape(B, height, width)


def _scatter(buffer, image, triangle, corners, depth, area, low, span, faces, box,
             height, width, T) -> None:
    """Offer the pixels of each triangle's box to the z-buffer."""
    step = torch.arange(box, device=buffer.device)
    dy, dx = torch.meshgrid(step, step, indexing="ij")
    dx, dy = dx.reshape(1, -1), dy.reshape(1, -1)  # (1, box²)
    start, size = low[image, triangle], span[image, triangle]  # (M, 2)
    x, y = start[:, :1] + dx, start[:, 1:] + dy  # (M, box²)
    a, b, c = corners[image, triangle].unbind(1)
    inverse = 1 / area[image, triangle, None]
    w_b = ((x - a[:, :1]) * (c - a)[:, 1:] - (y - a[:, 1:]) * (c - a)[:, :1]) * inverse
    w_c = ((b - a)[:, :1] * (y - a[:, 1:]) - (b - a)[:, 1:] * (x - a[:, :1])) * inverse
    inside = (w_b >= 0) & (w_c >= 0) & (w_b + w_c <= 1)
    inside &= (dx < size[:, :1]) & (dy < size[:, 1:])
    z = depth[image[:, None], faces[triangle]]  # (M, 3)
    z = z[:, :1] + w_b * (z[:, 1:2] - z[:, :1]) + w_c * (z[:, 2:] - z[:, :1])
    key = z.long() * T + triangle[:, None]
    pixel = (image[:, None] * height + y.long()) * width + x.long()
    buffer.scatter_reduce_(0, pixel[inside], key[inside], "amin")


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def at_pixels(points: Tensor, faces: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The covered pixels as a list of P, which is cheaper to shade than the whole picture.

    Returns where (P,) flat pixel numbers into (B, H, W), triangle (P,), weights (P, 3).
    """
    B, height, width = seen.shape
    where = (seen.reshape(-1) >= 0).nonzero()[:, 0]
    triangle = seen.reshape(-1)[where]
    a, b, c = corner_values(points, faces, seen.shape, where, triangle).unbind(1)  # (P, 2)
    pixel = torch.stack([where % width, where // width % height], -1).to(points.dtype)
    area = _cross(b - a, c - a)
    w_b = _cross(pixel - a, c - a) / area
    w_c = _cross(b - a, pixel - a) / area
    return where, triangle, torch.stack([1 - w_b - w_c, w_b, w_c], -1)


def corner_values(values: Tensor, faces: Tensor, shape, where: Tensor, triangle: Tensor) -> Tensor:
    """Vertex values at the corners of each listed pixel's triangle: (B, V, A) -> (P, 3, A)."""
    image = where // (shape[1] * shape[2])
    rows = faces[triangle] + (image * values.shape[1])[:, None]  # (P, 3)
    return values.reshape(-1, values.shape[-1])[rows]


def interpolate(values: Tensor, faces: Tensor, seen: Tensor, points: Tensor) -> Tensor:
    """Vertex values blended inside each pixel's triangle: (B, V, A) -> (B, H, W, A), 0 outside."""
    where, triangle, weights = at_pixels(points, faces, seen)
    corners = corner_values(values, faces, seen.shape, where, triangle)
    out = values.new_zeros(seen.numel(), values.shape[-1])
    out[where] = (corners * weights[..., None]).sum(1)
    return out.reshape(*seen.shape, -1)
