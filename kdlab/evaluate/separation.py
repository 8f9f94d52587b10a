"""How far genuine and impostor scores lie apart, with draws of people for its intervals.

    d' = (mean of genuine - mean of impostor cosines) / root of the mean of their two variances,

the detectability of signal detection theory (Green and Swets, 1966, for unequal variances). It uses
every pair, so it tells two networks, or two ways to prepare a picture, apart on a few hundred
pictures, where rates at a small FPR cannot. It is no rate: judge networks by those.
"""

import numpy as np

from kdlab.evaluate.pairs import unit_rows


def separation_of_draws(embeddings: np.ndarray, labels: np.ndarray, counts: np.ndarray
                        ) -> np.ndarray:
    """d' of each draw of people: (draws,); 0 where no score differs from another.

    embeddings: (N, D), centred here on their own mean: where all lie in one cone, cosines differ
    little and unevenly, and what a network tells apart is seen around the mean.   labels: (N,).
    counts: (draws, P), how often each person is drawn (`kdlab.evaluate.intervals.people_counts`);
    a genuine pair weighs as often as its person is drawn, an impostor pair the product of both.
    Holds all pairs: for sets of a few thousand pictures.
    """
    x = unit_rows(np.asarray(embeddings, np.float64) - np.mean(embeddings, 0, np.float64))
    if np.shape(labels) != (len(x),):
        raise ValueError(f"{len(x)} embeddings need labels of shape ({len(x)},), "
                         f"not {np.shape(labels)}")
    person, P = np.unique(labels, return_inverse=True)[1], counts.shape[1]
    i, j = np.triu_indices(len(x), 1)
    score, p, q = (x @ x.T)[i, j], person[i], person[j]
    same, w = p == q, counts.astype(np.float64)
    own = [w @ np.bincount(p[same], score[same]**k, P) for k in range(3)]  # (draws,): n, sums
    place = p[~same] * P + q[~same]
    between = [((w @ np.bincount(place, score[~same]**k, P * P).reshape(P, P)) * w).sum(1)
               for k in range(3)]
    (genuine, spread), (impostor, other) = (
        (s1 / n, np.maximum(s2 / n - (s1 / n)**2, 0)) for n, s1, s2 in (own, between))
    root = np.sqrt((spread + other) / 2)
    return np.divide(genuine - impostor, root, out=np.zeros(len(w)), where=root > 0)
