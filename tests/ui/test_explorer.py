import asyncio
import html
import importlib

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.callbacks import Points

from kdlab.plots import bundle, figure
from kdlab.plots.style import CONFIG
from kdlab.ui.explorer import (
    centre_player,
    embedding_explorer,
    explorer,
    pair_viewer,
    relation_explorer,
)
from kdlab.ui.knobs import Number
from kdlab.ui.live import Explorer, card_html, figure_widget, moved, places

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 255, (12, 3, 24, 24), dtype=np.uint8)
CARDS = [(f"thing {k}: number {k} <of> six; two faces", (k, k + 6)) for k in range(6)]


def chart() -> go.Figure:
    """Six cards in two traces of one subplot, all of them again in another."""
    fig = figure("six things").set_subplots(1, 2)
    fig.add_scatter(x=[0, 1, 2], y=[0, 1, 2], mode="markers", name="a", customdata=[0, 1, 2],
                    row=1, col=1)  # fmt: skip
    fig.add_scatter(x=[3, 4, 5], y=[3, 4, 5], mode="markers", name="b", customdata=[3, 4, 5],
                    row=1, col=1)  # fmt: skip
    fig.add_scatter(x=[9, 8, 7, 6, 5, 4], y=[0] * 6, mode="markers", name="c",
                    customdata=list(range(6)), row=1, col=2)  # fmt: skip
    return fig


def plain() -> go.Figure:
    fig = figure("six things")
    six = list(range(6))
    return fig.add_scatter(x=six, y=six, mode="markers", name="a", customdata=six)


def hover(live: Explorer, trace: int, point: int) -> None:
    live.figure.data[trace]._dispatch_on_hover(
        Points(point_inds=[point], trace_index=trace, trace_name="", xs=[0], ys=[0]), None)


@pytest.fixture
def outputs(monkeypatch):
    """What explorers display: widgets, and (figure, alt) for static pictures."""
    seen = {"widgets": [], "pictures": []}
    for name in ("explorer", "panel"):
        module = importlib.import_module(f"kdlab.ui.{name}")
        monkeypatch.setattr(module, "display", seen["widgets"].append)
        monkeypatch.setattr(module, "show", lambda fig, alt, name=None: (
            bundle(fig, alt, name), seen["pictures"].append((fig, alt))))  # fmt: skip
    return seen


def test_a_live_figure_can_upload_nothing_and_keeps_its_size():
    live = figure_widget(plain())
    assert live._config == CONFIG and live._config["showSendToCloud"] is False
    assert live._config["plotlyServerURL"] == ""
    assert "_config" in live.keys  # it is synchronised with the page
    assert (live.layout.width, live.layout.height) == (760, 420)


def test_hovering_shows_the_faces_and_rings_every_point_of_the_card():
    live = Explorer(chart(), dict(enumerate(CARDS)), FACES)
    hover(live, 1, 1)
    assert live.slider.value == 4
    assert live.card.value == card_html(CARDS[4][0], FACES[[4, 10]])
    assert [(ring.x, ring.y) for ring in live.figure.data[3:]] == [((4,), (4,)), ((5,), (0,))]
    hover(live, 2, 0)
    assert live.slider.value == 0 and live.figure.data[3].x == (0,)
    assert all(ring.hoverinfo == "skip" for ring in live.figure.data[3:])


def test_the_slider_does_what_the_pointer_does():
    live = Explorer(chart(), {5: CARDS[5], 2: CARDS[2], **dict(enumerate(CARDS))}, FACES)
    assert live.numbers[:2] == [5, 2]  # the slider goes in the order of the cards
    live.slider.value = 1
    by_hand = live.card.value, live.figure.data[3].x
    hover(live, 2, 5)
    hover(live, 0, 2)
    assert (live.card.value, live.figure.data[3].x) == by_hand == (by_hand[0], (2,))
    assert "number 2 &lt;of&gt; six" in by_hand[0]


def test_the_first_card_stands_there_before_anybody_moves():
    live = Explorer(chart(), dict(enumerate(CARDS)), FACES)
    assert "thing 0" in live.card.value and live.figure._widget_data[3]["x"] == [0]


def test_a_card_has_words_for_those_who_do_not_see_it():
    told = card_html("pair 3: <two> people; teacher 0.50", FACES[:2])
    assert 'alt="pair 3: 2 faces"' in told and 'aria-live="polite"' in told
    assert "&lt;two&gt; people<br>teacher 0.50" in told and "data:image/png;base64," in told
    assert 'alt="picture 3: face"' in card_html("picture 3: person 1", FACES[:1])


def test_an_error_is_one_line_with_a_folded_traceback_and_the_next_card_clears_it():
    live = Explorer(chart(), dict(enumerate(CARDS)), FACES)
    live.cards[2] = ("thing 2", (99,))
    before = live.card.value
    live.slider.value = 2
    first, rest = live.status.value.split("<details>")
    assert "IndexError" in first and "\n" not in first and "Traceback" in html.unescape(rest)
    assert live.card.value == before
    live.slider.value = 3
    assert live.status.value == "" and "thing 3" in live.card.value


def test_a_sweeping_pointer_costs_one_drawing():
    async def story():
        live = Explorer(chart(), dict(enumerate(CARDS)), FACES, delay=0)
        shown = []
        live.card.observe(lambda change: shown.append(change["new"]), names="value")
        for point in (1, 2, 3, 4):
            hover(live, 2, point)
        while not shown:
            await asyncio.sleep(0)
        return shown

    (card,) = asyncio.run(story())
    assert "thing 4" in card


