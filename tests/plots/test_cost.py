"""The figure of hours over GPUs: its numbers, its words, readable by everybody."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from kdlab.plots.cost import dealt_view, hours_view, hours_words
from kdlab.train.scale import scale

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

ROWS = scale(0.3, 1024, 1_200_000, 100_000, gpus=(1, 2, 4, 8, 16), classes=85_742, gathered=2)
FORMS = {
    "many": ROWS, "one": ROWS[:1],
    "reading": scale(0.3, 1024, 1_200_000, 100_000, gpus=(1, 2), read=5000),
    "wide": scale(1e-3, 4096, 1_200_000, 100_000, gpus=(1, 8, 64, 512), classes=85_742),
}


def curve(fig, name):
    return next(t for t in fig.data if t.name == name and t.mode == "lines")


@pytest.mark.parametrize("form", FORMS)
def test_it_is_readable(form):
    assert rules.faults(hours_view(FORMS[form], subtitle="a recipe")) == []


def test_its_curves_are_the_rows():
    fig = hours_view(ROWS)
    np.testing.assert_allclose(curve(fig, "by the model").y, [row["hours"] for row in ROWS])
    np.testing.assert_allclose(curve(fig, "W GPUs, 1/W of the hours").y,
                               ROWS[0]["hours"] / np.array([1, 2, 4, 8, 16]))
    np.testing.assert_allclose(curve(fig, "compute").y,
                               [1000 * row["compute_seconds"] for row in ROWS])


def test_a_part_that_costs_nothing_is_not_drawn():
    fig = hours_view(ROWS)
    assert not [t for t in fig.data if t.name == "reading (meanwhile)"]
    assert 1 not in curve(fig, "gather").x


def test_the_words_say_hours_and_what_binds():
    words = hours_words(ROWS)
    assert f"1 GPU {ROWS[0]['hours']:.3g} hours (100 % of the ideal, bound by compute)" in words
    assert f"16 GPUs {ROWS[4]['hours']:.3g} hours" in words


@pytest.mark.parametrize("rows", [[], ROWS[::-1], [ROWS[0], ROWS[0]]])
def test_rows_out_of_order_are_refused(rows):
    with pytest.raises(ValueError, match="ascending"):
        hours_view(rows)


WAYS = {"summed": [1, 1, 1], "own rows": [1, 0.5, 0.25]}
TURNED = {"summed": [1, 1, 1], "own rows": [1, 0.9, -0.2]}


def test_dealt_gradients_are_drawn_as_given():
    fig = dealt_view([1, 2, 4], WAYS, TURNED, subtitle="batch 16")
    assert rules.faults(fig) == []
    for panel, ways in (("x", WAYS), ("x2", TURNED)):
        for way, values in ways.items():
            line, = (t for t in fig.data if (t.name, t.mode, t.xaxis) == (way, "lines", panel))
            np.testing.assert_allclose(line.y, values)
    listed = [t.name for t in fig.data if t.showlegend is not False]
    assert sorted(listed) == sorted(WAYS)  # each way once, for both panels


@pytest.mark.parametrize("direction", [{"summed": [1, 1, 1]}, TURNED | {"summed": [1, 1]}])
def test_ways_that_do_not_fit_are_refused(direction):
    with pytest.raises(ValueError, match="every way"):
        dealt_view([1, 2, 4], WAYS, direction)
