"""EKD's thresholds and critical pairs: every curve is the caller's, nothing is hidden or moved."""

import numpy as np
import pytest

from kdlab import plots
from kdlab.plots.critical import critical_timeline, indicator_view
from kdlab.plots.style import METHODS
from kdlab.plots.thresholds import (
    HARDEST,
    INKS,
    POINTS,
    ROW,
    inks,
    threshold_strips,
    threshold_timeline,
)

RNG = np.random.default_rng(0)
FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
STEPS = np.arange(1, 901)
TRUE = np.tile([0.1, 0.2, 0.3, 0.4, 0.5, 0.51], (900, 1))
KINDS = {"paper": TRUE * (1 - 0.99**STEPS)[:, None], "corrected": TRUE + 0.01,
         "true quantile": TRUE}
TEACHER = RNG.normal(0.7, 0.1, 400), RNG.normal(0, 0.1, 3000), np.array([0.1, 0.2, 0.3])
STUDENT = RNG.normal(0.5, 0.1, 400), RNG.normal(0.1, 0.1, 3000), np.array([0.2, 0.3, 0.4])
X = np.linspace(-0.2, 0.2, 201)
SOFT = {tau: 1 / (1 + np.exp(-X / tau)) for tau in (0.01, 0.1)}
SLOPE = {tau: g * (1 - g) / tau for tau, g in SOFT.items()}
FIGURES = {
    "timeline": lambda: threshold_timeline(STEPS, KINDS, FPRS, marks={"half": 69}),
    "overlay": lambda: threshold_timeline(STEPS, {k: v[:, :2] for k, v in KINDS.items()}, FPRS[:2],
                                          overlay=True),
    "one kind": lambda: threshold_timeline(STEPS, {"true quantile": TRUE}, FPRS),
    "strips": lambda: threshold_strips(TEACHER, STUDENT, FPRS[:3]),
    "indicator": lambda: indicator_view(X, SOFT, SLOPE),
    "critical": lambda: critical_timeline(STEPS, {"arcface": RNG.random((3, 900)),
                                                  "ekd": RNG.random(900)}, early=100),
}


@pytest.mark.parametrize("name", FIGURES)
def test_titles_named_axes_a_print_and_no_small_text(name):
    fig = FIGURES[name]()
    assert fig.layout.title.text and len(plots.png(fig)) > 5000
    axes = [fig.layout[key] for key in fig.layout.to_plotly_json() if key[1:5] == "axis"]
    assert axes and all(axis.title.text for axis in axes)
    assert all(note.font.size is None or note.font.size >= 11 for note in fig.layout.annotations)
    assert len(fig.to_json()) < 300_000


def curves(fig, start):
    return [t for t in fig.data if (t.name or "").startswith(start)]


def test_a_panel_for_each_kind_and_the_reference_in_all():
    fig = FIGURES["timeline"]()
    own = curves(fig, "paper, FPR")
    assert len(own) == len(FPRS) and {t.xaxis for t in own} == {"x"}
    reference = curves(fig, "true quantile, FPR")
    assert [t.xaxis for t in reference].count("x") == 6 == [t.xaxis for t in reference].count("x2")
    assert {t.line.dash for t in reference} == {"dot"}
    assert len({t.line.dash for name in KINDS for t in curves(fig, f"{name}, FPR")}) == len(KINDS)
    assert len({t.line.color for t in own}) == len(FPRS)


def test_the_curves_are_the_callers_at_the_steps_kept():
    for k, curve in enumerate(curves(FIGURES["timeline"](), "paper, FPR")):
        at = np.asarray(curve.x, int)
        assert at[0] == 1 and at[-1] == 900 and len(at) <= POINTS
        np.testing.assert_allclose(curve.y, KINDS["paper"][at - 1, k], rtol=1e-6)


def test_every_end_is_labelled_and_no_two_labels_touch():
    fig = FIGURES["timeline"]()
    for axis in ("x", "x2"):
        notes = [n for n in fig.layout.annotations if n.xref == axis and n.text.startswith("1e")]
        assert {n.text for n in notes} == {"1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6"}
        low, high = fig.layout.yaxis.range
        heights = sorted(n.y for n in notes)
        assert np.diff(heights).min() >= 0.06 * (high - low)
        assert low < heights[0] and heights[-1] < high
        assert max(n.x for n in notes) < fig.layout.xaxis.range[1]


def test_an_overlay_has_one_panel_and_a_dash_for_each_kind():
    fig = FIGURES["overlay"]()
    assert "xaxis2" not in fig.layout.to_plotly_json()
    legend = {t.name: t.line.dash for t in fig.data if t.showlegend is not False}
    assert list(legend) == list(KINDS) and len(set(legend.values())) == len(KINDS)


def test_a_threshold_that_ends_early_is_labelled_where_it_ends():
    values = np.full((900, 1), 0.3)
    values[500:] = np.nan
    fig = threshold_timeline(STEPS, {"paper": values}, [1e-3])
    label = next(n for n in fig.layout.annotations if n.text == "1e-3")
    assert 500 < label.x < 600


