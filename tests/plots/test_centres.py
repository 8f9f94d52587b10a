"""Figures about centres that move: what is drawn where, and that every reader can tell it apart."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots.capacity import teacher_view
from kdlab.plots.centres import RUNS, blend_view, four_runs, score_shift, timeline

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

RNG = np.random.default_rng(0)
STEPS, CHECKED = np.arange(1, 200, 10), np.arange(0, 201, 50)


def run(momentum=True, seeds=3):
    curves = {"step": STEPS, "loss": 30 - RNG.random((seeds, 20)), "validated": CHECKED,
              "rate": RNG.random((seeds, 5))}
    return curves | ({"momentum": RNG.random((seeds, 20))} if momentum else {})


def five():
    return {name: run(name.startswith("alpha")) for name in RUNS}


def names(fig, axis):
    return {t.name for t in fig.data if (t.xaxis or "x") == axis and t.line.width}


def test_only_moving_centres_have_a_momentum():
    fig = four_runs(five())
    assert names(fig, "x") == {"AdaDistill, α", "AdaDistill, α′"}
    assert names(fig, "x2") == names(fig, "x3") == {own.label for own in RUNS.values()}
    line = next(t for t in fig.data if t.xaxis == "x2" and t.mode == "lines" and t.line.width)
    assert len(line.x) == 20 and fig.layout.yaxis.range == (0, 1)
    assert sum(t.showlegend is not False for t in fig.data) == 5
    assert rules.faults(fig) == []


def test_without_a_moving_centre_the_first_panel_stays_empty():
    fig = four_runs({"arcface": run(False, seeds=1)})
    assert not names(fig, "x") and rules.faults(fig) == []


def test_a_timeline_has_bands_only_where_they_are_given():
    band = np.sort(RNG.random((20, 3)), 1)
    fig = timeline(STEPS, {"alpha": band, "visited": band[:, 1]}, "cosine", title="Drift")
    filled = [t.name for t in fig.data if t.fill == "toself"]
    assert filled == ["AdaDistill, α"] and rules.faults(fig) == []
    middle = next(t for t in fig.data if t.name == "AdaDistill, α" and t.mode == "lines"
                  and t.line.width)
    np.testing.assert_allclose(middle.y, band[:, 1], rtol=1e-6)
    assert timeline(STEPS, {"a": band}, "x", title="t", percent=True).layout.yaxis.tickformat


def test_the_outlines_hold_all_scores():
    scores = {"samples": RNG.normal(0.5, 0.1, 500), "centre": RNG.normal(0.7, 0.1, 50)}
    fig = score_shift(scores)
    for name in scores:
        outline = next(t for t in fig.data if t.legendgroup == name and t.fill)
        assert outline.y[::2].sum() == pytest.approx(100)
    assert f"samples {np.median(scores['samples']):.2f}" in fig.layout.title.subtitle.text
    assert [t.name for t in fig.data if t.showlegend is not False] == ["samples", "centre"]
    assert rules.faults(fig) == []


def test_the_circle_shows_before_and_after():
    rows = RNG.normal(size=(8, 2))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fig = blend_view(rows, rows[0], rows[1], 0.2 * rows[2], rows[3], rows[4])
    place = {t.name: (t.x[0], t.y[0]) for t in fig.data if len(t.x) == 1}
    assert place["centre before"] == pytest.approx(0.2 * rows[2])
    assert place["fixed centre"] == pytest.approx(rows[4])
    assert rules.faults(fig) == []


def test_teachers_stand_over_their_own_rate():
    ours = {"twin": (0.6, [0.7, 0.72]), "ir_teacher": (0.95, [0.8, 0.81])}
    fig = teacher_view(ours, {"ResNet18": (95.34, 94.96), "ResNet50": (96.77, 95.43)}, alone=0.65)
    mean = next(t for t in fig.data if t.name == "twin" and t.text is not None)
    assert (mean.x[0], mean.y[0]) == (0.6, pytest.approx(0.71))
    printed = next(t for t in fig.data if t.name == "printed: ResNet18")
    assert printed.xaxis == "x2" and printed.y[0] == 94.96
    assert rules.faults(fig) == [] and rules.faults(teacher_view(ours)) == []


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(ValueError, match="no runs"):
        four_runs({})
    with pytest.raises(ValueError, match="run 'a': loss has 3 values for 2 steps"):
        four_runs({"a": {"step": [1, 2], "loss": [1, 2, 3]}})
    with pytest.raises(ValueError, match=r"curve 'a' is \(3,\)"):
        timeline([1, 2], {"a": [1, 2, 3]}, "x", title="t")
    with pytest.raises(ValueError, match="scores 'a' are empty"):
        score_shift({"a": []})
    with pytest.raises(ValueError, match=r"student should be \(2,\), it is \(3,\)"):
        blend_view(np.eye(2), np.ones(2), np.ones(3), *np.ones((3, 2)))
    with pytest.raises(ValueError, match="no teachers"):
        teacher_view({})
