"""IJB-B and IJB-C, 1:1: templates of many pictures, compared where a list of pairs says so.

A template is the sum over its media of the mean over each medium's pictures, scaled to length 1; a
medium is a photograph or a video. Before that come three switches. Papers set them differently, and
numbers of different settings are not comparable:

             N norm kept   D detector score   F mirrored
insightface       1               1                1       its evaluation script's default
EKD               0               0                0       its "plain average": TFace's default

norm=False scales each picture's embedding to length 1, `detector` then weighs it, and `mirrored` is
added before either. A flat average, where every picture is its own medium, is media=None; EKD's is
not that. Rates: rule "nearest" is the scripts' (but their scikit-learn call drops points of the
curve, which changes the nearest; here all are kept); "below" never exceeds the FPR asked for.

The lists are the files ..._face_tid_mid.txt, ..._template_pair_label.txt and
..._name_5pts_score.txt of the sets' meta folder, fields parted by blanks; nothing in them is
trusted.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.cloud import parts
from kdlab.evaluate.pairs import FPRS, unit_rows
from kdlab.evaluate.verification import OperatingPoint, tpr_at_fpr
from kdlab.progress import progress

# The switches N and D of the two above, for `verify_templates`; F is to give `mirrored`, or not.
SETTINGS = {"insightface": {"norm": True, "detector": True},
            "ekd": {"norm": False, "detector": False}}
PUBLISHED = {"IJB-B": (12_115, 10_270), "IJB-C": (23_124, 19_557)}  # templates, genuine pairs
HIGHEST = 2**31 - 1  # number of a template or medium; ours: they are kept as int32
LARGEST = float(np.finfo(np.float32).max)  # landmarks and scores are kept as float32
LONGEST = 4096  # bytes of a line, ours: a name of 255 letters and eleven numbers take 500
CHUNK = 1 << 20  # bytes read at once, ours
ROWS = 1 << 13  # pictures pooled at once, ours: 32 MB of float64 at D = 512
PAIRS = 1 << 14  # pairs scored at once, ours: 64 MB of float32 at D = 512


class TemplateLists(NamedTuple):
    """The lists of a set: N pictures in the order of their embeddings, and P pairs of templates.

    template, media: (N,) int32 numbers.   first, second: (P,) int32 templates; is_same: (P,) bool.
    From the third file, None without it: names, N; landmarks, (N, 5, 2) float32, pixels of the
    picture; detector, (N,) float32.
    """

    template: np.ndarray
    media: np.ndarray
    first: np.ndarray
    second: np.ndarray
    is_same: np.ndarray
    names: list[str] | None = None
    landmarks: np.ndarray | None = None
    detector: np.ndarray | None = None


class TemplateResult(NamedTuple):
    """genuine, impostor: numbers of pairs; they belong beside every rate.   points: FPR asked for
    -> OperatingPoint.   scores: (P,) cosines, in the order of the list."""

    genuine: int
    impostor: int
    points: dict[float, OperatingPoint]
    scores: np.ndarray


def read_template_lists(media: str | Path, pairs: str | Path, scores: str | Path | None = None,
                        published: str | None = None) -> TemplateLists:
    """The set's lists: ..._face_tid_mid.txt, ..._template_pair_label.txt, ..._name_5pts_score.txt.

    published: "IJB-B" or "IJB-C" compares the numbers of templates and genuine pairs with theirs.
    FileNotFoundError, or ValueError of one line that names file and line: fields missing or too
    many, not a number, below 0 or too high, a label other than 0 and 1, NaN, a line too long, an
    empty file, lists that do not fit each other.
    """
    if published not in (None, *PUBLISHED):
        raise ValueError(f"published must be one of {', '.join(PUBLISHED)}, not {published!r}")
    template, medium = np.concatenate(
        [some for _, some in _table(media, slice(1, 3), "a name, a template and a medium")]).T
    first, second, label = np.concatenate(
        [some for _, some in _table(pairs, slice(3), "two templates and 0 or 1")]).T
    known = np.unique(template)
    for column, wrong, why in ((label, label > 1, "the label is 0 or 1, not"),
                               (first, ~np.isin(first, known), f"{media} has no template"),
                               (second, ~np.isin(second, known), f"{media} has no template")):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{pairs} line {row + 1}: {why} {column[row]}")
    counts = len(known), int(label.sum())
    if published and counts != PUBLISHED[published]:
        raise ValueError("{} and {} have {} templates and {} genuine pairs, {} has {} and {}"
                         .format(media, pairs, *counts, published, *PUBLISHED[published]))
    lists = TemplateLists(template, medium, first, second, label == 1)
    if scores is None:
        return lists
    names, numbers = [], []
    for rows, found in _table(scores, slice(1, 12), "a name, ten landmark numbers and a score"):
        names += [os.fsdecode(row[0]) for row in rows]
        numbers.append(found)
    numbers = np.concatenate(numbers)
    if len(numbers) != len(template):
        raise ValueError(f"{scores} names {len(numbers)} pictures, {media} {len(template)}; they "
                         "are not of one set")
    return lists._replace(names=names, landmarks=numbers[:, :10].reshape(-1, 5, 2),
                          detector=numbers[:, 10])


def pool(embeddings: np.ndarray, template: np.ndarray, media: np.ndarray | None, *, norm: bool,
         detector: np.ndarray | None = None, mirrored: np.ndarray | None = None
         ) -> tuple[np.ndarray, np.ndarray]:
    """Templates (T, D) of length 1 and their numbers (T,), ascending.

    embeddings: (N, D) of the pictures, raw; template, media, detector: (N,); mirrored: (N, D), of
    the mirrored pictures (None where the embeddings hold them already, as those of `embed` do).
    Sums are float64, the result has the embeddings' precision. ValueError for NaN, with the row,
    and for shapes that do not fit.
    """
    x, template = np.asarray(embeddings), np.asarray(template)
    N = len(template)
    media = np.arange(N) if media is None else np.asarray(media)
    if x.ndim != 2 or template.ndim != 1 or len(x) != N or not N:
        raise ValueError(f"templates need embeddings (N, D) and as many template numbers (N,), "
                         f"not {x.shape} and {template.shape}")
    for name, some, shape in (("media", media, (N,)), ("detector", detector, (N,)),
                              ("mirrored", mirrored, x.shape)):
        if some is not None and np.shape(some) != shape:
            raise ValueError(f"{N} pictures need {name} of shape {shape}, not {np.shape(some)}")
    order = np.lexsort((media, template))
    numbers, first = np.unique(template[order], return_index=True)
    ends = np.append(first[1:], N)
    found = np.empty((len(numbers), x.shape[1]), np.result_type(x.dtype, np.float32))
    start = 0
    while start < len(numbers):  # whole templates, ROWS pictures or one template
        stop = max(int(np.searchsorted(ends, first[start] + ROWS, "right")), start + 1)
        rows = order[first[start]:ends[stop - 1]]
        some = x[rows].astype(np.float64)
        if mirrored is not None:
            some += np.asarray(mirrored)[rows]
        weight = np.ones(len(rows)) if detector is None else np.asarray(detector)[rows]
        bad = ~np.isfinite(some).all(1) | ~np.isfinite(weight)
        if bad.any():
            raise ValueError(f"picture {rows[np.argmax(bad)]} has an embedding or a detector score "
                             "that is not finite (NaN or inf)")
        some = (some if norm else unit_rows(some)) * weight[:, None]
        found[start:stop] = _pooled(some, template[rows], media[rows])
        start = stop
    return found, numbers


def verify_templates(embeddings: np.ndarray, lists: TemplateLists, *, norm: bool, detector: bool,
                     mirrored: np.ndarray | None = None, media: bool = True,
                     fprs: Sequence[float] = FPRS, rule: str = "nearest") -> TemplateResult:
    """The 1:1 protocol: `pool`, the cosine of every pair listed, TPR at each of fprs.

    embeddings: (N, D), raw, in the order of the lists.   norm, detector, mirrored: the switches N,
    D, F of the module's docstring; SETTINGS names the first two.   media: False for the flat
    average.   rule: see `tpr_at_fpr`.   ValueError in words, as `pool` and `tpr_at_fpr` raise it.
    """
    if detector and lists.detector is None:
        raise ValueError("these lists have no detector scores; read ..._name_5pts_score.txt too, "
                         "or choose detector=False")
    pooled, numbers = pool(embeddings, lists.template, lists.media if media else None, norm=norm,
                           detector=lists.detector if detector else None, mirrored=mirrored)
    scores = np.empty(len(lists.is_same), pooled.dtype)
    for part in progress(list(parts(len(scores), PAIRS)), "pairs of templates"):
        a, b = (np.searchsorted(numbers, side[part]) for side in (lists.first, lists.second))
        scores[part] = np.einsum("pd,pd->p", pooled[a], pooled[b])
    genuine, impostor = scores[lists.is_same], scores[~lists.is_same]
    points = {fpr: tpr_at_fpr(genuine, impostor, fpr, rule) for fpr in fprs}
    return TemplateResult(len(genuine), len(impostor), points, scores)


def _pooled(x: np.ndarray, template: np.ndarray, media: np.ndarray) -> np.ndarray:
    """(t, D) templates of rows that are sorted by template, then medium."""
    other = np.diff(template, prepend=template[0] - 1) != 0
    run = np.flatnonzero(other | (np.diff(media, prepend=media[0]) != 0))  # each medium's first
    means = np.add.reduceat(x, run) / np.diff(run, append=len(x))[:, None]
    return unit_rows(np.add.reduceat(means, np.flatnonzero(other[run])))


def _table(path: str | Path, take: slice, form: str
           ) -> Iterator[tuple[list[list[bytes]], np.ndarray]]:
    """The fields, and as numbers those of columns `take`, for some thousand lines at a time.

    The last column taken is a line's last. (n, 2 or 3) int32, or (n, 11) float32.
    """
    kind, dtype = (int, np.int32) if take.stop == 3 else (float, np.float32)
    for number, lines in _lines(path):
        rows = [line.split() for line in lines]
        if set(map(len, rows)) != {take.stop}:
            k = next(k for k, row in enumerate(rows) if len(row) != take.stop)
            raise ValueError(f"{path} line {number + k}: a line is {form}, {take.stop} fields, not "
                             f"{len(rows[k])}")
        fields = chain.from_iterable(row[take] for row in rows)
        try:
            found = np.fromiter(map(kind, fields), np.float64 if kind is float else np.int64)
            fine = ((abs(found) <= LARGEST) if kind is float else
                    (found >= 0) & (found <= HIGHEST)).all()
        except (ValueError, OverflowError):
            fine = False
        if not fine:
            k, field = next((k, field) for k, row in enumerate(rows) for field in row[take]
                            if not _is_number(field, kind))
            limits = f"a whole number from 0 to {HIGHEST}" if kind is int else "a finite number"
            raise ValueError(f"{path} line {number + k}: {os.fsdecode(field)[:40]!r} is not "
                             f"{limits}")
        yield rows, found.reshape(len(rows), -1).astype(dtype)


def _is_number(field: bytes, kind: type) -> bool:
    try:
        value = kind(field)
    except ValueError:
        return False
    return abs(value) <= LARGEST if kind is float else 0 <= value <= HIGHEST


def _lines(path: str | Path) -> Iterator[tuple[int, list[bytes]]]:
    """Some lines at a time and the number of their first; ValueError for one that is too long."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; it is in the meta folder of the set")
    number, rest = 1, b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for k, line in enumerate((*lines, rest)):
                if len(line) > LONGEST:
                    raise ValueError(f"{path} line {number + k} is longer than {LONGEST} bytes; "
                                     "this is no list of a template set")
            if lines:
                yield number, lines
            number += len(lines)
    if rest:
        yield number, [rest]
    elif number == 1:
        raise ValueError(f"{path} is empty")
