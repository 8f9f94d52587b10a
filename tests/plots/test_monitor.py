"""The five views of a training log."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots.monitor import (
    POINTS,
    VIEWS,
    monitor_panels,
    monitor_view,
    monitor_words,
    thinned,
)

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

STEP = np.arange(1, 2001)
SOME = np.where(STEP % 50 == 0, 1.0, np.nan)
LOG = {
    "step": STEP, "epoch": STEP // 100, "lr": 0.1 / STEP, "loss": 9.0 / STEP,
    "arc/softmax": 8.0 / STEP, "my_kd/rank": 1.0 / STEP, "gradient_norm": 5.0 + 1 / STEP,
    "images_per_second": 800.0 + STEP % 7, "data_wait": 0.01 + 0 * STEP, "memory_mb": 600.0 + STEP,
    "arc.softmax_share": 0.75 * SOME, "my_kd.rank_share": 0.25 * SOME,
    **{f"my_kd.{who}_threshold_{fpr}": 0.5 - 1 / (i + STEP) for who in ("student", "teacher")
       for i, fpr in enumerate(("1e-1", "1e-2"))},
    "my_kd.momentum": 0.9 + 0 * STEP, "my_kd.weight": 4.0 - STEP / 1000, "validation": SOME * 0.8,
    "never": np.full(2000, np.nan),
}


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_readable_and_no_wider_than_a_page(view):
    fig = monitor_view(LOG, view, "a run")
    assert rules.faults(fig) == [] and fig.layout.width <= 940
    assert fig.layout.title.text == f"a run: {view}"


def test_every_column_is_in_one_view():
    shown = [name for view in VIEWS for group in monitor_panels(LOG, view).values()
             for name in group]
    assert sorted(shown) == sorted(LOG.keys() - {"step", "epoch", "never"})


def test_what_belongs_together_stands_together():
    assert monitor_panels(LOG, "diagnostics") == {
        "my_kd.student_threshold": ["my_kd.student_threshold_1e-1", "my_kd.student_threshold_1e-2"],
        "my_kd.teacher_threshold": ["my_kd.teacher_threshold_1e-1", "my_kd.teacher_threshold_1e-2"],
        "my_kd.momentum": ["my_kd.momentum"], "my_kd.weight": ["my_kd.weight"],
        "validation": ["validation"]}
    assert monitor_panels(LOG, "gradient and shares")["shares of the terms"] == [
        "arc.softmax_share", "my_kd.rank_share"]


def test_too_many_to_tell_apart_stand_alone():
    log = {"step": STEP} | {f"kd.threshold_{i}": 1.0 * STEP for i in range(7)}
    assert len(monitor_panels(log, "diagnostics")) == 7


def test_the_same_rate_looks_the_same_in_both_panels_and_is_listed_once():
    fig = monitor_view(LOG, "diagnostics")
    curves = [t for t in fig.data if t.mode == "lines" and t.name in ("1e-1", "1e-2")]
    looks = {name: {(t.line.color, t.line.dash) for t in curves if t.name == name}
             for name in ("1e-1", "1e-2")}
    assert len(curves) == 4 and all(len(own) == 1 for own in looks.values())
    assert looks["1e-1"] != looks["1e-2"]
    assert [t.name for t in fig.data if t.showlegend] == ["1e-1", "1e-2"]


def test_curves_are_drawn_where_they_are():
    fig = monitor_view({name: values[:20] for name, values in LOG.items()}, "losses")
    drawn = {note.text: trace for note, trace in zip(fig.layout.annotations, fig.data, strict=True)}
    np.testing.assert_array_equal(drawn["loss"].y, LOG["loss"][:20])
    np.testing.assert_array_equal(drawn["my_kd/rank"].x, STEP[:20])


def test_long_runs_are_thinned():
    fig = monitor_view(LOG, "losses")
    assert all(len(trace.x) == POINTS for trace in fig.data)
    assert fig.data[0].x[0] == 1 and fig.data[0].x[-1] == 2000
    (rare,) = (t for t in monitor_view(LOG, "diagnostics").data if t.legendgroup == "validation")
    np.testing.assert_array_equal(rare.x, STEP[49::50])  # all forty of what is logged rarely


def test_thinning_keeps_gaps_and_ends():
    values = np.where(np.arange(1000) % 2 == 0, np.arange(1000.0), np.nan)
    kept = thinned(values, 10)
    there = np.flatnonzero(np.isfinite(kept))
    assert len(there) == 10 and there[0] == 0 and there[-1] == 998 and not (there % 2).any()
    np.testing.assert_array_equal(kept[there], values[there])
    assert thinned(values, 500) is values


def test_words_give_the_ends_of_every_curve():
    words = monitor_words(LOG, "losses")
    assert words.startswith("Curves over 2000 training steps, losses: loss 9 to 0.0045; ")
    assert "my_kd/rank 1 to 0.0005" in words


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_logged_yet(view):
    for log in ({}, {"step": STEP[:0], "loss": np.zeros(0)}):
        fig = monitor_view(log, view)
        assert rules.faults(fig) == []
        assert "nothing of this is logged yet" in fig.layout.title.subtitle.text
        assert monitor_words(log, view) == f"No curves yet: nothing of the view '{view}' is logged."


def test_a_view_there_is_not():
    with pytest.raises(ValueError, match="no view 'speed'; there are: losses, learning rate"):
        monitor_view(LOG, "speed")
