"""Exercises about ShrinkTeaNet: the angular loss, what a distance is made of, pull, lift, weights.

Duong, Luu, Quach, Le, "ShrinkTeaNet: Million-scale Lightweight Face Recognition via Shrinking
Teacher-Student Networks", arXiv:1905.10620, equations 4 and 7, sections 3.1 and 3.3.
"""

from collections.abc import Callable, Sequence

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def angular_loss(fn: Callable) -> Callable:
    """Student's and teacher's embeddings (B, D) -> mean of 1 - cos, a number (easy, 5 minutes)."""
    return judge("angular_loss", fn, _angular_loss, _angular_cases(), _ANGULAR_MISTAKES)


def split_distance(fn: Callable) -> Callable:
    """Embeddings (B, D) twice -> (B, 2), a squared distance in two parts (medium, 10 minutes).

    Column 0: what the lengths cost, column 1: what the directions cost; together |t - s|².
    """
    return judge("split_distance", fn, _split_distance, _split_cases(), _SPLIT_MISTAKES)


def angle_pull(fn: Callable) -> Callable:
    """Angles (any shape, radians), squared -> slope of 1 - cos, or of its square (medium, 10 min).

    How fast the loss grows with the angle, which is how hard it pulls the angle back.
    """
    return judge("angle_pull", fn, _angle_pull, _pull_cases(), _PULL_MISTAKES)


def lift_map(fn: Callable) -> Callable:
    """A map (C, H, W), a matrix (T, C) -> the lifted map (T, H, W), no bias (medium, 10 min)."""
    return judge("lift_map", fn, _lift_map, _lift_cases(), _LIFT_MISTAKES)


def halved_weights(fn: Callable) -> Callable:
    """Number of stages n, lambda_n -> [lambda_1, ..., lambda_n], eq. (7) (easy, 5 minutes)."""
    return judge("halved_weights", fn, _halved_weights, _weight_cases(), _WEIGHT_MISTAKES)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _cosine(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    return (_unit(s) * _unit(t)).sum(1)


def _angular_loss(s: np.ndarray, t: np.ndarray) -> float:
    return float((1 - _cosine(s, t)).mean())


def _angular_cases() -> list[Case]:
    rng = np.random.default_rng(30)
    return [
        ("one right angle, lengths 3 and 5: 1", (np.array([[3.0, 0.0]]), np.array([[0.0, 5.0]]))),
        ("equal directions, unequal lengths: 0", (np.array([[1.0, 2.0], [2.0, 1.0]]),
                                                  np.array([[3.0, 6.0], [1.0, 0.5]]))),
        ("3 rows of 4 dimensions", (rng.normal(size=(3, 4)), 2 * rng.normal(size=(3, 4)))),
    ]


_ANGULAR_MISTAKES: list[Mistake] = [
    (lambda s, t: (1 - (s * t).sum(1)).mean(),
     "the dot product of rows as they are; divide each row by its own length first"),
    (lambda s, t: (1 - (_unit(s) * t).sum(1)).mean(), "the teacher's rows keep their lengths"),
    (lambda s, t: (1 - (s * _unit(t)).sum(1)).mean(), "the student's rows keep their lengths"),
    (lambda s, t: _cosine(s, t).mean(),
     "that is the similarity; the loss is 0 where directions agree"),
    (lambda s, t: ((1 - _cosine(s, t)) ** 2).mean(),
     "squared, as equation (4) prints it; here the linear form is asked for"),
    (lambda s, t: (1 - _cosine(s, t)).sum(), "summed over the batch; it is the mean over rows"),
    (lambda s, t: 1 - (s * t).sum() / np.linalg.norm(s) / np.linalg.norm(t),
     "one length for the whole array; each row has its own"),
    (lambda s, t: ((1 - _unit(s) * _unit(t)) ** 2).sum(1).mean(),
     "the product in equation (4) is read element by element; take the dot product, a number for "
     "each row, before 1 - ..."),
    (lambda s, t: ((_unit(s) - _unit(t)) ** 2).sum(1).mean(),
     "the squared distance of unit vectors is 2 - 2 cos: twice too much"),
    (lambda s, t: 1 - _cosine(s, t), "one number a row; take their mean"),
]


def _split_distance(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    a, b = np.linalg.norm(s, axis=1), np.linalg.norm(t, axis=1)
    return np.stack([(a - b) ** 2, 2 * a * b * (1 - _cosine(s, t))], 1)


def _split_cases() -> list[Case]:
    rng = np.random.default_rng(31)
    return [
        ("same direction, lengths 1 and 3: all of it is length",
         (np.array([[1.0, 0.0]]), np.array([[3.0, 0.0]]))),
        ("same length 2, a right angle: all of it is direction",
         (np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]]))),
        ("5 rows of 3 dimensions", (rng.normal(size=(5, 3)), 2 * rng.normal(size=(5, 3)))),
    ]


def _parts(change: Callable) -> Callable:
    """change(a, b, 1 - cos) -> the two columns."""
    return lambda s, t: np.stack(change(np.linalg.norm(s, axis=1), np.linalg.norm(t, axis=1),
                                        1 - _cosine(s, t)), 1)


