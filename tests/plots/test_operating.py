"""Operating points: where a test set ends, and what two rules make of the same scores."""

import numpy as np
import pytest

from kdlab import plots
from kdlab.evaluate import tpr_at_fpr
from kdlab.plots.operating import FEW, RED, support

RNG = np.random.default_rng(0)
GENUINE, IMPOSTOR = RNG.normal(0.5, 0.15, 300), RNG.normal(0, 0.1, 5000)
NEEDED = 1_000_000, 1415


def view(fpr):
    p = tpr_at_fpr(GENUINE, IMPOSTOR, fpr)
    return plots.operating_view(GENUINE, IMPOSTOR, fpr, (p.tpr, p.threshold, p.low, p.high), NEEDED)


@pytest.mark.parametrize("impostors, fpr, expected, state", [
    (1000, 1e-3, 1, "few"),  # 1000 * 1e-3 is a whole pair
    (999, 1e-3, 0.999, "none"),
    (9_999, 1e-3, 9.999, "few"),
    (10_000, 1e-3, 10, "measured"),
    (3, 1 / 3, 1, "few"),
])
def test_support_counts_the_pairs_a_rate_allows(impostors, fpr, expected, state):
    found = support(impostors, fpr)
    assert found.expected == pytest.approx(expected) and found.state == state


def lines(fig):
    return [shape for shape in fig.layout.shapes if shape.type == "line"]


def test_the_line_turns_red_where_no_impostor_pair_is_left():
    for fpr, red in ((1e-2, False), (1e-3, False), (1.9e-4, True), (1e-6, True)):
        fig = view(fpr)
        assert (lines(fig)[0].line.color == RED) is red
        assert (fig.layout.title.subtitle.font.color == RED) is red
        assert ("NOT MEASURABLE" in fig.layout.title.subtitle.text) is red


def test_words_say_what_it_would_take():
    assert "FEW" in view(1e-3).layout.title.subtitle.text  # five pairs
    assert "1,000,000 pairs: one picture each of 1,415 people" in (
        view(1e-6).layout.title.subtitle.text)
    measured = view(1e-2).layout.title.subtitle.text
    assert "50 impostors pass" in measured and "would need" not in measured


def test_the_zones_begin_at_the_tenth_and_the_highest_impostor():
    few, none = (s for s in view(1e-2).layout.shapes if s.type == "rect")
    highest = np.sort(IMPOSTOR)[::-1]
    assert few.x0 == pytest.approx(highest[FEW - 1]) and few.x1 == pytest.approx(highest[0])
    assert none.x0 == few.x1 and none.x1 > max(GENUINE.max(), highest[0])
    line = lines(view(1e-6))[0]
    assert few.x1 <= line.x0 < few.x1 + 1e-9  # the threshold stands where the data ends


def test_fewer_impostors_than_a_zone_holds():
    p = tpr_at_fpr(GENUINE, IMPOSTOR[:3], 0.5)
    fig = plots.operating_view(GENUINE, IMPOSTOR[:3], 0.5, (p.tpr, p.threshold, p.low, p.high),
                               NEEDED)
    assert fig.layout.shapes[0].x0 == pytest.approx(IMPOSTOR[:3].min())


TARGETS = np.geomspace(2e-4, 0.1, 30)


def rules(genuine, impostor):
    found = {rule: [tpr_at_fpr(genuine, impostor, f, rule) for f in TARGETS]
             for rule in ("below", "nearest")}
    return {rule: (np.array([p.fpr for p in points]), np.array([p.tpr for p in points]))
            for rule, points in found.items()}


def test_rules_view_marks_the_target_and_never_shows_below_above_it():
    tied = rules(GENUINE.round(1), IMPOSTOR.round(1))
    fig = plots.rules_view(TARGETS, tied, 1e-2, len(IMPOSTOR))
    curves = {t.name: np.asarray(t.y) for t in fig.data if t.mode == "lines"}
    assert set(curves) == {"as asked", "rule below", "rule nearest"}
    assert (tied["below"][0] <= TARGETS).all()
    assert (curves["rule nearest"] > TARGETS * 1.05).any()
    marks = [t for t in fig.data if t.mode == "markers"]
    k = np.abs(np.log(TARGETS / 1e-2)).argmin()
    assert [t.x[0] for t in marks] == [TARGETS[k]] * 2
    assert f"TPR {100 * tied['below'][1][k]:.1f} %" in fig.layout.title.subtitle.text


def test_a_rate_of_zero_lies_on_the_lower_rim():
    fig = plots.rules_view(TARGETS, rules(GENUINE, IMPOSTOR[:100]), 1e-2, 100)
    rim = 10 ** fig.layout.yaxis.range[0]
    below = next(t for t in fig.data if t.name == "rule below")
    assert below.y[0] == pytest.approx(rim) and rim > 0


@pytest.mark.parametrize("make", [
    lambda: view(1e-2), lambda: view(1e-6),
    lambda: plots.rules_view(TARGETS, rules(GENUINE, IMPOSTOR), 1e-2, len(IMPOSTOR)),
])
def test_the_figures_name_their_axes_and_can_be_printed(make):
    fig = make()
    assert fig.layout.title.text and fig.layout.xaxis.title.text and fig.layout.yaxis.title.text
    assert len(plots.png(fig)) > 5000
    plots.multiples({"one": fig, "two": make()})  # an exported copy shows them side by side
