"""Exercises about pairs: their similarity, and which of them show one person."""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def cosine_similarity(fn: Callable) -> Callable:
    """(N, D) and (M, D) arrays -> (N, M): the cosine of every row of `a` with every row of `b`."""
    return judge("cosine_similarity", fn, _cosine_similarity, _cosine_cases(), _COSINE_MISTAKES)


def split_pairs(fn: Callable) -> Callable:
    """(N, N) similarities, (N,) labels -> (genuine, impostor) scores, in any order.

    Every unordered pair of two different pictures counts once.
    """
    return judge("split_pairs", fn, _split_pairs, _split_cases(), _SPLIT_MISTAKES,
                 ("how many genuine, how many impostor, then both lists, each sorted", _in_order))


def _normalise(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _normalise(a) @ _normalise(b).T


def _cosine_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    return [
        ("right angle, same and opposite direction",
         (np.array([[1.0, 0.0]]), np.array([[0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]))),
        ("3 rows against 5 rows", (a, b)),
        ("long and short vectors", (100 * a, 0.01 * b[:3])),
    ]


_COSINE_MISTAKES: list[Mistake] = [
    (lambda a, b: a @ b.T,
     "you have the dot products; divide every row by its length first"),
    (lambda a, b: _normalise(a) @ b.T, "`a` is normalised, `b` is not"),
    (lambda a, b: a @ _normalise(b).T, "`b` is normalised, `a` is not"),
    (lambda a, b: (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)).T,
     "one length for the whole array; each row has its own: norm(..., axis=1, keepdims=True)"),
    (lambda a, b: (a / np.linalg.norm(a, axis=0)) @ (b / np.linalg.norm(b, axis=0)).T,
     "the lengths are taken down the columns (axis=0); a face is a row (axis=1)"),
    (lambda a, b: _cosine_similarity(b, a),
     "rows and columns are exchanged: entry [i, j] compares a[i] with b[j]"),
    (lambda a, b: 1 - _cosine_similarity(a, b),
     "that is the cosine distance, 1 - similarity; a higher similarity means closer"),
    (lambda a, b: np.linalg.norm(_normalise(a)[:, None] - _normalise(b)[None], axis=2),
     "that is the distance of the normalised rows; the similarity is their dot product"),
    (lambda a, b: (_normalise(a) * _normalise(b)).sum(1),
     "row k is compared with row k only; every row of `a` meets every row of `b`: use @ and .T"),
]


def _split_pairs(similarity: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.triu_indices(len(labels), 1)
    same = labels[i] == labels[j]
    return similarity[i, j][same], similarity[i, j][~same]


def _in_order(value, *_) -> np.ndarray:
    genuine, impostor = (np.sort(np.ravel(part)) for part in value)
    return np.concatenate([[len(genuine), len(impostor)], genuine, impostor])


def _split_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    x = _normalise(rng.normal(size=(7, 3)))
    return [
        ("4 pictures of 2 people",
         (np.array([[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.3, 0.0],
                    [0.2, 0.3, 1.0, 0.8], [0.1, 0.0, 0.8, 1.0]]), np.array([0, 0, 1, 1]))),
        ("7 pictures of 3 people, not in order", (x @ x.T, np.array([5, 1, 5, 9, 1, 5, 9]))),
    ]


def _masks(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, N): the same person; not the picture itself."""
    return labels[:, None] == labels, ~np.eye(len(labels), dtype=bool)


def _each_pair_twice(s, labels):
    same, other_picture = _masks(labels)
    return s[same & other_picture], s[~same]


def _with_the_diagonal(s, labels):
    i, j = np.triu_indices(len(labels))
    same = labels[i] == labels[j]
    return s[i, j][same], s[i, j][~same]


def _twice_with_the_diagonal(s, labels):
    same, _ = _masks(labels)
    return s[same], s[~same]


def _neighbours(s, labels):
    same, scores = labels[1:] == labels[:-1], np.diag(s, 1)
    return scores[same], scores[~same]


def _strangers_twice(s, labels):
    return _split_pairs(s, labels)[0], s[~_masks(labels)[0]]


_SPLIT_MISTAKES: list[Mistake] = [
    (lambda s, labels: _split_pairs(s, labels)[::-1],
     "genuine and impostor are exchanged: the same label on both sides is genuine, and comes "
     "first"),
    (_each_pair_twice,
     "every pair is there twice, as (i, j) and as (j, i); take j > i only: np.triu_indices(N, 1)"),
    (_with_the_diagonal,
     "the diagonal is in it: a picture compared with itself is no test of anything"),
    (_twice_with_the_diagonal,
     "the whole matrix is in it: the diagonal compares a picture with itself, and every pair is "
     "there twice; take j > i only"),
    (_strangers_twice, "the impostor pairs are there twice; both kinds count each pair once"),
    (_neighbours, "each picture is compared with the next one only; all pairs i < j are wanted"),
]
