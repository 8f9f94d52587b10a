"""How good embeddings are: verification, its intervals, and the pairs that go wrong."""

from kdlab.evaluate.intervals import Difference, clopper_pearson, paired_difference
from kdlab.evaluate.pairs import pair_scores, worst_pairs
from kdlab.evaluate.verification import (
    Accuracy,
    OperatingPoint,
    eer,
    embed,
    rates_at,
    roc,
    tpr_at_fpr,
    verification_accuracy,
)

__all__ = ["Accuracy", "Difference", "OperatingPoint", "clopper_pearson", "eer", "embed",
           "pair_scores", "paired_difference", "rates_at", "roc", "tpr_at_fpr",
           "verification_accuracy", "worst_pairs"]
