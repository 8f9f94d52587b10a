"""Figures about tailored teachers: ours and the printed numbers apart, seeds and means told."""

import numpy as np
import pytest

from kdlab.plots.png import png
from kdlab.plots.style import METHODS, PAPER
from kdlab.plots.sweep import weight_sweep
from kdlab.plots.tailored import dimension_and_rate, intrinsic_gap, universality

ROWS, COLUMNS = ["vanilla", "tailored by A", "tailored by B"], ["A", "B"]
RATES = np.array([[0.51, 0.44], [0.53, 0.46], [0.55, np.nan]])
TABLE_1 = {"IR100": {"MFN": 53.86, "IR34": 73.16}, "IR100 by MFN": {"MFN": 58.66, "IR34": 76.40}}
TABLE_3 = {"MFN": {1: 58.11, 5: 59.17, 20: 58.21}, "IR18": {1: 68.37, 5: 68.56, 20: 68.52}}


def universal(values=RATES, printed=TABLE_1):
    return universality(ROWS, COLUMNS, values, values - 0.03, values + 0.02, printed)


def test_students_are_columns_and_teachers_rows():
    fig = universal()
    ours = [trace for trace in fig.data if trace.name in ROWS]
    assert [(t.name, t.xaxis or "x", t.y[0]) for t in ours] == [
        ("vanilla", "x", 0), ("tailored by A", "x", 1), ("tailored by B", "x", 2),
        ("vanilla", "x2", 0), ("tailored by A", "x2", 1)]
    assert ours[0].x[0] == 0.51 and ours[0].error_x.arrayminus[0] == pytest.approx(0.03)
    assert len({t.marker.symbol for t in ours[:3]}) == 3
    assert list(fig.layout.yaxis.ticktext) == ROWS and not fig.layout.yaxis2.showticklabels
    assert fig.layout.xaxis.range == fig.layout.xaxis2.range
    notes = {note.text: note for note in fig.layout.annotations}
    assert notes["not run"].y == 2 and notes["not run"].xref == "x2 domain"
    assert len(png(fig)) > 5000


def test_the_printed_table_is_a_row_of_panels_of_its_own():
    fig = universal()
    printed = [trace for trace in fig.data if (trace.name or "").startswith("printed")]
    assert [t.name for t in printed] == ["printed: MFN", "printed: IR34"]
    assert not {t.xaxis for t in printed} & {"x", "x2"}
    assert list(printed[0].x) == [53.86, 58.66] and list(printed[1].text) == ["73.16", "76.40"]
    assert all(t.marker.symbol.endswith("-open") for t in printed)
    titles = {fig.layout[f"xaxis{n}"].title.text for n in ("", "2")}
    theirs = {fig.layout[f"xaxis{n}"].title.text for n in ("3", "4")}
    assert titles == {"TPR at FPR 1e-3 (%)"} and theirs == {"MR-all (%)"}
    assert "printed in the paper" in " ".join(n.text for n in fig.layout.annotations)


def test_the_first_teachers_value_is_dotted_in_every_panel():
    lines = [s for s in universal().layout.shapes if s.type == "line"]
    assert [s.x0 for s in lines] == [0.51, 0.44, 53.86, 73.16]
    assert all(s.line.dash == "dot" for s in lines)


def test_universality_without_printed_numbers_and_without_ours():
    alone = universal(printed=None)
    assert "printed" not in " ".join(n.text for n in alone.layout.annotations)
    empty = universal(np.full((3, 2), np.nan))
    assert [n.text for n in empty.layout.annotations].count("not run") == 6
    assert len(png(alone)) > 5000 and len(png(empty)) > 5000


def test_a_gap_is_the_line_between_two_means():
    rows = {"before": ([10.0, 10.4], [15.0, 15.2]), "after": ([13.0, 13.2], [15.1, 15.3])}
    fig = intrinsic_gap(rows, {"before": (4.9, 4.5, 5.3)}, {"proxy": [18.0]})
    assert list(fig.layout.yaxis.ticktext) == ["proxy", "before", "after"]
    lines = {t.name: t for t in fig.data if t.mode == "lines"}
    assert list(lines) == ["gap, before", "gap, after"]
    np.testing.assert_allclose(lines["gap, before"].x, [10.2, 15.1])
    seeds = [t for t in fig.data if t.mode == "markers" and t.marker.symbol == "circle-open"]
    assert [list(t.x) for t in seeds] == [[10.0, 10.4], [13.0, 13.2]]
    assert [t.name for t in fig.data if t.showlegend] == ["student proxy", "teacher", "student"]
    assert [n.text for n in fig.layout.annotations] == ["gap +4.90 [4.50, 5.30]"]
    assert len(png(fig)) > 5000


