"""Ten-fold verification on pairs (LFW, CFP-FP, AgeDB-30, CALFW, CPLFW): accuracy, and VAL at FAR.

The pairs are cut into folds as they stand; a threshold is chosen on nine and tried on the tenth.
Embeddings are those of `embed`: picture and mirror added raw; they are normalised here. Two habits
exist, and their numbers are not the same:

"insightface": squared distance of unit embeddings, the first threshold of 0, 0.01, ... 3.99 with
the best accuracy, same if strictly below it; the population's standard deviation of the folds.
"facexzoo": cosine, the first of 1,000 thresholds, evenly from the lowest score (left out) to the
highest, with the largest TPR - FPR; same if strictly above it, other if strictly below, so a tie
with the threshold is wrong; the standard error of the mean, deviation with ddof 1 over root folds.
"""

from typing import NamedTuple

import numpy as np

from kdlab.evaluate.intervals import clopper_pearson
from kdlab.evaluate.pairs import most_allowed, unit_rows
from kdlab.evaluate.verification import GRID

FINE_GRID = np.arange(0, 4, 0.001)  # squared distances tried for VAL: insightface's verification
STEPS = 1000  # thresholds tried: FaceX-Zoo's verification


class TenFold(NamedTuple):
    """accuracy: the folds' mean.   spread: of the folds, see the variants.   low, high: exact 95 %
    interval of the share of right pairs among all `pairs`, as if they were independent.
    folds, thresholds: (F,) accuracy of each fold and its threshold (squared distance, or cosine).
    """

    accuracy: float
    spread: float
    low: float
    high: float
    pairs: int
    folds: np.ndarray
    thresholds: np.ndarray


class Val(NamedTuple):
    """val: share of genuine pairs accepted, mean of the folds; spread: their population standard
    deviation; low, high: exact 95 % interval of the share among all genuine pairs.   far, far_low,
    far_high: the same of the FAR that came out.   genuine, impostor: pairs.   supported: does the
    target allow an impostor pair among those a threshold is chosen on? Otherwise it rests on none.
    """

    val: float
    spread: float
    low: float
    high: float
    far: float
    far_low: float
    far_high: float
    genuine: int
    impostor: int
    supported: bool


def ten_fold(embeddings: np.ndarray, is_same: np.ndarray, folds: int = 10,
             variant: str = "insightface") -> TenFold:
    """Accuracy of pairs under thresholds chosen on the other folds.

    embeddings: (2P, D), rows 2k and 2k + 1 a pair; is_same: (P,) bool; variant: see above.
    ValueError in words; "facexzoo" also needs a pair of either kind in the folds chosen on.
    """
    x, y, is_same, parts = _pairs(embeddings, is_same, folds)
    if variant == "insightface":
        distance = np.square(x - y).sum(1)  # (P,)
        right = (distance < GRID[:, None]) == is_same  # (T, P)
        hits = np.stack([right[:, part].sum(1) for part in parts], 1)  # (T, F)
        best = (hits.sum(1, keepdims=True) - hits).argmax(0)  # argmax gives the first best
        thresholds, hits = GRID[best], hits[best, np.arange(folds)]
    elif variant == "facexzoo":
        cosine = (x * y).sum(1)
        others = [np.delete(np.arange(len(is_same)), part) for part in parts]
        thresholds = np.array([_widest(cosine[rest], is_same[rest]) for rest in others])
        hits = np.array([np.where(is_same[part], cosine[part] > t, cosine[part] < t).sum()
                         for part, t in zip(parts, thresholds, strict=True)])
    else:
        raise ValueError(f'variant must be "insightface" or "facexzoo", not {variant!r}')
    each = hits / [len(part) for part in parts]
    spread = each.std() if variant == "insightface" else each.std(ddof=1) / folds**0.5
    low, high = clopper_pearson(int(hits.sum()), len(is_same))
    return TenFold(float(each.mean()), float(spread), low, high, len(is_same), each, thresholds)


