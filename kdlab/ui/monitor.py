"""A run watched while it trains: what it does, its curves, Stop and Resume."""

import html
import math
import threading
from time import monotonic

import ipywidgets
from IPython.display import display

from kdlab.plots import show
from kdlab.plots.monitor import VIEWS, monitor_view, monitor_words
from kdlab.progress import headless
from kdlab.train.follow import Follow
from kdlab.ui.board import ROW, STYLE, report_error
from kdlab.ui.controls import choice, widget
from kdlab.ui.panel import live_figure

BUSY = ("starting", "preparing", "training")
CAN_GO_ON = ("stopped", "failed", "died")
SHARE = 0.1  # of a core, at most, that drawing may take from the training; ours


def run_monitor(run, every: float = 1.0) -> None:
    """Watch a run: its state, curves of all it logs, Stop and Resume.

    run: a `kdlab.train.launch.Run`, such as launch() returns; after a restart of the kernel
    Run(out) shows the same run again.   every: seconds between two looks.
    With KDLAB_HEADLESS set there are no widgets: one picture of what is logged so far.
    """
    if headless():
        log = Follow(run.out / "log.jsonl")
        log.look()
        show(_figure(run, log, VIEWS[0]), f"{_line(run.status)} {_words(log, VIEWS[0])}",
             "run-monitor")
        return
    monitor = Monitor(run, every)
    display(monitor.box)
    monitor.watch()


class Monitor:
    """The live half: `box` is the widget to display; watch() begins to look.

    A thread looks until the run has ended or the box is closed, so neither the kernel nor a cell
    that waits for the run is held up. A picture is drawn where something new is logged, and so
    rarely that drawing takes a tenth of a core at most: the run wants the rest.
    """

    def __init__(self, run, every: float = 1.0):
        self.run, self.every = run, every
        self.log = Follow(run.out / "log.jsonl")
        self.thread: threading.Thread | None = None
        self._drawing, self._ended = threading.Lock(), threading.Event()
        self._fresh, self._due = True, 0.0  # something new to draw; not before this moment
        self.view = widget("view", choice(VIEWS, VIEWS[0], "show"))
        self.stop = ipywidgets.Button(
            description="Stop", tooltip="end after the step it is at; everything is saved",
            disabled=True, layout={"width": "auto"})
        self.resume = ipywidgets.Button(
            description="Resume", tooltip="go on from the last checkpoint", disabled=True,
            layout={"width": "auto"})
        self.state, self.numbers, self.error, self.picture = (ipywidgets.HTML() for _ in range(4))
        self.view.observe(lambda _: self._attempt(self._draw), names="value")
        self.stop.on_click(lambda _: self._attempt(self._stop))
        self.resume.on_click(lambda _: self._attempt(self._resume))
        row = ipywidgets.HBox([self.stop, self.resume, self.state, self.numbers], layout=ROW)
        self.box = ipywidgets.VBox([
            self.view, row, self.error, self.picture,
            ipywidgets.HTML(STYLE, layout={"display": "none"})])
        self.box.add_class("kdlab")
        self._attempt(self.look)

    def watch(self) -> None:
        """Look again and again, in a thread, until the run has ended."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._watch, name="kdlab-monitor", daemon=True)
            self.thread.start()

    def close(self) -> None:
        """Take the widget from the page; the run goes on."""
        self._ended.set()
        self.box.close()

    def _watch(self) -> None:
        while self.box.comm is not None and not self._ended.is_set():
            if self._attempt(self.look) is False:  # None: an error, which may pass
                return
            self._ended.wait(self.every)

    def look(self) -> bool:
        """Say how it stands, draw what is new where a picture is due; whether more is to come."""
        said = self.run.status  # first: what is logged before the end is then seen below
        busy = said["state"] in BUSY
        with self._drawing:
            self._fresh |= self.log.look()
        if self._fresh and (monotonic() >= self._due or not busy):
            self._draw()
        state, message = said["state"], said.get("message", "")
        if busy and (self.run.out / "stop").exists():
            message = "stopping after this step"
        self.state.value = (f"<span role='status' aria-live='polite'><b>{state}</b>"
                            f"{html.escape(f': {message}' if message else '')}</span>")
        self.numbers.value = html.escape(_line(said).partition(" ")[2])
        self.stop.disabled, self.resume.disabled = not busy, state not in CAN_GO_ON
        return busy

    def _draw(self) -> None:
        with self._drawing:
            began, view = monotonic(), self.view.value
            self._fresh = False
            self.picture.value = live_figure(_figure(self.run, self.log, view),
                                             _words(self.log, view))
            now = monotonic()
            self._due = now + (now - began) * (1 / SHARE - 1)

    def _stop(self) -> None:
        self.stop.disabled = True
        self.run.stop(wait=False)

    def _resume(self) -> None:
        self.resume.disabled = True
        self.run.resume()
        self.look()
        self.watch()

    def _attempt(self, fn, *args):
        """fn(*args), None where it fails; the error is shown: there is no cell to stop."""
        try:
            done = fn(*args)
            self.error.value = ""
            return done
        except Exception as error:
            self.error.value = report_error(error, "")
            return None


def _figure(run, log: Follow, view: str):
    return monitor_view(log.columns, view, run.out.name)


def _words(log: Follow, view: str) -> str:
    return monitor_words(log.columns, view)


def _line(said: dict) -> str:
    """'training step 120 of 600, 850 images/s, ends in 3 min'."""
    parts = []
    if "step" in said:
        parts.append(f"step {said['step']:,} of {said.get('steps') or '?'}")
        parts.append(f"{said['images_per_second']:,.0f} images/s")
    if "eta_seconds" in said:
        parts.append(f"ends in {_duration(said['eta_seconds'])}")
    return f"{said['state']} {', '.join(parts)}"


def _duration(seconds: float) -> str:
    """'40 s', '3 min', '2 h 5 min'."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
