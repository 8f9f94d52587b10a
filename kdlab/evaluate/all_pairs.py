"""All against all, where a threshold rests on billions of pairs: MFR's sets, and any of their size.

200,000 pictures make 20 billion pairs; the matrix of their scores takes 160 GB. Here scores exist
one tile of the matrix at a time, twice: kdlab.evaluate.ranked counts them and finds the thresholds.

What is exact. A score is the product of two unit rows in float32, summed in the order that the
matrix product chooses; its last bits may change with `block`, the number of threads and the
processor. Of these scores, the same in both passes, every threshold, count and rate is what sorting
them all gives, bit for bit.

Pairs are unordered and counted once, both kinds. MFR's published numbers of impostors are ordered
pairs less the genuine ones counted once (n^2 - n - genuine): about twice those here.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from kdlab.cloud import parts
from kdlab.evaluate.pairs import checked_rows, unit_rows
from kdlab.evaluate.ranked import lower_edges, operating_points
from kdlab.evaluate.verification import OperatingPoint
from kdlab.progress import progress

# ICCV21-MFR, rule "below": the FPR of each track. All meet all, but in "mask" masked meet plain.
MFR = {"mask": 1e-4, "children": 1e-4, "african": 1e-6, "caucasian": 1e-6, "indian": 1e-6,
       "asian": 1e-6, "mr-all": 1e-6}
BLOCK = 1024  # rows of a tile, ours: its 4 MB of scores are still in the processor when counted


class AllPairs(NamedTuple):
    """Scores of all pairs, as far as rates at given FPRs need them.

    genuine: (G,) float32, ascending.   impostors: how many pairs; it belongs beside every rate.
    points: FPR asked for -> OperatingPoint; not `supported` below 1 / impostors, where tpr is the
    share of genuine pairs above the single highest impostor.   counts: (65536,) int64, impostor
    scores in each bin, see `curve`.
    """

    genuine: np.ndarray
    impostors: int
    points: dict[float, OperatingPoint]
    counts: np.ndarray


def all_versus_all(embeddings: np.ndarray, labels: np.ndarray, fprs: Sequence[float] = (1e-6,),
                   rule: str = "below", a: np.ndarray | None = None, b: np.ndarray | None = None,
                   block: int = BLOCK) -> AllPairs:
    """Genuine scores and the rates at each of `fprs`, from all pairs, in bounded memory.

    embeddings: (N, D), need not be normalised, may be mapped from a file; labels: (N,).
    rule: "below" or "nearest", as `tpr_at_fpr` has them.   a, b: rows of two sides without a row in
    common, each of a meeting each of b; a alone: all pairs within it; neither: all pairs.
    Held in memory: a float32 copy of the rows, the genuine scores (4 bytes each), a few tiles of
    `block` x `block`. Shows its progress; may be interrupted between two tiles.

    ValueError in words: NaN (with the row), no genuine or no impostor pair, rows that do not fit.
    """
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise ValueError(f"all_versus_all wants embeddings (N, D) and labels (N,), not "
                         f"{embeddings.shape} and {labels.shape}")
    if block < 1:
        raise ValueError(f"a tile has 1 row or more, not block = {block}")
    rows = _sides(labels, a, b)
    x, people = zip(*((units(embeddings, side), labels[side]) for side in rows), strict=True)
    sizes = [len(side) for side in rows]
    total = sizes[0] * (sizes[0] - 1) // 2 if len(rows) == 1 else sizes[0] * sizes[1]
    tiles = [(i, j) for i in parts(sizes[0], block) for j in parts(sizes[-1], block)
             if len(rows) == 2 or i.start <= j.start]
    near = [tile for tile in tiles if _may_meet(people, *tile)]
    genuine = [np.empty(0, np.float32)]
    genuine += [_scores(x, people, True, *tile) for tile in progress(near, "genuine pairs")]
    genuine = np.sort(np.concatenate(genuine))
    impostors = total - len(genuine)
    points, counts = operating_points(
        genuine, [partial(_scores, x, people, False, *tile) for tile in tiles], impostors, fprs,
        rule)
    return AllPairs(genuine, impostors, points, counts)


def mfr(embeddings: np.ndarray, labels: np.ndarray, track: str,
        masked: np.ndarray | None = None) -> AllPairs:
    """A track of ICCV21-MFR by its metric: TAR at the FPR of `MFR`, rule "below".

    track: a key of MFR.   masked: (N,) bool, for the track "mask" and no other: each masked picture
    meets each plain one. MFR's pictures are private: on others this is its metric, not its number.
    """
    if track not in MFR:
        raise ValueError(f"MFR has no track {track!r}; it has {', '.join(MFR)}")
    if (masked is not None) != (track == "mask"):
        raise ValueError("the track 'mask', and no other, asks for masked: which pictures wear one")
    if masked is None:
        return all_versus_all(embeddings, labels, (MFR[track],))
    masked = np.asarray(masked)
    if masked.dtype != bool or masked.shape != np.shape(labels):
        raise ValueError(f"masked must be {np.shape(labels)} bool, not {masked.shape} "
                         f"{masked.dtype}")
    return all_versus_all(embeddings, labels, (MFR[track],), a=np.flatnonzero(masked),
                          b=np.flatnonzero(~masked))


def mfr_score(mask: float, mr_all: float) -> float:
    """What MFR ranks by, from two TARs: 0.25 Mask + 0.75 MR-All."""
    return 0.25 * mask + 0.75 * mr_all


def curve(found: AllPairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fpr, tpr, thresholds): the ROC at infinity and where each bin of impostor scores begins.

    These points are exact; those between two of them, less than 1 % of a score apart, are left out.
    """
    some = np.flatnonzero(found.counts)[::-1]
    thresholds = np.append(np.float32(np.inf), lower_edges(some))
    fpr = np.append(0, np.cumsum(found.counts[some])) / found.impostors
    G = len(found.genuine)
    return fpr, (G - np.searchsorted(found.genuine, thresholds, "left")) / G, thresholds


