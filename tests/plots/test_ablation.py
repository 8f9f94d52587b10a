"""Ours beside the printed numbers: rows in line, the two sides apart, nothing made up."""

import numpy as np
import pytest

from kdlab import plots
from kdlab.plots.ablation import ablation_plot, cost_plot
from kdlab.plots.png import png
from kdlab.plots.style import METHODS

GROUPS = {
    "temperature": [("τ = 0.1", 0.4, -0.2, 1.0, (0.38, 0.39)), ("τ = 0.01", 1.4, 0.6, 2.2, None)],
    "form": [("eq. 7", -1.0, -1.5, -0.5, (0.22, None)), ("eq. 11", None, None, None, (1.35, 2.35))],
}
COST = {"ekd": (1.03, 0.99, 1.07), "rkd": (1.6, 1.5, 1.7), "sp": None}
TABLE_5 = {"ekd": 0.129 / 0.068, "rkd": 0.147 / 0.068}


def side(fig, axis):
    return [t for t in fig.data if (t.xaxis or "x") == axis]


@pytest.mark.parametrize("fig", [ablation_plot(GROUPS), cost_plot(COST, TABLE_5)])
def test_two_panels_with_their_own_axes_and_a_print(fig):
    assert fig.layout.title.text and len(plots.png(fig)) > 5000
    assert "printed" in fig.layout.xaxis2.title.text
    assert "printed" not in fig.layout.xaxis.title.text
    headings = [n.text for n in fig.layout.annotations]
    assert "computed here" in headings and "printed in the paper: other data" in headings
    assert fig.layout.yaxis.range == fig.layout.yaxis2.range
    assert all(note.font.size is None or note.font.size >= 11 for note in fig.layout.annotations)


def test_ours_is_filled_where_the_interval_excludes_zero():
    ours = {t.name: t for t in side(ablation_plot(GROUPS), "x")}
    assert ours["τ = 0.1"].marker.symbol.endswith("-open")
    assert not ours["τ = 0.01"].marker.symbol.endswith("-open")
    assert not ours["eq. 7"].marker.symbol.endswith("-open")
    assert ours["eq. 7"].error_x.array[0] == pytest.approx(0.5)
    assert {t.marker.color for t in ours.values()} == {METHODS["ekd"].color}


def test_printed_numbers_stand_in_the_row_of_ours_and_are_open():
    fig = ablation_plot(GROUPS)
    rows = dict(zip(fig.layout.yaxis.ticktext, fig.layout.yaxis.tickvals, strict=True))
    assert [t.y[0] for t in side(fig, "x")] == [rows[t.name] for t in side(fig, "x")]
    four, five = side(fig, "x2")
    assert list(four.y) == [rows["τ = 0.1"], rows["eq. 7"], rows["eq. 11"]]
    assert list(four.x) == [0.38, 0.22, 1.35] and list(five.x) == [0.39, 2.35]
    assert all(t.marker.symbol.endswith("-open") for t in (four, five))
    ours = {t.marker.color for t in side(fig, "x")}
    assert not ours & {four.marker.color, five.marker.color}


def test_a_row_without_a_number_says_so_on_its_side():
    fig = ablation_plot(GROUPS)
    rows = dict(zip(fig.layout.yaxis.ticktext, fig.layout.yaxis.tickvals, strict=True))
    said = {n.text: (n.xref, n.y) for n in fig.layout.annotations}
    assert said["not tested"] == ("x", rows["eq. 11"])
    assert said["not printed"] == ("x2", rows["τ = 0.01"])


def test_headings_come_before_their_rows():
    fig = ablation_plot(GROUPS)
    said = {n.text: n.y for n in fig.layout.annotations}
    assert said["<b>temperature</b>"] == 0 and said["<b>form</b>"] == 3
    assert list(fig.layout.yaxis.tickvals) == [1, 2, 4, 5]


def test_sixteen_rows_keep_their_height():
    rows = [(f"row {k}", 0.1, 0.0, 0.2, (0.1, np.nan)) for k in range(16)]
    fig = ablation_plot({"all": rows})
    assert (fig.layout.height - 190) / 17 >= 20
    assert len(plots.png(fig)) > 5000


def test_cost_has_the_methods_colours_and_a_line_at_the_plain_step():
    fig = cost_plot(COST, TABLE_5)
    ours = {t.name: t for t in side(fig, "x")}
    assert ours["EKD"].marker.symbol == "circle-open"  # 1 lies in its interval
    assert ours["RKD"].marker.symbol == METHODS["rkd"].marker
    lines = [s for s in fig.layout.shapes if s.type == "line"]
    assert [s.x0 for s in lines] == [1, 1]
    printed = side(fig, "x2")[0]
    np.testing.assert_allclose(printed.x, [1.897, 2.162], atol=1e-3)
    assert fig.layout.xaxis2.range[1] > 2.162 and fig.layout.xaxis2.range[0] == 0
    assert [n.text for n in fig.layout.annotations].count("not tested") == 1


def test_rows_of_the_paper_alone_come_last():
    fig = cost_plot({"ekd": (1.0, 0.9, 1.1)}, TABLE_5)
    assert list(fig.layout.yaxis.ticktext) == ["EKD", "RKD"]


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="no rows"):
        ablation_plot({"empty": []})
    with pytest.raises(ValueError, match=r"row 'a': estimate 3 is outside \[0, 1\]"):
        ablation_plot({"": [("a", 3.0, 0.0, 1.0, None)]})
    with pytest.raises(ValueError, match="1 printed numbers for 2 names"):
        ablation_plot({"": [("a", 0.5, 0.0, 1.0, 0.3)]})
    assert ablation_plot({"": [("a", 0.5, 0.0, 1.0, 0.3)]}, printed=["one"]).data


def test_a_study_not_run_yet_is_drawn():
    fig = ablation_plot({"temperature": [("τ = 0.1", None, None, None, (0.38, 0.39))]})
    assert "not tested" in [note.text for note in fig.layout.annotations]
    assert png(fig)
