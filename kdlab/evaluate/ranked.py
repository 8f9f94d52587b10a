"""The k-th highest of billions of scores, exactly, in memory that does not grow with them.

Scores come in tiles, twice. The 32 bits of a float32, read as an integer, are in the order of the
numbers (see `_count`). The first pass counts the scores by their upper 16 bits, in 65,536 bins;
this tells in which bin the k-th highest lies. The second counts those of the wanted bins by their
lower 16: its value, and how many share it. No score is rounded, sorted or kept, ties cost nothing,
and the outcome is what sorting them all gives, bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kdlab.cloud import compiled, threads
from kdlab.evaluate.intervals import clopper_pearson
from kdlab.evaluate.pairs import most_allowed
from kdlab.evaluate.verification import OperatingPoint
from kdlab.progress import progress

BINS = 1 << 16
MIDDLE = BINS // 2  # the bin of 0.0

Tile = Callable[[], np.ndarray]  # (n,) float32 scores, finite, the same each time it is called


class Step(NamedTuple):
    """A score, how many lie above it, how many at or above it, and the next one under it (-inf
    where there is none)."""

    score: np.float32
    above: int
    reached: int
    under: np.float32


def operating_points(genuine: np.ndarray, tiles: Sequence[Tile], impostors: int,
                     fprs: Sequence[float], rule: str = "below"
                     ) -> tuple[dict[float, OperatingPoint], np.ndarray]:
    """`tpr_at_fpr` at each of fprs where the impostor scores come in tiles; see also `ranked`.

    genuine: (G,) float32, ascending; impostors: how many scores the tiles hold.
    Returns FPR -> point, and (65536,) int64, the impostor scores in each bin.
    ValueError in words without a pair of either kind or an FPR, and for another rule.
    """
    if rule not in ("below", "nearest"):
        raise ValueError(f'rule must be "below" or "nearest", not {rule!r}')
    for kind, pairs in (("genuine", len(genuine)), ("impostor", impostors)):
        if not pairs:
            raise ValueError(f"there are no {kind} pairs: the set needs at least two pictures of "
                             "one person and two persons")
    if not len(fprs):
        raise ValueError("fprs is empty; name a false positive rate at least")
    allowed = [most_allowed(fpr, impostors) for fpr in fprs]
    steps, counts = ranked(tiles, allowed)
    points = {}
    for fpr, most, step in zip(fprs, allowed, steps, strict=True):
        accepted, refused = step.above, step.score
        if rule == "nearest" and (abs(step.reached / impostors - fpr)
                                  <= abs(step.above / impostors - fpr)):
            accepted, refused = step.reached, step.under
        threshold = np.nextafter(refused, np.float32(np.inf))
        hits = int(len(genuine) - np.searchsorted(genuine, threshold, "left"))
        low, high = clopper_pearson(hits, len(genuine))
        points[fpr] = OperatingPoint(hits / len(genuine), accepted / impostors, float(threshold),
                                     low, high, most >= 1)
    return points, counts


def ranked(tiles: Sequence[Tile], ranks: Sequence[int]) -> tuple[list[Step], np.ndarray]:
    """The scores of these ranks, 0 the highest, among all in the tiles, and (65536,) the counts of
    the bins, ascending (`lower_edges`). Shows its progress; may be interrupted between two tiles.

    RuntimeError where the scores were not the same the second time.
    """
    loop, own, tops = compiled(_count), [np.zeros(BINS, np.int64)], []
    for tile in progress(tiles, "pairs, first pass"):
        scores = tile()
        tops.append(scores.max(initial=-np.inf))
        _in_threads(loop, scores, own)
    counts = sum(own)
    falling = np.cumsum(counts[::-1])  # scores in a bin and in all above it, from the top
    first = np.searchsorted(falling, ranks, "right")
    after = np.searchsorted(falling, falling[first], "right")  # the next bin that is not empty
    wanted = BINS - 1 - np.union1d(first, after[after < BINS])[::-1]  # ascending
    place = np.full(BINS, -1)
    place[wanted] = np.arange(len(wanted))
    loop, own = compiled(_count_within), [np.zeros((len(wanted), BINS), np.int64)]
    lowest = lower_edges(wanted[:1])[0]
    again = [tile for tile, top in zip(tiles, tops, strict=True) if top >= lowest]
    for tile in progress(again, "pairs, second pass"):
        _in_threads(loop, tile(), own, place)
    within = sum(own)
    if (within.sum(1) != counts[wanted]).any():
        raise RuntimeError("the scores were not the same in both passes; did the embeddings or the "
                           "number of threads change meanwhile?")
    row, lower = (index[::-1] for index in np.nonzero(within))  # the highest score first
    score = np.append(_floats((wanted[row] - MIDDLE << 16) + lower), np.float32(-np.inf))
    count = within[row, lower]
    above = falling[BINS - 1 - wanted] - counts[wanted]  # scores above a wanted bin
    inside = np.concatenate([np.cumsum(some[some > 0]) for some in within[::-1, ::-1]])
    reached = above[row] + inside
    found = np.searchsorted(reached, ranks, "right")
    return [Step(score[k], int(reached[k] - count[k]), int(reached[k]), score[k + 1])
            for k in found], counts


def lower_edges(bins: np.ndarray) -> np.ndarray:
    """(n,) float32: the least score of each bin."""
    return _floats(np.asarray(bins) - MIDDLE << 16)


def _floats(keys: np.ndarray) -> np.ndarray:
    """float32 of the integers that `_count` makes of them."""
    return np.where(keys >= 0, keys, -keys | 1 << 31).astype(np.uint32).view(np.float32)


def _in_threads(loop: Callable, scores: np.ndarray, own: list[np.ndarray], *more) -> None:
    """Each thread counts a part of the scores in one of `own`; what is missing there is made."""
    bits, shape = scores.view(np.int32), own[0].shape

    def work(part: slice) -> None:
        try:
            counts = own.pop()
        except IndexError:
            counts = np.zeros(shape, np.int64)
        loop(bits[part], *more, counts)
        own.append(counts)

    threads(work, len(bits))


# The two loops are for numba. The bits of a float32 are a sign and a size; taken as a number with
# that sign, they are in the order of the floats, and both zeros are 0.


def _count(bits, counts):
    for k in range(len(bits)):
        key = np.int64(bits[k])
        if key < 0:
            key = -(key + 2147483648)
        counts[(key >> 16) + 32768] += 1


def _count_within(bits, place, counts):
    for k in range(len(bits)):
        key = np.int64(bits[k])
        if key < 0:
            key = -(key + 2147483648)
        row = place[(key >> 16) + 32768]
        if row >= 0:
            counts[row, key & 65535] += 1
