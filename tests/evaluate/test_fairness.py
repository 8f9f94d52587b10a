"""Equalized odds: by loop, by hand, against fairlearn, and where a class misses a group."""

import math
import warnings

import numpy as np
import pytest
import torch

from kdlab.evaluate import EqualizedOdds, cell_accuracies, clopper_pearson, equalized_odds


def by_loop(predictions, labels, groups):
    """Gap of each class, every cell filled."""
    gaps = []
    for y in sorted(set(labels)):
        rates = []
        for a in sorted(set(groups)):
            cell = [p == y for p, label, group in zip(predictions, labels, groups, strict=True)
                    if (label, group) == (y, a)]
            rates.append(sum(cell) / len(cell))
        gaps.append(max(rates) - min(rates))
    return gaps


def draw(C, G, N=400, seed=0):
    """predictions, labels, groups: about half right, and no cell empty."""
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(C, size=N), rng.integers(G, size=N)
    every = np.indices((C, G)).reshape(2, -1)
    labels, groups = np.concatenate([labels, every[0]]), np.concatenate([groups, every[1]])
    predictions = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(C, size=len(labels)))
    return predictions, labels, groups


# Class 0 all right in group 0, half in group 1; class 1 a quarter and three quarters.
HAND = ([0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0], [0] * 4 + [1] * 8, [0, 0, 1, 1] + [0] * 4 + [1] * 4)


def test_hand_numbers():
    """Gaps 1 - 1/2 and 3/4 - 1/4: both 1/2. Right: 3 of 4, and 1 + 3 of 8: 7/12."""
    odds = equalized_odds(*HAND)
    assert isinstance(odds, EqualizedOdds)
    assert (odds.average, odds.maximum) == (0.5, 0.5)
    assert odds.per_class.tolist() == [0.5, 0.5] and odds.accuracy == pytest.approx(7 / 12)


def test_average_and_maximum_differ():
    """Class 0 as above, gap 1/2; class 1 right throughout, gap 0."""
    odds = equalized_odds([0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 0, 1])
    assert (odds.average, odds.maximum, odds.per_class.tolist()) == (0.25, 0.5, [0.5, 0])


@pytest.mark.parametrize("C, G", [(2, 2), (3, 4), (10, 2), (1, 3)])
def test_the_definition_by_loop(C, G):
    case = draw(C, G)
    gaps = by_loop(*map(np.ndarray.tolist, case))
    odds = equalized_odds(*case)
    assert odds.per_class.tolist() == pytest.approx(gaps, rel=1e-12)
    assert odds.average == pytest.approx(sum(gaps) / C) and odds.maximum == max(gaps)
    assert odds.accuracy == (case[0] == case[1]).mean()
    assert 0 <= odds.average <= odds.maximum <= 1


def test_arrays_tensors_and_lists_are_one():
    case = draw(3, 2)
    first = equalized_odds(*case)
    for kind in (np.ndarray.tolist, torch.from_numpy, lambda x: x.astype(np.uint8)):
        odds = equalized_odds(*map(kind, case))
        assert odds._replace(per_class=None) == first._replace(per_class=None)
        assert np.array_equal(odds.per_class, first.per_class)


def test_names_of_classes_and_groups_and_the_order_of_rows_are_free():
    predictions, labels, groups = draw(3, 4)
    order = np.random.default_rng(1).permutation(len(labels))
    odds = equalized_odds(predictions[order] * 10 - 5, labels[order] * 10 - 5, -groups[order])
    assert odds.per_class.tolist() == equalized_odds(predictions, labels, groups).per_class.tolist()


def test_a_constant_answer_has_no_gap_and_a_low_accuracy():
    _, labels, groups = draw(3, 2)
    with pytest.warns(UserWarning, match="perfectly fair and useless"):
        odds = equalized_odds(np.zeros_like(labels), labels, groups)
    assert (odds.average, odds.maximum) == (0, 0) and odds.accuracy == (labels == 0).mean() < 0.5


def test_predictions_outside_the_labels_are_wrong_answers():
    odds = equalized_odds([7, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1])
    assert odds.per_class.tolist() == [1, 0] and odds.accuracy == 0.75


# Class 0 in groups 0, 1, 2 at 1, 1/2, 0; class 1 in groups 0 and 1 only, at 1 and 0; class 2 in
# group 2 only.
MISSING = ([0, 0, 1, 1, 1, 0, 2], [0, 0, 0, 0, 1, 1, 2], [0, 1, 1, 2, 0, 1, 2])


