"""TwoNN: intrinsic dimension from the ratio of two neighbour distances.

Facco, d'Errico, Rodriguez, Laio, "Estimating the intrinsic dimension of datasets by a minimal
neighborhood information", Scientific Reports 7, 12140 (2017). The repetition protocol is ReFO's
(CVPR 2023, supplement), which follows Ansuini et al., NeurIPS 2019.

Where the density is even as far as a point's second neighbour, mu = r2 / r1 has the density
d mu^(-d-1), mu >= 1, however dense the points are: ln mu is exponential with rate d. So d can be
read off the ratios alone, by likelihood or as the slope of a line.

    paper    code         shape
    r1, r2   distances    (n, 2), ascending, the point itself left out
    mu       mu           (n,), 1 or more
    F(mu)    i / n        share of ratios up to the i-th smallest
    d        dimension    scalar

Choices. method="fit" and discard=0.1 are Facco et al.'s and the code's of Ansuini et al.; so are 20
draws of 90 % of the points. ReFO's supplement speaks of likelihood but names that code, which has
only the fit; "mle" and "mle_unbiased" (DADApy's) are here to compare.

Differences. Rows equal to an earlier one are left out before anything else (`duplicates="merge"`):
a copy says nothing about how points fill space. The code of Ansuini et al. finds neighbours among
all rows and then leaves out those with r1 = 0, both copies, and those with r1 = r2, for instance
because their neighbours are copies (`duplicates="drop"`). Without discarding it leaves out the last
two ratios of the fit, here only the last, whose ln(1 - F) is infinite.

What to distrust. Density is not even at an edge, and in high dimension all is edge: uniform cubes
of d = 2, 5, 10, 20, 64 with 1000 points give 1.97, 4.64, 8.54, 15.1, 35.8 (means of 100 samples),
d = 10 with 4000 points 8.8. And where both neighbours show the same person, it is the dimension of
one person's pictures: ReFO's sample has 0.7 pictures a person.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from kdlab.cloud import Cloud, read
from kdlab.neighbours import Neighbours, nearest, nearest_of
from kdlab.progress import progress

METHODS = ("fit", "mle", "mle_unbiased")
KEPT = 12  # neighbours a point, ours: that 11 of them miss a draw of 90 % has probability 1e-10
RARE = 0.01  # of points may lack neighbours in a draw, ours: more, and it gets a pass of its own
SMALLEST = 100  # points in the smallest block of a scale_curve, ours: a standard error of 11 %


class TwoNN(NamedTuple):
    """mu: (n,) ratios, in the rows' order; stderr: see `estimate`; duplicates: rows left out of n.
    """

    dimension: float
    stderr: float
    mu: np.ndarray
    n: int
    duplicates: int


class RepeatedTwoNN(NamedTuple):
    """Mean, population standard deviation and the estimates (repeats,) of all draws; whole: that of
    all points. std is no error of the mean: the draws share most of their points.
    """

    mean: float
    std: float
    values: np.ndarray
    whole: TwoNN


class ScaleCurve(NamedTuple):
    """Estimates against the number of points, largest first; all (S,).

    n: points a block, rounded; blocks: how many; mean, std: of their estimates (population: 0 for
    one block); stderr: the mean of their standard errors.
    """

    n: np.ndarray
    blocks: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    stderr: np.ndarray


def fit_points(mu: np.ndarray, discard: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ln mu, -ln(1 - F), kept), each (n,), ascending: the line's points, F_i = i / n.

    mu: (n,) ratios, in any order. kept: False for the share `discard` with the largest ratios, and
    always for the last, where -ln(1 - F) is infinite.
    """
    _check("fit", discard)
    mu = np.sort(np.asarray(mu, np.float64))
    n = len(mu)
    share = round(n * (1 - discard), 6)  # 10 (1 - 0.9) is 0.9999999999999998
    kept = np.arange(n) < min(int(share), n - 1)
    with np.errstate(divide="ignore"):
        return np.log(mu), -np.log1p(-np.arange(1, n + 1) / n), kept