_SPLIT_MISTAKES: list[Mistake] = [
    (_parts(lambda a, b, gap: [(a - b) ** 2, a * b * gap]),
     "|t - s|² = |t|² + |s|² - 2 |t||s| cos: the factor 2 of the direction's part is missing"),
    (_parts(lambda a, b, gap: [(a - b) ** 2, 2 * gap]),
     "2 (1 - cos) is the cost on the unit sphere; here both vectors have their own lengths"),
    (_parts(lambda a, b, gap: [(a - b) ** 2, gap]),
     "1 - cos alone has no unit of length; multiply by 2 |t||s|"),
    (_parts(lambda a, b, gap: [np.abs(a - b), 2 * a * b * gap]),
     "the difference of the lengths enters squared"),
    (_parts(lambda a, b, gap: [a**2 - b**2, 2 * a * b * gap]),
     "the difference is squared, not the lengths one by one"),
    (_parts(lambda a, b, gap: [2 * a * b * gap, (a - b) ** 2]),
     "the columns are exchanged: lengths first"),
    (_parts(lambda a, b, gap: [(a - b) ** 2, 2 * a * b * (1 - gap)]),
     "that is 2 |t||s| cos, which is large where the directions agree; the cost has 1 - cos"),
    (lambda s, t: _split_distance(s, t).T, "rows and columns are exchanged: (B, 2)"),
    (lambda s, t: _split_distance(s, t).mean(0), "a row for each pair; keep the batch"),
]


def _angle_pull(theta: np.ndarray, squared: bool) -> np.ndarray:
    return np.sin(theta) * (2 * (1 - np.cos(theta)) if squared else 1)


def _pull_cases() -> list[Case]:
    angles = np.radians([10.0, 60.0, 90.0, 150.0])
    return [
        ("1 - cos at 90 degrees: 1", (np.array([np.pi / 2]), False)),
        ("1 - cos at four angles", (angles, False)),
        ("its square at 60 degrees", (np.array([np.pi / 3]), True)),
        ("its square at four angles", (angles, True)),
    ]


_PULL_MISTAKES: list[Mistake] = [
    (lambda x, squared: np.sin(x), "squared is not looked at"),
    (lambda x, squared: _angle_pull(x, True), "it is squared always; look at the second argument"),
    (lambda x, squared: -_angle_pull(x, squared),
     "the sign: both losses grow with the angle, from 0 to 180 degrees"),
    (lambda x, squared: np.sin(x) * ((1 - np.cos(x)) if squared else 1),
     "the 2 of the chain rule is missing: d(u²) = 2 u du"),
    (lambda x, squared: 2 * (1 - np.cos(x)) if squared else np.sin(x),
     "the inner derivative is missing: d(u²) = 2 u du, and du is sin"),
    (lambda x, squared: (1 - np.cos(x)) ** (2 if squared else 1),
     "that is the loss itself, not its slope"),
    (lambda x, squared: np.sin(x) ** (2 if squared else 1),
     "the slope of a square is not the square of the slope"),
    (lambda x, squared: 1 - np.sin(x) if not squared else _angle_pull(x, True),
     "1 is a constant and has no slope"),
]


def _lift_map(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.einsum("tc,chw->thw", weight, features)


def _lift_cases() -> list[Case]:
    rng = np.random.default_rng(33)
    return [
        ("2 channels onto 1, one pixel: 3 * 5 + 4 * 7",
         (np.array([[[5.0]], [[7.0]]]), np.array([[3.0, 4.0]]))),
        ("3 channels onto 3, 2 x 2 pixels", (rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 3)))),
        ("2 channels onto 4, 3 x 5 pixels", (rng.normal(size=(2, 3, 5)), rng.normal(size=(4, 2)))),
    ]


_LIFT_MISTAKES: list[Mistake] = [
    (lambda f, w: np.einsum("ct,chw->thw", w.reshape(w.shape[::-1]), f),
     "the matrix is read by columns; row k of the weight makes channel k of the result"),
    (lambda f, w: w @ f,
     "@ multiplies by the last two axes, which are pixels; the sum runs over channels"),
    (lambda f, w: np.einsum("tc,chw->thw", w, f) / len(f),
     "divided by the number of channels; a convolution sums over them"),
    (lambda f, w: (w @ f.reshape(len(f), -1)),
     "the pixels are still in one row; give the result its height and width again"),
    (lambda f, w: (w @ f.reshape(-1, len(f)).T).reshape(len(w), *f.shape[1:]),
     "reshape(-1, C) cuts the map in the wrong order: it mixes channels and pixels"),
    (lambda f, w: np.einsum("tc,chw->tchw", w, f), "the sum over the channels is missing"),
    (lambda f, w: np.einsum("tc,chw->hwt", w, f), "the channels come first: (T, H, W)"),
    (lambda f, w: np.maximum(_lift_map(f, w), 0), "there is no activation behind the lift"),
]


def _halved_weights(stages: int, last: float) -> list[float]:
    return [last / 2 ** (stages - i) for i in range(1, stages + 1)]


def _weight_cases() -> list[Case]:
    return [("4 stages, lambda_4 = 1: 0.125, 0.25, 0.5, 1", (4, 1.0)),
            ("4 stages, lambda_4 = 0.001, the paper's for L2", (4, 0.001)),
            ("1 stage", (1, 2.0))]


def _scaled(make: Callable[[int], Sequence[float]]) -> Callable:
    return lambda n, last: [last * w for w in make(n)]


_WEIGHT_MISTAKES: list[Mistake] = [
    (lambda n, last: _halved_weights(n, last)[::-1],
     "the list is upside down: stage 1 comes first and has the smallest weight"),
    (_scaled(lambda n: [0.5 ** (n - i) for i in range(n)]),
     "lambda_n itself is not halved: one halving too many"),
    (_scaled(lambda n: [2.0**i for i in range(n)]),
     "doubled from the front: the last must come out as the lambda_n that is given"),
    (_scaled(lambda n: [(i + 1) / n for i in range(n)]),
     "equal steps; each weight is half of the next"),
    (_scaled(lambda n: [1.0] * n), "all alike; equation (7) halves towards the front"),
    (lambda n, last: _halved_weights(n, 1.0), "lambda_n is not looked at"),
]
