"""Verification against the protocols written out as loops, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from kdlab.evaluate.pairs import worst_pairs
from kdlab.evaluate.verification import (
    eer,
    embed,
    pair_scores,
    rates_at,
    roc,
    tpr_at_fpr,
    verification_accuracy,
)
from kdlab.outputs import Output


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def scores(random):
    """Rounded, so that many scores tie, within and across the two kinds."""
    return np.round(random.normal(1, 1, 60), 1), np.round(random.normal(0, 1, 200), 1)


# Pairs


@pytest.mark.parametrize("block", [1, 3, 7, 1024])
def test_pair_scores_loop(random, block):
    x, labels = random.normal(size=(15, 4)), random.integers(0, 4, 15)
    genuine, impostor = [], []
    for i in range(15):
        for j in range(i + 1, 15):
            cosine = sum(x[i] * x[j]) / (sum(x[i] ** 2) ** 0.5 * sum(x[j] ** 2) ** 0.5)
            (genuine if labels[i] == labels[j] else impostor).append(cosine)
    got = pair_scores(x, labels, block=block)
    np.testing.assert_allclose(np.sort(got[0]), np.sort(genuine), rtol=1e-9)
    np.testing.assert_allclose(np.sort(got[1]), np.sort(impostor), rtol=1e-9)


def test_pair_scores_float32_and_long_vectors_stay_float32(random):
    x = (random.normal(size=(6, 4)) * 1e18).astype(np.float32)
    genuine, impostor = pair_scores(x, np.array([0, 0, 1, 1, 2, 2]))
    assert genuine.dtype == np.float32 and (len(genuine), len(impostor)) == (3, 12)
    assert np.abs(np.concatenate([genuine, impostor])).max() <= 1 + 1e-6


def test_nan_embeddings_are_counted(random):
    x = random.normal(size=(6, 4))
    x[1, 2], x[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 6 embeddings are not finite"):
        pair_scores(x, np.arange(6))


def test_labels_must_fit(random):
    with pytest.raises(ValueError, match=r"labels of shape \(6,\)"):
        pair_scores(random.normal(size=(6, 4)), np.arange(5))


# ROC


def test_roc_loop(scores):
    genuine, impostor = scores
    fpr, tpr, thresholds = roc(genuine, impostor)
    assert len(thresholds) == len(set(genuine) | set(impostor)) + 1
    for f, t, threshold in zip(fpr, tpr, thresholds, strict=True):
        assert t == sum(g >= threshold for g in genuine) / len(genuine)
        assert f == sum(i >= threshold for i in impostor) / len(impostor)
        assert (t, f) == rates_at(genuine, impostor, threshold)
    assert (fpr[0], tpr[0], thresholds[0]) == (0, 0, np.inf) and (fpr[-1], tpr[-1]) == (1, 1)


def test_roc_equals_scikit_learn(scores):
    from sklearn.metrics import roc_curve

    genuine, impostor = scores
    truth = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    theirs = roc_curve(truth, np.concatenate(scores), drop_intermediate=False)
    for ours, other in zip(roc(genuine, impostor), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-12)


def test_eer_hand_numbers():
    # 4 genuine, 4 impostor, one on the wrong side each: both error rates are 1/4 at 0.5.
    assert eer(np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.3, 0.4, 0.6])) == 0.25
    assert eer(np.array([0.9, 0.8]), np.array([0.1, 0.3])) == 0
    assert eer(np.array([0.1, 0.3]), np.array([0.9, 0.8])) == 1
    assert eer(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.5  # ties: chance
    # FNR, FPR: (1, 0) -> (1/2, 0) -> (1/2, 1) -> (0, 1): FPR = FNR = 1/2 on the second stretch.
    assert eer(np.array([0.9, 0.1]), np.array([0.5])) == 0.5


# TPR at FPR


@pytest.mark.parametrize("fpr", [0.001, 0.005, 0.01, 0.05, 0.1, 0.29, 0.5, 0.999])
def test_below_loop(scores, fpr):
    genuine, impostor = scores
    best = 0.0
    candidates = [*sorted(set(genuine) | set(impostor)), 99.0]
    for threshold in candidates:  # the largest TPR with FPR <= target, over every threshold
        if sum(i >= threshold for i in impostor) / len(impostor) <= fpr:
            best = max(best, sum(g >= threshold for g in genuine) / len(genuine))
    point = tpr_at_fpr(genuine, impostor, fpr)
    assert point.tpr == best and point.fpr <= fpr
    assert (point.tpr, point.fpr) == rates_at(genuine, impostor, point.threshold)
    assert point.supported == (fpr * len(impostor) >= 1)
    assert point.low <= point.tpr <= point.high


@pytest.mark.parametrize("fpr", [0.001, 0.0075, 0.05, 0.3, 0.999])
def test_nearest_loop(scores, fpr):
    genuine, impostor = scores
    points = []
    for threshold in [*sorted(set(genuine) | set(impostor)), np.inf]:
        f, t = (np.mean([s >= threshold for s in kind]) for kind in (impostor, genuine))
        points.append((abs(f - fpr), -t))
    assert tpr_at_fpr(genuine, impostor, fpr, rule="nearest").tpr == -min(points)[1]


def test_scikit_learn_drops_the_nearest_point():
    """Its roc_curve leaves out, by default, points inside a straight run: nearest is then far off.

    Every genuine score has an impostor's for company, so the ROC is the diagonal, and of its points
    0, 0.1, 0.2, ... 1 there remain 0, 0.1 and 1. Asked for FPR 0.4, the IJB scripts say TPR 0.1."""
    from sklearn.metrics import roc_curve

    scores = np.arange(10) / 10
    truth = np.r_[np.ones(10), np.zeros(10)]
    tprs = {}
    for drop in (True, False):
        fpr, tpr, _ = roc_curve(truth, np.r_[scores, scores], drop_intermediate=drop)
        tprs[drop] = tpr[np.argmin(abs(fpr - 0.4))]
    assert tprs == {True: 0.1, False: 0.4}
    assert tpr_at_fpr(scores, scores, 0.4, "nearest").tpr == 0.4


def test_below_hand_numbers():
    genuine, impostor = np.array([0.9, 0.7, 0.5, 0.3]), np.array([0.8, 0.6, 0.4, 0.2])
    assert tpr_at_fpr(genuine, impostor, 0.25).tpr == 0.5  # one impostor: accept above 0.6
    assert tpr_at_fpr(genuine, impostor, 0.24).tpr == 0.25  # none: accept above 0.8
    assert not tpr_at_fpr(genuine, impostor, 0.24).supported
    assert tpr_at_fpr(genuine, impostor, 0.24, rule="nearest").fpr == 0.25  # may exceed
    assert tpr_at_fpr(genuine, np.full(4, 0.5), 0.5).tpr == 0.5  # ties are refused together


@pytest.mark.parametrize("n", [10, 29, 100, 1000])
def test_a_target_that_is_a_whole_number_of_pairs_is_used_up(n):
    impostor = np.arange(n, dtype=np.float64)
    for k in range(1, n):
        assert tpr_at_fpr(np.array([5.0]), impostor, k / n).fpr == k / n


def test_float32_scores_lose_no_step(random):
    genuine, impostor = (random.normal(size=n).astype(np.float32) for n in (50, 100))
    point = tpr_at_fpr(genuine, impostor, 0.1)
    assert (point.tpr, point.fpr) == rates_at(genuine, impostor, point.threshold)
    assert point.fpr == 0.1


def test_one_genuine_pair():
    point = tpr_at_fpr(np.array([0.9]), np.array([0.1, 0.2]), 0.5)
    assert point.tpr == 1 and point.high == 1
    assert point.low == pytest.approx(0.025)  # alpha / 2 for one hit of one


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 1.1, float("nan")])
@pytest.mark.parametrize("rule", ["below", "nearest"])
def test_fpr_outside_is_refused(scores, fpr, rule):
    with pytest.raises(ValueError, match="between 0 and 1"):
        tpr_at_fpr(*scores, fpr, rule=rule)


def test_unknown_rule_is_refused(scores):
    with pytest.raises(ValueError, match='"below" or "nearest"'):
        tpr_at_fpr(*scores, 0.1, rule="above")


@pytest.mark.parametrize("function", [roc, eer, lambda g, i: rates_at(g, i, 0),
                                      lambda g, i: tpr_at_fpr(g, i, 0.1)])
def test_nothing_or_nan_is_said(function):
    some, none, bad = np.array([0.1, 0.2]), np.array([]), np.array([0.1, np.nan, np.nan])
    with pytest.raises(ValueError, match="no impostor pairs"):
        function(some, none)
    with pytest.raises(ValueError, match="no genuine pairs"):
        function(none, some)
    with pytest.raises(ValueError, match="2 of 3 genuine scores are not finite"):
        function(bad, some)
    with pytest.raises(ValueError, match="2 of 3 impostor scores are not finite"):
        function(some, bad)


# Ten folds


def ten_folds(x, is_same, folds):
    """The protocol as loops: contiguous folds, squared distance, first best threshold, strict <."""
    P = len(is_same)
    x = [row / sum(row ** 2) ** 0.5 for row in x]
    distance = [sum((x[2 * k] - x[2 * k + 1]) ** 2) for k in range(P)]
    size, extra = divmod(P, folds)
    accuracies, start = [], 0
    for fold in range(folds):
        stop = start + size + (fold < extra)
        held = range(start, stop)
        best, chosen = -1, None
        for step in range(400):
            right = sum((distance[k] < step * 0.01) == is_same[k] for k in range(P)
                        if k not in held)
            if right > best:
                best, chosen = right, step * 0.01
        accuracies.append(sum((distance[k] < chosen) == is_same[k] for k in held) / len(held))
        start = stop
    mean = sum(accuracies) / folds
    return mean, (sum((a - mean) ** 2 for a in accuracies) / folds) ** 0.5


@pytest.mark.parametrize("pairs, folds", [(40, 10), (33, 5), (4, 2)])
def test_verification_accuracy_loop(random, pairs, folds):
    x = random.normal(size=(2 * pairs, 3))
    is_same = random.random(pairs) < 0.5
    x[1::2] = np.where(is_same[:, None], x[::2] + 0.7 * x[1::2], x[1::2])
    got = verification_accuracy(x, is_same, folds=folds)
    np.testing.assert_allclose(got, ten_folds(x, is_same, folds), rtol=1e-9)


def test_verification_accuracy_hand_number():
    angles = np.array([0, 0.1, 0, 3.0] * 4)  # same, different, same, ...
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert verification_accuracy(x, np.array([True, False] * 4), folds=4) == (1.0, 0.0)


def test_verification_accuracy_refusals(random):
    x = random.normal(size=(8, 3))
    with pytest.raises(ValueError, match="3 pairs need 6 embeddings, not 8"):
        verification_accuracy(x, np.ones(3, bool))
    with pytest.raises(ValueError, match="folds must be 2 to 4"):
        verification_accuracy(x, np.ones(4, bool))
    x[0] = np.nan
    with pytest.raises(ValueError, match="1 of 8 embeddings"):
        verification_accuracy(x, np.ones(4, bool), folds=2)


# Networks


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 4 * 4, 5))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return Output(x.flatten(1) @ self.weight)


@pytest.mark.parametrize("batch", [1, 4, 256])
def test_embed_adds_the_mirror_raw(batch):
    torch.manual_seed(0)
    model = Toy().train()
    pixels = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8)
    x = (pixels.float() - 127.5) / 127.5
    once, mirrored = (y.flatten(1) @ model.weight for y in (x, x.flip(3)))
    got = embed(model, pixels, batch=batch)
    np.testing.assert_allclose(got, (once + mirrored).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed(model, pixels.numpy(), flip=False), once.detach(), rtol=1e-4,
                               atol=1e-5)
    assert not any(model.modes) and model.training and got.dtype == np.float32


@pytest.mark.parametrize("pixels", [torch.zeros(2, 3, 4, 4), torch.zeros(0, 3, 4, 4).byte(),
                                    torch.zeros(3, 4, 4).byte()])
def test_embed_refuses_what_is_not_pictures(pixels):
    with pytest.raises(ValueError, match="uint8 pictures"):
        embed(Toy(), pixels)


def test_worst_pairs_by_hand():
    angles = np.radians([0, 80, 10, 60, 200, 205])  # three people, two pictures each
    x, labels = np.stack([np.cos(angles), np.sin(angles)], 1), np.array([0, 0, 1, 1, 2, 2])
    same, low, other, high = worst_pairs(x, labels, 3)
    assert same.tolist() == [[0, 1], [2, 3], [4, 5]]  # 80, 50 and 5 degrees apart
    np.testing.assert_allclose(low, np.cos(np.radians([80, 50, 5])), rtol=1e-12)
    assert other.tolist() == [[0, 2]]  # 10 degrees; every other pair shares a person with it
    np.testing.assert_allclose(high, [np.cos(np.radians(10))], rtol=1e-12)
