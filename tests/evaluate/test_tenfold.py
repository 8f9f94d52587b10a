"""Ten folds against the protocols written out as loops, in float64."""

import numpy as np
import pytest
from scipy.interpolate import interp1d

from kdlab.evaluate.tenfold import FINE_GRID, ten_fold, val_at_far
from kdlab.evaluate.verification import verification_accuracy


def pairs(P=60, seed=0, D=4):
    """(2P, D) embeddings, two of three genuine pairs alike, and is_same (P,), well mixed."""
    random = np.random.default_rng(seed)
    x, is_same = random.normal(size=(2 * P, D)), np.arange(P) % 2 == 0
    x[1::2] = np.where(is_same[:, None], x[::2] + 0.8 * x[1::2], x[1::2])
    return x, is_same


def cut(P, folds):
    size, extra = divmod(P, folds)
    stops = [sum(size + (f < extra) for f in range(k)) for k in range(folds + 1)]
    return [range(a, b) for a, b in zip(stops, stops[1:], strict=False)]


def distances(x):
    x = [row / sum(row**2) ** 0.5 for row in x]
    return [sum((a - b) ** 2) for a, b in zip(x[::2], x[1::2], strict=True)]


def insightface_loop(x, is_same, folds):
    d, rates = distances(x), []
    for fold in cut(len(is_same), folds):
        best, chosen = -1, None
        for step in range(400):
            right = sum((d[k] < step * 0.01) == is_same[k] for k in range(len(d)) if k not in fold)
            if right > best:
                best, chosen = right, step * 0.01
        rates.append(sum((d[k] < chosen) == is_same[k] for k in fold) / len(fold))
    mean = sum(rates) / folds
    return rates, mean, (sum((r - mean) ** 2 for r in rates) / folds) ** 0.5


def facexzoo_loop(x, is_same, folds):
    c, rates = [1 - d / 2 for d in distances(x)], []
    for fold in cut(len(is_same), folds):
        rest = [k for k in range(len(c)) if k not in fold]
        low, high = min(c[k] for k in rest), max(c[k] for k in rest)
        best, chosen = -np.inf, None
        for step in range(1, 1001):
            t = low + (high - low) / 1000 * step
            tpr, fpr = (np.mean([c[k] > t for k in rest if is_same[k] == kind])
                        for kind in (True, False))
            if tpr - fpr > best:
                best, chosen = tpr - fpr, t
        rates.append(sum(c[k] > chosen if is_same[k] else c[k] < chosen for k in fold) / len(fold))
    mean = sum(rates) / folds
    return rates, mean, (sum((r - mean) ** 2 for r in rates) / (folds - 1)) ** 0.5 / folds**0.5


def val_loop(x, is_same, far, folds):
    """VAL, its spread and FAR, the line drawn by SciPy."""
    d = distances(x)
    vals, fars = [], []
    for fold in cut(len(is_same), folds):
        others = [d[k] for k in range(len(d)) if k not in fold and not is_same[k]]
        rates = [sum(o < t for o in others) / len(others) for t in FINE_GRID]
        threshold = interp1d(rates, FINE_GRID, kind="linear")(far) if max(rates) >= far else 0
        vals.append(np.mean([d[k] < threshold for k in fold if is_same[k]]))
        fars.append(np.mean([d[k] < threshold for k in fold if not is_same[k]]))
    return np.mean(vals), np.std(vals), np.mean(fars)


@pytest.mark.parametrize("variant, loop", [("insightface", insightface_loop),
                                           ("facexzoo", facexzoo_loop)])
@pytest.mark.parametrize("P, folds, seed", [(60, 10, 0), (33, 5, 1), (12, 2, 2)])
def test_the_loop(variant, loop, P, folds, seed):
    x, is_same = pairs(P, seed)
    rates, mean, spread = loop(x, is_same, folds)
    found = ten_fold(x, is_same, folds, variant)
    np.testing.assert_allclose(found.folds, rates, rtol=1e-9)
    assert found[:2] == pytest.approx((mean, spread), rel=1e-9) and found.pairs == P
    assert found.low <= mean <= found.high and len(found.thresholds) == folds


def test_the_two_variants_are_not_one_number():
    x, is_same = pairs()
    one, other = (ten_fold(x, is_same, variant=name) for name in ("insightface", "facexzoo"))
    assert one.spread != pytest.approx(other.spread, rel=0.1)


def test_insightface_is_verification_accuracy():
    x, is_same = pairs(70, 3)
    assert ten_fold(x, is_same)[:2] == pytest.approx(verification_accuracy(x, is_same), rel=1e-12)


