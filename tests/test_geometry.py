"""Measures of an embedding against their definitions, and pictures for their form alone."""

import numpy as np
import pytest
from scipy import spatial

from kdlab import geometry
from kdlab.evaluate.pairs import unit_rows

RNG = np.random.default_rng(0)
X = unit_rows(RNG.normal(size=(40, 6)))
Y = RNG.normal(size=(40, 2))
LABELS = np.repeat(np.arange(10), 4)


def _order(x, i):
    distance = np.linalg.norm(x - x[i], axis=1)
    return [j for j in np.argsort(distance, kind="stable") if j != i]


def test_kept_neighbours_by_hand_and_either_way_round():
    kept = geometry.neighbours_kept(X, Y, 5)
    by_hand = [len(set(_order(X, i)[:5]) & set(_order(Y, i)[:5])) / 5 for i in range(40)]
    np.testing.assert_allclose(kept, by_hand)
    np.testing.assert_allclose(geometry.neighbours_kept(Y, X, 5), by_hand)
    np.testing.assert_allclose(geometry.neighbours_kept(X, 3 * X + 1, 5), 1)


def test_turned_counts_reversed_pairs():
    def by_hand(i):
        a, b = (np.linalg.norm(part - part[i], axis=1) for part in (X, Y))
        pairs = [(j, k) for j in range(40) for k in range(j) if i not in (j, k)]
        return np.mean([(a[j] < a[k]) != (b[j] < b[k]) for j, k in pairs])

    found = geometry.turned(X, Y)
    assert found.shape == (40,)
    np.testing.assert_allclose(found[:3], [by_hand(i) for i in range(3)])
    np.testing.assert_allclose(geometry.turned(X, -2 * X), 0, atol=1e-12)


def test_onto_finds_a_known_movement_and_agrees_with_scipy():
    angle = np.array([[0.6, 0.8], [0.8, -0.6]])  # a turn and a mirror
    moved, left = geometry.onto(Y, 3 * Y @ angle + [5, -2])
    np.testing.assert_allclose(moved, Y, atol=1e-12)
    assert left == pytest.approx(0, abs=1e-12)
    other = RNG.normal(size=Y.shape)
    assert geometry.onto(Y, other)[1] == pytest.approx(spatial.procrustes(Y, other)[2])
    assert geometry.onto(other, Y)[1] == pytest.approx(spatial.procrustes(Y, other)[2])


def test_occurrences_by_hand_among_all_and_among_strangers():
    for labels in (None, LABELS):
        count = np.zeros(40, int)
        for i in range(40):
            others = [j for j in _order(X, i) if labels is None or labels[j] != labels[i]]
            count[others[:5]] += 1
        np.testing.assert_array_equal(geometry.occurrences(X, 5, labels), count)
    with pytest.raises(ValueError, match="k = 37 is more"):
        geometry.occurrences(X, 37, LABELS)


def test_a_hub_stands_in_the_middle():
    x = np.concatenate([unit_rows(RNG.normal(size=(200, 50))), np.zeros((1, 50))])
    assert geometry.occurrences(x, 5).argmax() == 200


def test_alignment_and_uniformity_of_what_is_known():
    point = np.tile(X[:1], (8, 1))
    assert geometry.uniformity(point) == pytest.approx(0, abs=1e-12)
    assert geometry.alignment(point, np.repeat([0, 1], 4)) == 0
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # squared distances 2 (four), 4 (two)
    expected = np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6)
    assert geometry.uniformity(cross) == pytest.approx(expected)
    assert geometry.alignment(cross, np.array([0, 0, 1, 1])) == pytest.approx(2)
    assert geometry.alignment(cross, np.array([0, 1, 0, 1]), 1) == pytest.approx(2)
    even = geometry.uniformity(unit_rows(RNG.normal(size=(500, 128))))
    assert -4 < even < -3.9


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_a_picture_repeats_and_has_two_axes(kind):
    options = {"max_iter": 250} if kind == "tsne" else {}
    first, again = (geometry.picture(X, kind, 3, **options) for _ in range(2))
    assert first.shape == (40, 2) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_umap_is_given_exact_neighbours(monkeypatch):
    """Without UMAP itself, which takes half a minute to compile."""
    import sys
    import types

    seen = {}

    class Given:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, x):
            return x[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Given))
    assert geometry.picture(X, "umap", 5, min_dist=0.3).shape == (40, 2)
    indices, distances, _ = seen["precomputed_knn"]
    assert indices.shape == (40, 15) and (indices[:, 0] == np.arange(40)).all()
    assert (distances[:, 0] == 0).all() and (np.diff(distances, axis=1) >= 0).all()
    assert (seen["n_jobs"], seen["random_state"], seen["min_dist"]) == (1, 5, 0.3)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="pca, tsne, umap"):
        geometry.picture(X, "isomap")
