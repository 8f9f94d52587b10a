"""Thresholds over training under two knobs: how long the average remembers, and its correction."""

from collections.abc import Callable, Sequence

import numpy as np

from kdlab.plots import threshold_timeline as timeline
from kdlab.ui.controls import slider, toggle
from kdlab.ui.panel import panel


def threshold_timeline(steps: np.ndarray, average: Callable[[float, bool], np.ndarray],
                       truth: np.ndarray, fprs: Sequence[float], *, alpha: float = 0.9,
                       name: str = "memory") -> None:
    """The thresholds that another average would have made of one run, against the true ones.

    steps: (T,).   average(alpha, debias) -> (T, K), from what the batches said: alpha, up to 0.995,
    is the share of the old value that a step keeps; debias divides by 1 - alpha^n.   truth: (T, K).
    fprs: K fractions.   alpha: the first value.
    """

    def view(alpha: float, debias: bool):
        return timeline(steps, {"average": average(alpha, debias), "true quantile": truth}, fprs)

    def words(alpha: float, debias: bool) -> str:
        start = "corrected for its start" if debias else "from zero"
        return f"Thresholds over steps, averaged with alpha {alpha:g}, {start}, and the true ones."

    panel(view, {"alpha": slider(0.5, 0.995, 0.005, alpha, "kept a step"),
                 "debias": toggle(False, "divide by 1 - alpha^n")}, alt=words, name=name,
          static={"corrected": {"alpha": 0.99, "debias": True}})
