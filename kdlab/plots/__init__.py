"""Pure functions from arrays to plotly figures, and `show`, which puts one into a notebook.

Importing this package turns plotly's chart upload off for the whole process.
"""

from kdlab.plots.ablation import ablation_plot, cost_plot
from kdlab.plots.critical import critical_timeline, indicator_view
from kdlab.plots.dimension import (
    dimension_against,
    dimension_by_layer,
    dimension_recovered,
    neighbours_by_identity,
    pareto_fit,
)
from kdlab.plots.faces import contact_sheet, pair_grid
from kdlab.plots.factors import factor_view, factor_words
from kdlab.plots.maps import centre_map, embedding_map
from kdlab.plots.multiples import multiples
from kdlab.plots.operating import operating_view, operating_words, rules_view, rules_words
from kdlab.plots.png import png
from kdlab.plots.relations import pair_view, relation_map
from kdlab.plots.show import bundle, save_png, show
from kdlab.plots.style import CONFIG, METHODS, TEMPLATE, figure, looks, no_upload
from kdlab.plots.sweep import weight_sweep
from kdlab.plots.tailored import dimension_and_rate, intrinsic_gap, universality
from kdlab.plots.thresholds import threshold_strips, threshold_timeline
from kdlab.plots.training import history
from kdlab.plots.verification import (
    finest_fpr,
    interval_plot,
    roc,
    score_histograms,
    score_range,
    threshold_view,
)

__all__ = [
    "CONFIG", "METHODS", "TEMPLATE", "ablation_plot", "bundle", "centre_map", "contact_sheet",
    "cost_plot", "critical_timeline", "dimension_against", "dimension_and_rate",
    "dimension_by_layer", "dimension_recovered", "embedding_map", "factor_view", "factor_words",
    "figure", "finest_fpr", "history", "indicator_view", "interval_plot", "intrinsic_gap", "looks",
    "multiples", "neighbours_by_identity", "no_upload", "operating_view", "operating_words",
    "pair_grid", "pair_view", "pareto_fit", "png", "relation_map", "roc", "rules_view",
    "rules_words", "save_png", "score_histograms", "score_range", "show", "threshold_strips",
    "threshold_timeline", "threshold_view", "universality", "weight_sweep",
]  # fmt: skip

no_upload()
