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

from kdlab.check.centres import batch_centres, centre_momentum, moved_centre, sample_weights
from kdlab.check.classic import kd_loss, list_log_probability, rkd_distance
from kdlab.check.dimension import dimension_from_ratios, distinct_points, kept_points
from kdlab.check.geometry import best_rotation, even_spread, kept_neighbours
from kdlab.check.losses import arcface_logit
from kdlab.check.margins import collapsed_loss, half_width, margin_factor, scale_needed
from kdlab.check.own_data import held_out_accuracy, network_input, record_payload, template_of
from kdlab.check.pairs import cosine_similarity, split_pairs
from kdlab.check.rates import pairs_needed, rates_at, threshold_from_impostors, tpr_at_threshold
from kdlab.check.relations import critical, indicator_slope, rank_loss
from kdlab.check.shrink import angle_pull, angular_loss, halved_weights, lift_map, split_distance
from kdlab.check.tailored import equal_run, reverse_distillation
from kdlab.check.thresholds import batch_threshold, ema_after
from kdlab.check.training import learning_rate, ring_bytes, safe_order, undeal

__all__ = ["angle_pull", "angular_loss", "arcface_logit", "batch_centres", "batch_threshold",
           "best_rotation", "centre_momentum", "collapsed_loss", "cosine_similarity", "critical",
           "dimension_from_ratios", "distinct_points", "ema_after", "equal_run", "even_spread",
           "half_width", "halved_weights", "held_out_accuracy", "indicator_slope", "kd_loss",
           "kept_neighbours", "kept_points", "learning_rate", "lift_map", "list_log_probability",
           "margin_factor", "moved_centre", "network_input", "pairs_needed", "rank_loss",
           "rates_at", "record_payload", "reverse_distillation", "ring_bytes", "rkd_distance",
           "safe_order", "sample_weights", "scale_needed", "split_distance", "split_pairs",
           "template_of", "threshold_from_impostors", "tpr_at_threshold", "undeal"]
