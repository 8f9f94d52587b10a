import asyncio
import html
import importlib
import threading

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest
import yaml

from kdlab.plots import bundle
from kdlab.ui import Panel, choice, debounce, panel, slider, threshold_panel, toggle
from kdlab.ui.board import report_error
from kdlab.ui.controls import number, widget

CONTROLS = {
    "power": slider(1, 5, 1, 2, "", "exponent"),
    "color": choice({"red line": "red", "blue line": "blue"}, "red", "ink"),
    "grid": toggle(True, "grid lines"),
}


def curve(power: int, color: str, grid: bool) -> go.Figure:
    if power == 5:
        raise ValueError("five is <too> much")
    fig = go.Figure(go.Scatter(x=[0, 1, 2], y=[0, 1, 2**power], line={"color": color}))
    return fig.update_xaxes(showgrid=grid).update_layout(width=200, height=200, margin={"t": 10})


def words(power: int, color: str, grid: bool) -> str:
    return f"a {color} curve to the power {power}"


@pytest.fixture
def outputs(monkeypatch):
    """What panels display: widgets, and (figure, alt) for static pictures."""
    seen = {"widgets": [], "pictures": []}
    module = importlib.import_module("kdlab.ui.panel")  # kdlab.ui.panel is a function
    monkeypatch.setattr(module, "display", seen["widgets"].append)
    monkeypatch.setattr(module, "show", lambda fig, alt, name=None: (
        bundle(fig, alt, name), seen["pictures"].append((fig, alt))))  # fmt: skip
    return seen


def test_a_knob_changes_the_picture_and_its_words():
    live = Panel(curve, CONTROLS, alt=words)
    before = live.picture.value
    assert 'alt="a red curve to the power 2"' in before and "data:image/png;base64," in before
    live.controls["power"].value = 3
    assert live.picture.value != before
    assert 'alt="a red curve to the power 3"' in live.picture.value
    assert live.status.value == ""


def test_an_error_is_one_line_with_a_folded_traceback_and_the_picture_stays():
    live = Panel(curve, CONTROLS, alt=words)
    before = live.picture.value
    live.controls["power"].value = 5
    assert live.picture.value == before
    first, rest = live.status.value.split("<details>")
    assert "ValueError: five is &lt;too&gt; much" in first and "\n" not in first
    assert "Traceback" in html.unescape(rest)
    live.controls["power"].value = 4
    assert live.status.value == ""


def test_reset_brings_the_defaults_back_in_one_computation():
    calls = []

    def counted(**values):
        calls.append(values)
        return curve(**values)

    live = Panel(counted, CONTROLS, alt="a curve")
    first = live.picture.value
    live.controls["power"].value = 3
    live.controls["color"].value = "blue"
    calls.clear()
    live.button.click()
    assert calls == [{"power": 2, "color": "red", "grid": True}]
    assert live.values == live.defaults and live.picture.value == first


def test_a_result_that_came_too_late_is_dropped():
    """The first computation waits until a second change has been made; only the second is shown."""
    started, go_on = threading.Event(), threading.Event()

    def slow(**values):
        if values["power"] == 3:
            started.set()
            assert go_on.wait(10)
        return curve(**values)

    async def story():
        live = Panel(slow, CONTROLS, alt=words, delay=0)
        shown = []
        live.picture.observe(lambda change: shown.append(change["new"]), names="value")
        live.controls["power"].value = 3
        assert "computing" in live.status.value
        while not started.is_set():
            await asyncio.sleep(0)
        first = live.pending
        live.controls["power"].value = 4
        go_on.set()
        await first
        while "computing" in live.status.value:
            await asyncio.sleep(0)
        return shown

    shown = asyncio.run(story())
    assert len(shown) == 1 and "to the power 4" in shown[0]


def test_a_sliding_hand_costs_one_computation():
    calls = []

    def counted(**values):
        calls.append(values["power"])
        return curve(**values)

    async def story():
        live = Panel(counted, CONTROLS, alt=words, delay=0)
        calls.clear()
        for power in (3, 4, 1, 3):
            live.controls["power"].value = power
        while "computing" in live.status.value:
            await asyncio.sleep(0)

    asyncio.run(story())
    assert calls == [3]


async def settled(*panels):
    """Until no panel computes any more."""
    async with asyncio.timeout(30):
        while any("computing" in live.status.value for live in panels):
            await asyncio.sleep(0)


class Held:
    """`curve` that waits, from its second call on, until `go_on` is set."""

    def __init__(self):
        self.calls, self.started, self.go_on = [], threading.Event(), threading.Event()

    def __call__(self, **values):
        self.calls.append(values["power"])
        if len(self.calls) > 1:
            self.started.set()
            assert self.go_on.wait(10)
        return curve(**values)


