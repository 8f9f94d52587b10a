"""Pictures that are there twice: equal pixels by a hash, nearly equal ones by a fingerprint.

A fingerprint says how a picture's brightness changes: shrunk to 16 x 16 grey values, the 480
differences of neighbours, less those of the average picture of the set (aligned faces have much in
common), on which side of 288 random planes they lie (Charikar, "Similarity estimation techniques
from rounding algorithms", STOC 2002: the share of different bits is the angle over pi).

Measured on 600 rendered and 400 ORL faces at 112 x 112, bits of 288 that differ (median, worst):

    JPEG of quality 60      JPEG of quality 30      to 64 x 64      another picture (least)
    4, 14                   6, 22                   3, 12           42 rendered, 21 ORL

Of the copies of quality 30, 4 in 1000 differ in more than 16. A picture that was mirrored, moved by
a few pixels or cropped otherwise is not recognised.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 16  # pixels of the shrunk picture; ours
CHANGES = 2 * SIDE * (SIDE - 1)  # neighbours in it: 480
BANDS, BAND = 12, 3  # bytes of a fingerprint: pairs of up to 11 bits agree in a whole band
NEAR = 16  # bits of 288: between the copies and the other pictures of the table above
PRIOR = 64  # pictures without any pattern in the average, so that a few do not cancel themselves
EXAMPLES = 50  # groups and pairs a report names; the rest is counted
REACH = 256  # pictures with one band in common each is compared with, at most; ours
MOST = 2_000_000  # pairs kept, 50 MB; ours
_PART = 1 << 18  # pairs compared at once: 20 MB
_PLANES = np.random.default_rng(0).standard_normal((CHANGES, 8 * BANDS * BAND),
                                                   np.float32)


class Near(NamedTuple):
    """pairs: (P, 2) int64, rows i < j in order.   bits: (P,) that differ.   cut: were some left
    out, because too many pictures are alike?"""

    pairs: np.ndarray
    bits: np.ndarray
    cut: bool


def pixel_hash(picture: np.ndarray) -> int:
    """64 bits of a picture (H, W, 3) uint8. Among 5.8 million different ones two agree with a
    probability of 1e-6."""
    found = hashlib.blake2b(b"%d %d" % picture.shape[:2], digest_size=8)
    found.update(np.ascontiguousarray(picture))
    return int.from_bytes(found.digest(), "little")


def changes(picture: np.ndarray) -> np.ndarray:
    """(480,) float32: how the brightness of a picture (H, W, 3) uint8 changes, whatever its
    contrast and size."""
    grey = Image.fromarray(picture).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(grey, np.float32)
    grey = grey / max(float(grey.std()), 1.0)  # 1: one level of 255, of an empty picture
    return np.concatenate([np.diff(grey, axis=1).ravel(), np.diff(grey, axis=0).ravel()])


def average(rows: np.ndarray) -> np.ndarray:
    """(480,) what the pictures of a sample (n, 480) have in common."""
    return rows.sum(0) / (len(rows) + PRIOR)


def fingerprints(rows: np.ndarray, common: np.ndarray) -> np.ndarray:
    """(n, 480) changes -> (n, 36) uint8."""
    return np.packbits((rows - common) @ _PLANES > 0, axis=1)


def near_pairs(prints: np.ndarray, between: int | None = None) -> Near:
    """Pairs of fingerprints (N, 36) that differ in 16 bits or fewer.

    between: keep those pairs of which one row lies below it, the other not.
    All pairs of up to 11 bits are found, of 12 to 16 those that agree in a band of 24 bits
    (nearly all: measured 99 % at 16). Time grows with N, not with N^2: each band is sorted, and
    only equal neighbours are compared, up to 256 of them.
    """
    N, cut = len(prints), False
    codes, bits = np.empty(0, np.int64), np.empty(0, np.uint8)
    for band in range(BANDS):
        a, b, c = prints[:, band * BAND:(band + 1) * BAND].astype(np.uint32).T
        key = a << 16 | b << 8 | c
        order = np.argsort(key, kind="stable")
        key = key[order]
        here = np.arange(N - 1)
        for shift in range(1, REACH + 1):
            here = here[:np.searchsorted(here, N - shift)]
            here = here[key[here] == key[here + shift]]
            if not len(here):
                break
            for start in range(0, len(here), _PART):
                at = here[start:start + _PART]
                i, j = order[at], order[at + shift]  # i < j: the sort is stable
                if between is not None:
                    i, j = (x[(i < between) & (j >= between)] for x in (i, j))
                differ = np.bitwise_count(prints[i] ^ prints[j]).sum(1, dtype=np.uint16)
                close = differ <= NEAR
                codes = np.concatenate([codes, (i * N + j)[close]])
                bits = np.concatenate([bits, differ[close].astype(np.uint8)])
            if len(codes) > 2 * MOST:
                codes, first = np.unique(codes, return_index=True)
                bits = bits[first]
            if len(codes) > MOST:
                break
        else:
            cut = True
        codes, first = np.unique(codes, return_index=True)
        bits = bits[first]
        if len(codes) > MOST:
            codes, bits, cut = codes[:MOST], bits[:MOST], True
            break
    return Near(np.stack(np.divmod(codes, N), 1) if N else np.empty((0, 2), np.int64), bits, cut)


def equal_groups(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N,) so ordered that equal hashes stand together, each group in order of its rows;
    and where the groups begin, (G + 1,) with the end."""
    order = np.argsort(hashes, kind="stable")
    new = np.flatnonzero(np.diff(hashes[order])) + 1
    return order, np.concatenate([[0], new, [len(order)]]).astype(np.int64)


