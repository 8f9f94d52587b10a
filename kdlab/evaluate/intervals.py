"""How sure: exact binomial intervals, and the bootstrap over people and seeds.

Pairs are not independent: one person makes many. So the bootstrap draws people with replacement.
A person drawn w times weighs w in his genuine pairs and w v with a person drawn v times; pairs
between two copies of one person are no impostors and are left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

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
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def paired_difference(scores_a: Sequence[np.ndarray], scores_b: Sequence[np.ndarray],
                      labels: np.ndarray, fpr: float, samples: int = 1000, seed: int = 0,
                      level: float = 0.95) -> Difference:
    """TPR at FPR (rule "below") of method a minus method b, both on the same pictures.

    scores_a, scores_b: one (N, D) embedding array per training seed, paired by position.
    labels: (N,). Each of `samples` draws takes people and seeds with replacement, the same for
    both methods, so what makes a person or a seed hard cancels. Percentile interval. With one seed
    it says how sure the difference is for that seed's two networks, over people, and no more.
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
    gain = np.stack([tpr_of_draws(a, labels, fpr, counts) - tpr_of_draws(b, labels, fpr, counts)
                     for a, b in zip(scores_a, scores_b, strict=True)], 1)  # (1 + samples, seeds)
    seeds = random.integers(len(scores_a), size=(samples, len(scores_a)))
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


def tpr_of_draws(embeddings: np.ndarray, labels: np.ndarray, fpr: float,
                 counts: np.ndarray) -> np.ndarray:
    """TPR at FPR (rule "below") for each draw of people: (samples,).

    embeddings: (N, D); counts: (samples, P), how often each person is drawn (`people_counts`), in
    the order of np.unique. All pairs are held: 5,000 pictures take about 1 GB.
    """
    x = unit_rows(embeddings)
    if np.shape(labels) != (len(x),):
        raise ValueError(f"{len(x)} embeddings need labels of shape ({len(x)},), "
                         f"not {np.shape(labels)}")
    _, person, pictures = np.unique(labels, return_inverse=True, return_counts=True)
    i, j = np.triu_indices(len(x), 1)
    score, p, q = (x @ x.T)[i, j], person[i], person[j]
    same = p == q
    genuine, owner = score[same], p[same]
    order = np.argsort(-score[~same])
    impostor, p, q = score[~same][order], p[~same][order], q[~same][order]
    pairs = np.bincount(owner, minlength=len(pictures))  # genuine pairs of each person
    tpr = np.empty(len(counts))
    for draw, w in enumerate(counts):
        drawn = w * pictures
        total = (drawn.sum() ** 2 - np.square(drawn).sum()) // 2  # weight of all impostor pairs
        allowed = most_allowed(fpr, int(total))
        m = 4 * (int(fpr * len(impostor)) + 16)  # the highest scores nearly always suffice
        while (weight := np.cumsum(w[p[:m]] * w[q[:m]]))[-1] <= allowed:
            m *= 4
        refused = impostor[np.searchsorted(weight, allowed, "right")]  # the highest not allowed
        hits = np.bincount(owner[genuine > refused], minlength=len(pictures))
        tpr[draw] = (hits @ w) / (pairs @ w)
    return tpr
