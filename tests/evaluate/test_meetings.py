"""Pairs of protocols: the same scores as the functions that judge them, and the worst of them."""

import numpy as np
import pytest

from kdlab.evaluate.meetings import Pairs, meeting, pairs_of, worst_of
from kdlab.evaluate.pairs import (
    cross_scores,
    group_scores,
    pair_scores,
    template_scores,
    unit_rows,
)

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(6), 4)
X = unit_rows(RNG.normal(size=(24, 5)))
ROWS = np.arange(24)
EVEN, ODD = ROWS[::2], ROWS[1::2]


def scores(pairs):
    return np.sort(pairs.score[pairs.same]), np.sort(pairs.score[~pairs.same])


@pytest.mark.parametrize("sides", [(ROWS, ROWS), (EVEN, ODD), (EVEN, EVEN), (ODD, EVEN)])
def test_plain_pairs(sides):
    pairs, rows = meeting(X, LABELS, *sides)
    for found, wanted in zip(scores(pairs), cross_scores(X, LABELS, *sides), strict=True):
        np.testing.assert_allclose(found, np.sort(wanted), atol=1e-6)
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(pairs.same, LABELS[pairs.i] == LABELS[pairs.j])


def test_templates():
    template = np.repeat(np.arange(12), 2)[::-1]
    pairs, rows = meeting(X, LABELS, ROWS, ROWS, template=template)
    for found, wanted in zip(scores(pairs), template_scores(X, LABELS, template), strict=True):
        np.testing.assert_allclose(found, np.sort(wanted), atol=1e-6)
    np.testing.assert_array_equal(template[rows], np.arange(12))


def test_distractors():
    """Genuine pairs of the people, impostor pairs of them with strangers, and no others."""
    a, strangers = ROWS[:16], ROWS[16:]
    pairs, _ = meeting(X, LABELS, a, a, distractor=strangers)
    genuine, impostor = scores(pairs)
    np.testing.assert_allclose(genuine, np.sort(pair_scores(X[a], LABELS[a])[0]), atol=1e-6)
    np.testing.assert_allclose(impostor, np.sort(cross_scores(X, LABELS, a, strangers)[1]),
                               atol=1e-6)


def test_groups_meet_within():
    group = LABELS % 2
    pairs, _ = meeting(X, LABELS, ROWS, ROWS, group=group)
    parts = group_scores(X, LABELS, group, ROWS, ROWS).values()
    for found, wanted in zip(scores(pairs), zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(found, np.sort(np.concatenate(wanted)), atol=1e-6)


def test_pairs_given_two_by_two():
    same = RNG.random(12) < 0.5
    pairs = pairs_of(X, same)
    np.testing.assert_allclose(pairs.score, [X[2 * k] @ X[2 * k + 1] for k in range(12)], atol=1e-6)
    assert pairs.same is same or (pairs.same == same).all()


def test_the_worst_pairs_first_and_no_person_twice():
    pairs = Pairs(np.array([0, 0, 2, 0, 1, 3]), np.array([1, 2, 3, 4, 5, 5]),
                  np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.3]),
                  np.array([False, True, True, False, False, False]))
    people = np.array([0, 1, 0, 0, 2, 2])
    # genuine: (0, 2) at 0.1, then (2, 3) is the same person's; impostor: 0.9 takes people 0 and 1.
    np.testing.assert_array_equal(worst_of(pairs, people, 2), [1, 0])
    np.testing.assert_array_equal(worst_of(pairs, None, 2), [1, 0, 5])  # (2, 3) shares picture 2
    assert worst_of(pairs, people, 0).tolist() == []
