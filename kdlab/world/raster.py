"""A batched z-buffer: which triangle each pixel sees, where in it, and what is to be seen there.

Every function has two forms. Plain torch, for a GPU, for other types than float32 and for
gradients. And loops over triangles and pixels, those of loops.py, which numba compiles
for CPU tensors: a dozen times as fast on one core. Each pixel is worked out on its own and in
one order of steps, so the answer is the same for any batch size and any number of threads, to
the last bit on the CPU.
"""

import functools
import importlib.util

import numpy as np
import torch
from torch import Tensor

from kdlab.world import loops
from kdlab.world.loops import DEPTH_STEPS, FLAT

NUMBA = importlib.util.find_spec("numba") is not None

_BOXES = (2, 3, 4, 6, 8, 12, 20, 40)  # bounding boxes are rounded up to these sides


def rasterise(points: Tensor, depth: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """The nearest front-facing triangle under every pixel centre.

    points: (B, V, 2) pixels, x right, y down, pixel centres at integers.   depth: (B, V), larger is
    further, any unit.   faces: (T, 3), clockwise on the screen (y down) when seen from the front.
    Triangles without area are not drawn: collapse a part to a point to hide it. Where two are
    equally near, the first is seen.
    Returns (B, H, W) int64 triangle numbers, -1 where none.   Raises IndexError where faces names
    a vertex that is not there.
    """
    if not _compiles(points, depth):
        return rasterise_torch(points, depth, faces, height, width)
    assert depth.shape == points.shape[:2] and points.shape[2:] == (2,)
    seen = torch.empty(len(points), height, width, dtype=torch.int64)
    _compiled(loops.rasterise)(_array(points), _array(depth), _numbers(faces, points.shape[1]),
                               seen.numpy())
    return seen


def rasterise_torch(points: Tensor, depth: Tensor, faces: Tensor, height: int, width: int
                    ) -> Tensor:
    """`rasterise` in torch. Each triangle asks the pixels of its bounding box; triangles of like
    size are handled together, and one scatter keeps the nearest."""
    B, T = len(points), len(faces)
    corners = points[:, faces]  # (B, T, 3, 2)
    first, second, third = corners.unbind(2)
    area = _cross(second - first, third - first)  # (B, T), twice the signed area
    limit = torch.tensor([width - 1, height - 1], device=points.device)
    low = torch.minimum(corners.amin(2).ceil().clamp(min=0), limit + 1)
    span = torch.minimum(corners.amax(2).floor(), limit) - low + 1  # (B, T, 2) pixels
    image, triangle = ((area > FLAT) & (span > 0).all(-1)).nonzero(as_tuple=True)

    near, far = depth.amin(1, keepdim=True), depth.amax(1, keepdim=True)
    scaled = (depth - near) * ((DEPTH_STEPS - 1) / (far - near).clamp(min=1e-12))
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

    points: (B, V, 2), faces: (T, 3) and seen: (B, H, W) as of `rasterise`.
    Returns where (P,) flat pixel numbers into (B, H, W), ascending; triangle (P,); weights (P, 3).
    """
    if _compiles(points):
        assert len(points) == len(seen) and points.shape[2:] == (2,)
        P = int((seen >= 0).sum())
        where, triangle, weights = seen.new_empty(P), seen.new_empty(P), points.new_empty(P, 3)
        _compiled(loops.at_pixels)(_array(points), _numbers(faces, points.shape[1]),
                                   _numbers(seen, len(faces), least=-1), where.numpy(),
                                   triangle.numpy(), weights.numpy())
        return where, triangle, weights
    height, width = seen.shape[1:]
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


def blend(values: Tensor, faces: Tensor, shape, where: Tensor, triangle: Tensor, weights: Tensor
          ) -> Tensor:
    """Vertex values blended inside the triangle of each listed pixel: (B, V, A) -> (P, A).

    shape: (B, H, W) of the picture.   where, triangle, weights: as `at_pixels` lists them.
    """
    if not _compiles(values, weights):
        corners = corner_values(values, faces, shape, where, triangle)
        return (corners * weights[..., None]).sum(1)
    B, height, width = shape
    assert len(values) == B and weights.shape == (len(triangle), 3) and len(where) == len(triangle)
    out = values.new_empty(len(where), values.shape[2])
    _compiled(loops.blend)(_array(values), _numbers(faces, values.shape[1]), height * width,
                           _numbers(where, B * height * width), _numbers(triangle, len(faces)),
                           _array(weights), out.numpy())
    return out


def blend_corners(values: Tensor, triangle: Tensor, weights: Tensor) -> Tensor:
    """Values of triangles' own corners, such as texture coordinates: (T, 3, A) -> (P, A).

    triangle, weights: as `at_pixels` lists them.
    """
    if not _compiles(values, weights):
        return (values[triangle] * weights[..., None]).sum(1)
    assert values.shape[1] == 3 and weights.shape == (len(triangle), 3)
    out = values.new_empty(len(triangle), values.shape[2])
    _compiled(loops.blend_corners)(_array(values), _numbers(triangle, len(values)),
                                   _array(weights), out.numpy())
    return out


def sample(atlases: Tensor, picture: Tensor, texel: Tensor) -> Tensor:
    """Textures read at points, bilinear, clamped at the border.

    atlases: (N, C, h, w), in memory as they like.   picture: (P,) which of the N each point
    reads; points that share one are read faster than points with a copy each.   texel: (P, 2)
    texels (x, y), a texel's centre at integers.   Returns (P, C).
    """
    N, C, height, width = atlases.shape
    if _compiles(atlases, texel):
        assert texel.shape == (len(picture), 2)
        out = atlases.new_empty(len(picture), C)
        # Channels last in name only: so the loop over them takes 0.6 of the time.
        _compiled(loops.sample)(atlases.permute(0, 2, 3, 1).numpy(), _numbers(picture, N),
                                _array(texel), out.numpy())
        return out
    x, y = texel[:, 0].clamp(0, width - 1), texel[:, 1].clamp(0, height - 1)
    x0, y0 = x.long(), y.long()
    x1, y1 = (x0 + 1).clamp(max=width - 1), (y0 + 1).clamp(max=height - 1)
    right, down = (x - x0)[:, None], (y - y0)[:, None]  # (P, 1), 0..1
    upper = atlases[picture, :, y0, x0] * (1 - right) + atlases[picture, :, y0, x1] * right
    lower = atlases[picture, :, y1, x0] * (1 - right) + atlases[picture, :, y1, x1] * right
    return upper * (1 - down) + lower * down


def interpolate(values: Tensor, faces: Tensor, seen: Tensor, points: Tensor) -> Tensor:
    """Vertex values blended inside each pixel's triangle: (B, V, A) -> (B, H, W, A), 0 outside."""
    where, triangle, weights = at_pixels(points, faces, seen)
    out = values.new_zeros(seen.numel(), values.shape[-1])
    out[where] = blend(values, faces, seen.shape, where, triangle, weights)
    return out.reshape(*seen.shape, -1)


def normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit vertex normals, the area-weighted mean over the triangles round each vertex.

    vertices: (B, V, 3).   faces: (T, 3), clockwise from outside.   Returns (B, V, 3), 0 where a
    vertex has no triangle with an area.
    """
    if _compiles(vertices):
        total = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        _compiled(loops.normals)(_array(vertices), _numbers(faces, vertices.shape[1]),
                                 total.numpy())
        return total
    a, b, c = vertices[:, faces].unbind(2)
    flat = torch.linalg.cross(c - a, b - a)  # (B, T, 3)
    total = torch.zeros_like(vertices)
    for corner in faces.unbind(1):
        total = total.index_add(1, corner, flat)
    return torch.nn.functional.normalize(total, dim=-1)


def _compiles(*tensors: Tensor) -> bool:
    """Without numba, as on a bare GPU machine, the torch forms serve everywhere."""
    return NUMBA and all(t.device.type == "cpu" and t.dtype == torch.float32
                         and not t.requires_grad for t in tensors)


@functools.cache
def _compiled(loop):
    """A loop as machine code, kept on disk beside its file or in the user's cache folder."""
    from numba import njit  # takes a quarter of a second: not before a picture is drawn
    options = {"nogil": True, "error_model": "numpy"}  # dividing by 0 gives what it gives in torch
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # numba finds no folder that it may write to: compile in each process
        return njit(**options)(loop)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy()


def _numbers(tensor: Tensor, count: int, least: int = 0) -> np.ndarray:
    """Indices as an array, all of them least to count - 1: compiled code does not look."""
    if tensor.numel():
        low, high = map(int, tensor.aminmax())
        if low < least or high >= count:
            raise IndexError(f"numbers of what to draw must be {least} to {count - 1}, "
                             f"not {low} to {high}")
    return _array(tensor.long())