def test_an_error_under_a_loop_is_shown_too_and_a_good_value_clears_it():
    async def story():
        live = Panel(curve, CONTROLS, alt=words, delay=0)
        live.controls["power"].value = 5
        await settled(live)
        failed = live.status.value
        live.controls["power"].value = 4
        await settled(live)
        return failed, live

    failed, live = asyncio.run(story())
    assert "five is" in failed and live.status.value == ""
    assert "to the power 4" in live.picture.value


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_a_function_that_wants_to_end_the_process_only_fails(kind):
    def leaves(**values):
        if values["power"] == 3:
            raise kind("enough")
        return curve(**values)

    async def story():
        live = Panel(leaves, CONTROLS, alt=words, delay=0)
        live.controls["power"].value = 3
        await settled(live)
        failed = live.status.value
        live.controls["power"].value = 4
        await settled(live)
        return failed, live

    failed, live = asyncio.run(story())
    assert f"{kind.__name__}: enough" in failed and live.status.value == ""
    assert "to the power 4" in live.picture.value


def test_an_error_in_the_words_is_shown():
    def speechless(power, **_):
        return "curve" if power == 2 else {}["words"]

    async def story():
        live = Panel(curve, CONTROLS, alt=speechless, delay=0)
        live.controls["power"].value = 3
        await settled(live)
        return live.status.value

    assert "KeyError" in asyncio.run(story())


def test_twenty_changes_while_it_computes_cost_one_more_computation():
    """Each change is a debounced one of its own: the loop turns between them."""
    async def story():
        held = Held()
        live = Panel(held, CONTROLS | {"power": slider(1, 50, 1, 2)}, alt=words, delay=0)
        live.controls["power"].value = 3
        while not held.started.is_set():
            await asyncio.sleep(0)
        for power in range(6, 26):
            live.controls["power"].value = power
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        held.go_on.set()
        await settled(live)
        return held.calls, live.picture.value

    calls, picture = asyncio.run(story())
    assert calls == [2, 3, 25] and "to the power 25" in picture


def test_reset_while_it_computes_shows_the_defaults():
    async def story():
        held = Held()
        live = Panel(held, CONTROLS, alt=words, delay=0)
        live.controls["power"].value = 3
        while not held.started.is_set():
            await asyncio.sleep(0)
        live.button.click()
        assert "computing" in live.status.value
        held.go_on.set()
        await settled(live)
        return live

    live = asyncio.run(story())
    assert live.values == live.defaults and "to the power 2" in live.picture.value


def test_two_panels_at_once_take_turns_and_both_arrive():
    inside, most, lock = [0], [0], threading.Lock()

    def counted(**values):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        fig = curve(**values)
        with lock:
            inside[0] -= 1
        return fig

    async def story():
        both = [Panel(counted, CONTROLS, alt=words, delay=0) for _ in range(2)]
        both[0].controls["power"].value = 3
        both[1].controls["power"].value = 4
        await settled(*both)
        return [live.picture.value for live in both]

    first, second = asyncio.run(story())
    assert "to the power 3" in first and "to the power 4" in second
    assert most == [1]  # a function of a notebook need not be safe in two threads


def test_a_preset_is_one_computation_and_the_list_says_where_the_knobs_are():
    calls = []

    def counted(**values):
        calls.append(values["power"])
        return curve(**values)

    live = Panel(counted, CONTROLS, alt=words,
                 presets={"steep": {"power": 9, "color": "blue"}})  # 9: beyond the slider
    calls.clear()
    live.board.presets.value = "steep"
    assert calls == [9] and live.values == {"power": 9, "color": "blue", "grid": True}
    live.controls["grid"].value = False
    assert live.board.presets.value == "own values"
    live.button.click()
    assert live.board.presets.value == "default" and calls == [9, 9, 2]


def test_a_preset_that_no_knob_can_hold_is_named():
    with pytest.raises(ValueError, match="preset 'green': choice 'ink': 'green' is not one of"):
        Panel(curve, CONTROLS, alt=words, presets={"green": {"color": "green"}})


def test_the_values_can_be_copied_as_yaml():
    things = {"first": object(), "second": object()}
    controls = CONTROLS | {"thing": choice(things, things["first"])}
    live = Panel(lambda thing, **values: curve(**values), controls, alt="a curve")
    assert live.copy.area.layout.display == "none"
    live.copy.button.value = True
    live.controls["power"].value = 3
    live.controls["thing"].value = things["second"]
    assert live.copy.area.layout.display == ""
    assert yaml.safe_load(live.copy.area.value) == {
        "power": 3, "color": "red", "grid": True, "thing": "second"}


def test_a_typed_line_that_cannot_be_read_computes_nothing():
    calls = []

    def counted(power, **values):
        calls.append(power)
        return curve(power, **values)

    live = Panel(counted, CONTROLS | {"power": number(1, 5, 2, whole=True)}, alt="a curve")
    live.controls["power"].entry.value = "three"
    assert "power: 'three' is no whole number" in html.unescape(live.status.value)
    live.controls["power"].entry.value = "3"
    assert calls == [2, 3] and live.status.value == ""


def test_a_long_error_stays_a_line():
    line = report_error(ValueError("x" * 5000 + "\nmore")).split("<details>")[0]
    assert len(line) < 500 and "…" in line and "more" not in line


