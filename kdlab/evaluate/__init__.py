"""How good embeddings are: verification, identification, fairness, intervals, hard pairs."""

from kdlab.evaluate.fairness import EqualizedOdds, equalized_odds
from kdlab.evaluate.identification import judge, rank1, rank1_closed
from kdlab.evaluate.intervals import Difference, clopper_pearson, paired_difference
from kdlab.evaluate.pairs import (
    cross_scores,
    group_scores,
    pair_scores,
    supported_fprs,
    template_scores,
    worst_pairs,
)
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

__all__ = ["Accuracy", "Difference", "EqualizedOdds", "OperatingPoint", "clopper_pearson",
           "cross_scores", "eer", "embed", "equalized_odds", "group_scores", "judge",
           "pair_scores", "paired_difference", "rank1", "rank1_closed", "rates_at", "roc",
           "supported_fprs", "template_scores", "tpr_at_fpr", "verification_accuracy",
           "worst_pairs"]
