"""Exact nearest neighbours within one set of points, without the n x n matrix of distances.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b makes a block of pairs one product of matrices, the fastest thing
a computer does, but loses the digits of small distances. So the product, in float32, only chooses
candidates; they are measured by differences in float64.

Why none is missed. Of two rows about a common middle, rounded to float32 and multiplied in any
order, |product - a.b| <= c |a| |b| <= c (|a|^2 + |b|^2) / 2 with a small c (`_bound`), hence

    |a - b|^2 / 2  >=  half(a) + half(b) - product,   half(a) = (1 - c) |a|^2 / 2.

Every row keeps a list of those with the smallest right-hand side, a few more than asked for. What
is not on the list has at least the right-hand side of the last on it. Where that exceeds half the
squared measured distance of neighbour k, the list holds all k. The other rows (neighbours equally
far, clusters far apart) are done again with float64 products, and whatever may lie within that
distance is measured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdlab.cloud import Cloud, compiled, parts, threads
from kdlab.progress import progress

SPARE = 4  # candidates beyond k, ours: c tells neighbour k + 4 from k in all but tied rows
FEW = 128  # rows done again together, ours: their pairs fit into memory even if all are tied
GPU = 8192  # rows of a block on a GPU, ours: a product of 256 MB


class Neighbours(NamedTuple):
    """distances: (n, k) float64, ascending; indices: (n, k) int64. Equally far: lower index first.
    """

    distances: np.ndarray
    indices: np.ndarray


def nearest(cloud: Cloud, k: int) -> Neighbours:
    """The k nearest other rows of every row; k of 1 to n - 1, or ValueError."""
    n = len(cloud)
    if not 1 <= k < n:
        raise ValueError(f"of {n} points none has {k} neighbours; k must be 1 to {n - 1}")
    keep = min(k + SPARE, n - 1)
    scores, indices = (_by_topk if isinstance(cloud.x, Tensor) else _by_scan)(cloud, keep)
    distances = cloud.distances(np.repeat(np.arange(n), keep), indices.ravel()).reshape(n, keep)
    order = np.lexsort((indices, distances))[:, :k]
    distances, indices = (np.take_along_axis(one, order, 1) for one in (distances, indices))
    if keep < n - 1:
        within = _within(cloud, distances[:, -1])
        beyond = 2 * (_half(cloud, slice(None), torch.float32).double().cpu().numpy()
                      - scores[:, -1])
        unsure = np.flatnonzero(beyond <= within)
        for part in progress(list(parts(len(unsure), FEW)), "neighbours of tied rows"):
            rows = unsure[part]
            distances[rows], indices[rows] = _again(cloud, rows, within[rows], k)
    return Neighbours(distances, indices)


def nearest_of(cloud: Cloud, row: int, k: int) -> Neighbours:
    """The k nearest other rows of one row, (k,) each, measured against all."""
    others = np.delete(np.arange(len(cloud)), row)
    distances = cloud.distances(np.full(len(others), row), others)
    order = np.argsort(distances, kind="stable")[:k]
    return Neighbours(distances[order], others[order])


def _bound(D: int, dtype: torch.dtype) -> float:
    """c of the module's docstring, u being the unit roundoff (half of torch's eps).

    D products summed in any order are off by D u / (1 - D u) |a| |b| at most (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1); rounding the rows, their halves and scores adds 6 u.
    Twice that and some, which costs nothing.
    """
    return (D + 8) * torch.finfo(dtype).eps


def _half(cloud: Cloud, part: slice | np.ndarray, dtype: torch.dtype) -> Tensor:
    """(m,) half(a) of the module's docstring."""
    half = (1 - _bound(cloud.x.shape[1], dtype)) / 2 * cloud.square[cloud.index[part]]
    return torch.from_numpy(half).to(cloud.device, dtype)


def _within(cloud: Cloud, distance: np.ndarray) -> np.ndarray:
    """(m,) squares in the cloud's unit: what exceeds them is surely further than distance (m,)."""
    D = cloud.x.shape[1]
    far = distance / cloud.unit * (1 + _bound(D, torch.float64))  # measuring rounds, too
    return far**2 + D * torch.finfo(torch.float32).tiny  # and tiny products vanish


def _again(cloud: Cloud, rows: np.ndarray, within: np.ndarray, k: int) -> tuple:
    """Distances and indices (m, k) of rows (m,): all that may lie within is measured."""
    left, half = cloud.centred(rows, torch.float64), _half(cloud, rows, torch.float64)
    half -= torch.from_numpy(within).to(half) / 2
    pairs = []
    for part in cloud.parts():
        product = left @ cloud.centred(part, torch.float64).T
        close = half[:, None] + _half(cloud, part, torch.float64) <= product
        i, j = close.nonzero().cpu().numpy().T
        pairs.append((i, j + part.start))
    i, j = (np.concatenate(one) for one in zip(*pairs, strict=True))
    other = rows[i] != j
    i, j = i[other], j[other]
    distance = cloud.distances(rows[i], j)
    order = np.lexsort((j, distance, i))
    first = np.searchsorted(i[order], np.arange(len(rows)))
    chosen = order[first[:, None] + np.arange(k)]
    return distance[chosen], j[chosen]