def test_help_is_shown_below_its_knob():
    live = Panel(curve, CONTROLS | {"power": CONTROLS["power"]._replace(help="How <steep>.")},
                 alt=words)
    knob, told = live.box.children[0].children
    assert knob is live.controls["power"] and "How &lt;steep&gt;." in told.value
    assert knob.entry.tooltip == knob.slider.tooltip == "exponent: How <steep>."


def test_debounce_without_a_loop_is_immediate():
    seen = []
    debounce(10)(seen.append)(1)
    assert seen == [1]


def test_static_picture_first_then_the_knobs(outputs, monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    panel(curve, CONTROLS, alt=words)
    assert [alt for _, alt in outputs["pictures"]] == ["a red curve to the power 2"]
    assert len(outputs["widgets"]) == 1 and isinstance(outputs["widgets"][0], ipywidgets.VBox)


def test_presets_become_small_multiples(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    panel(curve, CONTROLS, alt=words, static={"steep": {"power": 4}, "blue": {"color": "blue"}})
    ((fig, alt),) = outputs["pictures"]
    assert len(fig.data) == 3
    assert "steep: a red curve to the power 4" in alt
    assert outputs["widgets"] == []


def test_headless_makes_no_widget(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(importlib.import_module("kdlab.ui.panel"), "Panel", None)
    panel(curve, CONTROLS, alt=words)
    assert len(outputs["pictures"]) == 1 and outputs["widgets"] == []


def test_an_error_stops_the_cell_when_headless(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    with pytest.raises(ValueError, match="five"):
        panel(curve, CONTROLS, alt=words, static={"bad": {"power": 5}})


def test_a_preset_for_no_control_is_named(outputs):
    with pytest.raises(ValueError, match="'bad' sets pwer"):
        panel(curve, CONTROLS, alt=words, static={"bad": {"pwer": 5}})


@pytest.mark.parametrize(
    ("control", "kind"),
    [
        (slider(0, 5, 1, 2), ipywidgets.IntSlider),
        (slider(0, 1, 0.05, 0.5, "rad", "margin"), ipywidgets.FloatSlider),
        (slider(1e-4, 1, 0.1, 1e-2, log=True), ipywidgets.FloatLogSlider),
        (choice([1, 2], 2), ipywidgets.Dropdown),
        (toggle(True), ipywidgets.Checkbox),
    ],
)
def test_stock_controls_report_on_release(control, kind):
    made = widget("knob", control)
    assert made.value == pytest.approx(control.value)
    made = getattr(made, "slider", made)
    assert type(made) is kind
    assert made.value == pytest.approx(control.value)
    assert getattr(made, "continuous_update", False) is False


def test_a_unit_is_part_of_the_label():
    knob = widget("m", slider(0, 1, 0.05, 0.5, "rad", "margin"))
    assert knob.entry.description == "margin (rad)"
    assert widget("m", toggle(False)).description == "m"


@pytest.mark.parametrize(
    "make",
    [
        lambda: slider(1, 0, 1, 0, label="x"),
        lambda: slider(0, 1, 0.1, 2, label="x"),
        lambda: slider(0, 1, 0.1, 0.5, label="x", log=True),
        lambda: choice([1, 2], 3, "x"),
    ],
)
def test_an_impossible_control_is_named(make):
    with pytest.raises(ValueError, match="'x'"):
        make()


SCORES = np.linspace(0.2, 1, 200), np.linspace(-0.5, 0.5, 1000)


def rates(genuine, impostor, threshold):
    return float((genuine >= threshold).mean()), float((impostor >= threshold).mean())


def test_threshold_panel_states_the_rates_it_was_given(outputs, monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    threshold_panel(*SCORES, rates)
    ((fig, alt),) = outputs["pictures"]
    tpr, fpr = rates(*SCORES, 0.3)  # 0.3: the middle of the medians 0.6 and 0
    assert f"{100 * tpr:.1f} % of genuine" in fig.layout.title.subtitle.text
    assert f"FPR {fpr:.2%}" in alt
    knob = outputs["widgets"][0].children[0]
    picture = outputs["widgets"][0].children[-1]
    knob.value = 0.45
    assert f"TPR {rates(*SCORES, 0.45)[0]:.1%}" in picture.value


def test_threshold_panel_by_target_rate_draws_the_rates_it_can_support(outputs, monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    asked = []

    def threshold_at(genuine, impostor, fpr):
        asked.append(fpr)
        return np.quantile(impostor, 1 - fpr)

    threshold_panel(*SCORES, rates, threshold_at)
    assert set(asked) == {1e-1, 1e-2, 1e-3}
    asked.clear()
    threshold_panel(SCORES[0], SCORES[1][::10], rates, threshold_at)
    assert set(asked) == {1e-1, 1e-2}  # 100 impostor pairs know no FPR of 0.1 %


def test_a_slider_gone_there_and_back_stands_for_its_preset_again():
    made = Panel(lambda alpha: go.Figure(layout_title_text=f"{alpha:g}"),
                 {"alpha": slider(0.5, 1.0, 0.005, 0.9)}, alt="x",
                 presets={"more": {"alpha": 0.95}})
    made.board.knobs["alpha"].value = 0.95
    made.board.knobs["alpha"].value = 0.9 + 2e-16
    assert made.board.presets.value == "default"
