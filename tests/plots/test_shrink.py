"""Figures about angles and distances: arrows, paths, and terms that reach nothing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots.png import png
from kdlab.plots.shrink import (
    KINDS,
    TERMS,
    angle_view,
    descent_paths,
    force_field,
    stage_forces,
)

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
TEACHER = 0.8, 0.6


def field(forces=None, kind="L2"):
    return force_field(POINTS, TEACHER - POINTS if forces is None else forces, TEACHER, kind)


def paths():
    step = np.arange(11)
    return descent_paths({"L2": (1 + 0.1 * step, 120 - 10.0 * step),
                          "1 - cos": (np.full(11, 1.5), 120 - 5.0 * step)}, target=2)


def forces(**options):
    return stage_forces({"stage1": [2, 0, 0, 0], "stage2": [1, 1, 0, 0], "stage3": [0, 0, 0, 0],
                         "embedding": [0.1, 0.2, 0.3, 0.4]}, **options)


def view(log=False, marks=None):
    theta = np.linspace(0, 180, 91)
    x = np.radians(theta)
    gap = 1 - np.cos(x)
    curves = {"1 - cos": (gap, np.sin(x)), "(1 - cos)²": (gap**2, 2 * gap * np.sin(x))}
    return angle_view(theta, curves, {"labels": 88, "taught": 50} if marks is None else marks,
                      log=log)


@pytest.mark.parametrize("make", [field, lambda: field(kind="(1 - cos)²"), paths, forces, view,
                                  lambda: view(log=True), lambda: view(marks={}),
                                  lambda: forces(limits=(1e-3, 10))])
def test_it_keeps_the_rules_of_figures(make):
    assert rules.faults(make()) == []
    assert len(png(make())) > 5000


def test_arrows_point_along_the_force_and_the_longest_is_as_long_as_told():
    fig = force_field(POINTS, np.array([[2.0, 0.0], [0.0, -1.0], [0.0, 0.0]]), TEACHER, "L2",
                      longest=0.5)
    x, y = (np.asarray(part).reshape(3, 6) for part in (fig.data[0].x, fig.data[0].y))
    np.testing.assert_allclose(np.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], 1),
                               [[0.5, 0], [0, -0.25], [0, 0]], atol=1e-6)
    assert np.isnan(x[:, 5]).all()  # the pen is lifted between two arrows
    assert fig.data[0].line.color == KINDS["L2"].color and "teacher" in fig.data[2].text


def test_no_force_at_all_is_no_arrow():
    assert len(png(field(np.zeros((3, 2))))) > 3000


def test_a_path_has_its_curve_in_both_panels_and_one_entry_in_the_legend():
    fig = paths()
    lines = [t for t in fig.data if t.mode == "lines"]
    assert [(t.name, t.xaxis) for t in lines] == [
        ("L2", "x"), ("L2", "x2"), ("1 − cos", "x"), ("1 − cos", "x2")]
    assert [t.name for t in fig.data if t.showlegend] == ["L2", "1 − cos"]
    assert fig.layout.yaxis.type is None and [s.y0 for s in fig.layout.shapes] == [2]


def test_a_path_that_flies_away_gets_a_logarithmic_axis_and_ends_where_it_is_not_finite():
    fig = descent_paths({"L2": (10.0 ** np.arange(6), [90, 0, 180, np.nan, 0, 180])})
    assert fig.layout.yaxis.type == "log"
    angle = next(t for t in fig.data if t.xaxis == "x2" and t.mode == "lines")
    assert list(angle.y) == [90, 0, 180]


def test_an_angle_has_a_loss_and_a_pull_and_marks_in_both_panels():
    fig = view()
    lines = [(t.name, t.xaxis) for t in fig.data if t.mode == "lines"]
    assert lines == [(name, x) for name in ("1 − cos", "(1 − cos)²", "labels", "taught")
                     for x in ("x", "x2")]
    assert [t.name for t in fig.data if t.showlegend] == [
        "1 − cos", "(1 − cos)²", "labels", "taught"]
    at = next(t for t in fig.data if t.name == "taught")
    assert list(at.x) == [50, 50]


def test_a_logarithmic_pull_leaves_out_what_is_next_to_nothing():
    fig = view(log=True)
    assert fig.layout.yaxis2.type == "log" and fig.layout.yaxis2.range[0] == -4
    pull = [t for t in fig.data if t.name == "(1 − cos)²" and t.xaxis == "x2" and t.mode == "lines"]
    assert min(pull[0].y) > 1e-4 and pull[0].x[0] > 0


def test_a_term_without_a_gradient_is_named_and_not_drawn():
    fig = forces()
    assert [t.name for t in fig.data] == [TERMS[k].label for k in ("stage1", "stage2", "embedding")]
    assert np.isnan(fig.data[0].y[1:]).all()
    assert [n.text for n in fig.layout.annotations] == [
        "no gradient: stage3"]
    assert list(forces(limits=(1e-3, 10)).layout.yaxis.range) == [-3, 1]


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"must be \(N, 2\) alike"):
        field(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not finite; leave the origin out"):
        field(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match=r"must be \(3,\) like theta"):
        angle_view([0, 1, 2], {"L2": ([1, 2], [1, 2])})
    with pytest.raises(ValueError, match="3 marks at most, got 4"):
        view(marks=dict.fromkeys("abcd", 1))
    with pytest.raises(ValueError, match="no paths"):
        descent_paths({})
    with pytest.raises(ValueError, match="path 'L2': lengths and angles"):
        descent_paths({"L2": ([1, 2], [3])})
    with pytest.raises(ValueError, match=r"got lists of \[1, 2\]"):
        stage_forces({"stage1": [1, 2], "embedding": [1]})
    with pytest.raises(ValueError, match="got lists of"):
        stage_forces({})
