"""Exercises about the classic methods: KD's loss, RKD's distance term, DarkRank's list.

Hinton, Vinyals, Dean, arXiv 1503.02531; Park et al., CVPR 2019; Chen, Wang, Zhang, AAAI 2018, in
the forms of kdlab.losses.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def kd_loss(fn: Callable) -> Callable:
    """Student's and teacher's logits (B, C), T -> T² KL, summed over classes, mean over faces."""
    return judge("kd_loss", fn, _kd_loss, _kd_cases(), _KD_MISTAKES)


def rkd_distance(fn: Callable) -> Callable:
    """Student's (B, D_s) and teacher's (B, D_t) embeddings -> RKD's distance term, a number.

    Each matrix of distances divided by the mean of its entries off the diagonal; then smooth-l1 of
    their difference, 0.5 x² up to |x| = 1 and |x| - 0.5 beyond, mean over all B² entries.
    """
    return judge("rkd_distance", fn, _rkd_distance, _rkd_cases(), _RKD_MISTAKES)


def list_log_probability(fn: Callable) -> Callable:
    """Scores (K,) and an order (L,) of some of them -> Plackett-Luce log probability of that list.

    The first is drawn from the L listed with a softmax of their scores, the second from those left,
    and so on; who is not listed takes no part.
    """
    return judge("list_log_probability", fn, _list, _list_cases(), _LIST_MISTAKES)


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def _divergences(student: np.ndarray, teacher: np.ndarray, T: float) -> np.ndarray:
    log_q, log_p = _log_softmax(student / T), _log_softmax(teacher / T)
    return np.exp(log_p) * (log_p - log_q)  # (B, C)


def _kd_loss(student: np.ndarray, teacher: np.ndarray, T: float) -> float:
    return float(T**2 * _divergences(student, teacher, T).sum(1).mean())


def _kd_cases() -> list[Case]:
    rng = np.random.default_rng(20)
    return [
        ("equal logits: 0", (np.array([[2.0, 0.0, 1.0]]), np.array([[2.0, 0.0, 1.0]]), 4.0)),
        ("one face, two classes, T 2", (np.array([[0.0, 0.0]]), np.array([[2.0, 0.0]]), 2.0)),
        ("3 faces, 5 classes, T 4", (*rng.normal(0, 3, (2, 3, 5)), 4.0)),
    ]


_KD_MISTAKES: list[Mistake] = [
    (lambda s, t, T: _kd_loss(s, t, T) / T**2,
     "T² is missing: without it a larger T is a smaller weight"),
    (lambda s, t, T: _kd_loss(s, t, T) / T, "the factor is T², not T"),
    (lambda s, t, T: _kd_loss(s, t, T) / s.shape[1],
     "the classes are averaged; a divergence sums over them, and only the faces are averaged "
     '(torch\'s reduction="mean" does this, "batchmean" does not)'),
    (lambda s, t, T: _kd_loss(s, t, T) * len(s), "summed over the faces; take their mean"),
    (lambda s, t, T: _kd_loss(t, s, T),
     "student and teacher are exchanged: the teacher's probabilities are the weights"),
    (lambda s, t, T: T**2 * _kd_loss(s, t, 1.0),
     "the logits are not divided by T; both of them are, before the softmax"),
    (lambda s, t, T: T**2 * np.mean((np.exp(_log_softmax(t / T)) * (
        _log_softmax(t) - _log_softmax(s))).sum(1)),
     "only the weights are softened; divide both networks' logits by T inside the logarithms too"),
    (lambda s, t, T: -T**2 * np.mean((np.exp(_log_softmax(t / T)) * _log_softmax(s / T)).sum(1)),
     "that is the cross-entropy: its slope is the same, but equal logits must give 0; subtract "
     "the teacher's entropy"),
    (lambda s, t, T: -_kd_loss(s, t, T), "the sign: a divergence is 0 or more"),
]


def _distances(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=2)


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1, 0.5 * x**2, x - 0.5)


def _relative(x: np.ndarray) -> np.ndarray:
    d = _distances(x)
    return d / (d.sum() / (len(d) * (len(d) - 1)))


def _rkd_distance(student: np.ndarray, teacher: np.ndarray) -> float:
    return float(_smooth(_relative(student) - _relative(teacher)).mean())


def _rkd_cases() -> list[Case]:
    rng = np.random.default_rng(21)
    x = rng.normal(size=(4, 3))
    far = np.array([[0.0, 0], [0, 0.1], [0.1, 0], [9, 9]])
    return [
        ("a teacher three times as large: 0", (x, 3 * x)),
        ("4 faces, 3 and 5 dimensions", (x, rng.normal(size=(4, 5)))),
        ("one face far off: a difference above 1", (far, rng.normal(size=(4, 6)))),
    ]


_RKD_MISTAKES: list[Mistake] = [
    (lambda s, t: _smooth(_distances(s) - _distances(t)).mean(),
     "the distances are not divided by their mean, so the teacher's size matters"),
    (lambda s, t: _smooth((_distances(s) - _distances(t)) * (len(t) * (len(t) - 1))
                          / _distances(t).sum()).mean(),
     "each matrix has its own mean; both are divided by the teacher's here"),
    (lambda s, t: _smooth(_distances(s) / _distances(s).mean()
                          - _distances(t) / _distances(t).mean()).mean(),
     "the zeros of the diagonal are in the mean distance; leave them out there"),
    (lambda s, t: _rkd_distance(s, t) * len(s) / (len(s) - 1),
     "the mean of the loss leaves out the diagonal; the public form divides by all B² entries"),
    (lambda s, t: ((_relative(s) - _relative(t)) ** 2).mean(),
     "that is the squared difference; smooth-l1 is half of it near 0 and linear beyond 1"),
    (lambda s, t: (0.5 * (_relative(s) - _relative(t)) ** 2).mean(),
     "smooth-l1 turns linear, |x| - 0.5, where |x| is above 1"),
    (lambda s, t: np.abs(_relative(s) - _relative(t)).mean(),
     "that is the absolute difference; smooth-l1 is 0.5 x² near 0"),
    (lambda s, t: _smooth(_relative(s) - _relative(t)).sum(), "summed; take the mean over all B²"),
    (lambda s, t: _smooth(_distances(s) ** 2 / (_distances(s) ** 2).sum() * len(s) * (len(s) - 1)
                          - _distances(t) ** 2 / (_distances(t) ** 2).sum() * len(t)
                          * (len(t) - 1)).mean(),
     "those are squared distances; take the root before anything else"),
]


def _list(scores: np.ndarray, order: np.ndarray) -> float:
    s = scores[order]
    return float(sum(s[i] - np.log(np.exp(s[i:]).sum()) for i in range(len(s))))


def _list_cases() -> list[Case]:
    rng = np.random.default_rng(22)
    return [
        ("two equal scores: log 1/2", (np.zeros(2), np.array([0, 1]))),
        ("3 listed of 3", (np.array([-1.0, -3.0, -2.0]), np.array([0, 2, 1]))),
        ("4 listed of 7, not in the student's order", (-3 * rng.random(7), np.array([5, 0, 3, 6]))),
    ]


_LIST_MISTAKES: list[Mistake] = [
    (lambda s, o: sum(s[o] - np.log(np.exp(s[o]).sum())),
     "nobody leaves the list: whoever is placed no longer stands in the sums that follow"),
    (lambda s, o: sum(s[o[i]] - np.log(sum(np.exp(s[k]) for k in range(len(s)) if k not in o[:i]))
                      for i in range(len(o))),
     "faces outside the list stand in the sums; this form asks for the order of the L listed only"),
    (lambda s, o: -_list(s, o), "that is the loss; the log probability has the other sign"),
    (lambda s, o: np.exp(_list(s, o)), "that is the probability; take its logarithm"),
    (lambda s, o: _list(s, o) / len(o), "a mean over the places; a product of chances is a sum of "
     "logarithms"),
    (lambda s, o: _list(s, o[::-1]), "the list is read from its end; order[0] is placed first"),
    (lambda s, o: _list(np.sort(s[o])[::-1], np.arange(len(o))),
     "the scores were sorted: the order is the teacher's, whatever the student thinks"),
    (lambda s, o: _list(s[:len(o)], np.arange(len(o))),
     "order holds indices: pick scores[order], not the first L scores"),
    (lambda s, o: sum(s[o[i]] - np.log(np.exp(s[o[i + 1:]]).sum()) for i in range(len(o) - 1)),
     "the one who is being placed belongs into the sum below the fraction, too"),
]