def _by_scan(cloud: Cloud, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists (n, keep): score = product - half of the other row, descending, and its index.

    Every block of pairs is multiplied once and read twice, for its rows and for its columns.
    """
    n = len(cloud)
    scores, indices = np.full((n, keep), -np.inf, np.float32), np.full((n, keep), -1)
    half = _half(cloud, slice(None), torch.float32).numpy()
    by_rows, by_columns = compiled(_scan_rows), compiled(_scan_columns)
    blocks = list(cloud.parts())
    last = None
    for a, b in progress([(a, b) for k, a in enumerate(blocks) for b in blocks[k:]], "neighbours"):
        if a is not last:
            left, last = cloud.centred(a, torch.float32).numpy(), a
        right = left if a is b else cloud.centred(b, torch.float32).numpy()
        product = left @ right.T  # by NumPy: torch may have been told to round to bfloat16
        if a is b:
            np.fill_diagonal(product, -np.inf)
        else:
            threads(lambda part, p=product, a=a, b=b: by_columns(
                p, part.start, half[a], a.start, scores[b][part], indices[b][part]), len(right))
        threads(lambda part, p=product, a=a, b=b: by_rows(
            p[part], half[b], b.start, scores[a][part], indices[a][part]), len(left))
    return scores, indices


def _by_topk(cloud: Cloud, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """`_by_scan` in torch, for a GPU: every block of pairs is multiplied for its rows only."""
    n = len(cloud)
    scores, indices = np.empty((n, keep), np.float32), np.empty((n, keep), np.int64)
    with _full_float32():
        for a in progress(list(parts(n, GPU)), "neighbours"):
            left = cloud.centred(a, torch.float32)
            best = torch.empty(len(left), 0, device=left.device)
            found = torch.empty(len(left), 0, dtype=torch.int64, device=left.device)
            for b in parts(n, GPU):
                score = left @ cloud.centred(b, torch.float32).T - _half(cloud, b, torch.float32)
                if a == b:
                    score.fill_diagonal_(-torch.inf)
                some, where = score.topk(min(keep, score.shape[1]))
                both = torch.cat([best, some], 1)
                best, which = both.topk(min(keep, both.shape[1]))
                found = torch.cat([found, where + b.start], 1).gather(1, which)
            scores[a], indices[a] = best.cpu().numpy(), found.cpu().numpy()
    return scores, indices


@contextmanager
def _full_float32() -> Iterator[None]:
    """float32 products in float32: training may have allowed TF32, which keeps three digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# The two loops are for numba, which checks nothing. Most scores are too small for any list; that 64
# of them are is seen 16 at a time, in the one form of the question that compiles to vectors.


def _scan_rows(product, half, first, scores, indices):
    """Offer product - half of the column to the list of each row."""
    last = scores.shape[1] - 1
    for i in range(len(product)):
        for start in range(0, product.shape[1], 64):
            some, less = product[i, start:start + 64], half[start:start + 64]
            least, good = scores[i, last], np.int32(0)
            for j in range(len(some)):
                good |= np.int32(some[j] - less[j] > least)
            if good == 0:
                continue
            for j in range(len(some)):
                score, p = some[j] - less[j], last
                if score > scores[i, last]:
                    while p > 0 and scores[i, p - 1] < score:
                        scores[i, p], indices[i, p] = scores[i, p - 1], indices[i, p - 1]
                        p -= 1
                    scores[i, p], indices[i, p] = score, first + start + j


def _scan_columns(product, begin, half, first, scores, indices):
    """Offer product - half of the row to the lists of some columns, from `begin` on."""
    last = scores.shape[1] - 1
    lowest = scores[:, last].copy()
    for i in range(len(product)):
        for start in range(0, len(scores), 64):
            least, less, good = lowest[start:start + 64], half[i], np.int32(0)
            some = product[i, begin + start:begin + start + len(least)]
            for j in range(len(least)):
                good |= np.int32(some[j] - less > least[j])
            if good == 0:
                continue
            for j in range(len(least)):
                score, p, c = some[j] - less, last, start + j
                if score > least[j]:
                    while p > 0 and scores[c, p - 1] < score:
                        scores[c, p], indices[c, p] = scores[c, p - 1], indices[c, p - 1]
                        p -= 1
                    scores[c, p], indices[c, p] = score, first + i
                    lowest[c] = scores[c, last]
