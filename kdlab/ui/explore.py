"""Ready-made panels."""

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from kdlab.plots import finest_fpr, score_range, threshold_view
from kdlab.ui.controls import slider
from kdlab.ui.panel import panel

PRESETS = {"FPR 10 %": 1e-1, "FPR 1 %": 1e-2, "FPR 0.1 %": 1e-3}


def threshold_panel(
    genuine: np.ndarray,
    impostor: np.ndarray,
    rates_at: Callable[[np.ndarray, np.ndarray, float], tuple[float, float]],
    threshold_at: Callable[[np.ndarray, np.ndarray, float], float] | None = None,
) -> None:
    """Score histograms with a threshold to move, and the TPR and FPR it gives.

    genuine, impostor: (P,) similarities.   rates_at(genuine, impostor, threshold) -> (tpr, fpr),
    fractions, for example kdlab.evaluate's.   threshold_at(genuine, impostor, fpr) -> threshold,
    for example `lambda *args: tpr_at_fpr(*args).threshold`: with it the slider sets the target FPR
    on a logarithmic scale, and FPRs of 10, 1 and 0.1 % that the set supports are drawn as small
    multiples; without it the slider sets the threshold.
    """

    def at(threshold: float) -> go.Figure:
        return threshold_view(genuine, impostor, threshold, *rates_at(genuine, impostor, threshold))

    def words(threshold: float) -> str:
        tpr, fpr = rates_at(genuine, impostor, threshold)
        return (
            f"Histograms of {np.size(genuine):,} genuine and {np.size(impostor):,} impostor "
            f"similarities with a threshold at {threshold:.3f}: TPR {tpr:.1%}, FPR {fpr:.2%}."
        )

    if threshold_at is None:
        low, middle, high = score_range(genuine, impostor)
        knob = slider(low, high, 0.005, middle, "cosine", "threshold")  # 0.005: finer than a bin
        panel(at, {"threshold": knob}, alt=words, name="threshold")
        return

    def found(fpr: float) -> float:
        return float(threshold_at(genuine, impostor, fpr))

    smallest = finest_fpr(impostor)
    knob = slider(smallest, 1.0, 0.05, max(smallest, 1e-2), "fraction", "target FPR", log=True)
    panel(
        lambda fpr: at(found(fpr)),
        {"fpr": knob},
        alt=lambda fpr: words(found(fpr)),
        static={key: {"fpr": fpr} for key, fpr in PRESETS.items() if smallest <= fpr != knob.value},
        name="threshold",
    )
