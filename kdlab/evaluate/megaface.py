"""MegaFace: one mate among a million strangers, and the verification that comes with it.

Rank 1: of every person each picture in turn is planted alone among the distractors, and each other
one probes for it; it is found where it scores as high as the best distractor or higher (so does
FaceX-Zoo and, by its word, the official tool; `kdlab.evaluate.rank1` calls a tie a miss).
Verification: the pairs of one person, unordered, against every probe with every distractor, TAR at
FAR 1e-6.

"R", insightface's refinement: photographs known to be wrong are taken out of the race. A noisy
probe becomes the sum of its person's clean embeddings plus noise of U(-0.001, 0.001), at length 1;
a noisy distractor gets one component more, 100, where all others get 0, so that nobody's cosine to
it exceeds 0.01. Which photographs are noisy is in two lists that come with the refinement.

Scores are read a tile at a time (see kdlab.evaluate.all_pairs, also for what is exact).
"""

import os
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.cloud import parts
from kdlab.evaluate.all_pairs import BLOCK, units
from kdlab.evaluate.intervals import clopper_pearson
from kdlab.evaluate.pairs import unit_rows
from kdlab.evaluate.ranked import operating_points
from kdlab.evaluate.verification import OperatingPoint
from kdlab.progress import progress

FPR = 1e-6  # MegaFace's verification
AWAY, NOISE = 100.0, 0.001  # the refinement's two numbers: insightface
HEADER = struct.Struct("<4i")  # numbers, 1, bytes of a number, kind: 5 is float32
LONGEST = 1 << 20  # numbers of a file, ours: embeddings have some hundreds


class Rank1(NamedTuple):
    """rate: the share of (probe, mate) pairs found, `hits` of `pairs`.   low, high: exact 95 %
    interval, as if pairs were independent (those of one probe or person are not)."""

    rate: float
    low: float
    high: float
    hits: int
    pairs: int


class MegaFace(NamedTuple):
    """rank1: number of distractors -> Rank1.   genuine, impostor: pairs of the verification, which
    belong beside its rates.   points: FPR asked for -> OperatingPoint."""

    rank1: dict[int, Rank1]
    genuine: int
    impostor: int
    points: dict[float, OperatingPoint]


def megaface(probes: np.ndarray, labels: np.ndarray, distractors: np.ndarray,
             counts: Sequence[int] | None = None, fprs: Sequence[float] = (FPR,),
             rule: str = "below", block: int = BLOCK) -> MegaFace:
    """Rank 1 and verification of probes (N, D), labels (N,), among distractors (M, D), strangers.

    Embeddings need not be normalised and may be mapped from files.   counts: rank 1 among the
    first so many, too; default 10, 100, ... and all.   rule: as `tpr_at_fpr` has it.
    ValueError in words: NaN (with the row), no person with two pictures, no distractor.
    """
    probes, labels, distractors = map(np.asarray, (probes, labels, distractors))
    if (probes.ndim != 2 or labels.shape != (len(probes),) or distractors.ndim != 2
            or distractors.shape[1] != probes.shape[1]):
        raise ValueError("megaface wants probes (N, D), labels (N,) and distractors (M, D), not "
                         f"{probes.shape}, {labels.shape} and {distractors.shape}")
    N, M = len(probes), len(distractors)
    if not M:
        raise ValueError("there are no distractors; MegaFace asks for a mate among strangers")
    if counts is None:
        counts = [10**k for k in range(1, len(str(M))) if 10**k < M] + [M]
    if not len(counts) or any(not 1 <= count <= M for count in counts):
        raise ValueError(f"counts must be 1 to {M}, the number of distractors, not {list(counts)}")
    cuts = np.unique([0, *counts, M])  # no tile crosses one
    x, y = units(probes, np.arange(N), "probe"), units(distractors, np.arange(M), "distractor")
    best = np.full((len(cuts) - 1, N), -np.inf, np.float32)  # of the strangers between two cuts

    def tile(k: int, i: slice, j: slice) -> np.ndarray:
        """A product read twice over: for the best of each probe, and for the verification."""
        score = x[i] @ y[j].T  # by NumPy: torch may have been told to round to bfloat16
        np.maximum(best[k, i], score.max(1), out=best[k, i])
        return score.ravel()

    order = np.argsort(labels, kind="stable")
    people = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    people = [rows for rows in people if len(rows) > 1]
    if not people:
        raise ValueError("nobody has two pictures among the probes, so nobody has a mate")
    mates = [x[rows] @ x[rows].T for rows in progress(people, "mates")]
    genuine = np.sort(np.concatenate([score[np.tri(len(score), k=-1, dtype=bool)]
                                      for score in mates]))
    tiles = [partial(tile, k, i, slice(begin + j.start, begin + j.stop))
             for k, (begin, end) in enumerate(zip(cuts, cuts[1:], strict=False))
             for i in parts(N, block) for j in parts(end - begin, block)]
    points, _ = operating_points(genuine, tiles, N * M, fprs, rule)
    among = dict(zip(cuts[1:].tolist(), np.maximum.accumulate(best), strict=True))
    return MegaFace({count: _rank1(people, mates, among[count]) for count in map(int, counts)},
                    len(genuine), N * M, points)


