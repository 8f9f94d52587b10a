"""How sure: exact binomial intervals, and the bootstrap over people and seeds.

Pairs are not independent: one person makes many. So the bootstrap draws people with replacement.
A person drawn w times weighs w in his genuine pairs and w v with a person drawn v times; pairs
between two copies of one person are no impostors and are left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdlab.evaluate.pairs import most_allowed, unit_rows


class Difference(NamedTuple):
    """TPR of a minus TPR of b, as fractions: mean over seeds, 95 % interval, each seed's own."""

    estimate: float
    low: float
    high: float
    per_seed: tuple[float, ...]


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion: k hits of n (Clopper and Pearson 1934)."""
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"k hits of n trials need 0 <= k <= n and n >= 1, not k = {k}, n = {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    from scipy.stats import beta  # here, so that training needs no scipy

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def paired_difference(scores_a: Sequence[np.ndarray], scores_b: Sequence[np.ndarray],
                      labels: np.ndarray, fpr: float, samples: int = 1000, seed: int = 0,
                      level: float = 0.95, a: np.ndarray | None = None,
                      b: np.ndarray | None = None) -> Difference:
    """TPR at FPR (rule "below") of method a minus method b, both on the same pictures.

    scores_a, scores_b: one (N, D) embedding array per training seed, paired by position.
    labels: (N,).   a, b: rows of the two sides that meet; None: all meet all.
    Each of `samples` draws takes people and seeds with replacement, the same for both methods, so
    what makes a person or a seed hard cancels. Percentile interval. With one seed it says how sure
    the difference is for that seed's two networks, over people, and no more.
    """
    if len(scores_a) != len(scores_b) or not len(scores_a):
        raise ValueError(f"a and b need the same seeds, at least one, not {len(scores_a)} and "
                         f"{len(scores_b)}")
    if samples < 1 or not 0 < level < 1:
        raise ValueError(f"samples must be >= 1 and level between 0 and 1, not {samples}, {level}")
    random = np.random.default_rng(seed)
    counts = people_counts(labels, samples, random)  # (samples, P)
    everyone = np.ones((1, counts.shape[1]), np.int64)
    counts = np.concatenate([everyone, counts])
    each = {id(x): x for x in (*scores_a, *scores_b)}  # one network may stand against several
    tpr = {key: tpr_of_draws(x, labels, fpr, counts, a, b) for key, x in each.items()}
    sides = [np.stack([tpr[id(x)] for x in side]) for side in (scores_a, scores_b)]
    return difference_of_draws(*sides, random, level)


def difference_of_draws(a: np.ndarray, b: np.ndarray, random: np.random.Generator,
                        level: float = 0.95) -> Difference:
    """The difference of two sides whose draws of people are known, over these and the seeds.

    a, b: (S, 1 + samples), a row for each seed: TPR of everybody, then of each draw of people, the
    same draws for both. Seeds are drawn here, the same for both. ValueError for other shapes.
    """
    a, b = (np.asarray(side, np.float64) for side in (a, b))
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] < 1 or a.shape[1] < 2:
        raise ValueError(f"both sides need (S, 1 + samples) draws of the same people and seeds, "
                         f"not {a.shape} and {b.shape}")
    gain = (a - b).T  # (1 + samples, S)
    samples, S = gain[1:].shape
    seeds = random.integers(S, size=(samples, S))
    drawn = np.take_along_axis(gain[1:], seeds, 1).mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(gain[0].mean()), float(low), float(high), tuple(gain[0].tolist()))


def people_counts(labels: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """How often each person is drawn: (samples, P) int64, P people in the order of np.unique.

    Draws without a genuine or without an impostor pair have no TPR at FPR and are drawn again.
    """
    pictures = np.unique(labels, return_counts=True)[1]
    P = len(pictures)
    if P < 2 or pictures.max() < 2:
        raise ValueError("the bootstrap needs two persons at least, and one with two pictures")
    counts = np.empty((0, P), np.int64)
    while len(counts) < samples:
        more = random.multinomial(P, np.full(P, 1 / P), size=samples - len(counts))
        useful = ((more > 0).sum(1) > 1) & (more[:, pictures > 1].sum(1) > 0)
        counts = np.concatenate([counts, more[useful]])
    return counts


def tpr_of_draws(embeddings: np.ndarray, labels: np.ndarray, fpr: float, counts: np.ndarray,
                 a: np.ndarray | None = None, b: np.ndarray | None = None) -> np.ndarray:
    """TPR at FPR (rule "below") for each draw of people: (samples,).

    embeddings: (N, D); counts: (samples, P), how often each person is drawn (`people_counts`), in
    the order of np.unique.   a, b: rows of the two sides that meet, as in `cross_scores`; None: all
    meet all. All pairs are held: 5,000 pictures take about 1 GB.
    """
    genuine, owner, impostor, p, q = _meetings(embeddings, labels, a, b)
    P = counts.shape[1]
    pairs = np.bincount(owner, minlength=P)  # genuine pairs of each person
    between = np.bincount(p * P + q, minlength=P * P).reshape(P, P)  # impostor pairs of each two
    tpr = np.empty(len(counts))
    for draw, w in enumerate(counts):
        allowed = most_allowed(fpr, int(w @ between @ w))
        m = 4 * (int(fpr * len(impostor)) + 16)  # the highest scores nearly always suffice
        while (weight := np.cumsum(w[p[:m]] * w[q[:m]]))[-1] <= allowed:
            m *= 4
        refused = impostor[np.searchsorted(weight, allowed, "right")]  # the highest not allowed
        hits = np.bincount(owner[genuine > refused], minlength=P)
        tpr[draw] = (hits @ w) / (pairs @ w)
    return tpr


def eer_of_draws(embeddings: np.ndarray, labels: np.ndarray, counts: np.ndarray,
                 a: np.ndarray | None = None, b: np.ndarray | None = None) -> np.ndarray:
    """Equal error rate of each draw of people, where the stair of the ROC crosses: (samples,).

    Arguments as `tpr_of_draws` has them.
    """
    genuine, owner, impostor, p, q = _meetings(embeddings, labels, a, b)
    above = np.searchsorted(-impostor, -genuine, "right")  # impostors at or above a genuine score
    rates = np.empty(len(counts))
    for draw, w in enumerate(counts):
        weight = np.concatenate([[0], np.cumsum(w[p] * w[q])])
        accepted = np.cumsum(w[owner])
        fpr, fnr = weight[above] / weight[-1], 1 - accepted / accepted[-1]
        k = int(np.argmax(fpr >= fnr))
        rates[draw] = min(fpr[k], fnr[k - 1] if k else 1.0)
    return rates


def _meetings(embeddings: np.ndarray, labels: np.ndarray, a: np.ndarray | None,
              b: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Pairs as `cross_scores` has them, highest cosine first.

    Returns genuine scores (G,), whose they are (G,); impostor scores (I,), their two persons (I,),
    (I,). Persons are numbered in the order of np.unique.
    """
    x = unit_rows(embeddings)
    if np.shape(labels) != (len(x),):
        raise ValueError(f"{len(x)} embeddings need labels of shape ({len(x)},), "
                         f"not {np.shape(labels)}")
    person = np.unique(labels, return_inverse=True)[1]
    if a is None and b is None:
        i, j = np.triu_indices(len(x), 1)
        score = (x @ x.T)[i, j]
    else:
        on_both = np.isin(np.arange(len(x)), np.intersect1d(a, b))
        i, j = (side.ravel() for side in np.meshgrid(a, b, indexing="ij"))
        once = (i < j) | ~(on_both[i] & on_both[j])
        i, j, score = i[once], j[once], (x[a] @ x[b].T).ravel()[once]
    highest = np.argsort(-score, kind="stable")
    score, p, q = score[highest], person[i[highest]], person[j[highest]]
    same = p == q
    return score[same], p[same], score[~same], p[~same], q[~same]
