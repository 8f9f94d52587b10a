"""Figures about the intrinsic dimension: every point where it belongs, and nothing made up."""

import numpy as np
import pytest

from kdlab.dimension import estimate, fit_points
from kdlab.plots.dimension import (
    dimension_against,
    dimension_by_layer,
    dimension_recovered,
    neighbours_by_identity,
    pareto_fit,
)
from kdlab.plots.png import png

MU = 1 + np.random.default_rng(0).pareto(8, 6000)
NS = [250, 500, 1000]
FIT = [7.2, 7.5, 7.7], [7.0, 7.4, 7.6], [7.6, 7.7, 7.8]


def named(fig):
    return {trace.name: trace for trace in fig.data}


def test_the_line_goes_through_the_origin_with_the_slope_it_names():
    d, stderr = estimate(MU)
    fig = pareto_fit(*fit_points(MU), d, stderr, truth=8)
    line = named(fig)[f"slope d = {d:.2f} ± {stderr:.2g}"]
    assert (line.x[0], line.y[0]) == (0, 0)
    assert line.y[1] / line.x[1] == pytest.approx(d)
    true = named(fig)["true d = 8"]
    assert true.line.dash == "dash" and true.y[1] / true.x[1] == pytest.approx(8)
    assert len(png(fig)) > 5000


def test_a_large_sample_is_drawn_in_part_and_says_so():
    x, y, kept = fit_points(MU)
    fig = pareto_fit(x, y, kept, 8.0)
    used, rest = fig.data[:2]
    assert len(used.x) + len(rest.x) == 2000
    assert fig.layout.title.subtitle.text == "6,000 points; 2,000 of them drawn, evenly by rank"
    assert (used.name, rest.name) == ("kept, 5,400", "discarded, 600")
    assert used.x[0] == np.float32(x[0]) and used.x[-1] == np.float32(x[kept][-1])
    assert rest.x[-1] == np.float32(x[-2])  # the very last is infinite and cannot be drawn
    ranks = np.searchsorted(x.astype(np.float32), used.x)
    assert np.ptp(np.diff(ranks)) <= 1
    assert used.marker.color != rest.marker.color and used.marker.symbol != rest.marker.symbol


def test_a_small_sample_is_drawn_whole_in_any_order():
    x, y, kept = fit_points(MU[:50])
    order = np.random.default_rng(1).permutation(50)
    fig = pareto_fit(x[order], y[order], kept[order], 8.0, limit=2000)
    assert [len(trace.x) for trace in fig.data[:2]] == [45, 4]
    assert fig.layout.title.subtitle.text == "50 points; 49 of them drawn, evenly by rank"
    np.testing.assert_allclose(fig.data[0].x, x[:45], rtol=1e-6)


def test_a_fit_that_cannot_be_drawn_is_refused():
    x, y, kept = fit_points(MU[:20])
    with pytest.raises(ValueError, match=r"\(n,\) and are \(20,\), \(19,\), \(20,\)"):
        pareto_fit(x, y[1:], kept, 8.0)
    with pytest.raises(ValueError, match="no point is kept"):
        pareto_fit(x, y, ~kept | kept, 8.0)  # the infinite one among the kept
    with pytest.raises(ValueError, match="no point is kept"):
        pareto_fit(x, y, kept & ~kept, 8.0)


def test_series_stand_apart_at_one_place_and_keep_their_intervals():
    fig = dimension_against(NS, {"fit": FIT, "likelihood": (FIT[0], None, None)}, truth=8)
    truth, fit, mle = fig.data
    assert truth.name == "true dimension 8" and set(truth.y) == {8}
    assert fig.layout.xaxis.type == "log" and fig.layout.xaxis.title.text.startswith("points n")
    assert (np.asarray(fit.x) < NS).all() and (np.asarray(mle.x) > NS).all()
    np.testing.assert_allclose(np.sqrt(np.multiply(fit.x, mle.x)), NS)
    assert list(fit.customdata) == ["250", "500", "1,000"]  # hovering tells the place itself
    np.testing.assert_allclose(np.subtract(fit.y, fit.error_y.arrayminus), FIT[1])
    np.testing.assert_allclose(np.add(fit.y, fit.error_y.array), FIT[2])
    assert mle.error_y.array is None and len(png(fig)) > 5000


def test_one_series_alone_stands_at_its_places():
    fig = dimension_against([0, 0.1, 0.2], {"fit": FIT}, quantity="noise", log=False)
    np.testing.assert_array_equal(fig.data[0].x, [0, 0.1, 0.2])
    assert fig.layout.xaxis.title.text == "noise"
    assert list(fig.layout.xaxis.ticktext) == ["0", "0.1", "0.2"]


def test_places_that_would_crowd_are_not_all_named():
    crowd = dimension_against(np.arange(1, 4) * 1e-3 + 1, {"fit": FIT}, log=False)
    assert crowd.layout.xaxis.ticktext is not None  # three, evenly: fine
    many = np.geomspace(10, 1000, 30)
    assert dimension_against(many, {"a": (many, None, None)}).layout.xaxis.ticktext is None
    near = dimension_against([1, 1.01, 100], {"fit": FIT})
    assert near.layout.xaxis.ticktext is None


def test_a_missing_value_is_a_gap():
    fig = dimension_by_layer(["input", "stage 1", "embedding"],
                             {"teacher": ([14, np.nan, 9], [13, np.nan, 8], [15, np.nan, 10])})
    assert np.isnan(fig.data[0].y[1]) and len(png(fig)) > 5000


def test_layers_keep_their_order_and_networks_their_look():
    layers = ["input", "stage 1", "stage 2"]
    fig = dimension_by_layer(layers, {"teacher": FIT, "arcface": FIT, "mine": FIT})
    assert list(fig.layout.xaxis.ticktext) == layers
    assert [trace.name for trace in fig.data] == ["teacher", "ArcFace alone", "mine"]
    assert len({trace.marker.symbol for trace in fig.data}) == 3
    assert list(fig.data[0].customdata) == layers


def test_recovered_has_its_diagonal():
    fig = dimension_recovered([2, 5, 10], {"cube": (np.array([1.9, 4.7, 9.0]), None, None)})
    diagonal, cube = fig.data
    assert list(diagonal.x) == list(diagonal.y) == [0, 10]
    assert list(cube.y) == [1.9, 4.7, 9.0]


def test_identities_have_two_panels():
    fig = neighbours_by_identity([1, 5, 50], *FIT, [0, 0.9, 1], [0, 0.7, 1])
    estimate, first, second = fig.data
    assert (estimate.xaxis, first.xaxis, second.xaxis) == ("x", "x2", "x2")
    assert fig.layout.yaxis2.tickformat == ".0%" and list(first.y) == [0, 0.9, 1]
    assert first.marker.symbol != second.marker.symbol and first.line.dash != second.line.dash
    assert len(png(fig)) > 5000


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"series 'fit' has \(3,\) numbers for 2 places"):
        dimension_against(NS[:2], {"fit": FIT})
    with pytest.raises(ValueError, match="series 'fit': an estimate is outside its interval"):
        dimension_against(NS, {"fit": (FIT[2], FIT[0], FIT[1])})
    with pytest.raises(ValueError, match="series 'fit' holds no estimate"):
        dimension_against(NS, {"fit": ([np.nan] * 3, None, None)})
    with pytest.raises(ValueError, match="noise = 0; set log=False"):
        dimension_against([0, 1, 2], {"fit": FIT}, quantity="noise")
    with pytest.raises(ValueError, match="no series"):
        dimension_recovered([1, 2], {})