def estimate(mu: np.ndarray, method: str = "fit", discard: float = 0.1) -> tuple[float, float]:
    """(dimension, standard error) from ratios mu (n,), finite and 1 or more, in any order.

    "fit": slope through the origin of -ln(1 - F) on ln mu, without the share `discard` of largest
    ratios. "mle": n / sum ln mu; "mle_unbiased": (n - 1) / sum ln mu; both of all ratios.

    The standard error is that of n independent ratios. Likelihood: d / sqrt(n). Fit: with x_i the
    ordered d ln mu and y_i their -ln(1 - F), d' / d = 1 - sum y_i (x_i - y_i) / sum y_i^2 to first
    order, and x_i is a sum of independent steps l <= i with standard deviation 1 / (n - l + 1)
    (Renyi), so (d' / d)'s variance is sum_l (sum_{i >= l} y_i / (n - l + 1))^2 / (sum y_i^2)^2.
    Neighbouring points share neighbours, so their ratios are not independent: over 100 samples of
    1000 points each (cubes, balls, Gaussians, d = 2 to 64) estimates spread 1.0 to 1.4, mostly 1.2
    times as much, and +- 1.96 standard errors held the samples' mean in 82 to 96, not 95 %. How far
    that mean is below d is in no standard error.
    Raises ValueError where fewer than 2 ratios are left, or all are 1.
    """
    _check(method, discard)
    x, y, kept = fit_points(mu, discard)
    n, m = len(x), int(kept.sum())
    if n < 2 or (method == "fit" and not m):
        raise ValueError(f"{n} ratios with discard {discard} leave nothing to estimate from")
    if not np.isfinite(x).all() or x[0] < 0:
        raise ValueError("ratios r2 / r1 must be finite and 1 or more")
    total = x[kept].sum() if method == "fit" else x.sum()
    if not total:
        raise ValueError("every point has its two neighbours equally far, as in a lattice: "
                         "the ratios tell no dimension")
    if method != "fit":
        d = (n if method == "mle" else n - 1) / total
        return float(d), float(d / np.sqrt(n))
    x, y = x[kept], y[kept]
    d = (x @ y) / (x @ x)
    later = np.cumsum(y[::-1])[::-1]  # sum of y_i, i >= l
    return float(d), float(d * np.linalg.norm(later / (n - np.arange(m))) / (y @ y))


def two_nn(x: np.ndarray | Tensor, method: str = "fit", discard: float = 0.1, *,
           duplicates: str = "merge", normalize: bool = False) -> TwoNN:
    """Intrinsic dimension of points x (n, D): NumPy array, memory map or torch tensor.

    method, discard: see `estimate`. normalize: scale rows to length 1 first.
    duplicates: "merge" leaves out rows equal to an earlier one before anything else; "drop" is the
    form of Ansuini et al. (above). Raises ValueError for fewer than 3 different rows and for a row
    that is not finite.
    """
    _check(method, discard, duplicates)
    cloud, copies = _points(x, normalize, duplicates)
    return _estimated(nearest(cloud, 2).distances, method, discard, duplicates, copies)


def two_nn_repeated(x: np.ndarray | Tensor, repeats: int = 20, fraction: float = 0.9,
                    method: str = "fit", normalize: bool = True, seed: int = 0, *,
                    discard: float = 0.1, duplicates: str = "merge",
                    neighbours: int = KEPT) -> RepeatedTwoNN:
    """The mean of `two_nn` over `draws`: the protocol of ReFO's supplement.

    What `repeats` calls of two_nn would give, at the price of one: `neighbours` of every point are
    found once, and the first two of them that a draw holds are the point's nearest in that draw.
    A point with fewer is measured against the whole draw.
    """
    _check(method, discard, duplicates)
    cloud, copies = _points(x, normalize, duplicates)
    drawn = draws(len(cloud), repeats, fraction, seed)
    k = min(max(neighbours, 2), len(cloud) - 1)
    lacking = (1 - fraction)**k + k * fraction * (1 - fraction)**(k - 1)  # share of points
    lists = nearest(cloud, k if lacking <= RARE else 2)
    whole = _estimated(lists.distances[:, :2], method, discard, duplicates, copies)
    values = []
    for rows in progress(drawn, "draws"):
        part = cloud.subset(rows)
        distances = (_of_draw(lists, rows, part) if lacking <= RARE
                     else nearest(part, 2).distances)
        values.append(_estimated(distances, method, discard, duplicates, 0).dimension)
    values = np.array(values)
    return RepeatedTwoNN(float(values.mean()), float(values.std()), values, whole)


