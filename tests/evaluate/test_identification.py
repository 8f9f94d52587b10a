"""Pairs across sides, groups and templates, and rank 1, against loops."""

import numpy as np
import pytest

from kdlab.evaluate import eer, judge, pair_scores, rank1, rank1_closed, tpr_at_fpr
from kdlab.evaluate.pairs import (
    cross_scores,
    group_scores,
    supported_fprs,
    template_means,
    template_scores,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def x(random):
    return random.normal(size=(30, 5))


LABELS = np.arange(30) % 6  # six persons with five pictures


def cosine(u, v):
    return sum(u * v) / (sum(u * u) ** 0.5 * sum(v * v) ** 0.5)


def loop(x, labels, a, b):
    seen, genuine, impostor = set(), [], []
    for i in a:
        for j in b:
            if i != j and frozenset((i, j)) not in seen:
                seen.add(frozenset((i, j)))
                (genuine if labels[i] == labels[j] else impostor).append(cosine(x[i], x[j]))
    return np.sort(genuine), np.sort(impostor)


def same(got, expected):
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(np.sort(g), np.sort(e), rtol=1e-9, atol=1e-12)


# Pairs across sides


@pytest.mark.parametrize("block", [1, 4, 1024])
@pytest.mark.parametrize("a, b", [
    (range(12), range(12, 30)), (range(20), range(10, 30)), (range(30), range(30)),
    ([7, 3, 25, 1, 0], [1, 7, 2, 29, 25]), ([4], [4, 10]), (range(30), [11, 2])])
def test_cross_scores_loop(x, a, b, block):
    same(cross_scores(x, LABELS, np.array(a), np.array(b), block), loop(x, LABELS, a, b))


def test_one_set_against_itself_gives_the_pairs_of_pair_scores(x):
    rows = np.arange(30)
    for got, expected in zip(cross_scores(x, LABELS, rows, rows), pair_scores(x, LABELS),
                             strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)  # and in their order


def test_float32_stays_float32_and_an_empty_side_gives_no_pairs(x):
    rows = np.arange(30)
    assert {s.dtype for s in cross_scores(x.astype(np.float32), LABELS, rows, rows)} == {
        np.dtype(np.float32)}
    assert [len(s) for s in cross_scores(x, LABELS, rows[:0], rows)] == [0, 0]


@pytest.mark.parametrize("rows, message", [
    ([0, 30], "a asks for rows 0 to 30 of 30"), ([-1, 2], "rows -1 to 2"),
    ([3, 4, 3], "a names a row twice"), ([[1, 2]], "row numbers"), ([True, False], "row numbers"),
    ([0.0, 1.0], "row numbers")])
def test_rows_that_are_none_are_refused(x, rows, message):
    with pytest.raises(ValueError, match=message):
        cross_scores(x, LABELS, np.array(rows), np.arange(5))


def test_labels_must_fit(x):
    with pytest.raises(ValueError, match=r"labels of shape \(30,\)"):
        cross_scores(x, LABELS[:-1], np.arange(3), np.arange(3))


@pytest.mark.parametrize("a, b", [(range(30), range(30)), (range(14), range(8, 30))])
def test_group_scores_loop(x, a, b):
    group = LABELS % 2
    found = group_scores(x, LABELS, group, np.array(a), np.array(b))
    assert list(found) == [0, 1]
    for g, got in found.items():
        same(got, loop(x, LABELS, [i for i in a if group[i] == g], [j for j in b if group[j] == g]))


def test_a_person_of_two_groups_is_refused(x):
    group = LABELS % 2
    group[8] = 1  # person 2
    with pytest.raises(ValueError, match="person 2 belongs to more than one group"):
        group_scores(x, LABELS, group, np.arange(30), np.arange(30))


# Templates

TEMPLATE = np.where(np.arange(30) < 18, LABELS, 40 + LABELS)  # 3 and 2 pictures of each person


def test_template_scores_loop(x):
    numbers = sorted(set(TEMPLATE))
    means = np.stack([np.mean([x[i] / sum(x[i] ** 2) ** 0.5 for i in range(30)
                               if TEMPLATE[i] == t], 0) for t in numbers])
    people = [t % 40 for t in numbers]
    got, labels, found = template_means(x, LABELS, TEMPLATE)
    np.testing.assert_allclose(got, means, rtol=1e-9)
    assert labels.tolist() == people and found.tolist() == numbers
    same(template_scores(x, LABELS, TEMPLATE), loop(means, people, range(12), range(12)))


def test_a_template_counts_each_picture_alike_whatever_its_norm(x):
    longer = x * np.linspace(0.1, 10, 30)[:, None]
    same(template_scores(longer, LABELS, TEMPLATE), template_scores(x, LABELS, TEMPLATE))


def test_a_template_of_two_persons_is_refused(x):
    with pytest.raises(ValueError, match="template 0 belongs to more than one person"):
        template_scores(x, LABELS, np.zeros(30, int))
    with pytest.raises(ValueError, match="as many labels and templates"):
        template_scores(x, LABELS, TEMPLATE[:-1])


# Which rates a number of pairs supports


def test_ten_impostor_pairs_above_the_threshold_support_a_rate():
    assert supported_fprs(99) == () and supported_fprs(100) == (1e-1,)
    assert supported_fprs(99_999) == (1e-1, 1e-2, 1e-3)
    assert supported_fprs(10**7) == (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6) == supported_fprs(10**9)


# Rank 1


def at(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)


def test_rank1_by_hand():
    # Persons 0 at 0 and 20 degrees, 1 at 90 and 130; strangers at 35, 100 and 180.
    x, labels = at(0, 20, 90, 130, 35, 100, 180), np.array([0, 0, 1, 1, 2, 3, 4])
    rows, strangers = np.arange(4), np.arange(4, 7)
    # Mates are 20 and 40 apart. The stranger at 35 is nearer to 20 (15) only; that at 100 to 90
    # (10) and to 130 (30); that at 180 to nobody.
    assert rank1(x, labels, rows, rows, strangers, (0, 1, 2, 3)) == {0: 1, 1: 3 / 4, 2: 1 / 4,
                                                                     3: 1 / 4}


@pytest.mark.parametrize("block", [1, 3, 256])
def test_rank1_loop(random, block):
    x, labels = random.normal(size=(60, 3)), np.concatenate([LABELS, np.arange(10, 40)])
    gallery, probes, strangers = np.arange(0, 20), np.arange(10, 30), random.permutation(30) + 30
    got = rank1(x, labels, gallery, probes, strangers, block=block)
    assert list(got) == [0, 10, 30]
    for count, share in got.items():
        hits = [all(cosine(x[p], x[g]) > cosine(x[p], x[d]) for d in strangers[:count])
                for p in probes for g in gallery if p != g and labels[p] == labels[g]]
        assert share == sum(hits) / len(hits)


def test_more_distractors_never_help(random):
    x, labels = random.normal(size=(200, 4)), np.r_[LABELS, np.arange(10, 180)]
    shares = list(rank1(x, labels, np.arange(30), np.arange(30), np.arange(30, 200)).values())
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 > shares[-1]


def test_a_network_that_gives_one_embedding_finds_nobody():
    x, labels = np.tile([1.0, 0.0], (5, 1)), np.array([0, 0, 1, 1, 2])
    assert rank1(x, labels, np.arange(4), np.arange(4), np.array([4]), (1,)) == {1: 0.0}
    assert rank1_closed(x, labels, np.array([0, 2]), np.array([1, 3])) == 0


def test_rank1_without_strangers_or_mates(x):
    rows = np.arange(12)
    assert rank1(x, LABELS, rows, rows, np.array([], int)) == {0: 1.0}
    with pytest.raises(ValueError, match="no probe has a mate"):
        rank1(x, LABELS, rows[:3], rows[3:6], rows[:0])
    with pytest.raises(ValueError, match="2 of 2 distractors show a person of the gallery"):
        rank1(x, LABELS, rows, rows, np.array([20, 21]))
    with pytest.raises(ValueError, match="counts must be 0 to 0"):
        rank1(x, LABELS, rows, rows, rows[:0], (0, 1))


def test_rank1_closed_loop(x):
    gallery, probes = np.arange(6), np.arange(6, 30)
    hits = [max(gallery, key=lambda g: cosine(x[p], x[g])) % 6 == p % 6 for p in probes]
    assert rank1_closed(x, LABELS, gallery, probes) == np.mean(hits)
    one = rank1_closed(x, LABELS, gallery[[4, 2]], np.array([8, 10, 14]))
    assert one == np.mean([(cosine(x[p], x[p % 6]) > cosine(x[p], x[6 - p % 6]))
                           for p in (8, 10, 14)])


@pytest.mark.parametrize("gallery, probes, message", [
    ([0, 6], [1], "one picture each of two persons at least, not 2 of 1"),
    ([0], [6], "not 1 of 1"), ([0, 1], [], "needs probes"),
    ([0, 1], [8], "a person of the gallery"), ([0, 1], [1, 6], "would find itself")])
def test_a_closed_set_that_is_none_is_refused(x, gallery, probes, message):
    with pytest.raises(ValueError, match=message):
        rank1_closed(x, LABELS, np.array(gallery), np.array(probes, int))


# A protocol judged at once


def test_judge_is_its_parts(random):
    people = np.repeat(np.arange(20), 6)
    x = random.normal(size=(20, 8))[people] + random.normal(size=(120, 8))
    a, b = np.arange(0, 120, 2), np.arange(1, 120, 2)
    got, (genuine, impostor) = judge(x, people, a, b), cross_scores(x, people, a, b)
    assert got == {"eer": eer(genuine, impostor), "genuine": 180, "impostor": 3420,
                   "tpr": {fpr: tpr_at_fpr(genuine, impostor, fpr).tpr for fpr in (1e-1, 1e-2)},
                   "rank1": rank1_closed(x, people, a[::3], b)}
    within = judge(x, people, a, a)
    unit = x[a] / np.linalg.norm(x[a], axis=1, keepdims=True)
    hits = [people[a[max((j for j in range(60) if j != i), key=lambda j, i=i: unit[i] @ unit[j])]]
            == people[a[i]] for i in range(60)]
    assert within["rank1"] == np.mean(hits)
    assert within["genuine"] == 20 * 3


def test_judge_of_templates_and_of_groups(x):
    rows = np.arange(30)
    means, people, _ = template_means(x, LABELS, TEMPLATE)
    of_templates = judge(x, LABELS, rows, rows, template=TEMPLATE)
    assert of_templates == judge(means, people, np.arange(12), np.arange(12))
    assert (of_templates["genuine"], of_templates["impostor"]) == (6, 60)
    group = LABELS % 2
    got, parts = judge(x, LABELS, rows, rows, group=group), group_scores(x, LABELS, group, rows,
                                                                         rows)
    pooled = [np.concatenate(kind) for kind in zip(*parts.values(), strict=True)]
    assert got["eer"] == eer(*pooled) and got["impostor"] == len(pooled[1])
    for g in (0, 1):
        alone = rows[group == g]
        assert got["groups"][g] == judge(x, LABELS, alone, alone)
    shares = [part["rank1"] for part in got["groups"].values()]  # of as many probes each
    assert got["rank1"] == pytest.approx(np.mean(shares))


def test_judge_of_distractors(random):
    x, labels = random.normal(size=(50, 4)), np.concatenate([LABELS, np.arange(10, 30)])
    rows, strangers = np.arange(30), np.arange(30, 50)
    got = judge(x, labels, rows, rows, distractor=strangers)
    genuine, impostor = pair_scores(x[:30], LABELS)[0], cross_scores(x, labels, rows, strangers)[1]
    assert (got["genuine"], got["impostor"]) == (60, 600)
    assert got["eer"] == pytest.approx(eer(genuine, impostor), abs=1e-9)
    assert got["rank1_at"] == rank1(x, labels, rows, rows, strangers)
    assert got["rank1"] == got["rank1_at"][20]


def test_perfect_embeddings_are_perfect():
    x, rows = np.eye(6)[LABELS], np.arange(30)
    assert judge(x, LABELS, rows, rows) == {"eer": 0.0, "genuine": 60, "impostor": 375,
                                            "tpr": {0.1: 1.0}, "rank1": 1.0}


def test_judge_refuses_in_words(x):
    rows = np.arange(30)
    with pytest.raises(ValueError, match="one of template, distractor and group"):
        judge(x, LABELS, rows, rows, template=TEMPLATE, group=LABELS)
    with pytest.raises(ValueError, match="there are no impostor pairs"):
        judge(x, LABELS * 0, rows, rows)
    with pytest.raises(ValueError, match="there are no genuine pairs"):
        judge(x, rows, rows, rows)
    x[3] = np.nan
    with pytest.raises(ValueError, match="1 of 30 embeddings are not finite"):
        judge(x, LABELS, rows, rows)