FRAMES = {f"step {k}": {"a": (np.arange(6) + k, np.zeros(6))} for k in range(5)}


def test_the_player_moves_the_points_and_their_ring():
    live = Explorer(plain(), dict(enumerate(CARDS)), FACES, frames=FRAMES)
    np.testing.assert_array_equal(live.figure.data[0].x, np.arange(6))
    live.slider.value = 2
    live.step.value = 3
    assert live.step.label == "step 3"
    np.testing.assert_array_equal(live.figure.data[0].x, np.arange(6) + 3)
    assert live.figure.data[1].x == (5,)


def test_frames_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="'z' to 1 points; the figure has 0"):
        moved(plain(), {"z": ([1], [2])})
    with pytest.raises(ValueError, match="'a' to 2 points; the figure has 1 such traces of 6"):
        moved(plain(), {"a": ([1, 2], [2, 3])})


def test_printed_first_then_live(outputs, monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    explorer(chart(), CARDS, FACES, alt="six things", static_cards=[1, 4])
    (_, alt), (sheet, words) = outputs["pictures"]
    assert alt == "six things" and "thing 1: number 1" in words and "thing 4" in words
    assert list(sheet.layout.yaxis.ticktext) == ["thing 1", "thing 4"]
    (box,) = outputs["widgets"]
    assert any(isinstance(child, go.FigureWidget) for child in box.children)


def test_headless_makes_no_live_figure(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(importlib.import_module("kdlab.ui.live"), "figure_widget", None)
    explorer(plain(), CARDS, FACES, alt="six things", frames=FRAMES)
    (fig, alt), (sheet, _) = outputs["pictures"]
    assert len(fig.data) == 3 and "step 0, step 2, step 4" in alt
    np.testing.assert_array_equal(fig.data[2].x, np.arange(6) + 4)
    assert len(sheet.layout.yaxis.ticktext) == 3 and outputs["widgets"] == []


def test_single_faces_are_printed_in_a_row(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    explorer(plain(), [(f"face {k}", (k,)) for k in range(6)], FACES, alt="six",
             static_cards={"the first": 0, "the last": 5})  # fmt: skip
    assert list(outputs["pictures"][1][0].layout.xaxis.ticktext) == ["the first", "the last"]


@pytest.mark.parametrize(("cards", "match"), [
    ([], "no cards"), (CARDS[:4], "2 points have no card, the first is number 4"),
    ([*CARDS[:5], ("last", (12,))], "card 5 .* rows .12. of 12 faces"),
    ([*CARDS[:5], ("last", ())], "card 5"),
])  # fmt: skip
def test_points_without_faces_are_refused(cards, match):
    with pytest.raises(ValueError, match=match):
        explorer(plain(), cards, FACES, alt="six things")


N = 60
GENUINE = np.arange(N) < 20
TEACHER = np.where(GENUINE, 0.6, 0.0) + RNG.normal(0, 0.1, N)
STUDENT = TEACHER + RNG.normal(0, 0.1, N)
RELATIONS = {"teacher": TEACHER, "student": STUDENT, "genuine": GENUINE,
             "critical": (TEACHER > 0.3) != (STUDENT > 0.3), "teacher_thresholds": [0.3],
             "student_thresholds": [0.3], "fprs": [1e-2]}  # fmt: skip
PAIRS = RNG.integers(0, 12, (N, 2))


def test_relation_explorer_runs_from_the_least_to_the_most_similar(outputs, monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    relation_explorer(PAIRS, FACES, alt="pairs", **RELATIONS)
    assert len(outputs["pictures"]) == 2
    children = outputs["widgets"][0].children
    slider = next(child for child in children if isinstance(child, Number))
    assert (slider.entry.description, slider.high) == ("pair", N - 1)
    slider.value = N - 1
    shown = [child.value for child in children if isinstance(child, ipywidgets.HTML)]
    assert any(f"pair {STUDENT.argmax()}: " in value for value in shown)


def test_pair_viewer_offers_every_kind_and_stops_at_the_last(outputs, monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    pair_viewer(PAIRS, FACES, most=5, **RELATIONS)
    ((fig, alt),) = outputs["pictures"]
    assert "most similar, two people" in alt and len(fig.data) >= 3
    assert len(outputs["widgets"]) == 1


def test_embedding_explorer_links_two_maps(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    maps = {name: RNG.normal(0, 1, (12, 2)) for name in ("teacher", "student")}
    embedding_explorer(maps, np.arange(12) % 4, FACES, alt="two maps")
    fig, _ = outputs["pictures"][0]
    assert {len(at) for at in places(fig).values()} == {2}


def test_centre_player_prints_three_moments_and_checks_its_numbers(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    way = np.cumsum(RNG.normal(0, 1, (5, 4, 2)), 0)
    steps, rows = [f"step {k}" for k in range(5)], [[k, k + 4, k + 8] for k in range(4)]
    centre_player(way, steps, rows, FACES, alt="centres")
    assert "step 0, step 2, step 4" in outputs["pictures"][0][1]
    for bad in ((way, steps[:4], rows), (way, steps, rows[:3]), (way, ["same"] * 5, rows)):
        with pytest.raises(ValueError, match="different steps"):
            centre_player(*bad, FACES, alt="centres")


def test_a_live_figure_leaves_its_subtitle_to_the_printed_one():
    fig = go.Figure(layout={"title": {"text": "title", "subtitle": {"text": "more"}}})
    live = figure_widget(fig)
    assert live.layout.title.text == "title" and live.layout.title.subtitle.text is None
    assert fig.layout.title.subtitle.text == "more"
