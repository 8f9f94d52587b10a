"""Panels about operating points: where the data ends, and two rules for one threshold."""

from collections.abc import Callable, Mapping

import numpy as np

from kdlab.plots import finest_fpr, operating_view, operating_words, rules_view, rules_words
from kdlab.plots.operating import FEW
from kdlab.ui.controls import choice, slider
from kdlab.ui.panel import panel

LOWEST = 1e-6  # the smallest FPR that papers report (IJB-C's tables)


def operating_panel(
    genuine: np.ndarray,
    impostor: np.ndarray,
    point_at: Callable,
    needed: Callable[[float, int], tuple[int, int]],
) -> None:
    """A target FPR to move over decades: its threshold, its TPR, and where the data ends.

    point_at(genuine, impostor, fpr) -> an object with tpr, threshold, low, high, for example
    kdlab.evaluate.tpr_at_fpr.   needed(fpr, count) -> (impostor pairs, people).
    """

    def at(fpr: float) -> tuple[float, float, float, float]:
        point = point_at(genuine, impostor, fpr)
        return point.tpr, point.threshold, point.low, point.high

    def view(fpr: float):
        return operating_view(genuine, impostor, fpr, at(fpr), needed(fpr, FEW))

    def words(fpr: float) -> str:
        tpr, threshold, low, high = at(fpr)
        told = operating_words(np.size(impostor), fpr, tpr, low, high, threshold, needed(fpr, FEW))
        return f"Histograms of genuine and impostor similarities with a threshold. {told}."

    knob = slider(LOWEST, 1e-1, 0.1, 1e-2, "fraction", "target FPR", log=True)
    thin = 3 * finest_fpr(impostor)  # three pairs: few, but not none
    static = {f"few: {thin:.1e}": {"fpr": thin}, f"none: {LOWEST:g}": {"fpr": LOWEST}}
    panel(view, {"fpr": knob}, alt=words, static=static, name="operating-point")


def rules_panel(targets: np.ndarray, cases: Mapping[str, Mapping], pairs: int,
                at: float = 1e-3) -> None:
    """The rules "below" and "nearest" on the same scores, a target FPR to move.

    targets: (A,) ascending.   cases: name -> {rule: (fpr, tpr)}, for example the scores as they
    are and rounded, so that many are equal.   pairs: impostor pairs.   at: the target at first.
    """
    names = list(cases)
    low, high = float(targets[0]), float(targets[-1])
    start = min(max(at, low), high)
    knobs = {"at": slider(low, high, 0.05, start, "fraction", "target FPR", log=True),
             "scores": choice(names, names[0])}
    panel(lambda at, scores: rules_view(targets, cases[scores], at, pairs), knobs,
          alt=lambda at, scores: f"FPR got against FPR asked for, two rules, {scores}: "
                                 f"{rules_words(targets, cases[scores], at)}.",
          static={name: {"scores": name} for name in names[1:]}, name="rules")
