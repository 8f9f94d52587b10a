"""All pairs of a set of embeddings, split into genuine and impostor."""

import numpy as np

FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # EKD's six
EXPECTED = 10  # ours: on fewer pairs above it, a threshold's FPR is uncertain by a third and more


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


def cross_scores(embeddings: np.ndarray, labels: np.ndarray, a: np.ndarray, b: np.ndarray,
                 block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of every picture of a with every one of b -> (genuine, impostor), each 1-D.

    embeddings: (N, D); labels: (N,); a, b: rows, which may overlap: no picture meets itself and
    each unordered pair is counted once, so a = b gives the pairs of `pair_scores`. `block` rows of
    a at a time. Raises ValueError for rows that are not there or given twice.
    """
    x, labels = unit_rows(embeddings), np.asarray(labels)
    if labels.shape != (len(x),):
        raise ValueError(f"{len(x)} embeddings need labels of shape ({len(x)},), "
                         f"not {labels.shape}")
    a, b = checked_rows(a, len(x), "a"), checked_rows(b, len(x), "b")
    on_both = np.zeros(len(x), bool)
    on_both[np.intersect1d(a, b)] = True
    genuine, impostor = [np.empty(0, x.dtype)], [np.empty(0, x.dtype)]
    for start in range(0, len(a), block):
        i, j = a[start:start + block, None], b[None]
        once = (i < j) | ~(on_both[i] & on_both[j])  # of (i, j) and (j, i) the first
        score, same = x[i[:, 0]] @ x[b].T, labels[i] == labels[j]
        genuine.append(score[once & same])
        impostor.append(score[once & ~same])
    return np.concatenate(genuine), np.concatenate(impostor)


def group_scores(embeddings: np.ndarray, labels: np.ndarray, group: np.ndarray,
                 a: np.ndarray, b: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """`cross_scores` of each group by itself: group -> (genuine, impostor of that group alone).

    group: (N,) int, one for each person. Raises ValueError for a person in two groups.
    """
    labels, group = np.asarray(labels), np.asarray(group)
    if group.shape != labels.shape:
        raise ValueError(f"{len(labels)} labels need groups of that shape, not {group.shape}")
    a, b = checked_rows(a, len(labels), "a"), checked_rows(b, len(labels), "b")
    met = np.union1d(a, b)
    one_of_each(labels[met], group[met], "person", "group")
    return {int(g): cross_scores(embeddings, labels, a[group[a] == g], b[group[b] == g])
            for g in np.unique(group[met])}


def template_means(embeddings: np.ndarray, labels: np.ndarray, template: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the unit embeddings of each template: (T, D), labels (T,), template numbers (T,).

    template: (N,) template of each row; numbers come back ascending. As the IJB scripts do it
    where each picture is a medium of its own; feature norms are not used (EKD's "plain average").
    Raises ValueError for a template of two persons.
    """
    x, labels, template = unit_rows(embeddings), np.asarray(labels), np.asarray(template)
    if not labels.shape == template.shape == (len(x),):
        raise ValueError(f"{len(x)} embeddings need as many labels and templates, not "
                         f"{labels.shape} and {template.shape}")
    one_of_each(template, labels, "template", "person")
    numbers, row, which, size = np.unique(template, return_index=True, return_inverse=True,
                                          return_counts=True)
    means = np.zeros((len(numbers), x.shape[1]))
    np.add.at(means, which, x)
    return (means / size[:, None]).astype(x.dtype), labels[row], numbers


def template_scores(embeddings: np.ndarray, labels: np.ndarray, template: np.ndarray
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of every unordered pair of templates (`template_means`) -> (genuine, impostor)."""
    means, people, _ = template_means(embeddings, labels, template)
    return pair_scores(means, people)


def checked_rows(rows: np.ndarray, N: int, name: str) -> np.ndarray:
    """(n,) distinct row numbers below N, or ValueError in words."""
    rows = np.asarray(rows)
    if not rows.size:
        return np.empty(0, np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"{name} must be row numbers (n,), not {rows.dtype} {rows.shape}")
    if rows.min() < 0 or rows.max() >= N:
        raise ValueError(f"{name} asks for rows {rows.min()} to {rows.max()} of {N} embeddings")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{name} names a row twice; each picture counts once")
    return rows


def one_of_each(owner: np.ndarray, value: np.ndarray, thing: str, kind: str) -> None:
    """ValueError unless every owner has one value only."""
    pairs = np.unique(np.stack([owner, value], 1), axis=0)[:, 0]
    if (twice := pairs[1:][pairs[1:] == pairs[:-1]]).size:
        raise ValueError(f"{thing} {twice[0]} belongs to more than one {kind}")


def supported_fprs(impostors: int) -> tuple[float, ...]:
    """Those of 1e-1 .. 1e-6 at which 10 or more of `impostors` pairs lie above the threshold."""
    return tuple(fpr for fpr in FPRS if impostors >= EXPECTED * round(1 / fpr))


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
