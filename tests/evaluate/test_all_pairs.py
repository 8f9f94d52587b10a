"""All against all in tiles: the plain loop's rates, and every threshold that of a full sort."""

import numpy as np
import pytest
import torch

from kdlab.evaluate.all_pairs import MFR, all_versus_all, curve, mfr, mfr_score
from kdlab.evaluate.pairs import unit_rows
from kdlab.evaluate.ranked import BINS, lower_edges, operating_points, ranked
from kdlab.evaluate.verification import tpr_at_fpr

FPRS = (0.5, 0.1, 0.03, 1e-2, 1e-3, 1e-4)


def people(random, N=60, P=12, D=6):
    """Embeddings of P people, some pictures each, float64."""
    labels = random.integers(P, size=N)
    return random.normal(size=(P, D))[labels] + random.normal(size=(N, D)), labels


def loop(x, labels, a=None, b=None):
    """(genuine, impostor), every pair by itself in float64."""
    pairs = ([(i, j) for i in range(len(x)) for j in range(i + 1, len(x))] if b is None else
             [(i, j) for i in a for j in b])
    kinds = ([], [])
    for i, j in pairs:
        cosine = sum(x[i] * x[j]) / (sum(x[i]**2) ** 0.5 * sum(x[j]**2) ** 0.5)
        kinds[int(labels[i] != labels[j])].append(cosine)
    return tuple(map(np.array, kinds))


def every_rate(genuine, impostor):
    """(TPR, FPR) at every threshold that is a score, and above all."""
    return [(0.0, 0.0)] + [(float((genuine >= t).mean()), float((impostor >= t).mean()))
                           for t in [*genuine, *impostor]]


def exact(random, N, D=64, nonzero=16):
    """Embeddings whose products float32 holds exactly in any order: entries 0 and +-1/4, norm 1."""
    x = np.zeros((N, D), np.float32)
    for row in x:
        row[random.choice(D, nonzero, replace=False)] = random.choice([-0.25, 0.25], nonzero)
    return x


# The protocol


@pytest.mark.parametrize("seed", range(3))
def test_the_loop(seed):
    x, labels = people(np.random.default_rng(seed))
    genuine, impostor = loop(x, labels)
    found = all_versus_all(x, labels, FPRS, block=7)
    np.testing.assert_allclose(found.genuine, np.sort(genuine), atol=1e-6)
    assert found.impostors == len(impostor) == found.counts.sum()
    rates = every_rate(genuine, impostor)
    for fpr in FPRS:
        tpr, rate = max(both for both in rates if both[1] <= fpr)
        point = found.points[fpr]
        assert point.tpr == pytest.approx(tpr, abs=1e-9)
        assert point.fpr == pytest.approx(rate, abs=1e-9)
        assert point.supported == (fpr * len(impostor) >= 1) and point.low <= tpr <= point.high


@pytest.mark.parametrize("rule", ["below", "nearest"])
def test_two_sides_loop(rule):
    random = np.random.default_rng(1)
    x, labels = people(random)
    a, b = np.split(random.permutation(60)[:50], [20])
    genuine, impostor = loop(x, labels, a, b)
    found = all_versus_all(x, labels, FPRS, rule, a, b, block=8)
    assert (len(found.genuine), found.impostors) == (len(genuine), len(impostor))
    for fpr in FPRS:
        theirs = tpr_at_fpr(genuine, impostor, fpr, rule)
        assert found.points[fpr][:2] == pytest.approx(theirs[:2], abs=1e-9)


def test_one_side_alone_is_the_set_of_its_rows():
    x, labels = people(np.random.default_rng(2))
    rows = np.random.default_rng(3).permutation(60)[:30]
    one = all_versus_all(x, labels, FPRS, a=rows, block=8)
    other = all_versus_all(x[rows], labels[rows], FPRS, block=8)
    assert one.points == other.points and one.impostors == other.impostors


@pytest.mark.parametrize("block", [5, 64, 1000])
@pytest.mark.parametrize("rule", ["below", "nearest"])
def test_bit_for_bit_a_full_sort_where_products_are_exact(block, rule):
    """Many ties (multiples of 1/16); float64 has the same scores, so the sort is of those."""
    random = np.random.default_rng(4)
    x, labels = exact(random, 90), random.integers(20, size=90)
    x[40:50] = x[0]  # duplicates, of one person and of several
    i, j = np.triu_indices(90, 1)
    score, same = (x.astype(np.float64) @ x.T.astype(np.float64))[i, j], labels[i] == labels[j]
    found = all_versus_all(x, labels, FPRS, rule, block=block)
    assert np.array_equal(found.genuine, np.sort(score[same]))
    for fpr in FPRS:
        genuine, impostor = score[same].astype(np.float32), score[~same].astype(np.float32)
        theirs = tpr_at_fpr(genuine, impostor, fpr, rule)
        assert found.points[fpr]._replace(threshold=0) == theirs._replace(threshold=0)
        if rule == "below":
            assert found.points[fpr].threshold == theirs.threshold


