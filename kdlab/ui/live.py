"""The one place where a figure becomes a live plotly widget, and what hovering in it means."""

import asyncio
import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from kdlab.plots import contact_sheet
from kdlab.plots.png import size
from kdlab.plots.style import CONFIG, INK
from kdlab.ui.board import STYLE, problem_line, report_error
from kdlab.ui.knobs import Number
from kdlab.ui.panel import DELAY, debounce

Card = tuple[str, Sequence[int]]  # what it is in words, rows of its faces
ACROSS = 8  # faces side by side; ours
PACE = 0.6  # seconds from one moment to the next while a player runs; ours
REST = 0.15  # seconds a hand rests before the rings follow: they redraw the whole chart; ours
HIGH = 112  # pixels of a face in the live box: the size recognition networks take; ours
RING = {"symbol": "circle-open", "size": 20, "color": INK, "line": {"width": 3}}  # ours


def figure_widget(fig: go.Figure) -> go.FigureWidget:
    """A live copy of `fig`, which reports hovering; plotly's chart upload is off in it.

    It brings 5 MB of script into the page: use it only where a reader hovers, never headless.
    """
    width, height = size(fig)
    # plotly would draw the subtitle upon the title, which it measures before there is room on the
    # page; the printed figure has it.
    live = go.FigureWidget(go.Figure(fig).update_layout(
        width=width, height=height, title_subtitle_text=None))  # fmt: skip
    # A figure widget takes no `config` argument; this synchronised trait is what it draws with.
    live._config = {**live._config, **CONFIG}
    return live


def places(fig: go.Figure) -> dict[int, list[tuple[int, int]]]:
    """Card number -> [(trace, point)] where it stands, from the `customdata` of scatter traces."""
    found = {}
    for index, trace in enumerate(fig.data):
        if trace.type == "scatter" and trace.customdata is not None:
            for point, number in enumerate(np.asarray(trace.customdata).ravel().tolist()):
                found.setdefault(int(number), []).append((index, point))
    return found


def add_rings(fig: go.Figure, found: Mapping[int, list[tuple[int, int]]]) -> dict[tuple, int]:
    """Give each subplot that holds cards an empty ring trace: (x axis, y axis) -> its index."""
    rings = {}
    for x, y in sorted({_axes(fig.data[trace]) for at in found.values() for trace, _ in at}):
        fig.add_scatter(x=[], y=[], xaxis=x, yaxis=y, mode="markers", marker=RING, name="current",
                        showlegend=False, hoverinfo="skip")  # fmt: skip
        rings[x, y] = len(fig.data) - 1
    return rings


def move_rings(fig: go.Figure, rings: Mapping[tuple, int], points: list[tuple[int, int]]) -> None:
    """The rings around the points (trace, point); a live figure hears of it in one message."""
    spots = {axes: ([], []) for axes in rings}
    for trace, point in points:
        x, y = spots[_axes(fig.data[trace])]
        x.append(fig.data[trace].x[point])
        y.append(fig.data[trace].y[point])
    with fig.batch_update():
        for axes, (x, y) in spots.items():
            fig.data[rings[axes]].update(x=x, y=y)


def _axes(trace) -> tuple[str, str]:
    return trace.xaxis or "x", trace.yaxis or "y"


def moved(fig: go.Figure, positions: Mapping[str, tuple]) -> go.Figure:
    """The figure with its traces at other places, in place; a live one in one message.

    positions: trace name -> (x, y), as many points as the trace has.   Raises ValueError for a name
    that no trace or several have, or another number of points.
    """
    for name, (x, y) in positions.items():
        traces = [trace for trace in fig.data if trace.name == name]
        if len(traces) != 1 or not len(x) == len(y) == len(traces[0].x):
            raise ValueError(
                f"frame moves '{name}' to {len(x)} points; the figure has {len(traces)} such "
                f"traces{f' of {len(traces[0].x)} points' if traces else ''}"
            )
    with fig.batch_update():
        for name, (x, y) in positions.items():
            next(trace for trace in fig.data if trace.name == name).update(x=x, y=y)
    return fig