def scale_curve(x: np.ndarray | Tensor, halvings: int | None = None, method: str = "fit",
                discard: float = 0.1, *, duplicates: str = "merge", normalize: bool = False,
                seed: int = 0) -> ScaleCurve:
    """The estimate at n, n/2, n/4, ... points: Facco et al.'s block analysis.

    At each scale the points, shuffled, are cut into 2, 4, ... disjoint blocks. halvings None: as
    many as leave SMALLEST points a block. A curve that still rises at n says that the estimate is
    low there; one with a plateau gives the dimension at that scale.
    """
    _check(method, discard, duplicates)
    cloud, _ = _points(x, normalize, duplicates)
    n = len(cloud)
    most = max(int(np.log2(n / SMALLEST)), 0) if halvings is None else halvings
    if not 0 <= most <= np.log2(n / 3):
        raise ValueError(f"{n} points can be halved 0 to {int(np.log2(n / 3))} times so that 3 are "
                         f"left, not {most}")
    order = np.random.default_rng(seed).permutation(n)
    rows = []
    for blocks in 2 ** np.arange(most + 1):
        found = [_estimated(nearest(cloud.subset(part), 2).distances, method, discard, duplicates,
                            0) for part in np.array_split(order, blocks)]
        d = np.array([one.dimension for one in found])
        rows.append((round(n / blocks), blocks, d.mean(), d.std(),
                     np.mean([one.stderr for one in found])))
    return ScaleCurve(*map(np.array, zip(*rows, strict=True)))


def draws(n: int, repeats: int = 20, fraction: float = 0.9, seed: int = 0) -> list[np.ndarray]:
    """`repeats` draws of round(fraction n) of n rows without replacement, each ascending."""
    if not 0 < fraction <= 1 or round(fraction * n) < 3:
        raise ValueError(f"fraction must be above 0, at most 1 and leave 3 of {n} points, not "
                         f"{fraction}")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, not {repeats}")
    generator = np.random.default_rng(seed)
    return [np.sort(generator.choice(n, round(fraction * n), replace=False))
            for _ in range(repeats)]


def report(path: str | Path, method: str = "fit", discard: float = 0.1, repeats: int = 20,
           fraction: float = 0.9, normalize: bool = True, seed: int = 0) -> dict:
    """What `kdlab dimension` says of a .npy file (n, D): settings and results, for JSON.

    Raises OSError for a missing file, ValueError for one that cannot be used; both name it.
    """
    x = read(path)
    try:
        mean, std, values, whole = two_nn_repeated(x, repeats, fraction, method, normalize, seed,
                                                   discard=discard)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {"file": str(path), "rows": x.shape[0], "columns": x.shape[1], "normalize": normalize,
            "method": method, "discard": discard, "dimension": whole.dimension,
            "stderr": whole.stderr, "n": whole.n, "duplicates": whole.duplicates,
            "repeats": repeats, "fraction": fraction, "seed": seed, "mean": mean, "std": std,
            "values": values.tolist()}


def _check(method: str, discard: float, duplicates: str = "merge") -> None:
    """Before the long part, not after it."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be a share, 0 or more and below 1, not {discard}")
    if duplicates not in ("merge", "drop"):
        raise ValueError(f'duplicates must be "merge" or "drop", not {duplicates!r}')


def _points(x: np.ndarray | Tensor, normalize: bool, duplicates: str) -> tuple[Cloud, int]:
    """The cloud, for "merge" without copies, and how many those were."""
    cloud = Cloud(x, normalize)
    distinct = cloud.distinct()
    if len(distinct) < 3:
        raise ValueError(f"two neighbours need 3 different points at least; of {len(cloud)} rows "
                         f"only {len(distinct)} differ")
    return (distinct, len(cloud) - len(distinct)) if duplicates == "merge" else (cloud, 0)


def _estimated(distances: np.ndarray, method: str, discard: float, duplicates: str,
               copies: int) -> TwoNN:
    near, far = distances.T
    if duplicates == "drop":
        good = (near > 0) & (near < far)
        near, far, copies = near[good], far[good], len(good) - good.sum()
    mu = far / near
    return TwoNN(*estimate(mu, method, discard), mu, len(mu), int(copies))


def _of_draw(lists: Neighbours, rows: np.ndarray, part: Cloud) -> np.ndarray:
    """(m, 2) distances within a draw of rows (m,), out of the lists of all."""
    there = np.zeros(len(lists.indices), bool)
    there[rows] = True
    count = there[lists.indices[rows]].cumsum(1)  # (m, k), of the draw, as far down the list
    where = np.stack([(count >= 1).argmax(1), (count >= 2).argmax(1)], 1)
    distances = np.take_along_axis(lists.distances[rows], where, 1)
    for i in np.flatnonzero(count[:, -1] < 2):
        distances[i] = nearest_of(part, i, 2).distances
    return distances
