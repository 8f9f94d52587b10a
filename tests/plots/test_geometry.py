"""Figures about the shape of an embedding: what is drawn where, and the rules of all figures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots import multiples
from kdlab.plots.geometry import (
    distance_view,
    grouped_map,
    map_with_centres,
    measures_view,
    networks_view,
    occurrence_view,
)

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(10), 4)
MAPS = {name: RNG.normal(0, 2, (40, 2)) for name in ("teacher", "student")}
CENTRES = RNG.normal(0, 5, (10, 2))
TRUE = RNG.uniform(0.2, 1.5, 2000)
DRAWN = TRUE**2 + RNG.normal(0, 0.1, 2000).clip(-0.04)
VIEWS = {"PCA": {"kept": (0.2, 0.15, 0.3), "silhouette": -0.2},
         "t-SNE": {"kept": (0.7, 0.6, 0.75), "silhouette": 0.5}, "embedding": {"silhouette": 0.2}}
COUNTS = {"teacher": [RNG.poisson(5, 60)], "arcface": [RNG.poisson(5, 60), RNG.poisson(5, 60)]}
POINTS = {"teacher": ([0.7], [0.9]), "ekd": ([0.6, 0.64], [0.8, 0.82])}


def centred():
    return map_with_centres(MAPS, LABELS, {"teacher": CENTRES})


FIGURES = {
    "centres": centred,
    "groups": lambda: grouped_map(MAPS, LABELS % 3, title="Clusters"),
    "distances": lambda: distance_view(TRUE, DRAWN, subtitle="some"),
    "distances beside one another": lambda: multiples(
        {"a": distance_view(TRUE, DRAWN), "b": distance_view(TRUE, DRAWN[::-1])}),
    "measures": lambda: measures_view(VIEWS),
    "occurrences": lambda: occurrence_view(COUNTS, 5),
    "networks": lambda: networks_view(POINTS, "one (no unit)", "rate (%)", percent=True),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_keeps_the_rules_and_fits_the_page(name):
    fig = FIGURES[name]()
    assert rules.faults(fig) == []
    assert (fig.layout.width or 760) <= 940


def test_a_centre_is_a_card_behind_those_of_the_pictures():
    fig = centred()
    drawn = [trace for trace in fig.data if trace.name == "class centres"]
    assert [trace.xaxis for trace in drawn] == ["x"]
    np.testing.assert_array_equal(drawn[0].customdata, 40 + np.arange(10))
    low, high = fig.layout.xaxis.range
    assert low < CENTRES[:, 0].min() and high > CENTRES[:, 0].max()


def test_parts_of_one_picture_share_their_axes():
    fig = map_with_centres(MAPS, LABELS, {"teacher": CENTRES}, shared=True)
    assert fig.layout.xaxis.range == fig.layout.xaxis2.range
    assert fig.layout.yaxis.range == fig.layout.yaxis2.range
    assert centred().layout.xaxis.range != centred().layout.xaxis2.range


def test_a_map_of_clusters_says_so():
    fig = grouped_map(MAPS, LABELS, item="row", people=[1, 2])
    assert {trace.name for trace in fig.data} == {"other clusters", "cluster 1", "cluster 2"}
    assert fig.layout.title.subtitle.text == "all 40 rows of 10 clusters"
    alone = grouped_map(MAPS, LABELS, item="place", group="person").layout.title
    assert alone.subtitle.text == "all 40 places of 10 people"
    assert all("row %{customdata}" in trace.hovertemplate for trace in fig.data)


def test_the_median_follows_the_distances():
    line = distance_view(TRUE, DRAWN).data[1]
    want = (np.asarray(line.x) ** 2) / DRAWN.max()
    np.testing.assert_allclose(line.y, want, atol=0.08)


def test_measures_stand_at_their_values_and_gaps_are_left_out():
    fig = measures_view(VIEWS)
    named = {trace.name: trace for trace in fig.data}
    np.testing.assert_allclose(named["t-SNE"].x, [0.7, 0.5])
    np.testing.assert_allclose(named["t-SNE"].error_x.array, [0.05, 0], atol=1e-12)
    assert list(named["embedding"].customdata) == ["silhouette"]
    assert list(fig.layout.yaxis.ticktext) == ["kept", "silhouette"]
    assert fig.layout.xaxis.range[0] < -0.2


def test_a_curve_of_occurrences_is_the_mean_of_its_runs():
    fig = occurrence_view(COUNTS, 5)
    line = next(trace for trace in fig.data if trace.legendgroup == "arcface")
    want = np.mean([(run >= 7).mean() for run in COUNTS["arcface"]])
    assert line.y[0] == 1 and line.y[7] == pytest.approx(want)


def test_seeds_are_small_and_their_mean_large():
    small, large = [t for t in networks_view(POINTS, "x", "y").data if t.legendgroup == "ekd"]
    assert small.marker.size < large.marker.size and len(small.x) == 2
    assert (large.x[0], large.y[0]) == pytest.approx((0.62, 0.81))


@pytest.mark.parametrize("call, words", [
    (lambda: map_with_centres(MAPS, LABELS, {"nobody": CENTRES}), "'nobody', which is no map"),
    (lambda: map_with_centres(MAPS, LABELS, {"teacher": CENTRES.T}), "must be finite and"),
    (lambda: distance_view(TRUE, DRAWN[1:]), "should be"),
    (lambda: distance_view(TRUE, 0 * TRUE), "not all 0"),
    (lambda: measures_view({}), "no pictures"),
    (lambda: measures_view({"a": {"m": (1, 2, 3)}}), "outside its interval"),
    (lambda: occurrence_view({"a": []}, 5), "has no runs"),
    (lambda: networks_view({"a": ([1], [1, 2])}, "x", "y"), "should be"),
])
def test_what_cannot_be_drawn_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
