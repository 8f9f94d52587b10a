"""The two tuples everything speaks: what a network returns and what a loss is told."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """What every network returns.

    embedding: (B, D), not normalised.   logits: (B, C) or None.
    features: one map per stage, (B, C_l, H_l, W_l).
    """

    embedding: Tensor
    logits: Tensor | None = None
    features: tuple[Tensor, ...] = ()


class Targets(NamedTuple):
    """What a loss is told about a batch.

    labels: (B,) int64.   groups: (B,) int64, the sensitive attribute, or None.
    balanced: (B,) bool, True for the rows a P x K sampler drew, or None.
    """

    labels: Tensor
    groups: Tensor | None = None
    balanced: Tensor | None = None
