"""Margin softmax, plain or in blocks of classes: what every loss with class centres shares.

Dimensions: B batch, D embedding, C classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .functional import EPS, cosine_of_rows, cosines, full, unit


def check_chunk(chunk: int | None) -> None:
    """ValueError where `chunk` is not a number of classes."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be a number of classes, 1 or more, or None, not {chunk}")


def margin_cross_entropy(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float,
                         margined: Callable[[Tensor], Tensor], chunk: int | None = None) -> Tensor:
    """Softmax loss over s * cosines in which only the own class carries a margin; mean over B.

    embedding: (B, D); weight: (C, D), one row per class; labels: (B,).
    margined: own-class cosines (B, 1) -> (B, 1), each from its own row alone.
    chunk: classes per block; the (B, C) logits then never exist at once. None: all together.
    Returns a scalar, the same in both forms to rounding; plain, a row's loss below 1e-7 rounds to
    0, in blocks it does not. In blocks it has first derivatives only, and none for tensors that
    `margined` brings with it. ValueError for a chunk below 1.
    """
    check_chunk(chunk)
    embedding, weight = full(embedding, weight)
    own = labels[:, None]
    if chunk is None:
        cosine = cosines(embedding, weight)
        logits = scale * cosine.scatter(1, own, margined(cosine.gather(1, own)))
        return F.cross_entropy(logits, labels)
    direction = unit(embedding)
    with torch.no_grad():
        cosine = cosine_of_rows(direction, weight[labels])[:, None]
    target, slope = _value_and_slope(margined, cosine)
    return _Streamed.apply(direction, weight, own, scale * target, slope, scale, chunk)


def _value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A function of single numbers and its derivative, both cut off from autograd."""
    if not torch.is_grad_enabled():  # nobody will ask for the slope
        return function(x), x
    x = x.requires_grad_()
    value = function(x)
    slope, = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


class _Streamed(torch.autograd.Function):
    """margin_cross_entropy block by block: a running log-sum-exp, recomputed to go back.

    `rest` is log sum_{j != y} e^{logit_j} less the own logit. Loss log(1 + e^rest) and slope
    -e^rest / (1 + e^rest) keep their digits where a row is nearly certain of its class, which
    "total less target" and "probability less 1" do not.
    Saved between the passes: (B, 1) numbers only. Four products of B x C x D instead of three.
    """

    @staticmethod
    def forward(ctx, direction, weight, own, target, slope, scale, chunk):
        rest = torch.full_like(target, -torch.inf)
        logits = direction.new_empty(len(direction) * min(chunk, len(weight)))
        with torch.autocast(direction.device.type, enabled=False):
            scaled = direction * scale
            for start in range(0, len(weight), chunk):
                block = _product(scaled, unit(weight[start:start + chunk]), logits)
                _put(block, own - start, -torch.inf)
                top = block.amax(1, keepdim=True).clamp_min(-scale)  # -inf - -inf is no number
                part = block.sub_(top).exp_().sum(1, keepdim=True).log_().add_(top)
                rest = torch.logaddexp(rest, part)
        rest -= target
        ctx.save_for_backward(direction, weight, own, target, slope, rest)
        ctx.scale, ctx.chunk = scale, chunk
        return _log1p_exp(rest).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        direction, weight, own, target, slope, rest = ctx.saved_tensors
        chunk, (to_unit, to_weight) = ctx.chunk, ctx.needs_input_grad[:2]
        grad_unit = torch.zeros_like(direction) if to_unit else None
        grad_weight = torch.empty_like(weight) if to_weight else None
        total = target + _log1p_exp(rest)
        at_target = -rest.sigmoid() * slope
        share = direction.new_empty(len(direction) * min(chunk, len(weight)))
        with torch.autocast(direction.device.type, enabled=False):
            factor = grad * ctx.scale / len(direction)
            scaled, pull = direction * ctx.scale, direction * factor
            for start in range(0, len(weight), chunk):
                rows = weight[start:start + chunk]
                norm = rows.norm(dim=1, keepdim=True)
                norm.masked_fill_(norm <= EPS, 1)  # as `unit`
                centres = rows / norm
                block = _product(scaled, centres, share).sub_(total).exp_()
                _put(block, own - start, at_target)  # now B / (grad s) * d loss / d cosine
                if to_unit:
                    grad_unit.addmm_(block, centres)
                if to_weight:
                    part = torch.mm(block.T, pull, out=grad_weight[start:start + chunk])
                    radial = torch.linalg.vecdot(part, centres)[:, None]
                    part.sub_(centres.mul_(radial)).div_(norm)
        return grad_unit.mul_(factor) if to_unit else None, grad_weight, *[None] * 5


def _product(x: Tensor, centres: Tensor, store: Tensor) -> Tensor:
    """x @ centres.T, written into `store`: one allocation serves every block."""
    return torch.mm(x, centres.T, out=store[:len(x) * len(centres)].view(len(x), len(centres)))


def _put(block: Tensor, column: Tensor, values: Tensor | float) -> None:
    """Write values (B, 1) into block (B, n) at column (B, 1), skipping columns outside it."""
    inside = (column >= 0) & (column < block.shape[1])
    column = column.clamp(0, block.shape[1] - 1)
    kept = block.gather(1, column)
    block.scatter_(1, column, torch.where(inside, values, kept))  # no wait for the device


def _log1p_exp(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))