def refine(probes: np.ndarray, labels: np.ndarray, noisy_probe: np.ndarray,
           distractors: np.ndarray, noisy_distractor: np.ndarray, seed: int = 0
           ) -> tuple[np.ndarray, np.ndarray]:
    """The "R" refinement: probes (N, D + 1) and distractors (M, D + 1), for `megaface`.

    probes: (N, D), labels: (N,), distractors: (M, D); the embeddings are scaled to length 1 first,
    as the refinement's own files are.   noisy_probe: (N,) bool; noisy_distractor: (M,) bool.
    seed: of the noise.
    ValueError for a noisy probe whose person has no clean one.
    """
    probes, labels, distractors = unit_rows(probes), np.asarray(labels), unit_rows(distractors)
    noisy = []
    for name, some, mask in (("probes", probes, noisy_probe),
                             ("distractors", distractors, noisy_distractor)):
        mask = np.asarray(mask)
        if mask.shape != some.shape[:1] or mask.dtype != bool:
            raise ValueError(f"{len(some)} {name} need a mask ({len(some)},) bool of those that "
                             f"are noisy, not {mask.shape} {mask.dtype}")
        noisy.append(mask)
    random = np.random.default_rng(seed)
    cleaned = np.pad(probes, ((0, 0), (0, 1)))
    far = np.where(noisy[1], AWAY, 0).astype(distractors.dtype)
    for row in np.flatnonzero(noisy[0]):
        clean = (labels == labels[row]) & ~noisy[0]
        if not clean.any():
            raise ValueError(f"probe {row} is noisy, and so are all others of person {labels[row]}")
        centre = probes[clean].sum(0) + random.uniform(-NOISE, NOISE, probes.shape[1])
        cleaned[row, :-1] = centre / np.linalg.norm(centre)
    return cleaned, np.column_stack([distractors, far])


def write_feature(path: str | Path, embedding: np.ndarray) -> None:
    """One embedding (D,) as the devkit's file: four int32 (D, 1, 4, 5), then D float32."""
    values = np.asarray(embedding, "<f4")
    if values.ndim != 1 or not 1 <= len(values) <= LONGEST:
        raise ValueError(f"{path}: a feature file takes 1 to {LONGEST} numbers (D,), not "
                         f"{values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: number {np.argmin(np.isfinite(values))} is not finite")
    Path(path).write_bytes(HEADER.pack(len(values), 1, 4, 5) + values.tobytes())


def read_feature(path: str | Path) -> np.ndarray:
    """The embedding (D,) float32 of such a file.

    FileNotFoundError, or ValueError of one line that names it: another header, a length that is not
    the file's, NaN. Nothing is read before the length is known to be right.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    with open(path, "rb") as file:
        size, header = os.fstat(file.fileno()).st_size, file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise ValueError(f"{path} has {size} bytes; a feature file has a header of 16")
        length, *form = HEADER.unpack(header)
        if form != [1, 4, 5] or not 1 <= length <= LONGEST:
            raise ValueError(f"{path} begins with {length}, {form[0]}, {form[1]}, {form[2]}; a "
                             f"feature file begins with 1 to {LONGEST}, then 1, 4, 5")
        if size != HEADER.size + 4 * length:
            raise ValueError(f"{path} has {size} bytes; {length} numbers make "
                             f"{HEADER.size + 4 * length}: it is cut short or damaged")
        values = np.frombuffer(file.read(4 * length), "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: number {np.argmin(np.isfinite(values))} is not finite")
    return values


def _rank1(people: list[np.ndarray], mates: list[np.ndarray], best: np.ndarray) -> Rank1:
    """people: rows of each; mates: their scores (n, n); best: (N,) of each probe's strangers."""
    hits = pairs = 0
    for rows, score in zip(people, mates, strict=True):
        found = score >= best[rows, None]  # row: the probe
        hits += int(found.sum() - np.diag(found).sum())
        pairs += len(rows) * (len(rows) - 1)
    return Rank1(hits / pairs, *clopper_pearson(hits, pairs), hits, pairs)