class Explorer:
    """The live half of `explorer`: `box` is the widget to display, `figure` the live chart.

    Hovering sets `slider`, the slider shows its card: one way for hand and keyboard alike. A
    sweeping pointer costs one drawing, of the card it rests on.
    """

    def __init__(self, fig: go.Figure, cards: Mapping[int, Card], faces: np.ndarray, *,
                 item: str = "item", frames: Mapping[str, Mapping[str, tuple]] | None = None,
                 delay: float = DELAY):
        self.cards, self.faces, self.frames = cards, faces, frames or {}
        self.numbers = list(cards)
        self.order = {number: place for place, number in enumerate(self.numbers)}
        fig = go.Figure(fig)  # complete before it goes live: a page hears no message before it
        if self.frames:
            moved(fig, self.frames[next(iter(self.frames))])
        self.places = places(fig)
        self.rings = add_rings(fig, self.places)
        move_rings(fig, self.rings, self.places.get(self.numbers[0], []))
        self.figure = figure_widget(fig)
        self.card, self.status = ipywidgets.HTML(), ipywidgets.HTML()
        self.card.layout = {"min_height": f"{HIGH + 20}px"}  # so that the chart stays where it is
        tip = f"choose the {item} by keyboard: arrow keys, Page Up and Page Down"
        self.slider = Number(item, 0, 0, len(self.numbers) - 1, False, True, {
            "description": item, "style": {"description_width": "initial"}, "tooltip": tip,
            "layout": {"width": "min(100%, 480px)"}}, step=1)  # fmt: skip
        self._start = debounce(delay)(self._show)
        self._ring_later = debounce(REST)(lambda: self._attempt(self._ring))
        self.slider.observe(lambda _: self._start(self.slider.value), names="state")
        for trace in self.figure.data:
            if trace.customdata is not None:
                trace.on_hover(self._hover)
                trace.on_click(self._hover)  # a finger does not hover
        self.player = self._player()
        top = [self.player] if self.player else []
        style = ipywidgets.HTML(STYLE, layout={"display": "none"})
        self.box = ipywidgets.VBox([*top, self.slider, self.status, self.card, self.figure, style])
        self.box.add_class("kdlab")
        self._attempt(self._card, 0)  # the ring is there; a message now might find no chart yet

    def _player(self) -> ipywidgets.HBox | None:
        if not self.frames:
            return None
        steps = list(self.frames)
        self.step = ipywidgets.SelectionSlider(
            options=[(step, k) for k, step in enumerate(steps)], value=0,
            description="moment", style={"description_width": "initial"},
            layout={"width": "min(100%, 480px)"},
        )  # fmt: skip
        # The stock player's buttons are icons without a name.
        self.play = ipywidgets.ToggleButton(
            description="play", tooltip="runs through the moments; press again to stop",
            layout={"width": "auto"})  # fmt: skip
        self.play.observe(lambda change: self._run(change["new"]), names="value")
        self.step.observe(lambda change: self._move(change["new"]), names="value")
        return ipywidgets.HBox([self.play, self.step])

    def _run(self, playing: bool) -> None:
        if playing:
            try:
                self.playing = asyncio.get_running_loop().create_task(self._play())
            except RuntimeError:  # a script: nobody watches
                self.play.value = False

    async def _play(self) -> None:
        """From the present moment to the last, from the first again where it stands at the end."""
        last = len(self.frames) - 1
        self.step.index = 0 if self.step.index == last else self.step.index
        while self.play.value and self.step.index < last:
            await asyncio.sleep(PACE)
            if self.play.value:
                self.step.index += 1
        self.play.value = False

    def _hover(self, trace, points, _state) -> None:
        if points.point_inds:
            number = int(trace.customdata[points.point_inds[0]])
            self.slider.value = self.order[number]

    def _show(self, place: int) -> None:
        said = self.slider.problem
        self.status.value = problem_line([said]) if said else ""
        self._attempt(self._card, place)
        self._ring_later()

    def _card(self, place: int) -> None:
        words, rows = self.cards[self.numbers[place]]
        self.card.value = card_html(words, self.faces[list(rows)])

    def _ring(self) -> None:
        number = self.numbers[self.slider.value]
        move_rings(self.figure, self.rings, self.places.get(number, []))

    def _move(self, step: int) -> None:
        self.status.value = ""
        self._attempt(moved, self.figure, self.frames[list(self.frames)[step]])
        self._attempt(self._ring)

    def _attempt(self, fn: Callable, *args) -> None:
        try:
            fn(*args)
        except Exception as error:  # shown in the box: a callback has no cell to stop
            self.status.value = report_error(error)


def card_html(words: str, faces: np.ndarray) -> str:
    """A card as HTML: its faces as one picture, its words where a screen reader hears them."""
    sheet = contact_sheet(faces, ACROSS)
    rows = -(-len(faces) // ACROSS)
    short = words.partition(":")[0]
    many = "face" if len(faces) == 1 else f"{len(faces)} faces"
    style = f"height:{HIGH * rows}px;max-width:100%;object-fit:contain;image-rendering:pixelated"
    lines = "<br>".join(map(html.escape, words.split("; ")))
    return (f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:center">'
            f'<img alt="{html.escape(f"{short}: {many}")}" src="{sheet.data[0].source}" '
            f'style="{style}"><div role="status" aria-live="polite" style="line-height:1.5">'
            f"{lines}</div></div>")  # fmt: skip
