"""Verification group by group under one threshold: who is refused, who is mistaken for another.

A system has one threshold for everybody. Where a group's scores lie high its people are mistaken
for each other more often (FPR), where they lie low they are refused more often (1 - TPR). The equal
error rate, which each group has at a threshold of its own, tells how hard the group is for the
network, and not what the common threshold does to it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kdlab.evaluate.intervals import clopper_pearson
from kdlab.evaluate.verification import eer, tpr_at_fpr


class Rate(NamedTuple):
    """hits of pairs, as a fraction, and its exact 95 % interval, as if pairs were independent."""

    rate: float
    low: float
    high: float
    hits: int
    pairs: int


class Group(NamedTuple):
    """tpr, fpr: at the common threshold.   eer: at the group's own.   What cannot be told is None,
    and `note` says why; it is "" where all is told."""

    tpr: Rate | None
    fpr: Rate | None
    eer: float | None
    note: str


class GroupRates(NamedTuple):
    """threshold: the common one.   supported: it was chosen on enough impostor pairs for its FPR
    (see OperatingPoint); True where it was given.   pooled: all groups' pairs together."""

    threshold: float
    supported: bool
    pooled: Group
    groups: dict[int, Group]


def group_rates(scores: Mapping[int, tuple[np.ndarray, np.ndarray]], fpr: float | None = None,
                threshold: float | None = None, names: Mapping[int, str] | None = None
                ) -> GroupRates:
    """TPR, FPR and EER of each group.

    scores: group -> (genuine, impostor) cosines, 1-D, as `group_scores` gives them.
    fpr or threshold, one of them: the common threshold is that of all pairs pooled (rule "below"),
    so groups with more impostor pairs weigh more; or it is given, as chosen on another set.
    names: group -> what people call it; a group in names without scores is reported as empty.

    An empty group is told in words, in its note. ValueError for scores that are not finite, with
    group and row, and with fpr where all groups together have no genuine or no impostor pair.
    """
    if (fpr is None) == (threshold is None):
        raise ValueError("give fpr or threshold, one of them")
    names = dict(names or {})
    found = {g: tuple(np.asarray(side) for side in pair) for g, pair in scores.items()}
    for g, pair in found.items():
        for kind, side in zip(("genuine", "impostor"), pair, strict=True):
            bad = ~np.isfinite(side)
            if side.ndim != 1 or bad.any():
                wrong = (f"score {np.argmax(bad)} is not finite (NaN or inf)" if side.ndim == 1
                         else f"scores are (P,), not {side.shape}")
                raise ValueError(f"group {names.get(g, g)}, {kind} pairs: {wrong}")
    dtype = np.result_type(np.float32, *(side for pair in found.values() for side in pair))
    found = {g: tuple(side.astype(dtype, copy=False) for side in p) for g, p in found.items()}
    genuine, impostor = (np.concatenate([np.empty(0, dtype), *(p[k] for p in found.values())])
                         for k in (0, 1))
    supported = True
    if threshold is None:
        point = tpr_at_fpr(genuine, impostor, fpr)
        threshold, supported = point.threshold, point.supported
    empty = np.empty(0), np.empty(0)
    groups = {g: _group(*found.get(g, empty), threshold, names.get(g, f"group {g}"))
              for g in sorted(found.keys() | names.keys())}
    return GroupRates(float(threshold), supported,
                      _group(genuine, impostor, threshold, "the whole set"), groups)


def _group(genuine: np.ndarray, impostor: np.ndarray, threshold: float, name: str) -> Group:
    if not len(genuine) and not len(impostor):
        return Group(None, None, None, f"{name} has no pair: fewer than two pictures of it meet")
    notes = []
    if not len(genuine):
        notes.append(f"{name} has no genuine pair: nobody in it has two pictures that meet")
    if not len(impostor):
        notes.append(f"{name} has no impostor pair: no two persons of it meet")
    return Group(_rate(genuine, threshold), _rate(impostor, threshold),
                 None if notes else eer(genuine, impostor), "; ".join(notes))


def _rate(scores: np.ndarray, threshold: float) -> Rate | None:
    """The share at or above the threshold; None of nothing."""
    if not len(scores):
        return None
    hits = int((scores >= threshold).sum())
    return Rate(hits / len(scores), *clopper_pearson(hits, len(scores)), hits, len(scores))
