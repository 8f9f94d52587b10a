"""Exercises about TwoNN: the likelihood, the duplicates, and the line's discarded tail.

Facco, d'Errico, Rodriguez, Laio, "Estimating the intrinsic dimension of datasets by a minimal
neighborhood information", Scientific Reports 7, 2017; equations 1 to 3 of ReFO's supplement, CVPR
2023. mu = r2 / r1 are the ratios of a point's distances to its second and its first neighbour.
"""

from collections.abc import Callable

import numpy as np

from kdlab.check.judge import Case, Mistake, judge


def dimension_from_ratios(fn: Callable) -> Callable:
    """Ratios mu (n,), above 1 -> the d that maximises their likelihood (easy, 5 minutes).

    Eq. (3): P(mu | d) = d^n prod mu_i^-(d + 1). Take the logarithm, then its slope in d.
    """
    return judge("dimension_from_ratios", fn, _dimension_from_ratios, _ratio_cases(),
                 _RATIO_MISTAKES)


def distinct_points(fn: Callable) -> Callable:
    """Distances r1, r2 (n,) -> d by likelihood, of the points that count (medium, 10 minutes).

    A point counts where 0 < r1 < r2. A picture that is there twice has its copy as neighbour, at
    r1 = 0; whoever has both copies as neighbours has r1 = r2. Neither is counted, as in the code of
    Ansuini et al. (`two_nn(duplicates="drop")`; "merge" looks for neighbours without the copies).
    """
    return judge("distinct_points", fn, _distinct_points, _distinct_cases(), _DISTINCT_MISTAKES)


def kept_points(fn: Callable) -> Callable:
    """Ratios mu (n,), in any order, a share -> the slope through the origin (medium, 15 minutes).

    Of -ln(1 - F) on ln mu: F_i = i / n for the i-th smallest of all n, i from 1; then the share
    `discard` with the largest ratios is left out, and the slope is sum x y / sum x^2.
    """
    return judge("kept_points", fn, _kept_points, _kept_cases(), _KEPT_MISTAKES)


def _dimension_from_ratios(mu: np.ndarray) -> float:
    return float(len(mu) / np.log(mu).sum())


def _ratio_cases() -> list[Case]:
    return [
        ("one ratio, 2: d = 1 / ln 2", (np.array([2.0]),)),
        ("ratios e, e^(1/2), e^(1/4): d = 3 / 1.75", (np.exp([1.0, 0.5, 0.25]),)),
        ("4,000 ratios of dimension 8", (1 + np.random.default_rng(10).pareto(8, 4000),)),
    ]


_RATIO_MISTAKES: list[Mistake] = [
    (lambda mu: np.log(mu).mean(),
     "that is 1 / d: the slope of n ln d - (d + 1) sum ln mu is n / d - sum ln mu; set it to 0 and "
     "solve for d"),
    (lambda mu: len(mu) / np.log10(mu).sum(),
     "the logarithm is the natural one: np.log, not np.log10"),
    (lambda mu: len(mu) / np.log2(mu).sum(), "the logarithm is the natural one: np.log"),
    (lambda mu: 1 / np.log(mu.mean()),
     "the logarithm of the mean; the likelihood asks for the mean of the logarithms"),
    (lambda mu: 1 / np.log(np.median(mu)), "that takes one ratio, the middle one; all n count"),
    (lambda mu: mu.mean(), "there is no logarithm in it: the product of eq. (3) becomes a sum of "
                           "logarithms"),
    (lambda mu: 1 / mu.mean(), "the logarithm is missing: n / sum ln mu"),
    (lambda mu: mu.mean() / (mu.mean() - 1),
     "that matches the mean of the ratios (the method of moments); the maximum of the likelihood "
     "is n / sum ln mu"),
    (lambda mu: -_dimension_from_ratios(mu),
     "the sign: mu = r2 / r1 is 1 or more, so ln mu is positive; with r1 / r2 it is not"),
    (lambda mu: (1 / np.log(mu)).mean(),
     "the mean of each point's own estimate 1 / ln mu, which a single mu near 1 blows up; divide n "
     "by the sum"),
    (lambda mu: (len(mu) - 1) / np.log(mu).sum(),
     "n - 1 takes the bias away; the maximum itself, asked for here, has n"),
    (lambda mu: _dimension_from_ratios(mu) - 1,
     "the exponent is d + 1, but the slope in d is n / d - sum ln mu all the same: nothing to "
     "subtract"),
    (lambda mu: 1 / np.log(mu).sum(), "the factor n is missing: d^n gives n / d"),
]


