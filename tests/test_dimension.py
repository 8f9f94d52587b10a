"""TwoNN: a slow transcription, scikit-dimension, known shapes and their bias, draws, errors."""

import math

import numpy as np
import pytest
import torch
from skdim.id import TwoNN as Peer

from kdlab import dimension
from kdlab.cloud import Cloud
from kdlab.dimension import (
    METHODS,
    draws,
    estimate,
    fit_points,
    report,
    scale_curve,
    two_nn,
    two_nn_repeated,
)
from kdlab.neighbours import nearest


def cube(n, d, random):
    return random.random((n, d))


def ball(n, d, random):
    return sphere(n, d - 1, random) * random.random((n, 1)) ** (1 / d)


def sphere(n, d, random):
    x = random.standard_normal((n, d + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def swiss_roll(n, d, random):
    turn = 1.5 * np.pi * (1 + 2 * random.random(n))
    return np.stack([turn * np.cos(turn), 21 * random.random(n), turn * np.sin(turn)], 1)


def embedded(x, D, random):
    """Into D dimensions, without stretching."""
    turned, _ = np.linalg.qr(random.standard_normal((D, x.shape[1])))
    return x @ turned.T


def ratios(n, d, random):
    """Independent ratios: ln mu exponential with rate d."""
    return np.exp(random.standard_exponential(n) / d)


def slowly(x, method, discard):
    """The estimate, one distance after the other."""
    mus = []
    for i, a in enumerate(x):
        distances = sorted(math.dist(a, b) for j, b in enumerate(x) if j != i)
        mus.append(distances[1] / distances[0])
    n = len(mus)
    if method != "fit":
        return (n if method == "mle" else n - 1) / sum(math.log(mu) for mu in mus)
    above = below = 0.0
    for i, mu in enumerate(sorted(mus)[:int(n * (1 - discard))], 1):
        above += math.log(mu) * -math.log(1 - i / n)
        below += math.log(mu) ** 2
    return above / below


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("discard", [0.1, 0.25])
def test_one_distance_after_the_other(method, discard):
    x = np.random.default_rng(0).standard_normal((90, 6))
    found = two_nn(x, method, discard)
    assert found.dimension == pytest.approx(slowly(x.tolist(), method, discard), rel=1e-9)
    assert found.n == len(found.mu) == 90 and found.duplicates == 0 and found.mu.min() >= 1


def test_four_points_by_hand():
    """On a line at 0, 1, 3, 7: mu = 3/1, 2/1, 3/2, 6/4. Kept of four: int(3.6) = 3."""
    found = two_nn(np.array([[0.0], [1], [3], [7]]))
    np.testing.assert_allclose(found.mu, [3, 2, 1.5, 1.5])
    a, b = math.log(1.5), math.log(2)
    line = (a * math.log(4 / 3) + a * b + b * math.log(4)) / (2 * a * a + b * b)
    assert found.dimension == pytest.approx(line, rel=1e-12)
    total = math.log(3 * 2 * 1.5 * 1.5)
    assert two_nn(np.array([[0.0], [1], [3], [7]]), "mle").dimension == pytest.approx(4 / total)
    assert estimate(found.mu, "mle_unbiased")[0] == pytest.approx(3 / total)
    assert estimate(found.mu, "mle")[1] == pytest.approx(4 / total / 2)


def test_the_points_of_the_line():
    x, y, kept = fit_points([4, 1, 2, 3, 5], discard=0.4)
    np.testing.assert_allclose(x, np.log([1, 2, 3, 4, 5]))
    np.testing.assert_allclose(y, [*-np.log([0.8, 0.6, 0.4, 0.2]), math.inf], rtol=1e-12)
    np.testing.assert_array_equal(kept, [True, True, True, False, False])
    np.testing.assert_array_equal(fit_points([4, 1, 2, 3, 5], 0)[2], [True] * 4 + [False])
    mu = ratios(500, 7, np.random.default_rng(0))
    x, y, kept = fit_points(mu)
    assert kept.sum() == 450
    assert estimate(mu)[0] == pytest.approx(np.linalg.lstsq(x[kept, None], y[kept])[0][0])


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:skdim")
@pytest.mark.parametrize("D, discard", [(3, 0.1), (30, 0.1), (30, 0.35), (200, 0.0123)])
def test_scikit_dimension_says_the_same(D, discard):
    """It searches otherwise up to 25 dimensions and beyond."""
    x = np.random.default_rng(D).standard_normal((601, D))
    peer = Peer(discard_fraction=discard).fit(x)
    assert two_nn(x, discard=discard).dimension == pytest.approx(peer.dimension_, rel=1e-8)
    line, height, kept = fit_points(two_nn(x).mu, discard)
    np.testing.assert_allclose(line[kept], peer.x_[:, 0], rtol=1e-8)
    np.testing.assert_allclose(height[kept], peer.y_[:, 0], rtol=1e-12)
    likelihood = Peer(discard_fraction=0, method="mle").fit(x).dimension_
    assert two_nn(x, "mle_unbiased").dimension == pytest.approx(likelihood, rel=1e-8)


# Mean of the fit over 100 samples of 1000 points (40 for spheres and rolls) and the deviation of
# one sample; the dimension is the number in the second column.
KNOWN = [(cube, 2, 1.974, 0.085), (cube, 5, 4.643, 0.186), (cube, 10, 8.537, 0.345),
         (cube, 20, 15.08, 0.62), (cube, 64, 35.81, 1.18), (ball, 2, 1.989, 0.086),
         (ball, 10, 8.908, 0.400), (ball, 64, 37.79, 1.53), (sphere, 2, 2.038, 0.083),
         (sphere, 10, 9.256, 0.342), (sphere, 64, 37.98, 1.25), (swiss_roll, 2, 1.989, 0.083)]


@pytest.mark.parametrize("shape, d, mean, deviation", KNOWN)
def test_known_shapes_in_512_dimensions(shape, d, mean, deviation):
    random = np.random.default_rng(d)
    x = embedded(shape(1000, d, random), 512, random)
    found = two_nn(x)
    assert abs(found.dimension - mean) < 3 * deviation
    assert 0.7 < found.stderr / deviation < 1.1  # it knows nothing of shared neighbours
    if d >= 10:
        assert found.dimension < d - 2 * found.stderr * (d > 10)  # low, beyond all doubt at 64


def test_more_points_lessen_the_bias_slowly():
    random = np.random.default_rng(3)
    curves = np.array([scale_curve(cube(2000, 20, random)).mean for _ in range(4)]).mean(0)
    assert 0.4 < curves[0] - curves[-1] < 2  # 16 times as many points, and still far from 20
    assert 15 < curves[0] < 16


@pytest.mark.parametrize("discard", [0, 0.1, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_standard_error_of_independent_ratios(method, discard):
    random = np.random.default_rng(4)
    found = np.array([estimate(ratios(400, 5, random), method, discard) for _ in range(1500)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.06)
    inside = abs(found[:, 0] - found[:, 0].mean()) < 1.96 * found[:, 1]
    assert 0.93 < inside.mean() < 0.965


def test_neighbours_that_are_shared_widen_the_spread():
    """What the docstring says of real points: about 1.2 times the standard error."""
    random = np.random.default_rng(5)
    found = np.array([two_nn(cube(250, 5, random))[:2] for _ in range(150)])
    assert 1.05 < found[:, 0].std() / found[:, 1].mean() < 1.45


def test_unbiased_is_unbiased():
    random = np.random.default_rng(6)
    mus = [ratios(10, 5, random) for _ in range(4000)]
    assert np.mean([estimate(mu, "mle_unbiased")[0] for mu in mus]) == pytest.approx(5, rel=0.02)
    assert np.mean([estimate(mu, "mle")[0] for mu in mus]) == pytest.approx(5 * 10 / 9, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_moving_scaling_turning_and_order_change_nothing(method):
    random = np.random.default_rng(7)
    x = random.standard_normal((400, 9))
    expected = two_nn(x, method).dimension
    turn, _ = np.linalg.qr(random.standard_normal((9, 9)))
    for other in (x * 1e-9, x * 7e20, x @ turn, x + 1000, x[random.permutation(400)], -x):
        assert two_nn(other, method).dimension == pytest.approx(expected, rel=1e-8)


def test_normalizing_looks_at_directions_only():
    random = np.random.default_rng(8)
    x = random.standard_normal((300, 8))
    lengths = random.random((300, 1)) + 0.1
    expected = two_nn(x / np.linalg.norm(x, axis=1, keepdims=True)).dimension
    assert two_nn(x * lengths, normalize=True).dimension == pytest.approx(expected, rel=1e-9)
    assert abs(two_nn(x * lengths).dimension / expected - 1) > 0.01


def test_equal_rows_count_once():
    x = np.random.default_rng(9).standard_normal((200, 6))
    expected = two_nn(x)
    found = two_nn(np.concatenate([x, x[:30], x[:10]]))
    assert found.dimension == expected.dimension
    assert (found.n, found.duplicates) == (200, 40)
    np.testing.assert_array_equal(found.mu, expected.mu)


def test_equal_rows_as_in_the_code_of_ansuini_et_al():
    """Points on a line; 2 comes twice, so both go, and 3 goes: its neighbours are the copies."""
    x = np.array([[0.0], [0.5], [2], [2], [3], [9], [17]])
    found = two_nn(x, duplicates="drop")
    np.testing.assert_allclose(found.mu, [2 / 0.5, 1.5 / 0.5, 7 / 6, 14 / 8])
    assert (found.n, found.duplicates) == (4, 3)
    assert found.dimension == pytest.approx(estimate([4, 3, 7 / 6, 14 / 8])[0])
    merged = two_nn(x)
    np.testing.assert_allclose(merged.mu, [4, 3, 1.5, 2.5, 7 / 6, 14 / 8])
    assert merged.duplicates == 1
    clean = np.random.default_rng(0).standard_normal((80, 4))
    assert two_nn(clean, duplicates="drop")[:2] == two_nn(clean)[:2]


def test_float32_far_from_the_origin_and_near_duplicates_keep_their_digits():
    """Pairs 1e-4 apart in a cloud 1000 away: mu up to 1e4, all of it from the last digits."""
    random = np.random.default_rng(10)
    x = random.standard_normal((200, 16))
    x = np.concatenate([x, x + 1e-4 * random.standard_normal((200, 16)) / 4])
    near, far = x.astype(np.float32), (x * 16 + 1000).astype(np.float32)
    for points in (near, far):
        exact = np.sort(np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2), 1)
        found = two_nn(points)
        np.testing.assert_allclose(found.mu, exact[:, 2] / exact[:, 1], rtol=1e-12)
        assert np.median(found.mu) > 1e3


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("neighbours, fraction, fallback", [(12, 0.9, "none"), (4, 0.9, "rows"),
                                                            (2, 0.9, "pass"), (12, 0.3, "pass")])
def test_one_pass_serves_all_draws(neighbours, fraction, fallback, normalize, monkeypatch):
    seen = {"rows": 0, "pass": -1}

    def count(kind, real):
        def counted(*arguments):
            seen[kind] += 1
            return real(*arguments)
        return counted

    monkeypatch.setattr(dimension, "nearest_of", count("rows", dimension.nearest_of))
    monkeypatch.setattr(dimension, "nearest", count("pass", dimension.nearest))
    x = np.random.default_rng(11).standard_normal((400, 10)).astype(np.float32)
    x[50] = x[20]
    found = two_nn_repeated(x, 20, fraction, normalize=normalize, seed=5, neighbours=neighbours)
    assert [kind for kind in seen if seen[kind]] == ([] if fallback == "none" else [fallback])
    distinct = np.delete(x, 50, 0)
    alone = [two_nn(distinct[rows], normalize=normalize).dimension
             for rows in draws(399, 20, fraction, 5)]
    np.testing.assert_allclose(found.values, alone, rtol=1e-10)
    assert found.mean == pytest.approx(np.mean(alone)) and found.std == pytest.approx(np.std(alone))
    whole = two_nn(x, normalize=normalize)
    assert found.whole[:2] == pytest.approx(whole[:2], rel=1e-10)
    assert (found.whole.n, found.whole.duplicates) == (399, 1)


@pytest.mark.parametrize("method", METHODS)
def test_draws_with_the_other_form_and_methods(method):
    x = np.random.default_rng(12).standard_normal((150, 5))
    x = np.concatenate([x, x[:40]])
    found = two_nn_repeated(x, 6, 0.8, method, False, 3, discard=0.2, duplicates="drop")
    alone = [two_nn(x[rows], method, 0.2, duplicates="drop").dimension
             for rows in draws(190, 6, 0.8, 3)]
    np.testing.assert_allclose(found.values, alone, rtol=1e-10)


def test_draws():
    drawn = draws(1000, 5, 0.9, 1)
    assert len(drawn) == 5
    for rows in drawn:
        assert len(rows) == 900 and (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < 1000
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(draws(1000, 5, 0.9, 1), drawn)
    assert not np.array_equal(draws(1000, 5, 0.9, 2), drawn)
    np.testing.assert_array_equal(draws(5, 2, 1), [range(5)] * 2)


def test_all_of_the_points_in_every_draw():
    x = np.random.default_rng(0).standard_normal((60, 3))
    found = two_nn_repeated(x, 3, 1, normalize=False)
    assert found.values.tolist() == [two_nn(x).dimension] * 3 and found.std == 0


def test_scale_curve_is_blocks_of_a_shuffle():
    x = np.random.default_rng(13).standard_normal((430, 4))
    curve = scale_curve(x, seed=2)
    np.testing.assert_array_equal(curve.n, [430, 215, 108])
    np.testing.assert_array_equal(curve.blocks, [1, 2, 4])
    order = np.random.default_rng(2).permutation(430)
    for k, blocks in enumerate((1, 2, 4)):
        alone = [two_nn(x[part]) for part in np.array_split(order, blocks)]
        d = [one.dimension for one in alone]
        assert curve.mean[k] == pytest.approx(np.mean(d), rel=1e-9)
        assert curve.std[k] == pytest.approx(np.std(d), rel=1e-6, abs=1e-12)
        assert curve.stderr[k] == pytest.approx(np.mean([one.stderr for one in alone]))
    np.testing.assert_array_equal(scale_curve(x, halvings=0).blocks, [1])
    assert len(scale_curve(x[:50]).n) == 1
    with pytest.raises(ValueError, match="430 points can be halved 0 to 7 times .* not 8"):
        scale_curve(x, halvings=8)


@pytest.mark.parametrize("kind", [lambda x: torch.from_numpy(x), lambda x: x.astype(np.float64),
                                  lambda x: torch.from_numpy(x).requires_grad_()])
def test_arrays_and_tensors_alike(kind):
    x = np.random.default_rng(14).standard_normal((120, 6)).astype(np.float32)
    assert two_nn(kind(x)).dimension == pytest.approx(two_nn(x).dimension, rel=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_fewer_than_three_points(rows):
    with pytest.raises(ValueError, match="3 different points at least; of .* only"):
        two_nn(np.arange(2.0 * rows).reshape(rows, 2))
    for form in ("merge", "drop"):
        with pytest.raises(ValueError, match=f"of {5 * rows} rows only {rows} differ"):
            two_nn(np.arange(2.0 * rows).reshape(rows, 2).repeat(5, 0), duplicates=form)


def test_three_points_are_enough():
    assert two_nn(np.array([[0.0], [1], [3]])).dimension > 0


def test_a_row_that_is_not_finite_is_named():
    x = np.ones((10, 3))
    x[4, 1] = np.nan
    for call in (two_nn, two_nn_repeated, scale_curve):
        with pytest.raises(ValueError, match="row 4 is not finite"):
            call(x)


def test_a_lattice_tells_no_dimension():
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    with pytest.raises(ValueError, match="two neighbours equally far, as in a lattice"):
        two_nn(square)
    with pytest.raises(ValueError, match="0 ratios with discard 0.1 leave nothing"):
        two_nn(square, duplicates="drop")


@pytest.mark.parametrize("arguments, message", [
    ({"method": "line"}, "method must be one of fit, mle, mle_unbiased, not 'line'"),
    ({"discard": 1}, "discard must be a share, 0 or more and below 1, not 1"),
    ({"discard": math.nan}, "discard must be a share"),
    ({"discard": 0.99}, "20 ratios with discard 0.99 leave nothing to estimate from"),
    ({"duplicates": "keep"}, 'duplicates must be "merge" or "drop", not \'keep\''),
])
def test_what_cannot_be_asked_for(arguments, message):
    x = np.random.default_rng(0).standard_normal((20, 3))
    for call in (two_nn, two_nn_repeated, scale_curve):
        with pytest.raises(ValueError, match=message):
            call(x, **arguments)


@pytest.mark.parametrize("arguments, message", [
    ({"repeats": 0}, "repeats must be 1 or more, not 0"),
    ({"fraction": 0}, "fraction must be above 0, at most 1"),
    ({"fraction": 1.1}, "leave 3 of 20 points, not 1.1"),
    ({"fraction": 0.1}, "leave 3 of 20 points, not 0.1"),
])
def test_draws_that_cannot_be(arguments, message, monkeypatch):
    monkeypatch.setattr(dimension, "nearest", None)  # said before the long part
    with pytest.raises(ValueError, match=message):
        two_nn_repeated(np.random.default_rng(0).standard_normal((20, 3)), **arguments)


@pytest.mark.parametrize("mu", [[], [2], [2, math.nan, 3], [2, math.inf, 3], [0.5, 2, 3]])
def test_what_are_no_ratios(mu):
    with pytest.raises(ValueError, match="ratios"):
        estimate(mu)


def test_report_of_a_file(tmp_path):
    x = np.random.default_rng(15).standard_normal((90, 7)).astype(np.float32)
    x[3] = x[2]
    np.save(tmp_path / "x.npy", x)
    said = report(tmp_path / "x.npy", "mle", 0.2, 4, 0.8, False, 6)
    whole, drawn = two_nn(x, "mle"), two_nn_repeated(x, 4, 0.8, "mle", False, 6)
    assert (said["rows"], said["columns"], said["n"], said["duplicates"]) == (90, 7, 89, 1)
    assert (said["dimension"], said["stderr"]) == pytest.approx(whole[:2], rel=1e-10)
    assert (said["mean"], said["std"]) == drawn[:2] and said["values"] == drawn.values.tolist()
    assert said["method"] == "mle" and said["seed"] == 6 and said["normalize"] is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3000, 64), dtype=np.float32))
    for call in (two_nn_repeated, scale_curve):
        assert call(x.cuda()).mean == pytest.approx(call(x).mean, rel=1e-10)


def test_ratios_by_hand_from_neighbours():
    """What a notebook does step by step."""
    x = np.random.default_rng(16).standard_normal((100, 5))
    r1, r2 = nearest(Cloud(x), 2).distances.T
    assert estimate(r2 / r1) == two_nn(x)[:2]


@pytest.mark.parametrize(("n", "discard", "left"), [(10, 0.9, 1), (10, 0.8, 2), (1000, 0.1, 900)])
def test_rounding_takes_no_point_away(n, discard, left):
    assert fit_points(np.linspace(1.1, 2, n), discard)[2].sum() == left
