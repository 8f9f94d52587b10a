"""Exercises about ReFO: the reverse term, and what a weight on the whole loss is worth.

Li et al., "Rethinking Feature-based Knowledge Distillation for Face Recognition", CVPR 2023,
supplement, equations 4 and 5.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def reverse_distillation(fn: Callable) -> Callable:
    """Teacher's and proxy's embeddings (B, D), beta1 -> eq. (4)'s second term (easy, 5 minutes).

    beta1 times the squared distance of the embeddings on the unit sphere: summed over the
    dimensions, averaged over the batch.
    """
    return judge("reverse_distillation", fn, _reverse_distillation, _reverse_cases(),
                 _REVERSE_MISTAKES)


def equal_run(fn: Callable) -> Callable:
    """beta2, factor, lr, weight_decay -> the (lr, weight_decay) that undo it (medium, 10 minutes).

    A run of SGD with the weight beta2 * factor takes, at the answer, the same steps as the run with
    beta2 at lr and weight_decay. A step: w <- w - lr (gradient of the loss + weight_decay w).
    """
    return judge("equal_run", fn, _equal_run, _equal_cases(), _EQUAL_MISTAKES)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _reverse_distillation(teacher: np.ndarray, proxy: np.ndarray, beta1: float) -> float:
    return float(beta1 * ((_unit(teacher) - _unit(proxy)) ** 2).sum(1).mean())


def _reverse_cases() -> list[Case]:
    rng = np.random.default_rng(13)
    return [
        ("one right angle, beta1 0.5: 0.5 * 2", (np.array([[3.0, 0.0]]), np.array([[0.0, 5.0]]),
                                                 0.5)),
        ("equal directions, unequal lengths: 0", (np.array([[1.0, 2.0], [2.0, 1.0]]),
                                                  np.array([[3.0, 6.0], [1.0, 0.5]]), 0.5)),
        ("3 pairs of 4 dimensions, beta1 0.2", (rng.normal(size=(3, 4)),
                                                2 * rng.normal(size=(3, 4)), 0.2)),
    ]


def _distances(power: float, reduce: Callable) -> Callable:
    """Another reduction: reduce((B, D) |difference|^power of the unit rows)."""
    return lambda t, p, b: b * reduce(np.abs(_unit(t) - _unit(p)) ** power)


_REVERSE_MISTAKES: list[Mistake] = [
    (_distances(2, np.mean),
     "averaged over the dimensions too (what a default MSE does): the term becomes D times smaller "
     "and, beside an ArcFace loss of 5 to 40, nothing"),
    (_distances(2, np.sum), "summed over the batch; it is the mean over the rows"),
    (lambda t, p, b: b * ((t - p) ** 2).sum(1).mean(),
     "the embeddings are not divided by their lengths: the default beta1 of 0.5 is for unit "
     "vectors (0.001 for raw ones)"),
    (lambda t, p, b: b * ((t - p) ** 2).mean(),
     "not divided by their lengths, and averaged over the dimensions"),
    (lambda t, p, b: b * ((_unit(t) - p) ** 2).sum(1).mean(),
     "the proxy's embeddings are not divided by their lengths"),
    (lambda t, p, b: b * ((t - _unit(p)) ** 2).sum(1).mean(),
     "the teacher's embeddings are not divided by their lengths"),
    (_distances(2, lambda d: np.sqrt(d.sum(1)).mean()),
     "the root is taken: that is the distance; the loss has its square"),
    (_distances(1, lambda d: d.sum(1).mean()),
     "absolute values are summed; the loss has squares"),
    (lambda t, p, b: b * (1 - (_unit(t) * _unit(p)).sum(1)).mean(),
     "1 - cos is half of it: the squared distance of unit vectors is 2 - 2 cos"),
    (lambda t, p, b: b * (_unit(t) * _unit(p)).sum(1).mean(),
     "that is the similarity; the loss is 0 where the directions agree"),
    (lambda t, p, b: _reverse_distillation(t, p, 1.0), "beta1 is missing"),
    (lambda t, p, b: b * ((t / np.linalg.norm(t, axis=0) - p / np.linalg.norm(p, axis=0)) ** 2
                          ).sum(1).mean(),
     "the columns are divided by their lengths; every row is one embedding: axis=1"),
    (lambda t, p, b: b * ((t / np.linalg.norm(t) - p / np.linalg.norm(p)) ** 2).sum(1).mean(),
     "one length for the whole array; every row has its own: axis=1, keepdims=True"),
]


def _equal_run(beta2: float, factor: float, lr: float, weight_decay: float) -> tuple[float, float]:
    return lr / factor, weight_decay * factor


def _equal_cases() -> list[Case]:
    return [
        ("beta2 5, twice as much, lr 0.1, weight decay 5e-4", (5.0, 2.0, 0.1, 5e-4)),
        ("beta2 5, a fifth of it", (5.0, 0.2, 0.02, 1e-3)),
        ("factor 1: the run itself", (2.0, 1.0, 0.1, 5e-4)),
        ("no weight decay: it stays 0", (2.0, 4.0, 0.1, 0.0)),
    ]


_EQUAL_MISTAKES: list[Mistake] = [
    (lambda beta2, factor, lr, decay: (lr / factor, decay),
     "lr / factor makes the decay's part of the step, lr * weight_decay * w, smaller as well: the "
     "weight decay has to make up for that"),
    (lambda beta2, factor, lr, decay: (lr / factor, decay / factor),
     "the decay's part is lr * weight_decay * w: with lr / factor, the weight decay is multiplied "
     "by the factor to keep it"),
    (lambda beta2, factor, lr, decay: (lr * factor, decay / factor),
     "both the wrong way round: a larger loss has a larger gradient, so the rate gets smaller"),
    (lambda beta2, factor, lr, decay: (lr * factor, decay),
     "a larger loss has a larger gradient, so the rate gets smaller, not larger; and the weight "
     "decay changes too"),
    (lambda beta2, factor, lr, decay: (lr * factor, decay * factor),
     "a larger loss has a larger gradient, so the rate gets smaller, not larger"),
    (lambda beta2, factor, lr, decay: (lr, decay),
     "nothing changes, and the gradient's part of the step is `factor` times as large"),
    (lambda beta2, factor, lr, decay: (lr, decay * factor),
     "gradient and decay keep their ratio, but the whole step is `factor` times as large: divide "
     "the rate"),
    (lambda beta2, factor, lr, decay: (lr / (beta2 * factor), decay * beta2 * factor),
     "beta2 is in both runs; only the factor between them counts"),
    (lambda beta2, factor, lr, decay: (lr / factor**0.5, decay * factor**0.5),
     "the root belongs to rules about batch size; the gradient itself is `factor` times as large"),
    (lambda beta2, factor, lr, decay: (decay * factor, lr / factor),
     "the order is (lr, weight_decay)"),
]