@pytest.mark.parametrize("rule", ["below", "nearest"])
def test_bit_for_bit_a_full_sort_of_the_same_products(rule):
    random = np.random.default_rng(5)
    x, labels = people(random, 200, 40, 32)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    order = np.argsort(labels, kind="stable")
    x, labels = x[order], labels[order]
    found = all_versus_all(x, labels, FPRS, rule, block=200)  # one tile: one product
    i, j = np.triu_indices(200, 1)
    unit = unit_rows(x)
    score, same = (unit @ unit.T)[i, j], labels[i] == labels[j]
    assert np.array_equal(found.genuine, np.sort(score[same]))
    for fpr in FPRS:
        theirs = tpr_at_fpr(score[same], score[~same], fpr, rule)
        assert found.points[fpr]._replace(threshold=0) == theirs._replace(threshold=0)


def test_curve_is_the_roc_at_its_thresholds():
    x, labels = people(np.random.default_rng(6))
    found = all_versus_all(x, labels, FPRS, block=16)
    genuine, impostor = loop(x, labels)
    fpr, tpr, thresholds = curve(found)
    assert (fpr[0], tpr[0], thresholds[0]) == (0, 0, np.inf) and fpr[-1] == 1
    assert (np.diff(thresholds) < 0).all()
    for f, t, threshold in zip(fpr, tpr, thresholds, strict=True):
        assert f == pytest.approx((impostor >= threshold).mean(), abs=1e-9)
        assert t == pytest.approx((genuine >= threshold).mean(), abs=1e-9)


# MFR


def test_mfr_uses_each_tracks_published_rate():
    assert {track for track, fpr in MFR.items() if fpr == 1e-4} == {"mask", "children"}
    assert all(fpr == 1e-6 for track, fpr in MFR.items() if track not in ("mask", "children"))
    x, labels = people(np.random.default_rng(7))
    for track in set(MFR) - {"mask"}:
        assert list(mfr(x, labels, track).points) == [MFR[track]]


def test_mask_is_masked_to_plain():
    random = np.random.default_rng(8)
    x, labels = people(random)
    masked = random.random(60) < 0.4
    genuine, impostor = loop(x, labels, np.flatnonzero(masked), np.flatnonzero(~masked))
    found = mfr(x, labels, "mask", masked)
    assert (len(found.genuine), found.impostors) == (len(genuine), len(impostor))
    assert found.points[1e-4].tpr == pytest.approx((genuine > impostor.max()).mean(), abs=1e-9)


def test_below_one_over_impostors_it_is_the_share_above_the_highest():
    x, labels = people(np.random.default_rng(9))
    genuine, impostor = loop(x, labels)
    found = mfr(x, labels, "mr-all")
    point = found.points[1e-6]
    assert found.impostors < 1e6 and not point.supported and point.fpr == 0
    assert point.tpr == pytest.approx((genuine > impostor.max()).mean(), abs=1e-9)


def test_published_numbers_of_impostors_are_ordered_pairs_less_the_genuine():
    """Two people, two and three pictures: 20 ordered pairs, 4 genuine; they say 16, we say 6."""
    x, labels = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 0, 1, 1, 1])
    found = all_versus_all(x, labels, (0.5,))
    n, G = 5, len(found.genuine)
    assert (G, found.impostors, n * n - n - G) == (4, 6, 16)
    assert 2 * found.impostors == n * n - n - 2 * G


def test_ranking_score():
    assert mfr_score(0.4, 0.8) == pytest.approx(0.7)


@pytest.mark.parametrize("track, masked, said", [
    ("adults", None, "no track 'adults'; it has mask, children"),
    ("mask", None, "'mask', and no other"),
    ("children", np.ones(4, bool), "'mask', and no other"),
    ("mask", np.ones(4), r"\(4,\) bool, not \(4,\) float64"),
    ("mask", np.ones(3, bool), r"\(4,\) bool, not \(3,\)")])
def test_mfr_refusals(track, masked, said):
    with pytest.raises(ValueError, match=said):
        mfr(np.eye(4), np.array([0, 0, 1, 1]), track, masked)


# Edges


def test_one_impostor():
    x = np.array([[1, 0], [1, 0], [0.6, 0.8]])
    genuine_high = all_versus_all(x, [0, 0, 1], (0.5,), a=[0, 2], b=[1])
    assert (genuine_high.impostors, genuine_high.points[0.5].tpr) == (1, 1)
    assert not genuine_high.points[0.5].supported and genuine_high.points[0.5].fpr == 0
    tie = all_versus_all(np.ones((3, 2)), [0, 0, 1], (0.5,), "nearest", a=[0, 2], b=[1])
    assert tie.points[0.5][:2] == (1, 1)  # at 0 or at 1, equally near: the larger TPR