def test_timeline_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"'paper' is \(900, 6\) and should be .*\(900, 2\)"):
        threshold_timeline(STEPS, KINDS, FPRS[:2])
    with pytest.raises(ValueError, match="one to five kinds"):
        threshold_timeline(STEPS, {str(k): TRUE for k in range(6)}, FPRS)


def test_strips_join_the_thresholds_of_one_rate():
    fig = FIGURES["strips"]()
    for k, line in enumerate(curves(fig, "FPR ")):
        assert line.x[1] == line.x[2] == TEACHER[2][k] and min(line.y[1:3]) > ROW / 2
        assert line.x[3] == line.x[4] == STUDENT[2][k] and max(line.y[3:5]) < ROW / 2
    said = [n.text for n in fig.layout.annotations]
    assert "<b>1e-3</b><br>0.30" in said and "<b>1e-3</b><br>0.40" in said


def test_strips_show_the_hardest_pairs_one_by_one():
    fig = FIGURES["strips"]()
    genuine, impostor = (np.asarray(t.x, float)[::3] for t in curves(fig, "teacher, hardest"))
    np.testing.assert_array_equal(np.sort(genuine), np.sort(TEACHER[0])[:HARDEST])
    np.testing.assert_array_equal(np.sort(impostor), np.sort(TEACHER[1])[-HARDEST:])


def test_strips_refuse_nothing_and_other_rates():
    with pytest.raises(ValueError, match="student's impostor values are empty"):
        threshold_strips(TEACHER, (STUDENT[0], [], STUDENT[2]), FPRS[:3])
    with pytest.raises(ValueError, match="the teacher has 3 thresholds for 2 FPRs"):
        threshold_strips(TEACHER, STUDENT, FPRS[:2])


def test_indicator_panels_hold_one_curve_for_each_temperature():
    fig = FIGURES["indicator"]()
    for tau in SOFT:
        soft, slope = curves(fig, f"τ = {tau:g}")
        np.testing.assert_array_equal(soft.y, SOFT[tau])
        np.testing.assert_array_equal(slope.y, SLOPE[tau])
        assert (soft.xaxis, slope.xaxis) == ("x", "x2")
    assert fig.layout.yaxis2.type == "log" and 10 ** fig.layout.yaxis2.range[1] > 25
    assert len({t.line.dash for t in fig.data if t.xaxis == "x"}) == 3  # with the hard step


def test_a_slope_of_nothing_ends_its_curve():
    zero = {tau: np.where(abs(X) > 0.1, 0, slope) for tau, slope in SLOPE.items()}
    slope = curves(indicator_view(X, SOFT, zero), "τ = 0.1")[1]
    assert np.isnan(np.asarray(slope.y)[abs(X) > 0.1]).all()


def test_indicator_refuses_other_temperatures():
    with pytest.raises(ValueError, match=r"soft has the temperatures \[0.01, 0.1\], slope \[0.1\]"):
        indicator_view(X, SOFT, {0.1: SLOPE[0.1]})
    with pytest.raises(ValueError, match="temperature 0.01"):
        indicator_view(X[:5], SOFT, SLOPE)


def test_critical_shares_have_the_methods_colours_and_a_band_of_seeds():
    runs = np.stack([np.full(900, 0.1), np.full(900, 0.3)])
    fig = critical_timeline(STEPS, {"arcface": runs, "ekd": runs[0]}, kind="negative", early=50)
    lines = {t.name: t for t in fig.data if t.mode == "lines" and t.fill is None}
    assert lines["EKD"].line.color == METHODS["ekd"].color
    np.testing.assert_allclose(lines["ArcFace alone"].y, 0.2, rtol=1e-6)
    bands = [t for t in fig.data if t.fill == "toself"]
    assert len(bands) == 1 and min(bands[0].y) == pytest.approx(0.1)
    assert "negative" in fig.layout.title.text and "negative" in fig.layout.yaxis.title.text
    assert fig.layout.shapes[0].x1 == 50


def test_critical_shares_must_fit_the_steps():
    with pytest.raises(ValueError, match="'ekd' has 5 values for 900 steps"):
        critical_timeline(STEPS, {"ekd": np.zeros(5)})
    with pytest.raises(ValueError, match="'ekd' has no step with a value"):
        critical_timeline(STEPS, {"ekd": np.full(900, np.nan)})


def _luminance(ink):
    parts = [int(ink[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_the_scale_of_rates_is_ordered_and_seen_on_paper():
    light = [_luminance(ink) for ink in INKS]
    assert (np.diff(light) < 0).all() and 1.05 / (light[0] + 0.05) >= 3
    assert inks(6) == list(INKS) and inks(2) == [INKS[0], INKS[-1]] and inks(1) == [INKS[0]]