def _distinct_points(r1: np.ndarray, r2: np.ndarray) -> float:
    good = (r1 > 0) & (r1 < r2)
    return _dimension_from_ratios(r2[good] / r1[good])


def _distinct_cases() -> list[Case]:
    rng = np.random.default_rng(11)
    r1 = rng.uniform(0.4, 0.6, 300)
    r2 = r1 * (1 + rng.pareto(12, 300))
    r1[:30] = 0  # 15 pictures, each there twice
    r1[30:40] = r2[30:40]  # beside them: both copies as neighbours
    r1[40] = 1e-4  # very near its neighbour, and no copy
    return [
        ("three points, nothing twice", (np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 5.0]))),
        ("one picture there twice: r1 = 0 for both copies",
         (np.array([1.0, 0.0, 0.0, 2.0]), np.array([2.0, 3.0, 3.0, 3.0]))),
        ("and a neighbour of it, as far from one copy as from the other: r1 = r2",
         (np.array([1.0, 0.0, 0.0, 2.0, 3.0]), np.array([2.0, 3.0, 3.0, 3.0, 3.0]))),
        ("300 points, 30 of them copies", (r1, r2)),
    ]


def _counted(r1: np.ndarray, r2: np.ndarray, good: np.ndarray, more: int = 0) -> float:
    return (good.sum() + more) / np.log(r2[good] / r1[good]).sum()


def _lifted(eps: float) -> Mistake:
    """A small number in place of a distance of 0."""
    return (lambda r1, r2: _dimension_from_ratios(r2 / np.maximum(r1, eps)),
            f"a small number in place of 0 is no distance: each copy then adds ln(r2 / {eps:.0e}), "
            f"about {-np.log(eps):.0f}, where a real point adds about 1 / d; leave the copies out")


_DISTINCT_MISTAKES: list[Mistake] = [
    (lambda r1, r2: _dimension_from_ratios(r2 / r1),
     "r1 = 0 makes mu infinite, and n / inf is 0: leave those points out before the logarithm"),
    *map(_lifted, (1e-6, 1e-8, 1e-9, 1e-10, 1e-12, float(np.finfo(float).eps))),
    (lambda r1, r2: _dimension_from_ratios(np.nan_to_num(r2 / r1)),
     "nan_to_num turns an infinite mu into 1.8e308, and each copy adds 710 to the sum; leave the "
     "copies out"),
    (lambda r1, r2: _counted(r1, r2, r1 > 0, (r1 == 0).sum()),
     "the copies are out of the sum (or have mu = 1, which adds nothing) and still in n: count the "
     "points that are left"),
    (lambda r1, r2: _counted(r1, r2, r1 > 0),
     "points with r1 = r2 still count, and ln 1 adds nothing to the sum, so d comes out too high: "
     "their two neighbours are one picture, there twice"),
    (lambda r1, r2: _counted(r1, r2, (r1 > 0.01) & (r1 < r2)),
     "a threshold above 0 throws out a real neighbour as well: only r1 = 0 is a copy"),
    (lambda r1, r2: _counted(r1, r2, (r1 > 0) & (r1 < r2), -1),
     "n - 1 takes the bias away; asked for is n / sum ln mu, n the points that are left"),
    (lambda r1, r2: 1 / _distinct_points(r1, r2), "that is 1 / d"),
]


