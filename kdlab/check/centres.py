"""Exercises about AdaDistill: one step of a centre, its momentum, its memory, a label twice.

Boutros, Struc, Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition",
ECCV 2024, equations 6 to 8; the lower clip of 1e-6 and the treatment of repeated labels are the
released code's.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge

FLOOR = 1e-6  # released code


def moved_centre(fn: Callable) -> Callable:
    """Old centre (D,), teacher's embedding (D,), alpha -> new centre (D,) (easy, 5 minutes).

    Eq. (6): alpha times the old centre plus 1 - alpha times the teacher's direction. The centre is
    taken as it is; the teacher's embedding is divided by its length first.
    """
    return judge("moved_centre", fn, _moved_centre, _moved_cases(), _MOVED_MISTAKES)


def centre_momentum(fn: Callable) -> Callable:
    """Student's, teacher's embedding and old centre, (D,) each -> alpha' (medium, 10 minutes).

    Eq. (8) as the released code has it: the cosine of centre and teacher is clipped to [1e-6, 1],
    multiplied by the cosine of student and teacher, and the product is clipped to [1e-6, 1].
    """
    return judge("centre_momentum", fn, _centre_momentum, _momentum_cases(), _MOMENTUM_MISTAKES)


def sample_weights(fn: Callable) -> Callable:
    """Momentum, visits n -> weights of the n faces in the centre (n,) (medium, 10 minutes).

    Oldest first. The first visit makes the centre equal to that face; each later one blends with
    the same momentum.
    """
    return judge("sample_weights", fn, _sample_weights, _weight_cases(), _WEIGHT_MISTAKES)


def batch_centres(fn: Callable) -> Callable:
    """Centres (C, D), teacher's unit rows (B, D), labels (B,), momenta (B,) -> (C, D) (hard, 15).

    Every row blends with the centre as it stood before the batch. With a label twice the last row
    stays.
    """
    return judge("batch_centres", fn, _batch_centres, _batch_cases(), _BATCH_MISTAKES)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(_unit(a) @ _unit(b))


def _moved_centre(centre: np.ndarray, teacher: np.ndarray, alpha: float) -> np.ndarray:
    return alpha * centre + (1 - alpha) * _unit(teacher)


def _moved_cases() -> list[Case]:
    rng = np.random.default_rng(5)
    return [
        ("a right angle, alpha 0.75: (0.75, 0.25)", (np.array([1.0, 0.0]), np.array([0.0, 4.0]),
                                                     0.75)),
        ("a short centre of length 0.2, alpha 0.6", (np.array([0.12, 0.16]), np.array([3.0, -4.0]),
                                                     0.6)),
        ("4 dimensions, alpha 0.3", (rng.normal(size=4) / 3, 3 * rng.normal(size=4), 0.3)),
    ]


_MOVED_MISTAKES: list[Mistake] = [
    (lambda w, t, a: (1 - a) * w + a * _unit(t),
     "the weights are exchanged: alpha is what is kept of the old centre"),
    (lambda w, t, a: a * w + (1 - a) * t,
     "the teacher's embedding is not divided by its length: a long one would move the centre more"),
    (lambda w, t, a: (1 - a) * w + a * t,
     "the weights are exchanged, and the teacher's embedding is not divided by its length"),
    (lambda w, t, a: _unit(_moved_centre(w, t, a)),
     "the new centre is not divided by its length: equation (6) ends with the sum, and so does the "
     "released code"),
    (lambda w, t, a: a * _unit(w) + (1 - a) * _unit(t),
     "the old centre is taken as it is, with the length that earlier blends left it"),
    (lambda w, t, a: _unit(a * _unit(w) + (1 - a) * _unit(t)),
     "old and new centre are divided by their lengths; equation (6) does neither"),
    (lambda w, t, a: a * w + _unit(t), "the teacher's part wants the weight 1 - alpha"),
    (lambda w, t, a: w + (1 - a) * _unit(t), "the old centre wants the weight alpha"),
]


def _centre_momentum(student: np.ndarray, teacher: np.ndarray, centre: np.ndarray) -> float:
    nearness = np.clip(_cosine(centre, teacher), FLOOR, 1)
    return float(np.clip(_cosine(student, teacher) * nearness, FLOOR, 1))


def _momentum_cases() -> list[Case]:
    v = np.array([2.0, 0.0])
    return [
        ("cosines 0.6 and 0.8: 0.48", (np.array([3.0, 4.0]), v, np.array([0.08, 0.06]))),
        ("the centre looks away: 1e-6", (np.array([1.0, 0.0]), v, np.array([-0.3, 0.4]))),
        ("the student looks away: 1e-6", (np.array([-3.0, 4.0]), v, np.array([0.5, 0.0]))),
        ("both look away: 1e-6", (np.array([-3.0, 4.0]), v, np.array([-0.8, 0.6]))),
    ]


def _alpha(s, t, w) -> float:
    return float(np.clip(_cosine(s, t), FLOOR, 1))


_MOMENTUM_MISTAKES: list[Mistake] = [
    (_alpha, "that is alpha, equation (7): the old centre has a say in alpha'"),
    (lambda s, t, w: float(np.clip(_cosine(w, t), FLOOR, 1)),
     "that is the centre's cosine alone; the student's belongs to it"),
    (lambda s, t, w: float(np.clip(_cosine(s, t) * _cosine(w, t), FLOOR, 1)),
     "two negative cosines make a positive product: the centre's cosine is clipped before it is "
     "multiplied"),
    (lambda s, t, w: float(np.clip(_cosine(s, t) * _cosine(w, t), 0, 1)),
     "only the product is clipped, to [0, 1]: that is the paper's form; with both cosines negative "
     "the released code differs, and it stops at 1e-6"),
    (lambda s, t, w: float(np.clip(_cosine(s, t) * np.clip(_cosine(w, t), 0, 1), 0, 1)),
     "the lower ends are 1e-6, not 0"),
    (lambda s, t, w: _cosine(s, t) * _cosine(w, t),
     "nothing is clipped: a negative momentum would push the centre away from the face"),
    (lambda s, t, w: float(np.clip(_cosine(s, t) * np.clip(_cosine(w, s), FLOOR, 1), FLOOR, 1)),
     "the centre is compared with the student; equation (8) compares it with the teacher's face"),
    (lambda s, t, w: float(np.clip((s @ t) * np.clip(w @ t, FLOOR, 1), FLOOR, 1)),
     "these are dot products: divide by the lengths"),
    (lambda s, t, w: 1 - _centre_momentum(s, t, w),
     "that is the teacher's share; momentum is what is kept of the old centre"),
]


def _sample_weights(momentum: float, visits: int) -> np.ndarray:
    weights = (1 - momentum) * momentum ** np.arange(visits - 1, -1, -1.0)
    weights[0] = momentum ** (visits - 1)
    return weights


def _weight_cases() -> list[Case]:
    return [
        ("momentum 0.5, three visits: 0.25, 0.25, 0.5", (0.5, 3)),
        ("one visit: all of it", (0.8, 1)),
        ("momentum 0.9, five visits", (0.9, 5)),
    ]


def _every(momentum: float, visits: int) -> np.ndarray:
    return (1 - momentum) * momentum ** np.arange(visits - 1, -1, -1.0)


_WEIGHT_MISTAKES: list[Mistake] = [
    (_every, "the weights do not add up to 1: the first face made the whole centre, so it keeps "
             "momentum ** (n - 1)"),
    (lambda a, n: _every(a, n) / _every(a, n).sum(),
     "they add up to 1, by dividing; the blend does not divide: what is missing belongs to the "
     "first face, which made the whole centre"),
    (lambda a, n: _sample_weights(a, n)[::-1],
     "the order is the other way round: the oldest face first"),
    (lambda a, n: _every(a, n)[::-1],
     "the oldest face comes first, and it made the whole centre: it keeps momentum ** (n - 1)"),
    (lambda a, n: _sample_weights(1 - a, n),
     "the weights are exchanged: momentum is what is kept of the old centre"),
    (lambda a, n: np.full(n, 1 / n), "that is the plain mean; the blend favours the last faces"),
    (lambda a, n: a ** np.arange(n - 1, -1, -1.0),
     "each later face comes in with the weight 1 - momentum"),
]


def _batch_centres(centres: np.ndarray, teacher: np.ndarray, labels: np.ndarray,
                   momenta: np.ndarray) -> np.ndarray:
    new = centres.copy()
    for v, y, a in zip(teacher, labels, momenta, strict=True):
        new[y] = a * centres[y] + (1 - a) * v
    return new


def _batch_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(5, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [
        ("two faces of two people", (np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]),
                                     np.array([1, 0]), np.array([0.5, 0.75]))),
        ("one person twice: the last row stays", (
            np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]),
            np.array([0, 0, 0]), np.array([0.5, 0.25, 0.75]))),
        ("five faces of three people, one not seen", (
            rng.normal(size=(4, 3)), rows, np.array([2, 0, 2, 1, 2]), rng.uniform(0.2, 0.9, 5))),
    ]


def _one_after_another(c, t, y, a) -> np.ndarray:
    new = c.copy()
    for v, label, momentum in zip(t, y, a, strict=True):
        new[label] = momentum * new[label] + (1 - momentum) * v
    return new


def _first(c, t, y, a) -> np.ndarray:
    return _batch_centres(c, t[::-1], y[::-1], a[::-1])


def _mean_of_rows(c, t, y, a) -> np.ndarray:
    new = c.copy()
    for label in np.unique(y):
        own = y == label
        new[label] = (a[own, None] * c[label] + (1 - a[own, None]) * t[own]).mean(0)
    return new


_BATCH_MISTAKES: list[Mistake] = [
    (_one_after_another,
     'the second face blends with what the first one left: that is repeated="sequential"; here '
     "every row starts from the centre before the batch"),
    (_first, "with a label twice the first row stays; it is the last"),
    (_mean_of_rows, "the rows of one label are averaged; the last one stays, the others are lost"),
    (lambda c, t, y, a: _batch_centres(c, t, y, 1 - a),
     "the weights are exchanged: momentum is what is kept of the old centre"),
    (lambda c, t, y, a: (a[:, None] * c[y] + (1 - a[:, None]) * t),
     "that is one row a face; wanted is the whole table, one row a person, also of people whom the "
     "batch did not show"),
    (lambda c, t, y, a: (lambda n: n / np.linalg.norm(n, axis=1, keepdims=True))(
        _batch_centres(c, t, y, a)),
     "the centres are not divided by their lengths: equation (6) ends with the sum"),
]
