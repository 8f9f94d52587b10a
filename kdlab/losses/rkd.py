"""RKD: the student keeps the teacher's distances and angles between faces.

Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019.

Idea: not a face's own embedding is copied but how faces lie to each other. The distance term
compares the distance of every two faces, in units of the batch's mean distance; the angle term
compares, for every three, the angle they form at each of them. Shifting, scaling or rotating an
embedding changes neither, and the two embeddings may have different sizes.

Symbols: t_i, s_i embeddings of teacher and student; mu mean distance of a batch; psi_D
`relative_distances`; psi_A `angles`; l_delta smooth-l1, 0.5 x² up to |x| = 1, |x| - 0.5 beyond.
Choices: 25 and 50: TFace, RepDistiller, mdistiller and FaceX-Zoo; the authors' scripts train with
1 and 2. Raw embeddings: TFace; the authors' examples normalise the teacher's and not the
student's, `normalize="teacher"`. `chunk`: ours.
Differences: the paper was not at hand, so lines name a formula instead of an equation. As in every
public form the distance term is a mean over all B² entries with the zero diagonal, and the angle
term over all B³ triples, those without an angle (two of the three coincide) counting 0; mu is the
mean of the positive entries. Those forms take distances from a matrix product, where equal rows
come out at 1e-6 or some rounding error, and count as positive; here they are 0 and do not. They
hold B³ cosines (4.3 GB of 1,024 faces); here the cosines are made from the distances by the law of
cosines, a few vertices at a time, and none is kept; the price: where two faces are a hundred
thousand times nearer to each other than to the rest, their angles' slope is off by 4 %. Several
processes: their rows are one batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..functional import distances, full, unit
from ..inputs import relational
from ..outputs import Output, Targets

ENTRIES = 2**20  # cosines at once where chunk is None: 4 MiB a tensor, near a cache's size


def relative_distances(x: Tensor) -> Tensor:
    """Distance of every two rows in units of the mean one: (B, D) -> (B, B), zero diagonal.

    The mean is over the pairs that do not coincide; without any, all is 0.
    """
    distance = distances(x)
    mu = distance.sum() / (distance > 0).sum().clamp(min=1)
    return distance / mu.where(mu > 0, 1)  # psi_D(i, j) = |x_i - x_j| / mu


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """RKD-D of two matrices of relative distances: (B, B) twice -> scalar."""
    return F.smooth_l1_loss(student, teacher)  # L_D = mean_ij l_delta(psi_D(s), psi_D(t))


def _inverse(distance: Tensor) -> Tensor:
    """1 / distance; 0 where the law of cosines has no digit left, as at coinciding rows."""
    near = distance <= torch.finfo(distance.dtype).eps * distance.max()
    return (1 / distance).masked_fill(near, 0)


def _cosines(square: Tensor, inverse: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The cosines at some vertices, and 1 / (2 d_ji d_jk): both (len(rows), B, B)."""
    factor = (inverse[rows] / 2)[:, :, None] * inverse[rows][:, None, :]
    cosine = (square[rows][:, :, None] + square[rows][:, None, :]).sub_(square)
    return cosine.mul_(factor), factor


def angles(distance: Tensor, vertices: slice = slice(None)) -> Tensor:
    """Cosine of the angle at x_j between x_i and x_k, from the distances alone.

    distance: (B, B), in any unit.   vertices: which j.   Returns (J, B, B), indexed j, i, k;
    0 where i or k coincides with j.
    """
    # psi_A(i, j, k) = (d_ji² + d_jk² - d_ik²) / (2 d_ji d_jk)
    return _cosines(distance.square(), _inverse(distance), vertices)[0]


class _AngleLoss(torch.autograd.Function):
    """Sum of l_delta over all angles. The slope is found on the way forward, while the cosines
    are at hand, so that nothing of size B³ is kept or made twice."""

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, chunk: int) -> Tensor:
        sides = [(d, d.square(), _inverse(d)) for d in (student, teacher)]
        (d, square, inverse), (_, *theirs) = sides
        total, slope = d.new_zeros(()), torch.zeros_like(d)
        for start in range(0, len(d), chunk):
            rows = slice(start, start + chunk)
            cosine, factor = _cosines(square, inverse, rows)
            gap = cosine - _cosines(*theirs, rows)[0]
            step = gap.clamp(-1, 1)  # l_delta', and l_delta = step (gap - step / 2)
            total += gap.sub_(step, alpha=0.5).mul_(step).sum()
            if ctx.needs_input_grad[0]:
                # cos = (d_ji² + d_jk² - d_ik²) factor; i and k are alike, so twice one of them
                slope[rows] -= 2 * inverse[rows] * cosine.mul_(step).sum(2)
                step.mul_(factor)
                slope[rows] += 4 * d[rows] * step.sum(2)
                slope -= 2 * d * step.sum(0)
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream * ctx.saved_tensors[0], None, None


def angle_loss(student: Tensor, teacher: Tensor, chunk: int | None = None) -> Tensor:
    """RKD-A of two matrices of distances, in any units: (B, B) twice -> scalar.

    chunk: vertices at once, None for about a million cosines. No gradient into the teacher's.
    """
    student, teacher = full(student, teacher.detach())
    chunk = chunk or max(1, ENTRIES // student.numel())
    total = _AngleLoss.apply(student, teacher, chunk)
    return total / len(student) ** 3  # L_A = mean_jik l_delta(psi_A(s), psi_A(t))


class RKD(nn.Module):
    """Relational distillation; labels are not used. Terms "distance" and "angle".

    distance_weight, angle_weight: a term of weight 0 is neither computed nor returned.
    normalize: "none", "teacher" or "both": whose embeddings are put on the unit sphere first.
    chunk: vertices at once in the angle term, None for about a million cosines.
    ValueError without a teacher, for unequal batches, for non-finite embeddings.
    """

    needs = {"embedding"}

    def __init__(self, distance_weight: float = 25, angle_weight: float = 50, *,
                 normalize: str = "none", chunk: int | None = None):
        super().__init__()
        if normalize not in ("none", "teacher", "both"):
            raise ValueError(f'normalize must be "none", "teacher" or "both", not {normalize!r}')
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be a number of vertices, 1 or more, or None, not {chunk}")
        if distance_weight == 0 == angle_weight:
            raise ValueError("distance_weight and angle_weight are both 0; nothing is left of RKD")
        self.distance_weight, self.angle_weight = distance_weight, angle_weight
        self.normalize, self.chunk = normalize, chunk

    def forward(self, student: Output, teacher: Output | None,
                targets: Targets) -> dict[str, Tensor]:
        mine, theirs = full(*relational(student, teacher, targets, "RKD"))
        if self.normalize == "both":
            mine = unit(mine)
        if self.normalize != "none":
            theirs = unit(theirs)
        mine, theirs = relative_distances(mine), relative_distances(theirs)
        terms = {}
        if self.distance_weight:
            terms["distance"] = self.distance_weight * distance_loss(mine, theirs)
        if self.angle_weight:
            terms["angle"] = self.angle_weight * angle_loss(mine, theirs, self.chunk)
        return terms
