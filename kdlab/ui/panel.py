"""A panel: a figure's function, its knobs, and a picture that also stands without them."""

import asyncio
import html
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from IPython.display import display

from kdlab.plots import multiples, png, show
from kdlab.plots.multiples import single
from kdlab.plots.png import data_uri, size
from kdlab.progress import headless
from kdlab.ui.board import ROW, STYLE, Board, Copy, cases, helped, problem_line, report_error
from kdlab.ui.controls import Control

DELAY = 0.02  # seconds a knob must rest; the picture takes most of the 150 ms a slider may take
_report = report_error
_WORKER = ThreadPoolExecutor(1, "kdlab-panel")  # one for all panels: a knob waits for the other


def panel(
    fn: Callable[..., go.Figure],
    controls: Mapping[str, Control],
    *,
    alt: str | Callable[..., str],
    static: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
) -> None:
    """Show `fn(**values)` for the default values, then, with a front end, the same with knobs.

    fn: a pure function from kdlab.plots (or a notebook's own) that returns a figure; its arguments
    are the keys of `controls`.   alt: the picture's words, or a function of the same values.
    static: preset name -> values that differ from the defaults, drawn as small multiples beside the
    default, so that an exported copy teaches too; with a front end also a list to pick from.
    name: see `plots.show`.
    With KDLAB_HEADLESS set there are no widgets. The static pictures call `fn` directly, so its
    errors stop the cell, headless or not; later ones, from a knob, appear in the panel.
    Raises ValueError for a preset that names no control.
    """
    defaults = {key: control.value for key, control in controls.items()}
    _static(fn, defaults, static or {}, alt, name)
    if not headless():
        display(Panel(fn, controls, alt=alt, presets=static).box)


def _words(alt: str | Callable[..., str], values: Mapping[str, Any]) -> str:
    return alt(**values) if callable(alt) else alt


def _static(fn, defaults: dict, presets: Mapping, alt, name: str | None) -> None:
    drawn = cases(defaults, presets)
    figures = {key: fn(**values) for key, values in drawn.items()}
    words = {key: _words(alt, values) for key, values in drawn.items()}
    if len(figures) > 1 and all(single(fig) for fig in figures.values()):
        told = " ".join(f"{key}: {text}" for key, text in words.items())
        show(multiples(figures), told if callable(alt) else f"{alt} ({', '.join(figures)})", name)
        return
    for key, fig in figures.items():
        show(fig, words[key] if len(figures) == 1 else f"{key}: {words[key]}", name)


def live_figure(fig: go.Figure, alt: str) -> str:
    """A figure as the HTML of one <img>, for an ipywidgets.HTML that is updated in place.

    Why a picture and not a live plotly chart: a FigureWidget adds 5 MB of script to the notebook
    and needs a front-end extension of the right version; an updated display of plotly's MIME type
    is ignored by JupyterLab once the pointer has entered the old one; an Output widget breaks
    papermill. A picture of 20 to 60 KB takes under 100 ms, needs stock widgets only, and carries
    alt text. The chart to hover over is the static one above the panel.
    """
    source = data_uri(png(fig, alt))
    style = f"max-width:100%;width:{size(fig)[0]:g}px"
    return f'<img alt="{html.escape(alt)}" src="{source}" style="{style}">'


def debounce(seconds: float) -> Callable[[Callable], Callable]:
    """Decorator: run a function once its calls have paused for `seconds`, with the last arguments.

    Under a running event loop (a notebook kernel) the call is put off; without one (a script, a
    test) it runs at once.
    """

    def decorate(fn: Callable) -> Callable:
        waiting: asyncio.TimerHandle | None = None

        def call(*args, **kwargs) -> None:
            nonlocal waiting
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                fn(*args, **kwargs)
                return
            if waiting is not None:
                waiting.cancel()
            waiting = loop.call_later(seconds, lambda: fn(*args, **kwargs))

        return call

    return decorate


class Panel:
    """The live half: `box` is the widget to display, `controls` the knobs by name.

    A change bumps `version`, waits for the hand to rest, and computes in a thread, so that the
    kernel hears the next change meanwhile; a result whose version is no longer current is dropped.
    Without a running event loop the same happens at once, in place.
    """

    def __init__(
        self,
        fn: Callable[..., go.Figure],
        controls: Mapping[str, Control],
        *,
        alt: str | Callable[..., str],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        delay: float = DELAY,
    ):
        self.fn, self.alt = fn, alt
        self.version = 0
        self.pending: asyncio.Future | None = None  # the computation under way, if any
        self.board = Board(controls, presets or {}, self.refresh)
        self.defaults, self.controls = self.board.defaults, self.board.knobs
        self.button, self.reset = self.board.button, self.board.reset
        self.picture, self.status = ipywidgets.HTML(), ipywidgets.HTML()
        self.copy = Copy()
        self._start = debounce(delay)(self._compute)
        row = ipywidgets.VBox([
            ipywidgets.HBox([*self.board.head, self.button, self.copy.button, self.status],
                            layout=ROW),
            self.copy.area, ipywidgets.HTML(STYLE, layout={"display": "none"})])
        knobs = [helped(knob, self.board.controls[key].help)
                 for key, knob in self.controls.items()]
        self.box = ipywidgets.VBox([*knobs, row, self.picture])
        self.box.add_class("kdlab")
        self.copy.say(self.board.yaml())
        self._finish(self.version, *self._draw(self.version, self.values))

    @property
    def values(self) -> dict[str, Any]:
        """What the knobs say now."""
        return self.board.values

    def refresh(self) -> None:
        """Compute the picture for the present values."""
        self.version += 1  # also where nothing is computed: what is under way shows no longer
        if self.board.problems:
            self.copy.say("")
            self.status.value = problem_line(list(self.board.problems.values()))
            return
        self.copy.say(self.board.yaml())
        self.status.value = "<span role='status'>computing…</span>"
        self._start(self.version, self.values)

    def _compute(self, version: int, values: dict[str, Any]) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._finish(version, *self._draw(version, values))
            return
        if version == self.version:
            self.pending = loop.run_in_executor(_WORKER, self._apart, version, values)
            self.pending.add_done_callback(lambda done: self._arrived(version, done))

    def _draw(self, version: int, values: dict[str, Any]) -> tuple[str | None, Exception | None]:
        """(picture, None), (None, error), or (None, None) when nobody waits for it any more."""
        if version != self.version:
            return None, None
        try:
            return live_figure(self.fn(**values), _words(self.alt, values)), None
        except Exception as error:  # shown in the panel: a callback has no cell to stop
            return None, error

    def _apart(self, version: int, values: dict[str, Any]):
        """_draw in the worker, where sys.exit() would otherwise end the kernel's event loop."""
        try:
            return self._draw(version, values)
        except BaseException as error:
            return None, error

    def _arrived(self, version: int, done: asyncio.Future) -> None:
        if not done.cancelled():  # as it is when the loop ends
            self._finish(version, *done.result())

    def _finish(self, version: int, picture: str | None, error: BaseException | None) -> None:
        if version != self.version:
            return
        if error is not None:
            self.status.value = report_error(error)
            return
        self.picture.value = picture
        self.status.value = ""
