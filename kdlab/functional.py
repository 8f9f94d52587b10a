"""Mathematics that two or more losses share, on plain tensors.

Everything here runs in float32 at least, whatever precision the networks ran in: rounding a cosine
to bf16 would move a logit by up to an eighth at scale 64.
Dimensions: B batch, D embedding, C classes.
"""

import math
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-12  # a length below it is none, as for F.normalize


def full(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in one floating dtype: float32, or float64 where one of them has it."""
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return tuple(t.to(dtype) for t in tensors)


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """Vectors of length 1 along `dim`; what is shorter than 1e-12 stays as it is.

    As F.normalize, but for the gradient there: F.normalize divides it by 1e-12, so that one dead
    row would be all that a clipped step sees; here it is passed on as it comes.
    """
    length = x.norm(dim=dim, keepdim=True)
    return x / length.where(length > EPS, 1)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of every row of x with every row of y: (B, D), (C, D) -> (B, C)."""
    x, y = full(x, y)
    with torch.autocast(x.device.type, enabled=False):
        return unit(x) @ unit(y).T


def cosine_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of row i of x with row i of y: (B, D), (B, D) -> (B,)."""
    x, y = full(x, y)
    return (unit(x) * unit(y)).sum(1)


def squared_distance(x: Tensor, y: Tensor, normalize: bool = True,
                     reduction: str = "sum") -> Tensor:
    """Squared distance of row i of x to row i of y, mean over the batch: (B, D) twice -> scalar.

    normalize: on the unit sphere, 2 - 2 cos.   reduction: "sum" or "mean" over dimensions.
    """
    x, y = full(x, y)
    if normalize:
        x, y = unit(x), unit(y)
    squares = (x - y).square()
    return (squares.sum(1) if reduction == "sum" else squares.mean(1)).mean()


def arc_margin(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """cos(theta + margin) from cos(theta), without arccos.   margin: radians, or a tensor of them.

    cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m). At cos = +-1 the sine has no slope;
    there its gradient is taken as 0, so nothing is ever infinite. No fallback where
    theta + m > pi: the curve turns upward there, as in insightface and the AdaDistill code.
    """
    cos_m, sin_m = ((margin.cos(), margin.sin()) if isinstance(margin, Tensor)
                    else (math.cos(margin), math.sin(margin)))
    square = (1 - cosine) * (1 + cosine)  # sin², exact near cos = 1 where 1 - cos² is not
    inside = square > 0
    sine = torch.where(inside, square, 1).sqrt().where(inside, 0)
    return cosine * cos_m - sine * sin_m


def cos_margin(cosine: Tensor, margin: float | Tensor) -> Tensor:
    """cos(theta) - margin.   margin: in units of cosine."""
    return cosine - margin


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """`value` going forward, the gradient of `source` going back."""
    return source + (value - source).detach()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of every row of x to every row of y, 0 or more: (A, D), (B, D) -> (A, B).

    |x|² + |y|² - 2 x.y: one product, no (A, B, D) tensor. About the mean of y, because large
    coordinates would cancel; equal rows come out near 0, not exactly 0.
    """
    x, y = full(x, y)
    with torch.autocast(x.device.type, enabled=False):
        middle = y.detach().mean(0)
        x, y = x - middle, y - middle
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
    return squares.clamp(min=0)


class _Distances(torch.autograd.Function):
    """Distances of all rows. Coinciding rows have no slope, and the way back, unlike cdist's on a
    GPU, makes no (B, B, D) tensor."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        # Differences, not |x|² + |y|² - 2 x.y: equal rows come out at exactly 0.
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        ctx.save_for_backward(x, distance)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor) -> Tensor:
        x, distance = ctx.saved_tensors
        pull = (slope / distance).where(distance > 0, 0)
        pull = pull + pull.T
        x = x - x.mean(0)  # large coordinates would cancel
        with torch.autocast(x.device.type, enabled=False):
            return pull.sum(1, keepdim=True) * x - pull @ x


def distances(x: Tensor) -> Tensor:
    """Distance of every two rows, float32 at least: (B, D) -> (B, B); exactly 0 at equal rows."""
    return _Distances.apply(*full(x))  # |x_i - x_j|