def test_one_row_and_one_seed_are_enough():
    assert len(png(intrinsic_gap({"vanilla": ([10.0], [10.0])}))) > 5000


def sweep(paper=TABLE_3, **options):
    difference = np.array([-1.2, 0.0, -2.1])
    return weight_sweep([1, 5, 20], difference, difference - [0.5, 0, 1.4],
                        difference + [0.5, 0, 1.4], 2.0, 5, paper, **options)


def test_filled_where_the_interval_lies_inside_the_margin():
    fig = sweep()
    marks = next(t for t in fig.data if t.mode == "markers")
    ink = METHODS["feature_only"].color
    assert list(marks.marker.color) == [ink, ink, PAPER]
    band = next(s for s in fig.layout.shapes if s.type == "rect" and s.yref == "y")
    assert (band.y0, band.y1) == (-2, 2)
    assert "margin ±2" in [n.text for n in fig.layout.annotations]
    assert fig.layout.xaxis.type == "log" and list(fig.layout.xaxis.tickvals) == [1, 5, 20]


def test_printed_rates_are_differences_to_the_printed_default():
    fig = sweep()
    mfn, ir18 = (t for t in fig.data if (t.name or "").startswith("printed"))
    np.testing.assert_allclose(mfn.y, [-1.06, 0, -0.96])
    np.testing.assert_allclose(ir18.y, [-0.19, 0, -0.04])
    assert (mfn.xaxis, ir18.xaxis) == ("x2", "x2") and mfn.line.dash != ir18.line.dash
    assert [tuple(t.x) for t in fig.data if t.name == "default"] == [(5, 5), (5, 5)]
    assert "printed" in fig.layout.yaxis2.title.text
    margins = [s for s in fig.layout.shapes if s.type == "rect" and s.yref == "y2"]
    assert not margins  # the margin is ours, not theirs
    assert len(png(fig)) > 5000 and len(png(sweep(None))) > 5000


def test_another_weight_has_another_symbol_and_look():
    fig = sweep(None, symbol="β<sub>1</sub>", look="reverse_distillation")
    assert fig.layout.xaxis.title.text == "β<sub>1</sub>, log scale"
    assert fig.data[0].line.color == METHODS["reverse_distillation"].color


def test_kinds_of_teacher_differ_in_shape_and_colour():
    fig = dimension_and_rate({"vanilla": ([10, 11], [0.5, 0.6]), "tailored": ([13, 14], [0.6, 0.7]),
                              "smaller": ([15], [0.4])})
    means = [t for t in fig.data if t.showlegend]
    assert [t.name for t in means] == ["vanilla", "tailored", "smaller"]
    assert (means[0].x[0], means[0].y[0]) == (10.5, pytest.approx(0.55))
    assert len({t.marker.symbol for t in means}) == len({t.marker.color for t in means}) == 3
    assert fig.layout.yaxis.tickformat == ".0%" and len(png(fig)) > 5000


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"should be \(3, 2\)"):
        universality(ROWS, COLUMNS, RATES.T, RATES.T, RATES.T)
    with pytest.raises(ValueError, match="outside its interval"):
        universality(ROWS, COLUMNS, RATES, RATES + 0.1, RATES + 0.2)
    with pytest.raises(ValueError, match="at most four students, got 5"):
        universality(["a"], list("vwxyz"), *[np.full((1, 5), 0.5)] * 3)
    with pytest.raises(ValueError, match="no rows"):
        intrinsic_gap({})
    with pytest.raises(ValueError, match="row 'a': the student has no dimension"):
        intrinsic_gap({"a": ([1.0], [])})
    with pytest.raises(ValueError, match="'MFN' has no rate at the default 5"):
        sweep({"MFN": {1: 58.11}})
    with pytest.raises(ValueError, match="3 printed series, got 4"):
        sweep({name: {5: 1.0} for name in "abcd"})
    with pytest.raises(ValueError, match="above 0"):
        weight_sweep([0, 1], [0, 0], [0, 0], [0, 0], 2.0, 1)
    with pytest.raises(ValueError, match="outside its interval"):
        weight_sweep([1, 5], [0, 0], [1, 0], [2, 0], 2.0, 1)
    with pytest.raises(ValueError, match="should be \\(K,\\) each"):
        weight_sweep([1, 5], [0], [0], [0], 2.0, 1)
    with pytest.raises(ValueError, match="no teachers"):
        dimension_and_rate({})
    with pytest.raises(ValueError, match="teacher 'a': dimensions and rates"):
        dimension_and_rate({"a": ([1, 2], [0.5])})
