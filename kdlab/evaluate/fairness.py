"""Fairness between groups: differences of equalized odds.

acc[a, y] = P(prediction = y | Y = y, A = a); gap[y] = max over a - min over a of acc[a, y].
DEO_A is the mean and DEO_M the maximum of gap over the classes: Jung, Lee, Park, Moon, "Fair
Feature Distillation for Visual Recognition", CVPR 2021, who print them in percent. In two classes
they are fairlearn's equalized_odds_difference with agg="mean" and "worst_case".
"""

import warnings
from typing import NamedTuple

import numpy as np
from torch import Tensor

from kdlab.evaluate.intervals import clopper_pearson


class EqualizedOdds(NamedTuple):
    """All fractions, 0 to 1; percent is for axes.

    average: DEO_A.   maximum: DEO_M, average <= maximum.   per_class: (C,), the gap of each class
    among the labels, ascending.   accuracy: of all rows. Read it beside the others: whoever always
    answers alike has no gap at all.
    """

    average: float
    maximum: float
    per_class: np.ndarray
    accuracy: float


def equalized_odds(predictions, labels, groups, empty: str = "raise") -> EqualizedOdds:
    """How far apart the groups' rates of being classified rightly lie, class by class.

    predictions, labels, groups: (N,) integers, arrays or tensors. The classes and groups judged
    are those that occur in labels and groups.
    empty: what a class without a row of some group means. "raise": ValueError that names the two.
    "ignore": the class is judged by the groups it has; with fewer than two its gap is nan and it is
    left out of average and maximum (fairlearn says 0 there). "nan": its gap, average and maximum
    are nan, as in the released code.

    ValueError also for other shapes or types, no rows, fewer than two groups, and where "ignore"
    leaves no class. UserWarning where one class is all that was ever predicted: no gap is a merit
    there.
    """
    if empty not in ("raise", "ignore", "nan"):
        raise ValueError(f'empty must be "raise", "ignore" or "nan", not {empty!r}')
    classes, names, hits, count, answers = _cells(predictions, labels, groups)
    C, G = count.shape
    if G < 2:
        raise ValueError(f"all rows are of group {names[0]}; odds are compared between two groups "
                         "or more")
    if answers == 1 and C > 1:
        warnings.warn("every prediction is the same class; whoever answers always alike is "
                      "perfectly fair and useless, so read the accuracy first", stacklevel=2)
    missing = np.argwhere(count == 0)
    if len(missing) and empty == "raise":
        k, g = missing[0]
        raise ValueError(f"class {classes[k]} has no row of group {names[g]} (empty cells: "
                         f'{len(missing)} of {C * G}); add some, or choose empty="ignore" or "nan"')
    rate = np.divide(hits, count, out=np.full((C, G), np.nan), where=count > 0)
    if empty == "ignore":
        gap = np.nanmax(rate, 1) - np.nanmin(rate, 1)
        gap[(count > 0).sum(1) < 2] = np.nan
        judged = gap[~np.isnan(gap)]
        if len(judged) == 0:
            raise ValueError("no class has rows of two groups; nothing is left to compare")
    else:
        judged = gap = rate.max(1) - rate.min(1)
    return EqualizedOdds(float(judged.mean()), float(judged.max()), gap,
                         float(hits.sum() / count.sum()))


class CellAccuracies(NamedTuple):
    """accuracy, low, high: (C, G), the share of a cell's rows told rightly and its exact 95 %
    interval; nan, 0 and 1 where a cell has no row.   count: (C, G).   classes: (C,) and groups:
    (G,), the labels that rows and columns stand for, ascending.
    """

    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    classes: np.ndarray
    groups: np.ndarray


def cell_accuracies(predictions, labels, groups) -> CellAccuracies:
    """acc[a, y] of every class and group, (N,) integers each, with Clopper-Pearson intervals.

    ValueError as `equalized_odds`; an empty cell is no error here.
    """
    classes, names, hits, count, _ = _cells(predictions, labels, groups)
    rate = np.divide(hits, count, out=np.full(count.shape, np.nan), where=count > 0)
    low, high = np.zeros(count.shape), np.ones(count.shape)
    for cell in np.argwhere(count > 0):
        low[*cell], high[*cell] = clopper_pearson(int(hits[*cell]), int(count[*cell]))
    return CellAccuracies(rate, low, high, count, classes, names)


def _cells(predictions, labels, groups) -> tuple[np.ndarray, ...]:
    """Classes (C,), groups (G,), rows told rightly (C, G), rows (C, G), classes ever predicted."""
    predictions, labels, groups = (
        _integers(name, values) for name, values in
        (("predictions", predictions), ("labels", labels), ("groups", groups)))
    if not len(predictions) == len(labels) == len(groups) or len(labels) == 0:
        raise ValueError(f"equalized_odds wants as many predictions as labels and groups, one at "
                         f"least, not {len(predictions)}, {len(labels)} and {len(groups)}")
    classes, y = np.unique(labels, return_inverse=True)
    names, a = np.unique(groups, return_inverse=True)
    shape = len(classes), len(names)
    cell, most = y * len(names) + a, len(classes) * len(names)
    hits = np.bincount(cell, predictions == labels, most).reshape(shape)
    return (classes, names, hits, np.bincount(cell, minlength=most).reshape(shape),
            len(np.unique(predictions)))


def _integers(name: str, values) -> np.ndarray:
    """`values` as an (N,) array of integers; ValueError for another shape or type."""
    values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if values.ndim != 1 or (values.dtype.kind not in "iub" and len(values)):
        raise ValueError(f"{name} must be (N,) integers, not {values.shape} {values.dtype}; for "
                         "predictions take the class of the highest logit (argmax)")
    return values.astype(np.int64)
