"""Rates of groups under one threshold: by loop, by hand, and groups without pairs."""

import numpy as np
import pytest

from kdlab.evaluate.groups import group_rates
from kdlab.evaluate.pairs import group_scores
from kdlab.evaluate.verification import eer, tpr_at_fpr


def drawn(seed=0):
    random = np.random.default_rng(seed)
    return {g: (random.normal(1 - g / 5, 1, 30 + g), random.normal(g / 5, 1, 100 + 10 * g))
            for g in range(3)}


@pytest.mark.parametrize("fpr", [0.01, 0.1, 0.3])
def test_the_loop(fpr):
    scores = drawn()
    found = group_rates(scores, fpr)
    pool = [[s for pair in scores.values() for s in pair[k]] for k in (0, 1)]
    allowed = [t for t in [*pool[0], *pool[1]]
               if sum(i >= t for i in pool[1]) / len(pool[1]) <= fpr]
    t = min(allowed)  # any threshold down to it accepts the same genuine pairs or more
    assert found.pooled.tpr.rate == sum(g >= t for g in pool[0]) / len(pool[0])
    for g, (genuine, impostor) in scores.items():
        row = found.groups[g]
        for rate, kind in ((row.tpr, genuine), (row.fpr, impostor)):
            hits = sum(s >= found.threshold for s in kind)
            assert (rate.hits, rate.pairs) == (hits, len(kind))
            assert rate.rate == pytest.approx(hits / len(kind), abs=1e-9)
            assert rate.low <= rate.rate <= rate.high
        assert row.eer == eer(genuine, impostor) and row.note == ""


def test_the_threshold_is_the_pooled_one():
    scores = drawn(1)
    pooled = tpr_at_fpr(*(np.concatenate([p[k] for p in scores.values()]) for k in (0, 1)), 0.05)
    found = group_rates(scores, 0.05)
    assert found.threshold == pooled.threshold and found.supported == pooled.supported
    assert (found.pooled.tpr.rate, found.pooled.fpr.rate) == (pooled.tpr, pooled.fpr)
    assert found.pooled.fpr.hits == sum(row.fpr.hits for row in found.groups.values())
    assert not group_rates(scores, 1e-3).supported  # 330 impostor pairs


def test_hand_numbers():
    """At 0.5: group 0 has 2 of 2 genuine and 1 of 4 impostors above, group 1 has 1 of 2 and 0 of 4.

    EER of group 0: at 0.6 half is refused and none mistaken, at 0.55 so are half and a quarter, at
    0.52 none and a quarter; FPR = FNR = 1/4 on the way to it. Group 1 is apart: 0."""
    scores = {0: (np.array([0.6, 0.52]), np.array([0.55, 0.1, 0.1, 0.1])),
              1: (np.array([0.9, 0.4]), np.array([0.3, 0.2, 0.2, 0.1]))}
    found = group_rates(scores, threshold=0.5, names={0: "A", 1: "B"})
    a, b = found.groups.values()
    assert (a.tpr.rate, a.fpr.rate, b.tpr.rate, b.fpr.rate) == (1, 0.25, 0.5, 0)
    assert (a.eer, b.eer) == (0.25, 0)
    assert b.tpr[1:3] == pytest.approx((0.01258, 0.98742), abs=1e-5)  # 1 of 2
    assert found.supported and found.pooled.tpr[3:] == (3, 4)


def test_from_embeddings():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 3)
    x, group = random.normal(size=(24, 5)), labels // 4
    found = group_rates(group_scores(x, labels, group, np.arange(24), np.arange(24)), 0.1)
    assert [row.tpr.pairs for row in found.groups.values()] == [12, 12]  # 4 people, 3 pairs each
    assert [row.fpr.pairs for row in found.groups.values()] == [54, 54]  # 66 - 12


def test_empty_groups_are_told_in_words():
    one, none = np.array([0.5]), np.array([])
    scores = {0: (one, one), 1: (none, one), 2: (one, none), 3: (none, none)}
    groups = group_rates(scores, threshold=0.4, names={1: "Asian", 4: "Indian"}).groups
    assert groups[0].note == "" and list(groups) == [0, 1, 2, 3, 4]
    assert groups[1].note.startswith("Asian has no genuine pair") and groups[1].tpr is None
    assert groups[1].fpr.rate == 1 and groups[1].eer is None
    assert groups[2].note.startswith("group 2 has no impostor pair") and groups[2].tpr.rate == 1
    assert groups[3].note.startswith("group 3 has no pair") and groups[3][:3] == (None,) * 3
    assert groups[4].note.startswith("Indian has no pair")


def test_float32_scores_meet_their_own_threshold():
    random = np.random.default_rng(0)
    scores = {g: tuple(random.normal(size=100).astype(np.float32) for _ in "ab") for g in (0, 1)}
    found = group_rates(scores, 0.1)
    assert found.pooled.fpr.hits == 20  # of 200: the target is used up
    mixed = group_rates(scores | {1: tuple(map(np.float64, scores[1]))}, 0.1)
    assert mixed.groups == found.groups


def test_refusals():
    one, bad = np.array([0.5, 0.6]), np.array([0.5, np.nan])
    for both in ({}, {"fpr": 0.1, "threshold": 0.5}):
        with pytest.raises(ValueError, match="fpr or threshold, one"):
            group_rates({0: (one, one)}, **both)
    with pytest.raises(ValueError, match="group Asian, impostor pairs: score 1 is not finite"):
        group_rates({0: (one, bad)}, 0.1, names={0: "Asian"})
    with pytest.raises(ValueError, match="no impostor pairs"):
        group_rates({0: (one, np.array([]))}, 0.1)
    with pytest.raises(ValueError, match="group 0, genuine pairs: scores are"):
        group_rates({0: (one[None], one)}, 0.1)
