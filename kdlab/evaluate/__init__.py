"""How good embeddings are: verification, identification, fairness, intervals, the field's sets."""

from kdlab.evaluate.all_pairs import MFR, all_versus_all, curve, mfr, mfr_score
from kdlab.evaluate.fairness import (
    CellAccuracies,
    EqualizedOdds,
    cell_accuracies,
    equalized_odds,
)
from kdlab.evaluate.groups import group_rates
from kdlab.evaluate.identification import judge, rank1, rank1_closed
from kdlab.evaluate.intervals import Difference, clopper_pearson, paired_difference
from kdlab.evaluate.megaface import megaface
from kdlab.evaluate.pairs import (
    cross_scores,
    group_scores,
    pair_scores,
    supported_fprs,
    template_scores,
    worst_pairs,
)
from kdlab.evaluate.templates import pool, read_template_lists, verify_templates
from kdlab.evaluate.tenfold import ten_fold, val_at_far
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

__all__ = ["MFR", "Accuracy", "CellAccuracies", "Difference", "EqualizedOdds", "OperatingPoint",
           "all_versus_all", "cell_accuracies", "clopper_pearson", "cross_scores", "curve", "eer",
           "embed", "equalized_odds", "group_rates", "group_scores", "judge", "megaface", "mfr",
           "mfr_score", "pair_scores", "paired_difference", "pool", "rank1", "rank1_closed",
           "rates_at", "read_template_lists", "roc", "supported_fprs", "template_scores",
           "ten_fold", "tpr_at_fpr", "val_at_far", "verification_accuracy", "verify_templates",
           "worst_pairs"]
