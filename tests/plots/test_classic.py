"""Figures of the classic methods: what stands where, and the rules every figure keeps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots import classic
from kdlab.plots.style import METHODS

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

RNG = np.random.default_rng(0)
NAMES = [f"{who}{k}" for who in "ABCD" for k in (1, 2)]
BOTH = {who: RNG.random((8, 8)) for who in ("teacher", "student")}
ROWS = [("RKD, weights 1 and 2", 0.04, 0.0), ("RKD, both normalised", 0.8, 36.0),
        ("CCKD, off by one", 1e-3, 7.6)]
RATIOS = {"hinton_kd": 30.0, "rkd": 1.0, "sp": 1.0 + 1e-9, "cckd": 0.01, "fitnet": 1.7}
COUNTED = {"FitNet": (2048, 2048), "RKD": (27, 2048), "DarkRank, hard": (0, 2048)}
T = np.array([0.5, 1, 2, 4, 8, 16])

FIGURES = {
    "matrices": lambda: classic.matrices(BOTH, NAMES, NAMES, "Eight faces", unit="distance"),
    "one matrix": lambda: classic.matrices(
        {"": RNG.uniform(-1, 1, (3, 3))}, ["a method", "b", "c"], ["a", "b", "c"], "Alike?",
        unit="cosine", limits=(-1, 1), diverging=True, subtitle="more"),
    "words": lambda: classic.matrices(
        {"loss": np.eye(2)}, ["a", "b"], ["turn", "scale"], "What changes", unit="0 or 1",
        text={"loss": [["x 2", "same"], ["same", "x 3"]]}),
    "rank_view": lambda: classic.rank_view([1, 2, 3, 4], [2, 1, 4, 3], list("abcde"), "a", 3),
    "moved_losses": lambda: classic.moved_losses(RATIOS, "turned by 90 degrees"),
    "switches": lambda: classic.switches(ROWS, "What the small print does"),
    "only weights": lambda: classic.switches(ROWS[:1], "What the small print does"),
    "curves": lambda: classic.curves(T, {"with": T, "without": 1 / T}, "T squared", across="T",
                                     up="length", mark=4),
    "curves on a plain axis": lambda: classic.curves(
        T, {"rkd": 1 / T, "cckd": 2 / T}, "Left", across="rows", up="left", logarithmic=False),
    "handed_on": lambda: classic.handed_on(COUNTED, "What eight faces hand on"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_readable(name):
    fig = FIGURES[name]()
    assert rules.faults(fig) == [] and fig.layout.width <= 940


def test_matrices_share_one_scale_and_lie_as_written():
    fig = FIGURES["matrices"]()
    assert len({(t.zmin, t.zmax) for t in fig.data}) == 1
    assert [t.showscale for t in fig.data] == [False, True]
    np.testing.assert_array_equal(fig.data[1].z, BOTH["student"])
    assert fig.layout.yaxis.autorange == "reversed"  # row 0 on top
    with pytest.raises(ValueError, match="is \\(8, 8\\), the names make \\(8, 7\\)"):
        classic.matrices(BOTH, NAMES, NAMES[:7], "no", unit="")


def test_lines_join_a_face_with_itself():
    fig = FIGURES["rank_view"]()
    lines = {t.name: (list(t.y), t.line.dash) for t in fig.data if "lines" in t.mode}
    assert lines == {"b": ([1, 2], "solid"), "c": ([2, 1], "solid"), "d": ([3, 4], "solid"),
                     "e": ([4, 3], "dot")}
    assert "all are listed" in str(classic.rank_view([1, 2], [2, 1], "abc", "a", 4).layout.title)
    with pytest.raises(ValueError, match="same faces"):
        classic.rank_view([1, 2], [1, 3], list("abcd"), "a", 2)


def test_an_unchanged_loss_is_open_and_the_axis_holds_what_leaves_it():
    marks = {t.name: t for t in FIGURES["moved_losses"]().data}
    assert {name: t.text[0].strip() for name, t in marks.items()} == {
        "Hinton KD": "x 30", "RKD": "same", "SP": "same", "CCKD": "x 0.01", "FitNet": "x 1.7"}
    assert marks["SP"].marker.symbol == "circle-open" != marks["FitNet"].marker.symbol
    assert marks[METHODS["hinton_kd"].label].x[0] == 20 and marks["CCKD"].x[0] == 0.05


def test_a_turn_parts_weights_from_losses():
    fig = FIGURES["switches"]()
    kinds = {t.legendgroup: list(t.y) for t in fig.data}
    assert kinds == {"another weight": [0], "another loss": [1, 2]}
    with pytest.raises(ValueError, match="no rows"):
        classic.switches([], "nothing")


def test_a_count_of_nought_is_open_at_the_left_end():
    fig = FIGURES["handed_on"]()
    assert list(fig.data[0].x) == [2048, 27, 1]
    assert list(fig.data[0].marker.symbol) == ["circle", "circle", "circle-open"]
    assert [text.strip() for text in fig.data[0].text] == [
        "2,048 of 2,048", "27 of 2,048", "0 of 2,048"]


def test_attention_warms_where_the_map_is_strong():
    faces = np.full((1, 3, 32, 32), 120, np.uint8)
    maps = np.zeros((1, 2, 2))
    maps[0, 0, 1] = 3.0
    seen = classic.attended(faces, maps)
    assert seen.shape == faces.shape and seen.dtype == np.uint8
    top, bottom = seen[0, :, 2, 29], seen[0, :, 29, 2]
    assert top[0] > top[2] + 60 and list(bottom) == [120] * 3  # red there, grey here
    np.testing.assert_array_equal(classic.attended(faces, maps * 5), seen)  # of its own maximum
    np.testing.assert_array_equal(classic.attended(faces, 0 * maps), faces)
    with pytest.raises(ValueError, match="give \\(N, H, W\\)"):
        classic.attended(faces, maps[0])
