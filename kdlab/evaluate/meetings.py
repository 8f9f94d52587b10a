"""Which embeddings meet, pair by pair, so that scores, curves and the worst pairs are of the same.

`kdlab.evaluate.judge` says the same in numbers alone. All pairs are held: for a few thousand
pictures.
"""

from typing import NamedTuple

import numpy as np

from kdlab.evaluate.pairs import template_means, unit_rows


class Pairs(NamedTuple):
    """Rows i, j (P,) that meet, their cosine, and whether both are one person."""

    i: np.ndarray
    j: np.ndarray
    score: np.ndarray
    same: np.ndarray


def meeting(x: np.ndarray, labels: np.ndarray, a: np.ndarray, b: np.ndarray,
            template: np.ndarray | None = None, distractor: np.ndarray | None = None,
            group: np.ndarray | None = None) -> tuple[Pairs, np.ndarray]:
    """The pairs of a protocol, as `kdlab.evaluate.judge` means them, and the picture that stands
    for each embedding: its own row, or the first of its template.

    x: (N, D) of length 1; the rest as `judge` has it; a and b the same rows, or none in common.
    """
    rows = np.arange(len(x))
    if template is not None:
        means, labels, numbers = template_means(x, labels, template)
        x, rows = unit_rows(means), np.unique(template, return_index=True)[1]
        a, b = (np.searchsorted(numbers, np.unique(template[side])) for side in (a, b))
    if np.array_equal(np.sort(a), np.sort(b)):
        some = np.sort(a)
        i, j = (some[side] for side in np.triu_indices(len(some), 1))
    else:
        i, j = (side.ravel() for side in np.meshgrid(a, b, indexing="ij"))
    if group is not None:
        i, j = i[group[i] == group[j]], j[group[i] == group[j]]
    if distractor is not None:
        mates = labels[i] == labels[j]
        far_i, far_j = np.meshgrid(np.union1d(a, b), distractor, indexing="ij")
        i, j = np.append(i[mates], far_i), np.append(j[mates], far_j)
    return Pairs(i, j, (x @ x.T)[i, j], labels[i] == labels[j]), rows


def pairs_of(x: np.ndarray, is_same: np.ndarray) -> Pairs:
    """Pairs of rows 2k and 2k + 1, as a .bin has them.   x: (2P, D) of length 1; is_same: (P,)."""
    i = np.arange(0, len(x), 2)
    return Pairs(i, i + 1, np.einsum("pd,pd->p", x[::2], x[1::2]), np.asarray(is_same, bool))


def worst_of(pairs: Pairs, people: np.ndarray | None, count: int) -> np.ndarray:
    """Numbers of the pairs that are most wrong: `count` genuine ones of least cosine, then as many
    impostor ones of greatest; of each kind no person twice, so that one odd picture is not all.

    people: (N,) of the embeddings; None: not known, then no embedding twice.
    """
    chosen = []
    for kind, sign in ((pairs.same, 1), (~pairs.same, -1)):
        rows, used, found = np.flatnonzero(kind), set(), []
        for k in rows[np.argsort(sign * pairs.score[rows], kind="stable")]:
            i, j = pairs.i[k], pairs.j[k]
            both = {i, j} if people is None else {people[i], people[j]}
            if len(found) == count:
                break
            if not both & used:
                used |= both
                found.append(k)
        chosen += found
    return np.array(chosen, np.int64)
