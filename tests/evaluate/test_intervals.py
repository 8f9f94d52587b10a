"""Intervals against SciPy, a simulation, and the bootstrap written out pair by pair."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from kdlab.evaluate.intervals import (
    clopper_pearson,
    difference_of_draws,
    eer_of_draws,
    paired_difference,
    people_counts,
    tpr_of_draws,
)
from kdlab.evaluate.pairs import cross_scores
from kdlab.evaluate.verification import eer, pair_scores, tpr_at_fpr


@pytest.mark.parametrize("n", [1, 7, 100, 1800])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_clopper_pearson_equals_scipy(n, level):
    for k in {0, 1, n // 3, n - 1, n}:
        theirs = binomtest(k, n).proportion_ci(level, method="exact")
        np.testing.assert_allclose(clopper_pearson(k, n, level), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.93])
def test_clopper_pearson_covers(p):
    n = 40
    k = np.arange(n + 1)
    covered = [low <= p <= high for low, high in (clopper_pearson(int(i), n) for i in k)]
    assert binom.pmf(k, n, p)[covered].sum() >= 0.95


@pytest.mark.parametrize("k, n", [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match="k hits of n"):
        clopper_pearson(k, n)


def data(seed=0, people=8, each=5, noise=0.8, D=6):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each)
    return random.normal(size=(people, D))[labels] + noise * random.normal(size=(len(labels), D)), \
        labels


def copies(x, labels, counts, fpr):
    """One draw as it is meant: every copy of a person laid out, every pair visited."""
    rows = [(person, row) for person, count in zip(np.unique(labels), counts, strict=True)
            for _ in range(count) for row in np.flatnonzero(labels == person)]
    copy = [(person, c) for person, count in zip(np.unique(labels), counts, strict=True)
            for c in range(count) for _ in np.flatnonzero(labels == person)]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    score = unit @ unit.T
    genuine, impostor = [], []
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            (p, i), (q, j) = rows[a], rows[b]
            if p != q:
                impostor.append(score[min(i, j), max(i, j)])
            elif copy[a] == copy[b]:
                genuine.append(score[min(i, j), max(i, j)])
    return tpr_at_fpr(np.array(genuine), np.array(impostor), fpr).tpr


@pytest.mark.parametrize("fpr", [0.003, 0.01, 0.1, 0.7])
def test_draws_equal_the_copies_laid_out(fpr):
    x, labels = data()
    counts = people_counts(labels, 12, np.random.default_rng(1))
    expected = [copies(x, labels, draw, fpr) for draw in counts]
    np.testing.assert_allclose(tpr_of_draws(x, labels, fpr, counts), expected, rtol=1e-9)


def test_draws_with_tied_scores_and_uneven_people():
    x, labels = data(people=6)
    x, labels = np.round(x[:-3]), labels[:-3] * 10  # coarse: many equal cosines; labels with gaps
    counts = people_counts(labels, 8, np.random.default_rng(2))
    for fpr in (0.01, 0.2):
        expected = [copies(x, labels, draw, fpr) for draw in counts]
        np.testing.assert_allclose(tpr_of_draws(x, labels, fpr, counts), expected, rtol=1e-9)


def test_everyone_once_is_the_plain_rate():
    x, labels = data(people=20)
    plain = tpr_at_fpr(*pair_scores(x, labels), 0.01).tpr
    assert tpr_of_draws(x, labels, 0.01, np.ones((1, 20), int)) == [plain]


def test_useless_draws_are_drawn_again():
    labels = np.array([0, 0, 1, 2])  # only person 0 has a genuine pair
    counts = people_counts(labels, 500, np.random.default_rng(0))
    assert counts.shape == (500, 3) and (counts.sum(1) == 3).all()
    assert (counts[:, 0] > 0).all() and ((counts > 0).sum(1) > 1).all()


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_no_people_to_draw_is_said(labels):
    with pytest.raises(ValueError, match="two persons at least, and one with two pictures"):
        people_counts(np.array(labels), 10, np.random.default_rng(0))


def test_difference_estimate_and_seeds():
    pairs = [(data(s, people=20, noise=0.5), data(s, people=20, noise=0.9)) for s in range(3)]
    a, b, labels = [p[0][0] for p in pairs], [p[1][0] for p in pairs], pairs[0][0][1]
    got = paired_difference(a, b, labels, 0.01, samples=300)
    each = [tpr_at_fpr(*pair_scores(x, labels), 0.01).tpr
            - tpr_at_fpr(*pair_scores(y, labels), 0.01).tpr for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got.per_seed, each, rtol=1e-12)
    assert got.estimate == pytest.approx(np.mean(each))
    assert 0 < got.low < got.estimate < got.high
    assert got == paired_difference(a, b, labels, 0.01, samples=300)
    swapped = paired_difference(b, a, labels, 0.01, samples=300)
    np.testing.assert_allclose((swapped.low, swapped.high), (-got.high, -got.low), atol=1e-12)


def test_difference_of_draws_by_hand():
    """One seed: nothing but people is drawn. Estimate 0.75 - 0.5; draws 0, 0.1, ..., 1."""
    gain = np.linspace(0, 1, 11)
    a = np.concatenate([[0.75], 0.5 + gain])[None]
    b = np.concatenate([[0.5], np.full(11, 0.5)])[None]
    got = difference_of_draws(a, b, np.random.default_rng(0), level=0.8)
    assert got.estimate == 0.25 and got.per_seed == (0.25,)
    np.testing.assert_allclose((got.low, got.high), (0.1, 0.9), rtol=1e-12)


def test_difference_of_draws_takes_the_same_seeds_on_both_sides():
    """Seeds far apart from one another and two sides 0.1 apart: the spread of seeds cancels."""
    b = np.array([[0.2], [0.5], [0.8]]).repeat(200, 1)
    got = difference_of_draws(b + 0.1, b, np.random.default_rng(0))
    np.testing.assert_allclose(got[:3], 0.1, atol=1e-12)


@pytest.mark.parametrize("shapes", [((3, 9), (2, 9)), ((3, 9), (3, 8)), ((0, 9), (0, 9)),
                                    ((3, 1), (3, 1)), ((9,), (9,))])
def test_sides_that_do_not_match_are_refused(shapes):
    a, b = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="both sides need"):
        difference_of_draws(a, b, np.random.default_rng(0))


def test_the_same_method_differs_by_nothing():
    x, labels = data()
    assert paired_difference([x], [x], labels, 0.1, samples=50)[:3] == (0, 0, 0)


def test_the_interval_covers_a_difference_that_is_not_there():
    """Two equally good methods on other noise: 0 must lie inside nearly always."""
    inside = 0
    for trial in range(30):
        random = np.random.default_rng(trial)
        labels = np.repeat(np.arange(25), 4)
        people = random.normal(size=(25, 8))[labels]
        a, b = (people + 0.7 * random.normal(size=people.shape) for _ in range(2))
        got = paired_difference([a], [b], labels, 0.01, samples=200)
        inside += got.low <= 0 <= got.high
    assert inside >= 25  # of 30; 24 or fewer has probability 0.3 % at a true coverage of 95 %


def test_seeds_are_drawn_too():
    """Methods that win one seed each: drawing people alone would cancel to exactly nothing."""
    (good, labels), (poor, _) = data(noise=0.4, people=20), data(noise=1.0, people=20)
    got = paired_difference([good, poor], [poor, good], labels, 0.01, samples=300)
    gain = got.per_seed[0]
    assert gain > 0.3 and got.per_seed[1] == -gain and got.estimate == 0
    assert got.low < -0.7 * gain and got.high > 0.7 * gain


def test_refusals():
    x, labels = data()
    with pytest.raises(ValueError, match="the same seeds, at least one, not 1 and 2"):
        paired_difference([x], [x, x], labels, 0.1)
    with pytest.raises(ValueError, match="at least one, not 0 and 0"):
        paired_difference([], [], labels, 0.1)
    with pytest.raises(ValueError, match="fpr must lie between 0 and 1"):
        paired_difference([x], [x], labels, 0.0)
    with pytest.raises(ValueError, match="samples must be"):
        paired_difference([x], [x], labels, 0.1, samples=0)
    with pytest.raises(ValueError, match="1 of 40 embeddings are not finite"):
        paired_difference([x], [np.where(np.arange(40)[:, None] == 3, np.nan, x)], labels, 0.1)
    with pytest.raises(ValueError, match="labels of shape"):
        paired_difference([x], [x[:-1]], labels, 0.1)


# Two sides


@pytest.fixture
def some():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    people = rng.normal(size=(12, 8))
    return people[labels] + 1.2 * rng.normal(size=(60, 8)), labels


def test_everybody_once_is_the_plain_rate(some):
    x, labels = some
    once = np.ones((1, 12), int)
    for a, b in ((None, None), (np.arange(60), np.arange(60)),
                 (np.arange(0, 60, 2), np.arange(1, 60, 2)), (np.arange(40), np.arange(20, 60))):
        every = np.arange(60)
        genuine, impostor = cross_scores(x, labels, every if a is None else a,
                                         every if b is None else b)
        assert tpr_of_draws(x, labels, 0.02, once, a, b)[0] == pytest.approx(
            tpr_at_fpr(genuine, impostor, 0.02).tpr)
        assert eer_of_draws(x, labels, once, a, b)[0] == pytest.approx(
            eer(genuine, impostor), abs=1 / len(genuine))


def test_a_person_drawn_twice_counts_twice_on_two_sides(some):
    """A draw equals copying the people, copies of one being no impostors."""
    x, labels = some
    a, b = np.arange(0, 60, 2), np.arange(1, 60, 2)
    w = np.array([2, 0, 1, 1, 3, 0, 1, 1, 0, 1, 1, 1])
    score = (x[a] @ x[b].T) / np.outer(*(np.linalg.norm(x[s], axis=1) for s in (a, b)))
    p, q = labels[a][:, None], labels[b][None]
    times = np.where(p == q, w[p], w[p] * w[q]).ravel()
    copied, same = np.repeat(score.ravel(), times), np.repeat((p == q).ravel(), times)
    impostor = np.sort(copied[~same])[::-1]
    threshold = impostor[int(0.02 * len(impostor))]
    assert tpr_of_draws(x, labels, 0.02, w[None], a, b)[0] == pytest.approx(
        (copied[same] > threshold).mean())
    assert eer_of_draws(x, labels, w[None], a, b)[0] == pytest.approx(
        eer(copied[same], copied[~same]), abs=1 / same.sum())


def test_a_difference_of_two_sides(some):
    x, labels = some
    a, b = np.arange(0, 60, 2), np.arange(1, 60, 2)
    other = [x + np.random.default_rng(k).normal(size=x.shape) for k in range(3)]
    found = paired_difference([x] * 3, other, labels, 0.02, samples=50, a=a, b=b)
    once = np.ones((1, 12), int)
    plain = [tpr_of_draws(x, labels, 0.02, once, a, b) - tpr_of_draws(y, labels, 0.02, once, a, b)
             for y in other]
    assert found.per_seed == pytest.approx(np.ravel(plain))
    assert found.low <= found.estimate <= found.high
