"""Figures about margins: curves over an angle, classes on a circle, the sphere that turns."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots.margins import KINDS, angle_curves, kind_looks, margin_circle
from kdlab.plots.sphere import arrows, cap, force_field, project, sphere_view

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

RNG = np.random.default_rng(0)
THETA = np.linspace(0, 180, 91)
TURNED = np.radians(THETA)
CURVES = {"softmax": np.cos(TURNED), "arcface": np.cos(TURNED + 0.5),
          "guarded": np.where(TURNED > np.pi - 0.5, np.nan, np.cos(TURNED + 0.5)),
          "s = 4": np.cos(TURNED) / 2}
CENTRES = RNG.normal(size=(8, 3))
LABELS = np.repeat(np.arange(8), 6)
POINTS = CENTRES[LABELS] + 0.1 * RNG.normal(size=(48, 3))
NAMES = [f"person {k}" for k in range(8)]
GRID = RNG.normal(size=(60, 3))
GRID /= np.linalg.norm(GRID, axis=1, keepdims=True)
FORCE = np.cross(GRID, [0.0, 0.0, 1.0])


def lines():
    return angle_curves(THETA, CURVES, quantity="logit (no unit)", title="Logits",
                        marks={"turn": 150}, subtitle="m = 0.5", limits=(-1.5, 1))


def circle():
    return margin_circle(np.arange(8) * 45, {"one": 10, "two": 0, "three": 22.5},
                         subtitle="8 classes")


def spheres(**options):
    return sphere_view({"one": (POINTS, LABELS, CENTRES), "two": (POINTS, LABELS % 3 - 1, None)},
                       names=NAMES, **options)


def field(**options):
    return force_field(GRID, {"exact": FORCE, "other": -0.5 * FORCE}, names=NAMES[:3],
                       centres=CENTRES[:3], beyond=150, **options)


@pytest.mark.parametrize("make", [
    lines, circle, spheres, field,
    lambda: angle_curves(THETA, {"cosface": CURVES["softmax"]}, quantity="q (no unit)", title="t"),
    lambda: margin_circle([0, 180], {"": -3}),
    lambda: sphere_view({"": (POINTS, LABELS, CENTRES)}, names=NAMES, subtitle="more"),
    lambda: force_field(GRID, {"one": 0 * FORCE}, names=NAMES[:1], centres=CENTRES[:1]),
])  # fmt: skip
def test_the_figures_are_readable(make):
    fig = make()
    assert rules.faults(fig) == [] and fig.layout.width <= 940


def test_losses_have_their_own_look_and_others_a_spare_one():
    found = kind_looks(["softmax", "s = 1", "s = 4"])
    assert found["softmax"] is KINDS["softmax"] and found["s = 1"][1:3] != found["s = 4"][1:3]
    assert len({look[1:3] for look in KINDS.values()}) == len(KINDS)


def test_a_curve_carries_marks_of_its_own_data():
    fig = lines()
    for name, y in CURVES.items():
        line, marks = (t for t in fig.data if t.legendgroup == name)
        np.testing.assert_allclose(line.y, y, atol=1e-6)
        known = np.isfinite(marks.x)
        near = np.abs(THETA[:, None] - np.asarray(marks.x)[known]).argmin(0)
        np.testing.assert_allclose(np.asarray(marks.y)[known], y[near], atol=1e-6)


@pytest.mark.parametrize("y", [np.ones(3), np.full(91, np.nan)])
def test_a_curve_that_does_not_fit_is_refused(y):
    with pytest.raises(ValueError, match="curve 'arcface'"):
        angle_curves(THETA, {"arcface": y}, quantity="q", title="t")


def test_arcs_are_as_wide_as_they_should_be():
    arcs = [t for t in circle().data if t.mode == "lines" and t.line.width == 6]
    assert len(arcs) == 16  # the second circle has none
    for arc, width in ((arcs[2], 10), (arcs[10], 22.5)):
        angle = np.degrees(np.arctan2(arc.y, arc.x))
        assert (angle.min(), angle.max()) == pytest.approx((90 - width, 90 + width), abs=0.01)


@pytest.mark.parametrize(("centres", "widths", "match"), [
    ([0, 90], {"a": 200}, "at most 180"), ([0, np.nan], {"a": 5}, "finite"),
    ([0, 90], {}, "one to three"), ([0, 90, 180], {"a": 5}, "names"),
])  # fmt: skip
def test_circles_that_do_not_fit_are_refused(centres, widths, match):
    with pytest.raises(ValueError, match=match):
        margin_circle(centres, widths, names=["one", "two"])


def test_the_legend_shows_every_class_filled_wherever_its_points_are():
    for fig in (spheres(turn=80), field(turn=200, tilt=-50)):
        entries = [t for t in fig.data if t.showlegend is not False and t.mode == "markers"]
        assert len({t.name for t in entries}) == len(entries) in (3, 8)
        assert not any(t.marker.symbol.endswith("-open") for t in entries)


def test_the_eye_sees_what_is_before_it():
    """From 90 degrees around, y points at the eye, x to the left and z up."""
    seen = project(np.eye(3), 90, 0)
    np.testing.assert_allclose(seen, [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(project([0, 0, 1], 10, 90), [0, 0, 1], atol=1e-12)
    turned = project(GRID, 37, -22)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1)
    np.testing.assert_allclose(turned @ turned.T, GRID @ GRID.T, atol=1e-12)  # no mirror, no scale


def test_far_points_are_open_and_every_point_is_drawn_once():
    fig = sphere_view({"": (POINTS, LABELS, CENTRES)}, names=NAMES, turn=80, tilt=-40)
    depth = project(POINTS, 80, -40)[:, 2]
    drawn = [t for t in fig.data if t.customdata is not None]
    for trace in drawn:
        near = not trace.marker.symbol.endswith("-open")
        assert all((depth[list(trace.customdata)] >= 0) == near)
    assert sorted(row for t in drawn for row in t.customdata) == list(range(48))
    hidden = sphere_view({"": (POINTS, np.full(48, -1), None)}, names=NAMES)
    assert not any(len(t.customdata) for t in hidden.data if t.customdata is not None)


@pytest.mark.parametrize(("spheres", "match"), [
    ({"a": (POINTS, LABELS[:-1], None)}, "one for each point"),
    ({"a": (POINTS, LABELS + 1, None)}, "from -1 to 7"),
    ({"a": (POINTS[:, :2], LABELS, None)}, r"must be \(N, 3\)"),
    ({"a": (0 * POINTS, LABELS, None)}, "without a direction"),
    ({"a": (POINTS, LABELS, np.full((8, 3), np.nan))}, "centres of 'a' hold a row"),
    ({k: (POINTS, LABELS, None) for k in "abc"}, "one sphere or two"),
])  # fmt: skip
def test_points_that_do_not_fit_are_refused(spheres, match):
    with pytest.raises(ValueError, match=match):
        sphere_view(spheres, names=NAMES)


def test_arrows_keep_the_forces_proportions_and_stay_on_the_near_side():
    fig = field(turn=10, tilt=5, longest=0.2)
    lengths = []
    for trace in (t for t in fig.data if t.name == "force"):
        path = np.stack([trace.x, trace.y], 1).reshape(-1, 6, 2)  # start, end, two heads, gap
        lengths.append(np.linalg.norm(path[:, 1] - path[:, 0], axis=1))
    near = project(GRID, 10, 5)[:, 2] > 0.05
    assert len(lengths[0]) == near.sum()
    np.testing.assert_allclose(lengths[1], lengths[0] / 2, atol=1e-6)
    full = 0.2 * np.linalg.norm(project(FORCE[near], 10, 5)[:, :2], axis=1)
    full /= np.linalg.norm(FORCE, axis=1).max()
    np.testing.assert_allclose(lengths[0], full, atol=1e-6)
    with pytest.raises(ValueError, match="force 'exact'"):
        force_field(GRID, {"exact": FORCE[:-1]}, names=NAMES[:1], centres=CENTRES[:1])


def test_an_arrow_has_its_head_at_its_end():
    x, y = arrows(np.zeros((1, 2)), np.array([[1.0, 0.0]]))
    assert (x[1], y[1]) == (1, 0) == (x[3], y[3]) and np.isnan(x[5])
    assert x[2] < 1 and y[2] == pytest.approx(-y[4]) and x[2] == pytest.approx(x[4])


@pytest.mark.parametrize("centre", [[0, 0, 1], [1, 0, 0], [0.6, 0.48, 0.64]])
def test_a_cap_is_as_far_from_its_centre_everywhere(centre):
    ring = cap(np.array(centre, float), 40)
    np.testing.assert_allclose(ring @ centre, np.cos(np.radians(40)))
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1)
    np.testing.assert_allclose(ring[0], ring[-1], atol=1e-12)
