"""Five-point alignment: the similarity that brings landmarks onto a template, and the warp.

Pixel centres lie at integers. Landmarks: left eye, right eye, nose tip, left and right mouth
corner, left as seen in the image. Sources: insightface's ArcFace template at 112 x 112; dlib's
five-point chip with padding 0.25 at 150 x 150.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_DLIB = torch.tensor(
    [[0.2255, 0.216], [0.7548, 0.216], [0.490, 0.5156], [0.254, 0.780], [0.726, 0.780]],
    dtype=torch.float64,
)
TEMPLATES = {  # crop -> (5, 2) landmarks in pixels of the crop
    "arcface": torch.tensor(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
         [70.7299, 92.2041]], dtype=torch.float64),
    "dlib": (_DLIB + 0.25) / 1.5 * 150,
}
SIZES = {"arcface": 112, "dlib": 150}  # crop -> side in pixels


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares rotation, scale and shift from `source` to `target` (Umeyama 1991).

    source: (B, 5, 2); target: (5, 2) or (B, 5, 2).   Returns (B, 2, 3): x -> A x + b.
    Raises ValueError for landmarks that coincide or are not finite.
    In the plane a rotation with scale is a complex number, so the fit is one division; a
    reflection cannot come out of it.
    """
    source, target = source.double(), target.double().expand(len(source), -1, -1)
    ms, mt = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - ms, target - mt
    spread = s.square().sum((1, 2))
    bad = (~(spread > 1e-12)).nonzero().flatten().tolist()  # NaN is not > either
    if bad:
        raise ValueError(f"face {bad[0]} ({len(bad)} of {len(source)}) cannot be aligned: its five "
                         "landmarks coincide or are not numbers")
    a = (s * t).sum((1, 2)) / spread
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / spread
    A = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)  # (B, 2, 2)
    shift = mt - ms @ A.transpose(1, 2)  # (B, 1, 2)
    return torch.cat([A, shift.transpose(1, 2)], -1)


def warp(images: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Resample by a similarity: bilinear, replicated border, averaged where it shrinks.

    images: (B, C, H, W) float; matrix: (B, 2, 3) image -> crop pixels.
    Returns (B, C, size, size) float. A picture that shrinks by more than 5 % is sampled n x n
    times a crop pixel (n = the ceiling of its shrink factor) and averaged, so nothing aliases;
    n is each picture's own: what else is in the batch changes nothing.
    """
    B, C, H, W = images.shape
    matrix = matrix.to(images.device, torch.float64)
    A = torch.linalg.inv(matrix[:, :, :2])  # (B, 2, 2), crop -> image pixels: x -> A x + b
    b = -A @ matrix[:, :, 2:]  # (B, 2, 1)
    shrink = torch.linalg.det(A).abs().sqrt()
    # 16 serves a face 1,800 pixels wide; the cap keeps absurd landmarks from filling the memory.
    samples = torch.where(shrink > 1.05, shrink.ceil().clamp(max=16), 1).long()
    # The same map in grid_sample's units, where -1 and 1 are the outer edges of the border pixels.
    extent = torch.tensor([[W], [H]], dtype=torch.float64, device=images.device)
    shift = (2 * (A.sum(2, keepdim=True) * (size - 1) / 2 + b) + 1) / extent - 1
    theta = torch.cat([A * size / extent, shift], 2).to(images.dtype)  # (B, 2, 3)
    out = images.new_empty(B, C, size, size)
    for n in samples.unique().tolist():
        few = max(1, 2**20 // (size * n) ** 2)  # a million samples at a time: small temporaries
        for rows in (samples == n).nonzero()[:, 0].split(few):
            grid = F.affine_grid(theta[rows], (len(rows), C, size * n, size * n), False)
            fine = F.grid_sample(images[rows], grid, "bilinear", "border", align_corners=False)
            out[rows] = F.avg_pool2d(fine, n) if n > 1 else fine
    return out


def align(images: Tensor, landmarks: Tensor, crop: str) -> Tensor:
    """Faces onto a template: (B, C, H, W) float and (B, 5, 2) pixels -> (B, C, S, S) float."""
    if crop not in TEMPLATES:
        raise ValueError(f"crop must be one of {', '.join(TEMPLATES)}, not {crop!r}")
    return warp(images, similarity(landmarks, TEMPLATES[crop].to(landmarks.device)), SIZES[crop])
