"""d' and its draws against loops over pairs."""

import numpy as np
import pytest

from kdlab.evaluate.intervals import people_counts
from kdlab.evaluate.separation import separation_of_draws

RNG = np.random.default_rng(0)
LABELS = np.array([3, 3, 5, 5, 5, 9, 9])
X = RNG.normal(size=(7, 4)) + 2 * RNG.normal(size=(10, 4))[LABELS]


def by_loops(x, labels, weight):
    """weight: person -> how often drawn."""
    x = x - x.mean(0)
    scores = {True: [], False: []}
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            same = labels[i] == labels[j]
            times = weight[labels[i]] * (1 if same else weight[labels[j]])
            cosine = x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
            scores[bool(same)] += [cosine] * int(times)
    genuine, impostor = scores[True], scores[False]
    return (np.mean(genuine) - np.mean(impostor)) / np.sqrt(
        (np.var(genuine) + np.var(impostor)) / 2)


def test_every_draw_equals_the_loop():
    counts = np.concatenate([np.ones((1, 3), int), people_counts(LABELS, 20, RNG)])
    found = separation_of_draws(X, LABELS, counts)
    wanted = [by_loops(X, LABELS, dict(zip((3, 5, 9), w, strict=True))) for w in counts]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_two_normal_distributions():
    """One picture apart from its mate by a known cosine: no spread, so by hand."""
    angle = np.deg2rad([0, 10, 90, 100, 180, 190, 270, 280])
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    labels = np.arange(8) // 2
    genuine = np.cos(np.deg2rad(10))
    impostor = [np.cos(a - b) for k, a in enumerate(angle) for b in angle[:k]
                if round(np.rad2deg(abs(a - b))) != 10]
    wanted = (genuine - np.mean(impostor)) / np.sqrt(np.var(impostor) / 2)
    found = separation_of_draws(x, labels, np.ones((1, 4), int))
    assert found == pytest.approx([wanted])


def test_scale_and_shift_change_nothing_and_equal_scores_give_zero():
    counts = np.ones((1, 3), int)
    moved = separation_of_draws(7 * X + [1, 2, 3, 4], LABELS, counts)
    np.testing.assert_allclose(moved, separation_of_draws(X, LABELS, counts), rtol=1e-9)
    assert separation_of_draws(np.ones((7, 4)), LABELS, counts) == [0]


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="7 embeddings need labels"):
        separation_of_draws(X, LABELS[1:], np.ones((1, 3), int))
