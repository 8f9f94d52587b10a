"""Knobs of several stock widgets: a number to type or slide, a typed line, one that may be off.

Each has, as a stock widget has, a `value` to set and to observe; `problem` is one line when what
was typed cannot be read (the value is then still the last one that could), else empty.
"""

import math
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets
import yaml

LONGEST = 10_000  # characters of a typed line; ours
NOTHING = ("", "null", "none", "~")  # what is typed for None


class Knob(ipywidgets.VBox):
    """What the three share. `put` sets the value and forgets what could not be read.

    state: (value, problem), which changes once where both do.
    """

    value = traitlets.Any()
    problem = traitlets.Unicode()
    state = traitlets.Any()

    def __init__(self, name: str, value: Any, children: list[ipywidgets.Widget], width: str):
        super().__init__(children, layout={"width": width})
        self.name, self._busy = name, False
        self.put(value)
        self.observe(lambda change: self.put(change["new"]), names="value")

    def put(self, value: Any) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            self._show(value)
        finally:
            self._busy = False
        self._take(value)

    def _take(self, value: Any, problem: str = "") -> None:
        busy, self._busy = self._busy, True
        try:
            self.problem, self.value = problem, value
        finally:
            self._busy = busy
        self.state = (value, problem)

    def _show(self, value: Any) -> None:
        """Make the widgets say `value`."""


class Number(Knob):
    """A field for a number, and a slider over the usual ones below it.

    The field has the label: a stock slider's handle takes no name that a screen reader could say.
    step: of the slider, in decades if `log`; the field then takes only what the slider reaches.
    None: the slider has a hundred positions (20 a decade), and the field takes any number.
    """

    def __init__(self, name: str, value: float, low: float, high: float, log: bool, whole: bool,
                 shared: dict, step: float | None = None):
        self.low, self.high, self.decades, self.whole, self.step = low, high, log, whole, step
        self.digits = 0 if step else max(0, math.ceil(-math.log10((high - low) / 100)))
        self.entry = ipywidgets.Text(
            continuous_update=False, **shared | {"layout": {"width": "100%"}})
        self.entry.add_class("kdlab-number")
        own = {"readout": False, "continuous_update": False, "tooltip": shared["tooltip"],
               "layout": {"width": "100%"}}
        if log:
            self.slider = ipywidgets.FloatLogSlider(
                min=math.log10(low), max=math.log10(high), step=step or 0.05, value=low, **own)
        elif whole:
            self.slider = ipywidgets.IntSlider(min=low, max=high, step=step or 1, value=low, **own)
        else:
            self.slider = ipywidgets.FloatSlider(
                min=low, max=high, step=step or 10.0**-self.digits, value=low, **own)
        super().__init__(name, value, [self.entry, self.slider], shared["layout"]["width"])
        self.entry.observe(self._typed, names="value")
        self.slider.observe(self._slid, names="value")

    def _show(self, value: float) -> None:
        self.entry.value = self._said(value)
        self.slider.value = max(value, self.low)  # beyond an end the slider rests at that end

    def _said(self, value: float) -> str:
        if self.step is None or self.whole:
            return str(value)
        return f"{value:.{3 if self.decades else 6}g}"  # more than a hand sets; ours

    def _slid(self, change: dict) -> None:
        if self._busy:
            return
        value = change["new"]
        if self.whole:
            value = round(float(f"{value:.3g}") if self.decades else value)
        elif self.step is not None:
            value = float(f"{value:.9g}")  # not 0.15000000000000002
        elif self.decades:
            value = round(float(f"{value:.3g}"), 12)  # not 0.012589254117941675
        else:
            value = round(value, self.digits)
        self._busy = True
        self.entry.value = self._said(value)
        self._busy = False
        self._take(value)

    def _typed(self, change: dict) -> None:
        if self._busy:
            return
        typed = change["new"].strip()
        try:
            value = int(typed) if self.whole else float(typed)
        except ValueError:
            kind = "whole number" if self.whole else "number"
            self._take(self.value, f"{self.name}: {typed[:80]!r} is no {kind}")
            return
        if self.step is not None and not self.low <= value <= self.high:
            reach = f"{self.low:g} to {self.high:g}"
            self._take(self.value, f"{self.name}: {typed[:80]} is not in {reach}")
        else:
            self.put(value)


class Typed(Knob):
    """A line of text. plain: as it stands; else YAML, such as [1, 2] or {a: 1}. none: may be."""

    def __init__(self, name: str, value: Any, plain: bool, none: bool, shared: dict):
        self.plain, self.none = plain, none
        self.entry = ipywidgets.Text(
            continuous_update=False, **shared | {"layout": {"width": "100%"}})
        super().__init__(name, value, [self.entry], shared["layout"]["width"])
        self.entry.observe(self._typed, names="value")

    def _show(self, value: Any) -> None:
        self.entry.value = line(value)

    def _typed(self, change: dict) -> None:
        if self._busy:
            return
        try:
            nothing = self.none and change["new"].strip().lower() in NOTHING
            self._take(None if nothing else read(change["new"], self.plain))
        except ValueError as error:
            self._take(self.value, f"{self.name}: {error}")


class Maybe(Knob):
    """A knob with a switch before it; off, its value is None and the knob is hidden."""

    def __init__(self, name: str, inner: ipywidgets.Widget, value: Any, shared: dict):
        self.inner = inner
        self.switch = ipywidgets.Checkbox(
            indent=False, **shared | {"description": f"use {name}", "layout": {"width": "100%"}})
        self.inner.layout.width = "100%"
        super().__init__(name, value, [self.switch, inner], shared["layout"]["width"])
        self.switch.observe(self._moved, names="value")
        inner.observe(self._moved, names=trait(inner))

    def _show(self, value: Any) -> None:
        self.switch.value = value is not None
        if value is not None:
            place(self.inner, value)
        self._fold()

    def _fold(self) -> None:
        self.inner.layout.display = "" if self.switch.value else "none"

    def _moved(self, _) -> None:
        if self._busy:
            return
        self._fold()
        if self.switch.value:
            self._take(self.inner.value, getattr(self.inner, "problem", ""))
        else:
            self._take(None)


def trait(knob: ipywidgets.Widget) -> str:
    """The trait that changes once for every change of a knob or a stock widget."""
    return "state" if isinstance(knob, Knob) else "value"


def place(knob: ipywidgets.Widget, value: Any) -> None:
    """Set a knob or a stock widget, whatever is typed in it now."""
    knob.put(value) if isinstance(knob, Knob) else setattr(knob, "value", value)


def plain(value: Any) -> Any:
    """A value as YAML can hold it: paths as text, tuples as lists, configs as mappings."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(own) for key, own in value.items()}
    return [plain(own) for own in value] if isinstance(value, list | tuple) else value


def line(value: Any) -> str:
    """A value as one line for a text field; nothing for None."""
    if value is None or isinstance(value, str | Path):
        return str(value or "")
    said = yaml.safe_dump(plain(value), default_flow_style=True, sort_keys=False, width=math.inf)
    return said.removesuffix("...\n").strip()


def read(typed: str, as_text: bool) -> Any:
    """What a line says.   ValueError of one line when it is not YAML."""
    typed = typed.strip()
    if len(typed) > LONGEST:
        raise ValueError(f"{len(typed):,} characters are no line; at most {LONGEST:,}")
    if as_text:
        return typed
    try:
        return yaml.safe_load(typed)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a bad date, deep nesting
        mark = getattr(error, "problem_mark", None)
        where = f", column {mark.column + 1}: {error.problem}" if mark else ""
        raise ValueError(f"not YAML{where}") from error