def test_a_network_that_gives_all_faces_one_embedding():
    """Every score ties: below accepts nobody, whatever the rate."""
    found = all_versus_all(np.ones((50, 8)), np.repeat(np.arange(10), 5), FPRS, block=16)
    assert all((p.tpr, p.fpr) == (0, 0) for p in found.points.values())
    nearest = all_versus_all(np.ones((50, 8)), np.repeat(np.arange(10), 5), (0.6,), "nearest")
    assert nearest.points[0.6][:2] == (1, 1)


def test_nan_is_named_by_its_row():
    x, labels = people(np.random.default_rng(0))
    x[17, 3] = np.nan
    with pytest.raises(ValueError, match="embedding 17 is not finite"):
        all_versus_all(x, labels, block=4)
    rest = np.delete(np.arange(60), 17)
    assert all_versus_all(x, labels, a=rest).impostors > 0  # it does not take part


@pytest.mark.parametrize("labels, said", [([0, 1, 2, 3], "no genuine pairs"),
                                          ([0, 0, 0, 0], "no impostor pairs"),
                                          ([0, 0, 1], r"labels \(N,\), not \(4, 4\) and \(3,\)")])
def test_no_pairs_are_said(labels, said):
    with pytest.raises(ValueError, match=said):
        all_versus_all(np.eye(4), labels)


@pytest.mark.parametrize("more, said", [
    ({"b": [0]}, "b without a"), ({"a": [0, 1], "b": [1, 2]}, "row 1 is on both sides"),
    ({"a": [0, 9]}, "a asks for rows 0 to 9 of 4"), ({"a": [0, 0, 1]}, "a names a row twice"),
    ({"block": 0}, "block = 0"), ({"fprs": ()}, "fprs is empty"),
    ({"fprs": (0,)}, "between 0 and 1"), ({"rule": "best"}, '"below" or "nearest"')])
def test_refusals(more, said):
    with pytest.raises(ValueError, match=said):
        all_versus_all(np.eye(4), [0, 0, 1, 1], **more)


def test_mapped_from_a_file(tmp_path):
    x, labels = people(np.random.default_rng(0))
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one = all_versus_all(mapped, labels, FPRS)
    assert one.points == all_versus_all(np.array(mapped), labels, FPRS).points


# Ranks


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["normal", "ties", "one value", "an edge", "signed zeros",
                                  "tiny"])
def test_ranked_is_a_sort(monkeypatch, kind, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    random = np.random.default_rng(0)
    scores = {"normal": random.normal(size=500), "ties": random.integers(-3, 4, 500) / 4,
              "one value": np.full(500, -0.3), "an edge": np.full(500, 0.5),
              "tiny": random.normal(size=500) * 1e-40,
              "signed zeros": random.choice([-0.0, 0.0, 1.0], 500)}[kind].astype(np.float32)
    down = np.sort(scores)[::-1]
    tiles = [lambda part=part: part for part in np.split(scores, [0, 1, 100, 333])]
    ranks = [0, 1, 7, 250, 251, 498, 499]
    steps, counts = ranked(tiles, ranks)
    assert counts.sum() == 500
    for rank, step in zip(ranks, steps, strict=True):
        assert step.score == down[rank]
        assert (step.above, step.reached) == ((scores > down[rank]).sum(),
                                              (scores >= down[rank]).sum())
        lower = scores[scores < down[rank]]
        assert step.under == (lower.max() if len(lower) else -np.inf)


def test_bins_ascend():
    edges = lower_edges(np.arange(BINS // 2 - 0x3f80, BINS // 2 + 0x3f81))  # -1 to 1
    assert edges[0] == -1 and edges[-1] == 1 and (np.diff(edges) > 0).all()
    assert 0 in edges


def test_scores_that_change_between_the_passes_are_noticed():
    random = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="not the same in both passes"):
        ranked([lambda: random.normal(size=100).astype(np.float32)], [3])


def test_tiles_without_a_wanted_score_are_not_made_again():
    made = []

    def tile(k):
        made.append(k)
        return np.full(10, k / 10, np.float32)

    steps, _ = ranked([lambda k=k: tile(k) for k in range(8)], [0])
    assert made == [*range(8), 6, 7] and steps[0][1:3] == (0, 10)  # 6: the next one under


def test_points_stop_between_two_tiles():
    """An interruption passes through."""
    def tile():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        operating_points(np.array([0.5], np.float32), [tile], 3, (0.1,))