def units(embeddings: np.ndarray, rows: np.ndarray, name: str = "embedding") -> np.ndarray:
    """These rows (n,) at length 1, (n, D) float32.   ValueError names the first with NaN or inf."""
    x = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for part in parts(len(rows), BLOCK):  # unit_rows computes in float64, twice the memory
        some = np.asarray(embeddings[rows[part]])
        bad = ~np.isfinite(some).all(1)
        if bad.any():
            raise ValueError(f"{name} {rows[part][np.argmax(bad)]} is not finite (NaN or inf); "
                             "the network has diverged or its input was not scaled")
        x[part] = unit_rows(some)
    return x


def _sides(labels: np.ndarray, a: np.ndarray | None, b: np.ndarray | None) -> list[np.ndarray]:
    """The rows of one side or two, sorted by label, so that few tiles hold a genuine pair."""
    if a is None and b is not None:
        raise ValueError("b without a; give the rows of both sides, or of a alone")
    sides = [np.arange(len(labels)) if a is None else checked_rows(a, len(labels), "a")]
    if b is not None:
        sides.append(checked_rows(b, len(labels), "b"))
        if len(both := np.intersect1d(*sides)):
            raise ValueError(f"row {both[0]} is on both sides; a picture does not meet itself")
    return [side[np.argsort(labels[side], kind="stable")] for side in sides]


def _may_meet(people: Sequence[np.ndarray], i: slice, j: slice) -> bool:
    """May somebody of rows i be in columns j? People ascend on both sides."""
    p, q = people[0][i], people[-1][j]
    return p[0] <= q[-1] and q[0] <= p[-1]


def _scores(x: Sequence[np.ndarray], people: Sequence[np.ndarray], genuine: bool, i: slice,
            j: slice) -> np.ndarray:
    """(P,) float32: the genuine or the impostor pairs of rows i with columns j, each once."""
    score = x[0][i] @ x[-1][j].T  # by NumPy: torch may have been told to round to bfloat16
    if not genuine and not _may_meet(people, i, j):
        return score.ravel()
    keep = (people[0][i, None] == people[-1][j]) == genuine
    if len(x) == 1 and i == j:
        keep &= ~np.tri(len(score), dtype=bool)  # of (row, column), (column, row) the first
    return score[keep]
