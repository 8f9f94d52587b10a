"""Figures for every reader: contrast, colour blindness, and a walk through all figure functions."""

import importlib.util
import inspect
from itertools import combinations
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from kdlab import plots
from kdlab.plots import style
from kdlab.plots.axes import color
from kdlab.plots.operating import RED, RULES

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 15(6), 2009: their matrices of severity 1.0, on linear RGB.
SEEN = {
    "typical": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip  # IEC 61966-2-1, white D65
# Stone, Szafir, Setlur, "An Engineering Model for Color Difference as a Function of Size", Color
# and Imaging Conference 2014: half of all readers tell two marks of s degrees apart at a distance
# of 0.5 (10.70 + 5.74 / s) along b*, the axis that wants most. A marker of 9 px (96 an inch, seen
# from 60 cm) has 0.23 degrees: 17.8, rounded up.
APART = 20.0


def lab(ink: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as somebody with that colour vision sees it."""
    xyz = TO_XYZ @ np.clip(seen @ rules.linear(color(ink)[:3]), 0, 1) / TO_XYZ.sum(1)
    edge = 6 / 29
    f = np.where(xyz > edge**3, np.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one: str, other: str) -> float:
    """CIELAB distance for whoever sees the two colours least apart (Delta E, CIE 1976)."""
    return min(float(np.linalg.norm(lab(one, m) - lab(other, m))) for m in SEEN.values())


def test_the_measures_themselves():
    assert rules.contrast("#000", "#fff") == pytest.approx(21)
    assert rules.contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.005)  # WCAG's example
    assert rules.contrast("rgba(0,0,0,0.5)", "#fff") == pytest.approx(
        rules.contrast("#808080", "#fff"), abs=0.05)
    np.testing.assert_allclose(lab("#FF0000", np.eye(3)), [53.24, 80.09, 67.20], atol=0.02)
    red_green = [np.linalg.norm(lab("#D00000", m) - lab("#6B6B00", m)) for m in SEEN.values()]
    assert red_green[0] > 60 > red_green[2]  # a deuteranope sees less of it
    for matrix in SEEN.values():
        np.testing.assert_allclose(matrix.sum(1), 1, atol=2e-6)  # white stays white


WRITTEN = {"ink": style.INK, "grey": style.GREY, "red": RED}
DRAWN = {name: look.color for name, look in style.METHODS.items()} | {
    "genuine": style.GENUINE, "impostor": style.IMPOSTOR, "plain": style.PLAIN.color,
    "ink": style.INK, "axis": style.TEMPLATE.layout.xaxis.linecolor,
    **{f"rule {name}": look[0] for name, look in RULES.items()},
    **{f"spare {i}": ink for i, ink in enumerate(style.FALLBACK)},
    **{f"colorway {i}": ink for i, ink in enumerate(style.TEMPLATE.layout.colorway)},
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_can_be_read(name):
    assert rules.contrast(WRITTEN[name], style.PAPER) >= rules.TEXT


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_can_be_seen(name):
    assert rules.contrast(DRAWN[name], style.PAPER) >= rules.DRAWN


def test_a_figure_brings_its_own_light_paper():
    for paper in (style.TEMPLATE.layout.paper_bgcolor, style.TEMPLATE.layout.plot_bgcolor):
        assert paper == style.PAPER and color(paper) == (1, 1, 1, 1)


def test_methods_that_look_alike_to_somebody_differ_in_marker():
    close = [(one, other) for one, other in combinations(style.METHODS.values(), 2)
             if distance(one.color, other.color) < APART]
    assert close  # no palette of this size is safe by colour alone
    for one, other in close:
        assert one.marker != other.marker, f"{one.label} and {other.label}"


def test_genuine_and_impostor_are_apart_by_colour_alone():
    assert distance(style.GENUINE, style.IMPOSTOR) > 3 * APART


def test_spare_looks_differ_from_all_others_in_shape():
    looks = plots.looks(["teacher", "ekd", "mfd", *(f"run {i}" for i in range(8))])
    assert len({look[1:3] for look in looks.values()}) == len(looks)


RNG = np.random.default_rng(0)
GENUINE, IMPOSTOR = RNG.normal(0.5, 0.15, 300), RNG.normal(0, 0.1, 5000)
FPR = np.linspace(0, 1, 2001)
CURVES = {name: (FPR, FPR ** (0.1 + 0.02 * i)) for i, name in enumerate(
    ["teacher", "adadistill", "feature_only", "mfd", "shrinkteanet", "ekd", "mine", "yours"])}
BANDS = {"ekd": (FPR**0.25, FPR**0.15)}
ROWS = [("ekd", 1.0, 0.2, 1.8), ("rkd", -0.5, -1.5, 0.5), ("mine", 0.1, -0.1, 0.3)]
FACES = RNG.integers(0, 255, (6, 3, 48, 48), dtype=np.uint8)
STEP = np.arange(20)
LOG = {"step": STEP, "ekd": 5 - 0.1 * STEP, "mfd": RNG.random((3, 20)), "gap": RNG.random(20)}
TARGETS = np.geomspace(2e-4, 0.1, 30)
POINT = 0.9, 0.3, 0.85, 0.95
GRID = np.array([-30.0, 0.0, 30.0])
OWN = {name: np.array([0.7, 0.9, 0.6]) - 0.1 * i for i, name in enumerate(["bare", "mask", "cap"])}
KINDS = np.arange(6) % 2 == 0, np.arange(6) < 2  # genuine, critical
RELATIONS = {
    "teacher": RNG.normal(0.3, 0.2, 6), "student": RNG.normal(0.3, 0.2, 6), "genuine": KINDS[0],
    "teacher_thresholds": [0.3, 0.5], "student_thresholds": [0.2, 0.5], "fprs": [1e-1, 1e-2],
    "critical": KINDS[1],
}  # fmt: skip
PEOPLE = np.repeat(np.arange(12), 5)
FPRS = 1e-1, 1e-2, 1e-3
TIMES = np.arange(1, 40)
LEVELS = {kind: np.tile([0.1 + 0.02 * i, 0.3, 0.4], (39, 1)) for i, kind in enumerate(
    ["paper", "corrected", "true quantile"])}
SOFT = {tau: 1 / (1 + np.exp(-np.linspace(-0.2, 0.2, 50) / tau)) for tau in (0.01, 0.1)}
STUDIED = {"temperature": [("τ = 0.1", 0.4, -0.2, 1.0, (0.38, 0.39))],
           "form": [("eq. 7", -1.0, -1.5, -0.5, None), ("eq. 11", None, None, None, (1.4, 2.4))]}
LINE = np.linspace(0, 1, 60), 8 * np.linspace(0, 1, 60)  # of `pareto_fit`
SOME = np.array([7.2, 7.6, 7.8])
ESTIMATES = {name: (SOME - 0.1 * i, SOME - 0.5, SOME + 0.3)
             for i, name in enumerate(["teacher", "fit", "likelihood"])}
TAUGHT = 0.5 + RNG.random((3, 4)) / 10
TABLE = {"IR100": {"MFN": 53.86, "IR18": 61.7, "IR34": 73.16}, "tailored": {"MFN": 58.66}}


def threshold(at: float) -> go.Figure:
    return plots.threshold_view(GENUINE, IMPOSTOR, at, 0.9, 0.01)


# Every function of kdlab.plots that returns a figure -> calls of it with small inputs.
CASES = {
    "figure": [lambda: plots.figure("A title", "and more").add_scatter(
        x=[1, 2], y=[1, 2], mode="lines").update_xaxes(title_text="x").update_yaxes(
        title_text="y")],
    "contact_sheet": [
        lambda: plots.contact_sheet(FACES, 3, ["a", "b"], ["x", "y", "z"], subtitle="more"),
        lambda: plots.contact_sheet(FACES, 3, titles=list("abcdef")),
    ],
    "pair_grid": [lambda: plots.pair_grid(FACES[:3], FACES[3:], [0.1, 0.2, 0.3], "impostor")],
    "score_histograms": [
        lambda: plots.score_histograms(GENUINE, IMPOSTOR, {"here": 0.3, "there": 0.4}),
        lambda: plots.score_histograms(GENUINE, IMPOSTOR, 0.3, log_counts=True),
    ],
    "threshold_view": [lambda: threshold(0.3)],
    "roc": [lambda: plots.roc(CURVES, BANDS, 1e-3, [("ekd", 1e-2, 0.4, 0.35, 0.45)])],
    "interval_plot": [lambda: plots.interval_plot(ROWS, "percentage points")],
    "history": [
        lambda: plots.history(LOG),
        lambda: plots.history(LOG, {"both": ["ekd", "mfd"], "again": ["ekd", "gap"]}),
    ],
    "operating_view": [
        lambda: plots.operating_view(GENUINE, IMPOSTOR, 1e-2, POINT, (1000, 46)),
        lambda: plots.operating_view(GENUINE, IMPOSTOR, 1e-6, POINT, (10**6, 1415)),
    ],
    "rules_view": [lambda: plots.rules_view(
        TARGETS, {"below": (TARGETS * 0.9, TARGETS**0.2), "nearest": (TARGETS, TARGETS**0.2)},
        1e-2, 5000)],
    "factor_view": [lambda: plots.factor_view(
        GRID, OWN, np.array([[0.1, 0.2, 0.0], [-0.1, 0.0, 0.3]]),
        {name: FACES[:3] for name in OWN}, FACES[0], 30, "mask", factor="turn", unit="degrees")],
    "multiples": [
        lambda: plots.multiples({f"t {t}": threshold(t) for t in (0.2, 0.3, 0.4)}),
        lambda: plots.multiples({k: plots.roc(CURVES) for k in "ab"}, "Two tests"),
        lambda: plots.multiples({k: plots.contact_sheet(FACES[:1], 1, title=k) for k in "ab"}),
    ],
    "relation_map": [lambda: plots.relation_map(**RELATIONS)],
    "pair_view": [lambda: plots.pair_view(
        "one", 0, {"one": [0, 1]}, RNG.integers(0, 6, (6, 2)), FACES, **RELATIONS)],
    "embedding_map": [lambda: plots.embedding_map(
        {name: RNG.normal(size=(60, 2)) for name in ("teacher", "student")}, PEOPLE)],
    "centre_map": [lambda: plots.centre_map(
        RNG.normal(size=(4, 9, 2)), targets=RNG.normal(size=(9, 2)))],
    "ablation_plot": [lambda: plots.ablation_plot(STUDIED)],
    "cost_plot": [lambda: plots.cost_plot(
        {"ekd": (1.03, 0.99, 1.07), "rkd": (1.6, 1.5, 1.7), "sp": None}, {"ekd": 1.9, "rkd": 2.2})],
    "indicator_view": [lambda: plots.indicator_view(
        np.linspace(-0.2, 0.2, 50), SOFT, {tau: g * (1 - g) / tau for tau, g in SOFT.items()})],
    "critical_timeline": [lambda: plots.critical_timeline(
        TIMES, {"arcface": RNG.random((3, 39)), "adadistill": RNG.random(39),
                "mfd": RNG.random(39)}, early=10)],
    "threshold_timeline": [
        lambda: plots.threshold_timeline(TIMES, LEVELS, FPRS, marks={"half": 20}),
        lambda: plots.threshold_timeline(
            TIMES, {kind: v[:, :2] for kind, v in LEVELS.items()}, FPRS[:2], overlay=True),
    ],
    "threshold_strips": [lambda: plots.threshold_strips(
        (GENUINE, IMPOSTOR, [0.1, 0.2, 0.3]), (GENUINE, IMPOSTOR, [0.15, 0.25, 0.35]), FPRS)],
    "pareto_fit": [lambda: plots.pareto_fit(*LINE, np.arange(60) < 54, 8, 0.1, truth=7)],
    "dimension_against": [
        lambda: plots.dimension_against([250, 500, 1000], ESTIMATES, truth=8),
        lambda: plots.dimension_against([0, 0.1, 0.2], ESTIMATES, quantity="noise", log=False),
    ],
    "dimension_recovered": [lambda: plots.dimension_recovered([2, 5, 8], ESTIMATES)],
    "dimension_by_layer": [lambda: plots.dimension_by_layer(["input", "1", "2"], ESTIMATES)],
    "neighbours_by_identity": [lambda: plots.neighbours_by_identity(
        [1, 5, 20], *ESTIMATES["fit"], [0, 0.6, 0.9], [0, 0.4, 0.8])],
    "universality": [
        lambda: plots.universality(["plain", "tailored", "more"], list("abcd"), TAUGHT,
                                   TAUGHT - 0.02, TAUGHT + 0.03, TABLE),
        lambda: plots.universality(["plain"], ["a"], TAUGHT[:1, :1], [[0.4]], [[0.7]]),
    ],
    "intrinsic_gap": [lambda: plots.intrinsic_gap(
        {"before": ([10, 11], [15, 16]), "after": ([13, 14], [15, 16])},
        {"before": (5, 4.5, 5.5)}, {"proxy": [18, 19]})],
    "weight_sweep": [
        lambda: plots.weight_sweep([1, 5, 20], [-1, 0, 1], [-3, 0, 0.5], [1, 0, 1.5], 2, 5,
                                   {"MFN": {1: 58.1, 5: 59.2}, "IR18": {1: 68.4, 5: 68.6}}),
        lambda: plots.weight_sweep([1, 5], [-1, 0], [-3, 0], [1, 0], 2, 5),
    ],
    "dimension_and_rate": [lambda: plots.dimension_and_rate(
        {"vanilla": ([10, 11], [0.5, 0.6]), "tailored": ([13, 14], [0.6, 0.7])})],
}  # fmt: skip
FIGURES = [name for name in plots.__all__ if callable(getattr(plots, name))
           and inspect.signature(getattr(plots, name)).return_annotation is go.Figure]  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_readable(name):
    assert name in CASES, f"kdlab.plots.{name} draws a figure; add calls of it to CASES"
    for case in CASES[name]:
        assert rules.faults(case()) == []


def line(ink="#0072B2", **options) -> go.Figure:
    fig = plots.figure("A title")
    fig.add_scatter(x=[1, 2], y=[1, 2], mode="lines", name="a", line={"color": ink}, **options)
    return fig.update_xaxes(title_text="x").update_yaxes(title_text="y")


SPOILT = {
    "no title": line().update_layout(title_text=""),
    "axis y has ticks and no title": line().update_yaxes(title_text=""),
    "layout.legend.font is 9 px": line().update_layout(legend_font_size=9),
    "data[0].textfont is 8 px": line(text="a", textfont={"size": 8}),
    "subtitle: contrast 2.8": line().update_layout(
        title_subtitle={"text": "s", "font": {"color": "#999"}}),
    "note 'n': contrast 2.8": line().add_annotation(x=1, y=1, text="n", font={"color": "#999"}),
    "note 'm': contrast 4.3": line().add_annotation(
        x=1, y=1, text="m", font={"color": style.GREY}).add_shape(
        type="rect", x0=1, x1=2, y0=1, y1=2, fillcolor="rgba(120,120,120,0.18)"),
    "line of 'a': contrast 1.3": line("#F0E442"),
    "line of 'a': contrast 1.8": line(opacity=0.4),
    "'a' and 'b' differ in colour alone": line().add_scatter(
        x=[1, 2], y=[2, 1], mode="lines", name="b", line={"color": "#D55E00"}),
    "marks on a colour scale": line().add_scatter(
        x=[1, 2], y=[1, 2], mode="markers", marker={"color": [1, 2]}),
    "no opaque paper": line().update_layout(paper_bgcolor="rgba(0,0,0,0)"),
    "no PNG": line().add_shape(type="circle", x0=0, x1=1, y0=0, y1=1),
}  # fmt: skip


@pytest.mark.parametrize("words", SPOILT)
def test_a_spoilt_figure_is_caught(words):
    found = rules.faults(SPOILT[words])
    assert len(found) == 1 and words in found[0], found


def test_a_name_beside_the_line_is_as_good_as_a_dash():
    fig = SPOILT["'a' and 'b' differ in colour alone"]
    assert rules.faults(go.Figure(fig).add_annotation(x=1, y=2, text="b", showarrow=False)) == []
