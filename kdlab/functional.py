"""Mathematics that two or more losses share, on plain tensors.

Everything here runs in float32 at least, whatever precision the networks ran in: rounding a cosine
to bf16 would move a logit by up to an eighth at scale 64.
Dimensions: B batch, D embedding, C classes.
"""

import math
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .outputs import Output


def full(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in one floating dtype: float32, or float64 where one of them has it."""
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return tuple(t.to(dtype) for t in tensors)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of every row of x with every row of y: (B, D), (C, D) -> (B, C)."""
    x, y = full(x, y)
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize(x) @ F.normalize(y).T


def cosine_of_rows(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of row i of x with row i of y: (B, D), (B, D) -> (B,)."""
    x, y = full(x, y)
    return (F.normalize(x) * F.normalize(y)).sum(1)


def squared_distance(x: Tensor, y: Tensor, normalize: bool = True,
                     reduction: str = "sum") -> Tensor:
    """Squared distance of row i of x to row i of y, mean over the batch: (B, D) twice -> scalar.

    normalize: on the unit sphere, 2 - 2 cos.   reduction: "sum" or "mean" over dimensions.
    """
    x, y = full(x, y)
    if normalize:
        x, y = F.normalize(x), F.normalize(y)
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


def margin_cross_entropy(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float,
                         margined: Callable[[Tensor], Tensor], chunk: int | None = None) -> Tensor:
    """Softmax loss over s * cosines in which only the own class carries a margin; mean over B.

    embedding: (B, D); weight: (C, D), one row per class; labels: (B,).
    margined: own-class cosines (B, 1) -> (B, 1), elementwise.
    chunk: classes per block; the (B, C) logits then never exist at once. None: all together.
    Returns a scalar, the same in both forms to rounding.
    """
    embedding, weight = full(embedding, weight)
    own = labels[:, None]
    if chunk is not None:
        unit = F.normalize(embedding)
        return _Streamed.apply(unit, weight, own, scale, margined, chunk)
    cosine = cosines(embedding, weight)
    logits = scale * cosine.scatter(1, own, margined(cosine.gather(1, own)))
    return F.cross_entropy(logits, labels)


class _Streamed(torch.autograd.Function):
    """margin_cross_entropy block by block: a running log-sum-exp, recomputed to go back.

    Saved between the passes: (B, 1) numbers only. Four products of B x C x D instead of three.
    """

    @staticmethod
    def forward(ctx, unit, weight, own, scale, margined, chunk):
        with torch.autocast(unit.device.type, enabled=False):
            with torch.enable_grad():  # the slope of the margin, by autograd on B numbers
                cosine = (unit * F.normalize(weight[own[:, 0]])).sum(1, keepdim=True)
                cosine = cosine.detach().requires_grad_()
                target = margined(cosine)
                slope, = torch.autograd.grad(target.sum(), cosine)
            target = scale * target.detach()
            total = torch.full_like(target, -torch.inf)
            for start in range(0, len(weight), chunk):
                centres = F.normalize(weight[start:start + chunk])
                logits = (unit @ centres.T).mul_(scale)
                _put(logits, own - start, target)
                total = torch.logaddexp(total, logits.logsumexp(1, keepdim=True))
        ctx.save_for_backward(unit, weight, own, target, slope, total)
        ctx.scale, ctx.chunk = scale, chunk
        return (total - target).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        unit, weight, own, target, slope, total = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        grad_unit = torch.zeros_like(unit)
        grad_weight = torch.empty_like(weight) if wanted else None
        at_target = ((target - total).exp() - 1) * slope
        factor = grad * ctx.scale / len(unit)
        with torch.autocast(unit.device.type, enabled=False):
            for start in range(0, len(weight), ctx.chunk):
                block = weight[start:start + ctx.chunk]
                norm = block.norm(dim=1, keepdim=True).clamp_min(1e-12)  # as F.normalize
                centres = block / norm
                share = (unit @ centres.T).mul_(ctx.scale).sub_(total).exp_()
                _put(share, own - start, at_target)
                share.mul_(factor)  # now d loss / d cosine
                grad_unit.addmm_(share, centres)
                if wanted:
                    part = torch.mm(share.T, unit, out=grad_weight[start:start + ctx.chunk])
                    radial = (part * centres).sum(1, keepdim=True)
                    part.addcmul_(centres, radial, value=-1).div_(norm)
        return grad_unit, grad_weight, None, None, None, None


def _put(block: Tensor, column: Tensor, values: Tensor) -> None:
    """Write values (B, 1) into block (B, n) at column (B, 1), skipping columns outside it."""
    inside = (column >= 0) & (column < block.shape[1])
    column = column.clamp(0, block.shape[1] - 1)
    block.scatter_(1, column, values.where(inside, block.gather(1, column)))  # no device sync


def check_batch(embedding: Tensor, labels: Tensor, num_classes: int | None = None,
                whose: str = "student") -> None:
    """ValueError where a row of the embedding is not finite or a label is not a class.

    embedding: (B, D); labels: (B,); num_classes None: labels are not judged.
    One synchronisation with the device in the good case.
    """
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, not {labels.dtype}; call .long() on them")
    if labels.shape != embedding.shape[:1]:
        raise ValueError(f"{len(embedding)} embeddings but labels of shape {tuple(labels.shape)}")
    if len(embedding) == 0:
        raise ValueError("the batch is empty; a loss needs one row at least")
    broken = ~embedding.isfinite().all(1)
    wrong = torch.zeros_like(broken)
    if num_classes is not None:
        wrong = (labels < 0) | (labels >= num_classes)
    if not bool((wrong | broken).any()):
        return
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"label {int(labels[row])} in row {row} of the batch, but the loss has "
                         f"{num_classes} classes (0 to {num_classes - 1}); set num_classes to "
                         "the number of identities")
    raise ValueError(f"{int(broken.sum())} of {len(embedding)} {whose} embeddings are NaN or "
                     f"infinite (first: row {int(broken.nonzero()[0])} of the batch)")


def teacher_embedding(student: Output, teacher: Output | None, loss: str) -> Tensor:
    """The teacher's embedding, detached; ValueError where it is missing or of another size.

    For losses that compare the two embeddings number by number.
    """
    if teacher is None:
        raise ValueError(f"{loss} needs a teacher's embedding, got no teacher; pass train() one")
    if teacher.embedding.shape != student.embedding.shape:
        raise ValueError(
            f"{loss} compares embeddings of one size: the student's are "
            f"{tuple(student.embedding.shape)}, the teacher's {tuple(teacher.embedding.shape)}; "
            "give the student the teacher's embedding_size")
    return teacher.embedding.detach()