def test_hand_number():
    """Same at distance 0.01, other at 3.98: from 0.01 on every threshold is right, 0.01 the first
    that is above. The last pair is genuine and opposite: always wrong, 7 of 8."""
    angles = np.array([0, 0.1, 0, 3.0] * 4)
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    x[13] = -x[12]
    found = ten_fold(x, np.array([True, False] * 4), 4)
    assert found.folds.tolist() == [1, 1, 1, 0.5] and found.accuracy == 7 / 8
    assert found.spread == pytest.approx((3 / 64) ** 0.5)  # 0.125, thrice, and 0.375
    assert found.thresholds.tolist() == [0.01] * 4
    assert found.low == pytest.approx(0.4735, abs=1e-4)  # Clopper and Pearson, 7 of 8


def test_facexzoos_last_threshold_is_the_highest_score_and_a_tie_is_wrong():
    """Impostors at cosine 1, genuine at 0: TPR - FPR is -1 until, at 1, it is 0. The first fold's
    genuine pair is at 1, too; it is not strictly above."""
    right, up = [1.0, 0.0], [0.0, 1.0]
    x = np.array([right, right, right, right, right, up, right, right, right, up, right, right])
    found = ten_fold(x, np.array([True, False] * 3), 3, "facexzoo")
    assert found.thresholds[0] == 1 and found.folds[0] == 0


def test_a_far_that_no_threshold_reaches():
    """Impostors opposite, at distance 4, beyond the grid: nobody is accepted, as theirs does it."""
    random = np.random.default_rng(0)
    x, is_same = np.repeat(random.normal(size=(12, 3)), 2, axis=0), np.arange(12) % 2 == 0
    x[1::2][~is_same] *= -1
    found = val_at_far(x, is_same, 0.5, 3)
    assert (found.val, found.far) == (0, 0)
    assert (found.val, found.spread, found.far) == val_loop(x, is_same, 0.5, 3)


@pytest.mark.parametrize("far", [1e-3, 0.02, 0.1, 1 / 27, 0.5, 0.99])
@pytest.mark.parametrize("P, folds, seed", [(60, 10, 0), (31, 5, 1)])
def test_val_loop(far, P, folds, seed):
    x, is_same = pairs(P, seed)
    found = val_at_far(x, is_same, far, folds)
    assert (found.val, found.spread, found.far) == pytest.approx(val_loop(x, is_same, far, folds),
                                                                 abs=1e-9)
    assert (found.genuine, found.impostor) == (is_same.sum(), P - is_same.sum())
    if P % folds == 0:  # folds of one size: their mean is the share of all
        assert found.low <= found.val <= found.high
        assert found.far_low <= found.far <= found.far_high


def test_slinear_fails_where_many_thresholds_have_one_far():
    """What insightface's code asks of SciPy, and why here it is not asked."""
    with pytest.raises(ValueError, match="duplicates|distinct"):
        interp1d([0, 0, 0.5, 0.5, 1], [0, 1, 2, 3, 4], kind="slinear")(0.1)
    x, is_same = pairs()
    assert 0 <= val_at_far(x, is_same, 1e-3).val <= 1


def test_val_says_whether_the_far_is_supported():
    """30 impostor pairs, 27 outside a fold of 6: a FAR of 1/27 allows one."""
    x, is_same = pairs(60)
    assert val_at_far(x, is_same, 1 / 27).supported
    assert not val_at_far(x, is_same, 0.99 / 27).supported


def test_a_fold_of_one_kind_has_no_rate():
    x, is_same = pairs(20)
    with pytest.raises(ValueError, match="fold 1 of 10 has no impostor pair"):
        val_at_far(x, np.sort(is_same)[::-1])
    with pytest.raises(ValueError, match="fold 1 of 10 has no genuine pair"):
        val_at_far(x, np.sort(is_same))
    with pytest.raises(ValueError, match="pairs of both kinds"):
        ten_fold(x, np.ones(20, bool), variant="facexzoo")
    assert ten_fold(x, np.ones(20, bool)).pairs == 20  # accuracy there is of one kind


@pytest.mark.parametrize("judge", [ten_fold, val_at_far])
def test_refusals(judge):
    x, is_same = pairs(12)
    with pytest.raises(ValueError, match="11 pairs need embeddings .2P, D., 22 of them"):
        judge(x, is_same[1:])
    with pytest.raises(ValueError, match="folds must be 2 to 12"):
        judge(x, is_same, folds=13)
    with pytest.raises(ValueError, match=r"is_same must be \(P,\) bool, not \(12,\) float64"):
        judge(x, is_same + 0.5)
    x[9] = np.nan
    with pytest.raises(ValueError, match="embedding 9 of pair 4 is not finite .* 1 of 24"):
        judge(x, is_same)


def test_other_arguments_are_refused():
    x, is_same = pairs(12)
    with pytest.raises(ValueError, match='"insightface" or "facexzoo"'):
        ten_fold(x, is_same, variant="tface")
    with pytest.raises(ValueError, match="between 0 and 1"):
        val_at_far(x, is_same, 0, 2)
