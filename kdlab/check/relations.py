"""Exercises about EKD's relations: critical pairs, the soft indicator's slope, and the loss.

Huang et al., "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR 2022.
In this paper a pair passes a threshold when its similarity is greater (>), not equal.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge

EXPONENT = 50  # where exp is cut off; a sigmoid of 50 is 1 to 2e-22


def critical(fn: Callable) -> Callable:
    """Student's and teacher's similarities (N,), their thresholds (K,) -> (N, K) bool, eq. (5).

    True where exactly one of the two models lets pair n pass its own threshold k.
    """
    return judge("critical", fn, _critical, _critical_cases(), _CRITICAL_MISTAKES)


def indicator_slope(fn: Callable) -> Callable:
    """Distances to a threshold (any shape), temperature tau -> dG/dx there, eq. (13)."""
    return judge("indicator_slope", fn, _indicator_slope, _slope_cases(), _SLOPE_MISTAKES)


def rank_loss(fn: Callable) -> Callable:
    """Student's and teacher's similarities (N,), their thresholds (K,), tau -> eq. (11), a number.

    The norm of a number is its absolute value, as the paper prints it; its released code squares.
    """
    return judge("rank_loss", fn, _rank_loss, _loss_cases(), _LOSS_MISTAKES)


def _critical(student: np.ndarray, teacher: np.ndarray, student_thresholds: np.ndarray,
              teacher_thresholds: np.ndarray) -> np.ndarray:
    return ((student[:, None] > student_thresholds) != (teacher[:, None] > teacher_thresholds))


def _critical_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    return [
        ("the pair of the paper's Figure 1: teacher 0.6, student 0.5, threshold 0.55",
         (np.array([0.5]), np.array([0.6]), np.array([0.55]), np.array([0.55]))),
        ("a similarity equal to its threshold does not pass",
         (np.array([0.5, 0.75, 0.25]), np.array([0.75, 0.5, 0.25]), np.array([0.5]),
          np.array([0.5]))),
        ("3 pairs, 3 thresholds, each model its own",
         (np.array([0.1, 0.4, 0.7]), np.array([0.3, 0.6, 0.9]), np.array([0.2, 0.35, 0.5]),
          np.array([0.25, 0.65, 0.8]))),
        ("50 pairs, 2 thresholds", (rng.normal(0.3, 0.3, 50), rng.normal(0.4, 0.3, 50),
                                    np.array([0.1, 0.4]), np.array([0.2, 0.5]))),
    ]


_CRITICAL_MISTAKES: list[Mistake] = [
    (lambda s, t, ts, tt: (s[:, None] >= ts) != (t[:, None] >= tt),
     "a similarity that equals its threshold does not pass: >, not >= (eq. (5))"),
    (lambda s, t, ts, tt: (s > ts) != (t > tt),
     "pair n meets threshold n only; every pair meets every threshold: similarity[:, None] > "
     "thresholds is (N, K)"),
    (lambda s, t, ts, tt: ~_critical(s, t, ts, tt),
     "those are the pairs the models agree on; critical are the others (!=)"),
    (lambda s, t, ts, tt: _critical(s, t, ts, ts),
     "the teacher is judged at the student's thresholds; it has its own"),
    (lambda s, t, ts, tt: _critical(s, t, tt, tt),
     "the student is judged at the teacher's thresholds; it has its own"),
    (lambda s, t, ts, tt: _critical(s, t, tt, ts), "the thresholds of the models are exchanged"),
    (lambda s, t, ts, tt: _critical(s, t, ts, tt).T,
     "rows and columns are exchanged: one row a pair, one column a threshold"),
    (lambda s, t, ts, tt: _critical(s, t, ts, tt).any(1),
     "that is one answer a pair; keep each threshold's own, (N, K), and take any(1) later"),
    (lambda s, t, ts, tt: (t[:, None] > tt) & ~(s[:, None] > ts),
     "only the pairs that the teacher alone accepts; those that the student alone accepts are "
     "critical as well"),
]


def _soft(x: np.ndarray, tau: float) -> np.ndarray:
    """Eq. (10)."""
    return 1 / (1 + np.exp(-np.clip(x / tau, -EXPONENT, EXPONENT)))


def _indicator_slope(x: np.ndarray, tau: float) -> np.ndarray:
    soft = _soft(x, tau)
    return soft * (1 - soft) / tau


def _slope_cases() -> list[Case]:
    return [
        ("at the threshold, tau 0.01: 1 / (4 tau)", (np.array([0.0]), 0.01)),
        ("near the threshold, tau 0.1", (np.array([[-0.2, -0.05], [0.05, 0.2]]), 0.1)),
        ("far away, tau 0.001: 0 on both sides", (np.array([-1.5, -0.8, 0.8, 1.5]), 0.001)),
    ]


_SLOPE_MISTAKES: list[Mistake] = [
    (lambda x, tau: tau * _indicator_slope(x, tau),
     "the factor 1 / tau of the chain rule is missing: G is a function of x / tau"),
    (lambda x, tau: tau**2 * _indicator_slope(x, tau),
     "the chain rule gives 1 / tau, not tau: the smaller tau, the steeper"),
    (lambda x, tau: _soft(x, tau), "that is G itself (eq. (10)), not its slope"),
    (lambda x, tau: _indicator_slope(x, 1.0) / tau, "inside G stands x / tau, not x"),
    (lambda x, tau: _indicator_slope(x, 1.0), "there is no tau in it; G is a function of x / tau"),
    (lambda x, tau: -_indicator_slope(x, tau),
     "the sign: G rises with x, so its slope is never negative"),
    (lambda x, tau: 0 * x,
     "0 everywhere is the slope of the hard step, which teaches nothing; take the soft one"),
    (lambda x, tau: np.exp(-x / tau) / (1 + np.exp(-x / tau)) ** 2 / tau,
     "exp(-x / tau) overflows far below the threshold and inf / inf is NaN; G (1 - G) / tau stays "
     "finite"),
]


def _rank_loss(student: np.ndarray, teacher: np.ndarray, student_thresholds: np.ndarray,
               teacher_thresholds: np.ndarray, tau: float) -> float:
    return float(np.mean(np.abs(_gaps(student, teacher, student_thresholds, teacher_thresholds,
                                      tau).sum(1))))


def _gaps(s: np.ndarray, t: np.ndarray, ts: np.ndarray, tt: np.ndarray, tau: float) -> np.ndarray:
    """Teacher's soft indicator less the student's, (N, K)."""
    return _soft(t[:, None] - tt, tau) - _soft(s[:, None] - ts, tau)


def _loss_cases() -> list[Case]:
    rng = np.random.default_rng(9)
    thresholds = np.array([0.1, 0.3, 0.5]), np.array([0.2, 0.3, 0.4])
    return [
        ("one pair, one threshold, tau 0.1",
         (np.array([0.55]), np.array([0.35]), np.array([0.4]), np.array([0.5]), 0.1)),
        ("2 pairs, 3 thresholds, tau 0.1",
         (np.array([0.45, 0.1]), np.array([0.3, 0.6]), *thresholds, 0.1)),
        ("200 pairs, 3 thresholds, tau 0.01",
         (rng.normal(0.3, 0.2, 200), rng.normal(0.3, 0.2, 200), *thresholds, 0.01)),
    ]


_LOSS_MISTAKES: list[Mistake] = [
    (lambda *args: np.mean(_gaps(*args).sum(1) ** 2),
     "the difference is squared: that is the released code; eq. (11) prints a norm, which for a "
     "number is the absolute value"),
    (lambda s, t, ts, tt, tau: np.mean(np.abs(
        (t[:, None] > tt).sum(1) - 1.0 * (s[:, None] > ts).sum(1))),
     "the step is hard (eq. (9)) and has no gradient; put the sigmoid G of eq. (10) in its place"),
    (lambda *args: np.mean(np.abs(_gaps(*args).mean(1))),
     "a mean over the thresholds; eq. (11) sums over k: it counts thresholds"),
    (lambda *args: np.sum(np.abs(_gaps(*args).sum(1))),
     "summed over the pairs; eq. (11) takes their mean"),
    (lambda *args: np.mean(np.abs(_gaps(*args)).sum(1)),
     "the absolute value is taken for each threshold; eq. (11) compares the two sums over k"),
    (lambda *args: np.mean(np.abs(_gaps(*args).sum(0))),
     "axis 0 are the pairs; sum over the thresholds, axis 1"),
    (lambda *args: np.abs(np.mean(_gaps(*args).sum(1))),
     "pairs too high and pairs too low cancel out; take the absolute value of each before the "
     "mean"),
    (lambda *args: np.mean(_gaps(*args).sum(1)), "the absolute value is missing"),
    (lambda *args: np.linalg.norm(_gaps(*args).sum(1)) / len(args[0]),
     "that is one norm over all pairs; the norm in eq. (11) is that of each pair's number"),
    (lambda s, t, ts, tt, tau: np.mean(np.abs((t[:, None] - tt) - (s[:, None] - ts)).sum(1)),
     "that is eq. (7), the distances themselves; eq. (11) puts G around each"),
    (lambda s, t, ts, tt, tau: _rank_loss(s, t, ts, ts, tau),
     "the teacher is judged at the student's thresholds; it has its own"),
    (lambda s, t, ts, tt, tau: _rank_loss(s, t, tt, tt, tau),
     "the student is judged at the teacher's thresholds; it has its own"),
    (lambda s, t, ts, tt, tau: _rank_loss(s, t, ts, tt, 1.0), "inside G stands x / tau, not x"),
]
