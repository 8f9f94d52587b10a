"""Pure functions from arrays to plotly figures, and `show`, which puts one into a notebook.

Importing this package turns plotly's chart upload off for the whole process.
"""

from kdlab.plots.faces import contact_sheet, pair_grid
from kdlab.plots.factors import factor_view, factor_words
from kdlab.plots.multiples import multiples
from kdlab.plots.operating import operating_view, operating_words, rules_view, rules_words
from kdlab.plots.png import png
from kdlab.plots.show import bundle, save_png, show
from kdlab.plots.style import CONFIG, METHODS, TEMPLATE, figure, looks, no_upload
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
    "CONFIG", "METHODS", "TEMPLATE", "bundle", "contact_sheet", "factor_view", "factor_words",
    "figure", "finest_fpr", "history", "interval_plot", "looks", "multiples", "no_upload",
    "operating_view", "operating_words", "pair_grid", "png", "roc", "rules_view", "rules_words",
    "save_png", "score_histograms", "score_range", "show", "threshold_view",
]  # fmt: skip

no_upload()
