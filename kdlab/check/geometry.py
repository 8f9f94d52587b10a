"""Exercises about the shape of an embedding: neighbours kept, the best rotation, uniformity.

Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966;
Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere", ICML 2020.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def kept_neighbours(fn: Callable) -> Callable:
    """Points x (N, D), their picture y (N, 2), k -> (N,) shares (medium, 10 minutes).

    Of each point's k nearest other points in x, the share that is among its k nearest in y.
    """
    return judge("kept_neighbours", fn, _kept_neighbours, _kept_cases(), _KEPT_MISTAKES)


def best_rotation(fn: Callable) -> Callable:
    """Centred a, b (N, D) -> the orthogonal R (D, D) with b @ R nearest to a (medium, 15 minutes).

    With U S V^T the singular value decomposition of b^T a, it is U V^T. Mirrors are allowed.
    """
    return judge("best_rotation", fn, _best_rotation, _rotation_cases(), _ROTATION_MISTAKES)


def even_spread(fn: Callable) -> Callable:
    """Unit rows x (N, D), t -> log of the mean over pairs of exp(-t |a - b|^2) (easy, 5 minutes).

    Pairs are of two different rows; it makes no difference whether a pair counts once or twice.
    """
    return judge("even_spread", fn, _even_spread, _spread_cases(), _SPREAD_MISTAKES)


def _distances(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x, axis=2)


def _lists(x: np.ndarray, k: int) -> list[set]:
    distance = _distances(x)
    np.fill_diagonal(distance, np.inf)
    return [set(row[:k].tolist()) for row in np.argsort(distance, 1, kind="stable")]


def _kept_neighbours(x: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    return np.array([len(a & b) / k for a, b in zip(_lists(x, k), _lists(y, k), strict=True)])


def _kept_cases() -> list[Case]:
    rng = np.random.default_rng(85)
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    return [
        ("four points on a line, two of them exchanged in the picture, k = 1",
         (line, line[[1, 0, 3, 2]] * [1.0, 0.3], 1)),
        ("the picture is the same but for its size: all kept", (line, 5 * line, 2)),
        ("30 points of 8 dimensions, their first two coordinates, k = 5",
         (x := rng.normal(size=(30, 8)), x[:, :2], 5)),
    ]


def _with_self(x, y, k, more=0):
    lists = [[set(row[:k + more].tolist()) for row in np.argsort(_distances(p), 1, kind="stable")]
             for p in (x, y)]
    return np.array([len(a & b) / k for a, b in zip(*lists, strict=True)])


def _ranked(x: np.ndarray, k: int) -> np.ndarray:
    distance = _distances(x)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, 1, kind="stable")[:, :k]


def _far(x: np.ndarray, k: int) -> list[set]:
    return [set(row[:k].tolist()) for row in np.argsort(-_distances(x), 1, kind="stable")]


_KEPT_MISTAKES: list[Mistake] = [
    (_with_self, "each point is its own nearest neighbour, at distance 0; leave it out of both "
                 "lists"),
    (lambda x, y, k: _with_self(x, y, k, 1),
     "the point itself counts as a neighbour that was kept; leave it out of both lists"),
    (lambda x, y, k: _kept_neighbours(x, y, k) * k, "that is a number of neighbours; divide by k"),
    (lambda x, y, k: _kept_neighbours(x, y, k) * k / len(x),
     "divided by the number of points; each list has k entries"),
    (lambda x, y, k: np.array([len(a & b) / len(a | b) for a, b in
                               zip(_lists(x, k), _lists(y, k), strict=True)]),
     "divided by the union (that is Jaccard's index); divide by k"),
    (lambda x, y, k: (_ranked(x, k) == _ranked(y, k)).mean(1),
     "that asks for the same neighbour at the same place in the list; any place counts"),
    (lambda x, y, k: np.array([len(a & b) / k for a, b in
                               zip(_far(x, k), _far(y, k), strict=True)]),
     "sorted the wrong way: those are the k farthest"),
    (lambda x, y, k: _kept_neighbours(x, y, k).mean(),
     "that is the mean of all points; return one share a point, shape (N,)"),
    (lambda x, y, k: 1 - _kept_neighbours(x, y, k), "that is the share that was lost"),
]


def _best_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(b.T @ a)
    return u @ vt


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _rotation_cases() -> list[Case]:
    rng = np.random.default_rng(86)
    b = rng.normal(size=(20, 2)) * [2.0, 1.0]
    c, d = rng.normal(size=(2, 40, 5)) * [3.0, 2.0, 1.5, 1.0, 0.5]
    centred = [part - part.mean(0) for part in (b, c, d)]
    return [
        ("20 points and the same turned by 0.5", (centred[0] @ _turn(0.5), centred[0])),
        ("20 points and the same seen in a mirror", (centred[0] * [1.0, -1.0], centred[0])),
        ("40 points of 5 dimensions that only resemble one another",
         (centred[1] + centred[2], centred[1] @ np.linalg.qr(rng.normal(size=(5, 5)))[0])),
    ]


def _proper(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(b.T @ a)
    u[:, -1] *= np.linalg.det(u @ vt)
    return u @ vt


def _no_transpose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    u, _, vt = np.linalg.svd(b.T @ a)
    return u @ vt.T


_ROTATION_MISTAKES: list[Mistake] = [
    (lambda a, b: _best_rotation(a, b).T,
     "that turns a onto b: take the decomposition of b^T a, not of a^T b (or it is V U^T)"),
    (_no_transpose, "numpy's svd returns V^T already: u @ vt, without another .T"),
    (lambda a, b: np.linalg.lstsq(b, a, rcond=None)[0],
     "least squares over all matrices also stretches and shears; R has to be orthogonal"),
    (lambda a, b: b.T @ a, "the singular values are still in it; U V^T leaves them out"),
    (_proper, "mirrors are excluded; a picture's mirror image is the same picture, so allow them"),
    (lambda a, b: b @ _best_rotation(a, b), "those are the turned points; return R, (D, D)"),
]


def _even_spread(x: np.ndarray, t: float) -> float:
    return float(np.log(np.exp(-t * _squares(x)).mean()))


def _squares(x: np.ndarray) -> np.ndarray:
    return _distances(x)[np.triu_indices(len(x), 1)] ** 2


def _spread_cases() -> list[Case]:
    rng = np.random.default_rng(87)
    x = rng.normal(size=(30, 6)) + 0.5
    return [
        ("two points a quarter turn apart, t = 2: exactly -4",
         (np.array([[1.0, 0.0], [0.0, 1.0]]), 2.0)),
        ("four points, two of them equal, t = 2",
         (np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), 2.0)),
        ("30 points of 6 dimensions, t = 3", (x / np.linalg.norm(x, axis=1, keepdims=True), 3.0)),
    ]


_SPREAD_MISTAKES: list[Mistake] = [
    (lambda x, t: np.log(np.exp(-t * _distances(x) ** 2).mean()),
     "each point is paired with itself, at distance 0, which adds 1 to the sum N times; take two "
     "different rows"),
    (lambda x, t: np.log(np.exp(-t * np.sqrt(_squares(x))).mean()), "the distance is not squared"),
    (lambda x, t: (-t * _squares(x)).mean(),
     "the mean of the logarithms; here the logarithm of the mean is asked for"),
    (lambda x, t: np.exp(-t * _squares(x)).mean(), "the logarithm is missing"),
    (lambda x, t: np.log(np.exp(-t * _squares(x)).sum()), "a sum over pairs; take their mean"),
    (lambda x, t: np.log(np.exp(t * _squares(x)).mean()),
     "the sign: exp(-t d^2) is small for pairs that are far apart"),
    (lambda x, t: -_even_spread(x, t), "the sign: log of a mean below 1 is negative"),
    (lambda x, t: np.log10(np.exp(-t * _squares(x)).mean()),
     "the logarithm is the natural one: np.log"),
    (lambda x, t: np.log(np.exp(-t * (1 - _squares(x) / 2)).mean()),
     "cosines stand in the place of squared distances: |a - b|^2 = 2 - 2 cos"),
]