def test_a_class_without_a_group():
    with pytest.raises(ValueError, match="class 1 has no row of group 2 .empty cells: 3 of 9"):
        equalized_odds(*MISSING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignored = equalized_odds(*MISSING, empty="ignore")
        lost = equalized_odds(*MISSING, empty="nan")
    assert ignored.per_class.tolist()[:2] == [1, 1] and math.isnan(ignored.per_class[2])
    assert (ignored.average, ignored.maximum) == (1, 1)
    assert lost.per_class[0] == 1 and np.isnan(lost.per_class[1:]).all()
    assert math.isnan(lost.average) and math.isnan(lost.maximum)
    assert ignored.accuracy == lost.accuracy == pytest.approx(4 / 7)
    for empty in ("ignore", "nan"):  # nothing missing: nothing to decide
        assert equalized_odds(*HAND, empty=empty).average == 0.5


def test_what_cannot_be_compared_is_refused_in_words():
    for case, message in (
        (([0, 1], [0, 1], [3, 3]), "all rows are of group 3; odds are compared between two"),
        (([0, 1], [0, 1], [3]), "at least|at.*least, not 2, 2 and 1"),
        (([], [], []), "not 0, 0 and 0"),
        (([0.2, 0.9], [0, 1], [0, 1]), "predictions must be .N,. integers.*float64.*argmax"),
        (([[0], [1]], [0, 1], [0, 1]), r"predictions must be .N,. integers, not \(2, 1\)"),
        (([0, 1], [0, 1], ["a", "b"]), "groups must be .N,. integers"),
    ):
        with pytest.raises(ValueError, match=message):
            equalized_odds(*case)
    with pytest.raises(ValueError, match="no class has rows of two groups"):
        equalized_odds([0, 1], [0, 1], [0, 1], empty="ignore")
    with pytest.raises(ValueError, match='empty must be "raise", "ignore" or "nan", not \'zero\''):
        equalized_odds(*HAND, empty="zero")


def _fairlearn_gaps(predictions, labels, groups):
    metrics = pytest.importorskip("fairlearn.metrics")
    from sklearn.metrics import accuracy_score
    frame = metrics.MetricFrame(metrics=accuracy_score, y_true=labels, y_pred=predictions,
                                sensitive_features=groups, control_features=labels)
    return frame.difference().to_numpy(dtype=float)


@pytest.mark.parametrize("C, G", [(2, 2), (3, 4), (10, 2)])
def test_fairlearns_metric_frame_agrees(C, G):
    case = draw(C, G, seed=C)
    gaps, odds = _fairlearn_gaps(*case), equalized_odds(*case)
    assert odds.per_class.tolist() == pytest.approx(gaps.tolist(), rel=1e-12)
    assert odds.average == pytest.approx(gaps.mean()) and odds.maximum == pytest.approx(gaps.max())


@pytest.mark.parametrize("G", [2, 5])
def test_fairlearns_two_class_difference_agrees(G):
    metrics = pytest.importorskip("fairlearn.metrics")
    predictions, labels, groups = draw(2, G, seed=7)
    odds = equalized_odds(predictions, labels, groups)
    for agg, value in (("mean", odds.average), ("worst_case", odds.maximum)):
        assert value == pytest.approx(metrics.equalized_odds_difference(
            labels, predictions, sensitive_features=groups, agg=agg))


def test_fairlearn_ignores_a_missing_group_too_and_calls_a_lonely_one_fair():
    gaps = _fairlearn_gaps(*map(np.array, MISSING))
    ours = equalized_odds(*MISSING, empty="ignore").per_class
    assert gaps[:2].tolist() == ours[:2].tolist() and gaps[2] == 0 and np.isnan(ours[2])


def test_cells_by_loop():
    """Each cell counted by itself; the gaps of equalized_odds are theirs."""
    predictions, labels, groups = draw(3, 2)
    found = cell_accuracies(predictions, labels, groups)
    assert found.classes.tolist() == [0, 1, 2] and found.groups.tolist() == [0, 1]
    for y, a in np.ndindex(3, 2):
        cell = (labels == y) & (groups == a)
        hits, rows = int((predictions[cell] == y).sum()), int(cell.sum())
        assert found.count[y, a] == rows and found.accuracy[y, a] == hits / rows
        assert (found.low[y, a], found.high[y, a]) == clopper_pearson(hits, rows)
    gaps = found.accuracy.max(1) - found.accuracy.min(1)
    assert gaps.tolist() == equalized_odds(predictions, labels, groups).per_class.tolist()


def test_an_empty_cell_could_be_anything():
    found = cell_accuracies([0, 1], [0, 1], [0, 1])
    assert found.count.tolist() == [[1, 0], [0, 1]] and math.isnan(found.accuracy[0, 1])
    assert (found.low[0, 1], found.high[0, 1]) == (0, 1)