def val_at_far(embeddings: np.ndarray, is_same: np.ndarray, far: float = 1e-3,
               folds: int = 10) -> Val:
    """Share of genuine pairs accepted at a false accept rate, over folds: insightface's VAL@FAR.

    embeddings, is_same: as `ten_fold` has them.   far: the target, between 0 and 1.
    On the other folds the FAR of each of FINE_GRID's thresholds is known; the threshold is read off
    at the target on straight lines. Many have one FAR: of these the largest is taken (what
    scipy.interpolate.interp1d does with kind="linear"; "slinear" fails on them).

    ValueError in words, also for a fold without a pair of either kind: no rate can be told there.
    """
    x, y, is_same, parts = _pairs(embeddings, is_same, folds)
    distance = np.square(x - y).sum(1)
    accepted = distance < FINE_GRID[:, None]  # (T, P)
    vals, fars, hits, fewest = [], [], np.zeros(2, int), len(is_same)
    for number, part in enumerate(parts, 1):
        own = is_same[part]
        if own.all() or not own.any():
            kind = "impostor" if own.all() else "genuine"
            raise ValueError(f"fold {number} of {folds} has no {kind} pair, so no rate; the pairs "
                             "of a .bin file are mixed, and these should be too")
        others = ~is_same
        others[part] = False
        fewest = min(fewest, int(others.sum()))
        rates = accepted[:, others].mean(1)  # ascending
        threshold = np.interp(far, rates, FINE_GRID) if rates[-1] >= far else 0.0  # as they do
        accept = distance[part] < threshold
        hits += accept[own].sum(), accept[~own].sum()
        vals.append(accept[own].mean())
        fars.append(accept[~own].mean())
    genuine, impostor = int(is_same.sum()), int((~is_same).sum())
    return Val(float(np.mean(vals)), float(np.std(vals)), *clopper_pearson(int(hits[0]), genuine),
               float(np.mean(fars)), *clopper_pearson(int(hits[1]), impostor), genuine, impostor,
               most_allowed(far, fewest) >= 1)


def _widest(cosine: np.ndarray, is_same: np.ndarray) -> float:
    """The first of STEPS thresholds at which TPR - FPR is largest."""
    if is_same.all() or not is_same.any():
        raise ValueError("the folds that a threshold is chosen on need pairs of both kinds")
    low = cosine.min()
    tried = low + (cosine.max() - low) / STEPS * np.arange(1, STEPS + 1)
    tpr, fpr = ((cosine[kind] > tried[:, None]).mean(1) for kind in (is_same, ~is_same))
    return tried[np.argmax(tpr - fpr)]


def _pairs(embeddings: np.ndarray, is_same: np.ndarray, folds: int) -> tuple:
    """Unit rows (P, D) float64 of both sides, is_same (P,) bool, the rows of each fold."""
    is_same = np.asarray(is_same)
    if is_same.ndim != 1 or not np.isin(is_same, (0, 1)).all():
        raise ValueError(f"is_same must be (P,) bool, not {is_same.shape} {is_same.dtype}")
    P = len(is_same)
    if np.ndim(embeddings) != 2 or len(embeddings) != 2 * P:
        raise ValueError(f"{P} pairs need embeddings (2P, D), {2 * P} of them, "
                         f"not {np.shape(embeddings)}")
    if not 2 <= folds <= P:
        raise ValueError(f"folds must be 2 to {P} (the number of pairs), not {folds}")
    bad = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if len(bad):
        raise ValueError(f"embedding {bad[0]} of pair {bad[0] // 2} is not finite (NaN or inf), "
                         f"{len(bad)} of {2 * P} in all")
    x = unit_rows(np.asarray(embeddings, np.float64))
    return x[::2], x[1::2], is_same.astype(bool), np.array_split(np.arange(P), folds)
