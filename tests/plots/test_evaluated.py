"""The DET figure: where its points stand, what it refuses, and what every figure owes."""

import numpy as np
import pytest
from figure_rules import faults
from scipy.special import ndtri
from scipy.stats import norm

from kdlab.evaluate.verification import roc
from kdlab.plots.evaluated import det

RNG = np.random.default_rng(0)
GENUINE, IMPOSTOR = RNG.normal(2.0, 1.0, 2000), RNG.normal(0.0, 1.0, 20000)
CURVE = roc(GENUINE, IMPOSTOR)[:2]
PAIRS = (len(GENUINE), len(IMPOSTOR))


def line(fig, k=0):
    found = [t for t in fig.data if t.mode == "lines" and t.line.shape == "hv"][k]
    return np.asarray(found.x, float), np.asarray(found.y, float)


def test_normal_scores_make_a_straight_line_of_slope_minus_one():
    x, y = line(det({"a": CURVE}, {"a": PAIRS}))
    inner = (x > norm.ppf(0.01)) & (x < norm.ppf(0.5))
    slope, offset = np.polyfit(x[inner], y[inner], 1)
    assert abs(slope + 1) < 0.05  # y = -x - d', the means two deviations apart
    assert abs(offset + 2) < 0.1


def test_points_are_the_rates():
    fpr, tpr = np.array([0, 0.01, 0.1, 0.5, 1]), np.array([0, 0.4, 0.8, 0.9, 1])
    x, y = line(det({"a": (fpr, tpr)}))
    np.testing.assert_allclose(x, ndtri([0.01, 0.1, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(y, ndtri([0.6, 0.2, 0.1]), rtol=1e-6)


def test_rates_of_less_than_a_pair_are_left_out():
    fpr, tpr = np.array([0, 1e-17, 0.1, 1]), np.array([0, 0.5, 0.8, 1 - 1e-17])
    assert len(line(det({"a": (fpr, tpr)}, {"a": (10, 10)}))[0]) == 1


def test_nothing_mistaken_has_no_curve():
    with pytest.raises(ValueError, match="curve 'a' mistakes no"):
        det({"a": roc(np.ones(5), np.zeros(5))[:2]})


def test_the_axes_ticks_are_percent_and_both_alike():
    fig = det({"a": CURVE, "b": (CURVE[0], CURVE[1] ** 2)}, {"a": PAIRS, "b": PAIRS})
    assert fig.layout.xaxis.range == fig.layout.yaxis.range
    at = dict(zip(fig.layout.xaxis.ticktext, fig.layout.xaxis.tickvals, strict=True))
    assert at["1"] == pytest.approx(norm.ppf(0.01))


@pytest.mark.parametrize("names", [["orl"], ["orl", "frontal", "profile", "my_faces"]])
def test_figure_is_readable(names):
    curves = {name: (CURVE[0], CURVE[1] ** (1 + 0.5 * k)) for k, name in enumerate(names)}
    assert faults(det(curves, dict.fromkeys(names, PAIRS))) == []