def copies(item: np.ndarray, labels: np.ndarray | None, name: Callable[[int], str]) -> dict:
    """What is twice in a set.   item: what `kdlab.data.check` keeps of each picture.

    exact: groups of equal pixels, `extra` pictures beyond the first of each. near: pairs of those
    that are left. two_identities: how many of them have more than one label.
    """
    rows = np.flatnonzero(item["read"])
    order, bounds = equal_groups(item["pixels"][rows])
    order, many = rows[order], np.flatnonzero(np.diff(bounds) > 1)
    own = np.zeros(len(item), np.int64) if labels is None else labels
    mixed = np.zeros(0, bool)
    if len(many):
        low, high = (f.reduceat(own[order], bounds[:-1])[many] for f in (np.minimum, np.maximum))
        mixed = low != high
    shown = many[np.argsort(~mixed, kind="stable")][:EXAMPLES]
    groups = [order[bounds[g]:bounds[g + 1]][:8].tolist() for g in shown]
    firsts = np.sort(order[bounds[:-1]]) if len(rows) else rows
    near = near_pairs(item["print"][firsts])
    pairs = firsts[near.pairs]
    apart = own[pairs[:, 0]] != own[pairs[:, 1]]
    first = np.lexsort([near.bits, ~apart])[:EXAMPLES]
    return {
        "exact": {"groups": len(many), "extra": int((np.diff(bounds)[many] - 1).sum()),
                  "two_identities": int(mixed.sum()), "rows": groups,
                  "names": [[name(row) for row in group] for group in groups]},
        "near": {"pairs": len(pairs), "two_identities": int(apart.sum()), "cut": near.cut,
                 **_listed(pairs[first], near.bits[first], name, name)},
    }


def leaks(items: list[np.ndarray], names: list[Callable[[int], str]]) -> dict:
    """What is in both of two sets: equal pictures, and pairs of nearly equal ones.

    exact, near: pictures of the second that the first has too; pairs: (first, second) to look at.
    """
    rows, hashes = [], []
    for item in items:
        read = np.flatnonzero(item["read"])
        value, first = np.unique(item["pixels"][read], return_index=True)
        rows.append(read[first])
        hashes.append(value)
    _, a, b = np.intersect1d(*hashes, assume_unique=True, return_indices=True)
    read = items[1]["read"]
    exact = read & np.isin(items[1]["pixels"], hashes[0])
    n = len(rows[0])
    near = near_pairs(np.concatenate([item["print"][r] for item, r in zip(items, rows, strict=True)
                                      ]), between=n)
    i, j = rows[0][near.pairs[:, 0]], rows[1][near.pairs[:, 1] - n]
    new = ~exact[j]
    i, j, bits = i[new], j[new], near.bits[new]
    alike = np.isin(items[1]["pixels"], items[1]["pixels"][np.unique(j)]) & read
    pairs = np.concatenate([np.stack([rows[0][a], rows[1][b]], 1), np.stack([i, j], 1)])
    bits = np.concatenate([np.zeros(len(a), np.uint8), bits])
    first = np.argsort(bits, kind="stable")[:EXAMPLES]
    return {"exact": int(exact.sum()), "near": int(alike.sum()), "of": int(read.sum()),
            "cut": near.cut, **_listed(pairs[first], bits[first], *names)}


def _listed(pairs: np.ndarray, bits: np.ndarray, left, right) -> dict:
    return {"rows": pairs.tolist(), "bits": bits.tolist(),
            "names": [[left(i), right(j)] for i, j in pairs.tolist()]}
