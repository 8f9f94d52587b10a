"""Exercises about error rates, thresholds, and how many pairs a rate needs."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def rates_at(fn: Callable) -> Callable:
    """Genuine scores (P,), impostor scores (Q,), a threshold -> (tpr, fpr), fractions.

    A pair is accepted when its score >= threshold.
    """
    return judge("rates_at", fn, _rates_at, _rates_cases(), _RATES_MISTAKES)


def tpr_at_threshold(fn: Callable) -> Callable:
    """Genuine scores (P,), impostor scores (Q,), a target rate -> the TPR, a number from 0 to 1.

    A pair is accepted when its score >= threshold. The answer is the largest TPR of all
    thresholds whose FPR is at most the target (rule "below" of kdlab.evaluate).
    """
    return judge("tpr_at_threshold", fn, _tpr_at_threshold, _tpr_cases(), _TPR_MISTAKES)


def threshold_from_impostors(fn: Callable) -> Callable:
    """Impostor scores (Q,), a target rate -> the lowest threshold whose FPR is at most the target.

    A pair is accepted when its score >= threshold (rule "below" of kdlab.evaluate). Lowest up to
    a relative 1e-6; which impostors are accepted there is compared exactly.
    """
    return judge("threshold_from_impostors", fn, _threshold, _threshold_cases(),
                 _THRESHOLD_MISTAKES,
                 ("the threshold, and the FPR it gives", lambda t, impostor, fpr:
                  [float(t), np.mean(impostor >= t)]))


def pairs_needed(fn: Callable) -> Callable:
    """FPR, count -> (pairs, people), whole numbers.

    pairs: the fewest impostor pairs of which `count` are expected to pass at that FPR.
    people: the fewest people, one picture each, that give so many unordered pairs.
    """
    return judge("pairs_needed", fn, _pairs_needed, _pairs_cases(), _PAIRS_MISTAKES)


def _rates_at(genuine: np.ndarray, impostor: np.ndarray, threshold: float) -> tuple[float, float]:
    return float(np.mean(genuine >= threshold)), float(np.mean(impostor >= threshold))


def _rates_cases() -> list[Case]:
    rng = np.random.default_rng(4)
    return [
        ("4 genuine and 5 impostor scores, one of each at the threshold",
         (np.array([0.4, 0.5, 0.7, 0.9]), np.array([0.0, 0.1, 0.2, 0.5, 0.6]), 0.5)),
        ("a threshold above all", (np.array([0.4, 0.5]), np.array([0.0, 0.1, 0.2]), 2.0)),
        ("1,000 and 3,000 scores", (rng.normal(0.6, 0.2, 1000), rng.normal(0, 0.2, 3000), 0.3)),
    ]


_RATES_MISTAKES: list[Mistake] = [
    (lambda g, i, t: (np.mean(g > t), np.mean(i > t)),
     "a score that equals the threshold is accepted: >=, not >"),
    (lambda g, i, t: _rates_at(g, i, t)[::-1], "the order is (tpr, fpr): genuine pairs first"),
    (lambda g, i, t: (np.sum(g >= t), np.sum(i >= t)),
     "those are counts; a rate is a share of its own kind of pairs"),
    (lambda g, i, t: tuple(100 * r for r in _rates_at(g, i, t)),
     "a rate is a fraction, not a percentage"),
    (lambda g, i, t: (np.sum(g >= t) / (len(g) + len(i)), np.sum(i >= t) / (len(g) + len(i))),
     "each rate has its own denominator: genuine pairs for the TPR, impostor pairs for the FPR"),
    (lambda g, i, t: (np.mean(g <= t), np.mean(i <= t)),
     "low scores are accepted; these are similarities, so a pair is accepted when score >= "
     "threshold"),
    (lambda g, i, t: (np.mean(g < t), np.mean(i >= t)),
     "the first number is the share of genuine pairs refused (FNR); the TPR is the share accepted"),
    (lambda g, i, t: (np.sum(g >= t) / max(np.sum(g >= t) + np.sum(i >= t), 1),
                      np.sum(i >= t) / max(np.sum(g >= t) + np.sum(i >= t), 1)),
     "you divide by all accepted pairs, which gives the precision; the TPR divides by all genuine "
     "pairs"),
]


def _tpr_at_threshold(genuine: np.ndarray, impostor: np.ndarray, fpr: float) -> float:
    worst = np.sort(impostor)[::-1]
    allowed = int((np.arange(1, len(worst) + 1) / len(worst) <= fpr).sum())
    if allowed == len(worst):
        return 1.0
    return float(np.mean(genuine > worst[allowed]))  # any threshold just above that impostor


def _tpr_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    return [
        ("10 impostors, FPR 0.2",  # 0.7 must not pass, 0.71 may
         (np.array([0.7, 0.71, 0.75, 0.82, 0.95]), np.arange(10) / 10, 0.2)),
        ("FPR 0.001 of 10 impostors: none may pass",
         (np.array([0.3, 0.9, 0.92, 0.99]), np.arange(10) / 10, 0.001)),
        ("equal scores among the impostors",
         (np.array([0.4, 0.6, 0.65, 0.7, 0.9]), np.array([0.1, 0.6, 0.6, 0.6, 0.8]), 0.4)),
        ("1,000 scores each, FPR 0.1",
         (rng.normal(1.0, 1.0, 1000), rng.normal(0.0, 1.0, 1000), 0.1)),
    ]


_TPR_MISTAKES: list[Mistake] = [
    (lambda g, i, fpr: _tpr_at_threshold(i, g, fpr),
     "genuine and impostor are exchanged: the threshold comes from the impostor scores"),
    (lambda g, i, fpr: 100 * _tpr_at_threshold(g, i, fpr),
     "a rate is a fraction, not a percentage"),
    (lambda g, i, fpr: 1 - _tpr_at_threshold(g, i, fpr),
     "that is the share of genuine pairs refused (FNR); the TPR is the share accepted"),
    (lambda g, i, fpr: _tpr_at_threshold(-g, -i, fpr),
     "low scores are accepted; these are similarities, so a pair is accepted when score >= "
     "threshold"),
    (lambda g, i, fpr: np.mean(g >= np.quantile(i, 1 - fpr)),
     "np.quantile interpolates between two impostors, and its threshold can let too many pass; "
     "count the impostors that pass instead"),
    (lambda g, i, fpr: np.mean(g > np.quantile(i, 1 - fpr)),
     "np.quantile interpolates between two impostors; count the impostors that pass instead"),
    (lambda g, i, fpr: np.mean(g >= np.sort(i)[::-1][int(fpr * len(i))]),
     "at that threshold one impostor too many is accepted: its own score counts as accepted (>=), "
     "so the threshold lies just above it"),
    (lambda g, i, fpr: np.mean(g >= np.sort(i)[::-1][max(int(fpr * len(i)) - 1, 0)]),
     "a threshold at the last allowed impostor is safe only without ties and not the lowest; go "
     "down to just above the first impostor that must not pass"),
    (lambda g, i, fpr: np.mean(g >= np.quantile(g, fpr)),
     "the threshold comes from the genuine scores; FPR counts impostors"),
]


def _threshold(impostor: np.ndarray, fpr: float) -> float:
    worst = np.sort(impostor)[::-1]
    allowed = int((np.arange(1, len(worst) + 1) / len(worst) <= fpr).sum())
    return float(np.nextafter(worst[allowed], np.inf))  # just above the first that must not pass


def _threshold_cases() -> list[Case]:
    rng = np.random.default_rng(5)
    return [
        ("10 impostors, FPR 0.2", (np.arange(10) / 10, 0.2)),
        ("FPR 0.001 of 10 impostors: none may pass", (np.arange(10) / 10, 0.001)),
        ("equal scores among the impostors",
         (np.array([0.6, 0.1, 0.6, 0.8, 0.6, 0.3, 0.2, 0.0]), 0.25)),
        ("1,000 scores, FPR 0.1", (rng.normal(0, 0.2, 1000), 0.1)),
    ]


def _kth(impostor: np.ndarray, k: int) -> float:
    return float(np.sort(impostor)[::-1][k])


_THRESHOLD_MISTAKES: list[Mistake] = [
    (lambda i, fpr: np.quantile(i, 1 - fpr),
     "np.quantile interpolates between two impostors, so the threshold is not tied to how many "
     "pass; sort them and count"),
    (lambda i, fpr: np.quantile(i, fpr),
     "that quantile cuts off the lowest scores; the accepted impostors are the highest"),
    (lambda i, fpr: _kth(i, int(fpr * len(i))),
     "at that threshold one impostor too many passes: its own score counts as accepted (>=); go "
     "just above it, np.nextafter(score, np.inf)"),
    (lambda i, fpr: _kth(i, max(int(fpr * len(i)) - 1, 0)),
     "the score of the last impostor who may pass is not the lowest such threshold, and with equal "
     "scores or none allowed it lets too many pass; go down to just above the first who must not"),
    (lambda i, fpr: (_kth(i, max(int(fpr * len(i)) - 1, 0)) + _kth(i, int(fpr * len(i)))) / 2,
     "halfway between two impostors is not the lowest threshold, and between equal scores it is "
     "none; go down to just above the first impostor who must not pass"),
    (lambda i, fpr: np.nextafter(_kth(i, 0), np.inf),
     "that threshold refuses every impostor; the target allows some of them"),
    (lambda i, fpr: _threshold(i, fpr / 100),
     "the target is a fraction already; do not divide by 100"),
    (lambda i, fpr: NormalDist(float(np.mean(i)), float(np.std(i))).inv_cdf(1 - fpr),
     "that is the quantile of a normal distribution; the tail of impostors is not normal, so count "
     "them"),
]


def _pairs_needed(fpr: float, count: int) -> tuple[int, int]:
    pairs = math.ceil(round(count / fpr, 6))  # 6 decimals: 3 / 1e-5 is 300000.00000000006
    people = (1 + math.isqrt(8 * pairs)) // 2  # n (n - 1) / 2 = pairs, or one or two below it
    while people * (people - 1) // 2 < pairs:
        people += 1
    return pairs, people


def _pairs_cases() -> list[Case]:
    return [
        ("one of 2 pairs", (0.5, 1)),
        ("one pair at FPR 1e-3", (1e-3, 1)),
        ("ten pairs at FPR 1e-4", (1e-4, 10)),
        ("ten pairs at FPR 1e-6", (1e-6, 10)),
    ]


_PAIRS_MISTAKES: list[Mistake] = [
    (lambda fpr, count: _pairs_needed(fpr, count)[::-1], "the order is (pairs, people)"),
    (lambda fpr, count: _pairs_needed(fpr, 1),
     "that is enough for one pair to pass; `count` of them are wanted, so count / fpr pairs"),
    (lambda fpr, count: (count * fpr, math.ceil((1 + math.sqrt(1 + 8 * count * fpr)) / 2)),
     "count * fpr: the expected number is pairs * fpr = count, so divide"),
    (lambda fpr, count: (count / fpr, 2 * count / fpr),
     "two new people for each pair are far too many: n people make n (n - 1) / 2 pairs"),
    (lambda fpr, count: (count / fpr, math.ceil(math.sqrt(count / fpr))),
     "n people do not make n * n pairs: nobody is his own impostor, and (i, j) is (j, i)"),
    (lambda fpr, count: (count / fpr, math.ceil((1 + math.sqrt(1 + 4 * count / fpr)) / 2)),
     "each pair is counted twice, as (i, j) and (j, i): n people make n (n - 1) / 2 pairs"),
    (lambda fpr, count: (count / fpr, math.ceil(math.sqrt(2 * count / fpr))),
     "n * n / 2 is nearly right; n people make n (n - 1) / 2 pairs"),
    (lambda fpr, count: (count / fpr, math.floor((1 + math.sqrt(1 + 8 * count / fpr)) / 2)),
     "one person too few: round the number of people up, not down"),
    (lambda fpr, count: (count / fpr, (1 + math.sqrt(1 + 8 * count / fpr)) / 2),
     "people come whole: round up"),
]