def _line(mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln mu and -ln(1 - F) of all but the last, whose 1 - F is 0."""
    x = np.log(np.sort(mu))
    return x[:-1], -np.log(1 - np.arange(1, len(mu)) / len(mu))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / (x * x).sum())


def _left(n: int, discard: float) -> int:
    return int(round(n * (1 - discard), 6))  # 6 decimals: 10 * (1 - 0.9) is 0.9999999999999998


def _kept_points(mu: np.ndarray, discard: float) -> float:
    x, y = _line(mu)
    kept = _left(len(mu), discard)
    return _slope(x[:kept], y[:kept])


def _kept_cases() -> list[Case]:
    rng = np.random.default_rng(12)
    return [
        ("5 ratios in order, 40 % discarded: 3 kept", (np.exp([0.1, 0.2, 0.5, 0.6, 2.0]), 0.4)),
        ("10 ratios out of order, 0.25 discarded: 7.5 is rounded down",
         (1 + rng.permutation(np.arange(1, 11)) / 10, 0.25)),
        ("2,000 ratios of dimension 6, a tenth discarded", (1 + rng.pareto(6, 2000), 0.1)),
    ]


def _fitted(points: Callable) -> Callable:
    """Another line: points(sorted ln mu, n, kept) -> x, y, and the slope through the origin."""
    return lambda mu, discard: _slope(*points(np.log(np.sort(mu)), len(mu),
                                              _left(len(mu), discard)))


def _share(first: float, n: int, count: int, total: float) -> np.ndarray:
    """-ln(1 - F), F = (first + 0, 1, 2, ...) / total."""
    return -np.log(1 - (first + np.arange(count)) / total)


def _free(mu: np.ndarray, discard: float) -> float:
    x, y = _line(mu)
    kept = _left(len(mu), discard)
    return np.polyfit(x[:kept], y[:kept], 1)[0]


_KEPT_MISTAKES: list[Mistake] = [
    (_fitted(lambda x, n, k: (x[n - k : n - 1], _share(n - k + 1, n, k - 1, n))),
     "the smallest ratios are discarded; the largest are the ones that scatter"),
    (_fitted(lambda x, n, k: (x[: n - k], _share(1, n, n - k, n))),
     "`discard` is the share left out, and you keep it"),
    (_fitted(lambda x, n, k: (x[: k - 1], _share(1, n, k - 1, k))),
     "F is counted over the kept points alone, i / kept; it is a share of all n, so discard after "
     "F is made"),
    (_fitted(lambda x, n, k: (x, _share(1, n, n, n))),
     "-ln(1 - F) is infinite, so F = 1 is among the points you fit: F is counted over the kept "
     "points alone (it is a share of all n), or the largest ratios are still in"),
    (_fitted(lambda x, n, k: (x[:k], _share(0, n, k, n))),
     "F starts at 0: i counts from 1, the smallest ratio has F = 1 / n"),
    (_fitted(lambda x, n, k: (x[:k], _share(0.5, n, k, n))),
     "half a rank is taken off; F_i = i / n"),
    (_fitted(lambda x, n, k: (x[:k], _share(1, n, k, n + 1))), "F_i = i / n, not i / (n + 1)"),
    (_free, "the line has an intercept of its own; at mu = 1 F is 0, so it is forced through the "
            "origin: sum x y / sum x^2"),
    (lambda mu, discard: _slope(*_line(mu)), "nothing is discarded: the share of largest ratios "
                                             "has to go before the slope"),
    (lambda mu, discard: _slope(*_line(mu[: _left(len(mu), discard)])),
     "points are left out before they are sorted and counted: that is the other 90 %, the draw of "
     "points per repetition; here the largest ratios are left out of the line"),
    (lambda mu, discard: _slope(np.log(mu)[: _left(len(mu), discard)],
                                _share(1, len(mu), _left(len(mu), discard), len(mu))),
     "the ratios are not sorted: F_i belongs to the i-th smallest"),
    (_fitted(lambda x, n, k: (np.exp(x[:k]), _share(1, n, k, n))),
     "the logarithm of mu is missing: the line is straight in ln mu"),
    (_fitted(lambda x, n, k: (x[:k], np.arange(1, k + 1) / n)),
     "-ln(1 - F) is the ordinate, not F itself"),
    (_fitted(lambda x, n, k: (x[:k], np.log(np.arange(1, k + 1) / n))),
     "ln F; the tail 1 - F falls like mu^-d, so take -ln(1 - F)"),
    (_fitted(lambda x, n, k: (x[:k], -_share(1, n, k, n))), "the sign: ln(1 - F) falls, -ln(1 - F) "
                                                           "rises with slope d"),
    (_fitted(lambda x, n, k: (_share(1, n, k, n), x[:k])),
     "x and y are exchanged: -ln(1 - F) over ln mu"),
    (_fitted(lambda x, n, k: (x[: k + 1], _share(1, n, k + 1, n))),
     "one point too many is kept: the number of kept points is rounded down"),
    (lambda mu, discard: (lambda x, y, k: (y[:k] / x[:k]).mean())(
        *_line(mu), _left(len(mu), discard)),
     "the mean of the slopes y / x, where the smallest ratios count as much as the others; "
     "sum x y / sum x^2"),
    (lambda mu, discard: _dimension_from_ratios(np.sort(mu)[: _left(len(mu), discard)]),
     "that is the likelihood of the kept ratios, which takes them for all there are"),
]
