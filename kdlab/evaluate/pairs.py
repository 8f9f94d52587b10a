"""All pairs of a set of embeddings, split into genuine and impostor."""

import numpy as np


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, (N, D); a zero row stays zero. ValueError for NaN or infinity."""
    x = np.asarray(embeddings)
    if x.ndim != 2:
        raise ValueError(f"embeddings must be (N, D), not {x.shape}")
    x = x if x.dtype == np.float64 else x.astype(np.float32)
    bad = (~np.isfinite(x).all(1)).sum()
    if bad:
        raise ValueError(f"{bad} of {len(x)} embeddings are not finite; the network has diverged "
                         "or its input was not scaled")
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return (x / np.where(norm > 0, norm, 1)).astype(x.dtype)


def pair_scores(embeddings: np.ndarray, labels: np.ndarray,
                block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of every unordered pair -> (genuine, impostor), each 1-D, in row order of (i, j > i).

    embeddings: (N, D), need not be normalised; labels: (N,). `block` rows at a time, so that the
    (N, N) matrix never exists.
    """
    x, labels = unit_rows(embeddings), np.asarray(labels)
    N = len(x)
    if labels.shape != (N,):
        raise ValueError(f"{N} embeddings need labels of shape ({N},), not {labels.shape}")
    sizes = np.unique(labels, return_counts=True)[1].astype(np.int64)
    genuine = np.empty(int((sizes * (sizes - 1) // 2).sum()), x.dtype)
    impostor = np.empty(N * (N - 1) // 2 - len(genuine), x.dtype)
    g = i = 0
    for start in range(0, N, block):
        score = x[start:start + block] @ x[start:].T  # (block, N - start)
        upper = np.arange(score.shape[1]) > np.arange(len(score))[:, None]
        same = labels[start:start + block, None] == labels[None, start:]
        found, others = score[upper & same], score[upper & ~same]
        genuine[g:g + len(found)] = found
        impostor[i:i + len(others)] = others
        g, i = g + len(found), i + len(others)
    return genuine, impostor


def most_allowed(fpr: float, impostors: int) -> int:
    """How many of `impostors` pairs may be accepted so that their share does not exceed fpr.

    ValueError for a rate outside (0, 1).
    """
    if not 0 < fpr < 1:
        raise ValueError(f"fpr must lie between 0 and 1, not {fpr}")
    allowed = int(fpr * impostors) + 1
    while allowed / impostors > fpr:  # the division decides, as for whoever checks the rate
        allowed -= 1
    return allowed


def worst_pairs(embeddings: np.ndarray, labels: np.ndarray, count: int
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pairs a model gets most wrong, worst first.

    Returns genuine pairs of least cosine (<= count, 2) with their cosines, then impostor pairs of
    greatest cosine likewise. No person appears in two pairs of one kind, so that one odd picture
    does not fill the list. Holds all pairs: for sets of a few thousand pictures.
    """
    x, labels = unit_rows(embeddings), np.asarray(labels)
    i, j = np.triu_indices(len(x), 1)
    score, same = (x @ x.T)[i, j], labels[i] == labels[j]
    found = []
    for rows, sign in ((np.flatnonzero(same), 1), (np.flatnonzero(~same), -1)):
        used, chosen = set(), []
        for k in rows[np.argsort(sign * score[rows], kind="stable")]:
            people = {labels[i[k]], labels[j[k]]}
            if not people & used:
                used |= people
                chosen.append(k)
            if len(chosen) == count:
                break
        found += [np.stack([i[chosen], j[chosen]], 1), score[chosen]]
    return tuple(found)
