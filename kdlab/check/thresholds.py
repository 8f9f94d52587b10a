"""Exercises about EKD's thresholds: one batch's, and their running mean.

Huang et al., "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR 2022.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def batch_threshold(fn: Callable) -> Callable:
    """Impostor similarities (M,), a target rate -> the similarity that floor(M * FPR) lie above.

    EKD's threshold of one batch (eq. (2) solved for t): element floor(M * FPR), counted from 0, of
    the descending sort. It is a pair's own similarity; `threshold_from_impostors` lies just above
    that pair, because there an equal score is accepted (>=) and here it is not (>).
    """
    return judge("batch_threshold", fn, _batch_threshold, _batch_cases(), _BATCH_MISTAKES,
                 ("the threshold, and the share of pairs at or above it", lambda t, impostor, fpr:
                  [float(t), np.mean(impostor >= t)]))


def ema_after(fn: Callable) -> Callable:
    """Estimates (n,), oldest first, momentum, debias -> the running threshold after all of them.

    Eq. (4), t <- momentum t + (1 - momentum) e, starting at t = 0.   debias: divide the result by
    1 - momentum^n, which makes up for the start at 0.
    """
    return judge("ema_after", fn, _ema_after, _ema_cases(), _EMA_MISTAKES)


def _batch_threshold(impostor: np.ndarray, fpr: float) -> float:
    rank = int(round(len(impostor) * fpr, 6))  # 6 decimals: 100 * 0.29 is 28.999999999999996
    return float(np.sort(impostor)[::-1][rank])


def _batch_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    return [
        ("10 similarities, FPR 0.2", (rng.permutation(10) / 10, 0.2)),
        ("8 similarities, FPR 0.35: 2.8 is rounded down",
         (np.array([0.6, 0.1, 0.7, 0.8, 0.5, 0.3, 0.2, 0.0]), 0.35)),
        ("FPR 1e-6 of 10: the largest similarity itself", (rng.permutation(10) / 10, 1e-6)),
        ("2,016 similarities, FPR 0.01", (rng.normal(0, 0.2, 2016), 0.01)),
    ]


def _ranked(rank: Callable) -> Callable:
    """The threshold of another rank: rank(M, fpr) in the descending sort."""
    return lambda i, fpr: np.sort(i)[::-1][rank(len(i), fpr)]


_BATCH_MISTAKES: list[Mistake] = [
    (_ranked(lambda m, fpr: max(int(m * fpr) - 1, 0)),
     "one rank too early: Python counts from 0, so element floor(M * FPR) has that many above it; "
     "do not subtract 1"),
    (lambda i, fpr: np.sort(i)[-int(len(i) * fpr)],
     "[-r] counts from the end with 1, and [-0] is the lowest of all; turn the sort round and take "
     "[r]"),
    (_ranked(lambda m, fpr: int(m * fpr) + 1),
     "one rank too late: floor(M * FPR) + 1 pairs lie above it"),
    (lambda i, fpr: np.sort(i)[int(len(i) * fpr)],
     "the sort is ascending; a false positive is a stranger with a high similarity"),
    (lambda i, fpr: i[int(len(i) * fpr)], "the similarities are not sorted yet"),
    (_ranked(lambda m, fpr: int(np.ceil(m * fpr))), "M * FPR is rounded down, not up"),
    (lambda i, fpr: np.quantile(i, 1 - fpr),
     "np.quantile interpolates between two pairs; EKD takes the similarity of one"),
    (lambda i, fpr: np.nextafter(_batch_threshold(i, fpr), np.inf),
     "just above the pair is right where an equal score is accepted (threshold_from_impostors); "
     "EKD asks for greater, so the threshold is the pair's own similarity"),
]


def _ema_after(estimates: np.ndarray, momentum: float, debias: bool) -> float:
    running = 0.0
    for estimate in estimates:
        running = momentum * running + (1 - momentum) * estimate
    return running / (1 - momentum ** len(estimates)) if debias else running


def _ema_cases() -> list[Case]:
    some = np.array([0.2, 0.5, 0.3, 0.6])
    return [
        ("the first step, started at 0", (np.array([0.5]), 0.99, False)),
        ("four estimates, momentum 0.9", (some, 0.9, False)),
        ("69 estimates of 0.4: half the way", (np.full(69, 0.4), 0.99, False)),
        ("the first step, corrected", (np.array([0.5]), 0.99, True)),
        ("four estimates, momentum 0.9, corrected", (some, 0.9, True)),
    ]


def _fed_back(estimates: np.ndarray, momentum: float, debias: bool) -> float:
    running = 0.0
    for n, estimate in enumerate(estimates, 1):
        running = momentum * running + (1 - momentum) * estimate
        running = running / (1 - momentum**n) if debias else running
    return running


def _from_first(estimates: np.ndarray, momentum: float, debias: bool) -> float:
    n = len(estimates) - 1
    rest = _ema_after(estimates[1:], momentum, False)
    running = momentum**n * estimates[0] + rest
    return running / (1 - momentum ** (n + 1)) if debias else running


def _corrected(factor: Callable) -> Callable:
    """Another correction: factor(momentum, n) times the plain average."""
    return lambda e, m, debias: _ema_after(e, m, False) * (factor(m, len(e)) if debias else 1)


_TOO_FEW = "the exponent is n - 1, so the first step divides by 0: count the steps from 1"
_EMA_MISTAKES: list[Mistake] = [
    (lambda e, m, debias: _ema_after(e, 1 - m, debias),
     "the weights are exchanged: the old threshold keeps `momentum`, the new estimate gets the "
     "rest (the released code's `momentum = 0.01` is the other one)"),
    (_from_first, "you start at the first estimate; the paper starts at 0 (that is what the "
                  "correction is for)"),
    (lambda e, m, debias: _ema_after(e, m, False), "`debias` is not looked at: with it, divide by "
                                                   "1 - momentum^n"),
    (lambda e, m, debias: _ema_after(e, m, True), "it is corrected always; only with `debias`"),
    (_corrected(lambda m, n: 1 / (1 - m)), "divided by 1 - momentum; after n steps it is "
                                           "1 - momentum^n"),
    (_corrected(lambda m, n: 1 / m**n), "divided by momentum^n, which is the weight still on the "
                                        "start at 0; the estimates have the rest, 1 - momentum^n"),
    (_corrected(lambda m, n: 1 - m**n), "multiplied by 1 - momentum^n; the average is too small, "
                                        "so divide"),
    (_corrected(lambda m, n: 1 / np.float64(1 - m ** (n - 1))), _TOO_FEW),
    (_corrected(lambda m, n: 1 / (1 - m ** (n - 1))), _TOO_FEW),  # plain numbers: it stops
    (_fed_back, "the corrected value goes back into the average; correct only what you return"),
    (lambda e, m, debias: _ema_after(e[::-1], m, debias),
     "the oldest estimate weighs most; go through them in order"),
    (lambda e, m, debias: np.mean(e), "that is the plain mean; the weights of eq. (4) fall off"),
]
