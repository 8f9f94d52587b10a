"""Self-checks for the exercises: what was tested, expected against got, a hint that fits.

    @kdlab.check.cosine_similarity
    def cosine_similarity(a, b):
        ...

An answer that is right is bound as it is. Where the cell is left untouched (it raises
NotImplementedError or returns nothing), and where the answer is wrong, the reference is bound
instead, so that the cells below run and a Run All finishes.

A typical mistake is written down as a function that makes it. Whoever's answer equals it on all
tests has made it, and is told the hint beside it.
"""

from kdlab.check.dimension import dimension_from_ratios, distinct_points, kept_points
from kdlab.check.losses import arcface_logit
from kdlab.check.pairs import cosine_similarity, split_pairs
from kdlab.check.rates import (
    pairs_needed,
    rates_at,
    threshold_from_impostors,
    tpr_at_threshold,
)
from kdlab.check.relations import critical, indicator_slope, rank_loss
from kdlab.check.tailored import equal_run, reverse_distillation
from kdlab.check.thresholds import batch_threshold, ema_after
from kdlab.check.training import learning_rate, ring_bytes, safe_order, undeal

__all__ = ["arcface_logit", "batch_threshold", "cosine_similarity", "critical",
           "dimension_from_ratios", "distinct_points", "ema_after", "equal_run", "indicator_slope",
           "kept_points", "learning_rate", "pairs_needed", "rank_loss", "rates_at",
           "reverse_distillation", "ring_bytes", "safe_order", "split_pairs",
           "threshold_from_impostors", "tpr_at_threshold", "undeal"]
