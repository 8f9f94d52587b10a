"""A set of knobs with presets, Reset and their values as YAML: what panels and forms share."""

import html
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import yaml
from pydantic import ValidationError

from kdlab.train.config import explain
from kdlab.ui.controls import Control, reaching, widget
from kdlab.ui.knobs import place, plain, trait

OWN = "own values"
ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 8px"}
LONGEST = 300  # characters of an error's line; the rest is in the traceback; ours
# Stock widgets cut a long label with "…" and push a slider out of a narrow column: labels wrap
# and stand above their control. Colours are inherited or the theme's, readable on light and dark.
STYLE = """<style>
.kdlab, .kdlab .widget-box {overflow: visible}
.kdlab .jupyter-widgets {margin-left: 0; margin-right: 0; box-sizing: border-box}
.kdlab .widget-hslider, .kdlab select {min-height: 28px}
.kdlab .widget-inline-hbox {flex-wrap: wrap; height: auto; min-width: 0}
.kdlab .widget-label, .kdlab .widget-label-basic, .kdlab .widget-checkbox label {
  white-space: normal; overflow: visible; text-overflow: clip; height: auto; line-height: 1.35;
  overflow-wrap: anywhere; max-width: 100%; text-align: left; padding: 2px 0}
.kdlab .widget-inline-hbox > .widget-label {flex: 1 0 100%}
.kdlab .kdlab-number > .widget-label {flex: 1 1 0}
.kdlab .kdlab-number > input {flex: 0 0 96px}
.kdlab .slider-container {flex: 1 1 96px; min-width: 0; min-height: 28px; display: flex;
  align-items: center}
.kdlab .slider-container > * {flex: 1 1 auto}
.kdlab .widget-slider .noUi-handle {border: 1px solid currentColor}
.kdlab .widget-readout {min-width: 56px}
.kdlab .widget-checkbox {height: auto; min-height: 28px}
.kdlab .kdlab-help {font-size: 12px; line-height: 1.4; color: inherit}
.kdlab .kdlab-error {color: inherit; border-left: 4px solid var(--jp-error-color1, #d32f2f);
  padding: 2px 8px; line-height: 1.4; overflow-wrap: anywhere}
.kdlab .kdlab-error pre {white-space: pre-wrap; color: inherit; background: none; font-size: 12px}
.kdlab .widget-html-content {height: auto; line-height: 1.4}
[data-jp-theme-light=false] .kdlab :is(select, input) {color-scheme: dark}
.kdlab .widget-dropdown > select {appearance: auto; background-image: none}
.kdlab textarea::placeholder {color: inherit; opacity: 1}
.kdlab textarea {font-family: var(--jp-code-font-family, monospace)}
.kdlab :focus-visible {outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 2px}
</style>"""


class Board:
    """`knobs` by name, `presets` (a Dropdown), `button` (Reset); `head`: those worth showing.

    changed() is called once for a knob, a preset, or Reset.   The dropdown always says which
    preset the knobs stand for, or "own values".
    Raises ValueError for a preset that sets what is no control, or what its control cannot hold.
    """

    def __init__(self, controls: Mapping[str, Control], presets: Mapping[str, Mapping[str, Any]],
                 changed: Callable[[], None]):
        self.changed, self._quiet = changed, True
        self.defaults = {name: control.value for name, control in controls.items()}
        self.cases = cases(self.defaults, presets)
        for case, values in self.cases.items():
            for name in values:
                try:
                    reached = reaching(controls[name], values[name])
                except ValueError as error:
                    raise ValueError(f"preset '{case}': {error}") from error
                controls = {**controls, name: reached}
        self.controls = dict(controls)
        self.knobs = {name: widget(name, control) for name, control in controls.items()}
        for knob in self.knobs.values():
            knob.observe(lambda _: self._moved(), names=trait(knob))
        self.presets = ipywidgets.Dropdown(
            options=[*self.cases, OWN], description="preset", tooltip="sets all controls at once",
            style={"description_width": "initial"}, layout={"width": "min(100%, 320px)"})
        self.presets.observe(lambda change: self.pick(change["new"]), names="value")
        self.button = ipywidgets.Button(description="Reset", tooltip="back to the default values",
                                        layout={"width": "auto"})
        self.button.on_click(lambda _: self.reset())
        self.head = [self.presets] if presets else []
        self._quiet = False

    @property
    def values(self) -> dict[str, Any]:
        """What the knobs say now; the last readable value where one has a problem."""
        return {name: knob.value for name, knob in self.knobs.items()}

    @property
    def problems(self) -> dict[str, str]:
        """name -> one line, for the knobs whose text cannot be read."""
        return {name: knob.problem for name, knob in self.knobs.items()
                if getattr(knob, "problem", "")}

    def pick(self, case: str) -> None:
        """Set the knobs to a preset."""
        if case != OWN and not self._quiet:
            self.put(self.cases[case])

    def reset(self) -> None:
        """All knobs back to their defaults."""
        self.put(self.defaults)

    def put(self, values: Mapping[str, Any]) -> None:
        """Set several knobs, one call of changed()."""
        self._quiet = True
        try:
            for name, value in values.items():
                place(self.knobs[name], value)
        finally:
            self._quiet = False
        self._moved()

    def _moved(self) -> None:
        if self._quiet:
            return
        now = _comparable(self.values)
        fits = [case for case, values in self.cases.items()
                if _comparable(values) == now and not self.problems]
        if self.presets.value not in fits:
            self._quiet = True
            self.presets.value = fits[0] if fits else OWN
            self._quiet = False
        self.changed()

    def yaml(self) -> str:
        """The values as YAML; a choice that YAML cannot hold by its label."""
        told = {}
        for name, value in self.values.items():
            try:
                yaml.safe_dump(plain(value))
                told[name] = plain(value)
            except yaml.YAMLError:
                told[name] = getattr(self.knobs[name], "label", None) or str(value)
        return yaml.safe_dump(told, sort_keys=False)


def _comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tuple typed anew is a list, and a slider gone there and back is off by a rounding."""
    return {name: float(f"{value:.9g}") if isinstance(value, float) else plain(value)
            for name, value in values.items()}


def cases(defaults: dict[str, Any], presets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict]:
    """"default" and every preset, in full.   ValueError for one that sets what is no control."""
    for preset, values in presets.items():
        unknown = sorted(values.keys() - defaults.keys())
        if unknown:
            raise ValueError(
                f"preset '{preset}' sets {', '.join(unknown)}; the controls are "
                f"{', '.join(defaults)}"
            )
    return {"default": defaults} | {name: defaults | dict(v) for name, v in presets.items()}


class Copy:
    """A field with text to copy: `area` can be selected and copied by keyboard, not changed.

    A disabled field could not be reached by Tab, and the clipboard is out of stock widgets' reach;
    so the field is open and takes its text back. `button` unfolds it.
    """

    def __init__(self):
        self.button = ipywidgets.ToggleButton(
            description="Copy as YAML", tooltip="shows the values as YAML, to copy",
            layout={"width": "auto"})
        self.button.observe(lambda change: self.fold(change["new"]), names="value")
        self.area = ipywidgets.Textarea(
            description="YAML: Ctrl+A, Ctrl+C copies it", tooltip="the values as YAML, to copy",
            continuous_update=False, style={"description_width": "initial"},
            layout={"width": "min(100%, 640px)"})
        self.text = ""
        self.area.observe(lambda _: self.say(self.text), names="value")
        self.fold(False)

    def fold(self, shown: bool) -> None:
        self.area.layout.display = "" if shown else "none"

    def say(self, text: str) -> None:
        self.text = text
        self.area.value = text
        self.area.rows = min(20, text.count("\n") + 1)  # 20: a form's worth, the rest scrolls


def helped(knob: ipywidgets.Widget, help: str, *more: ipywidgets.Widget) -> ipywidgets.Widget:
    """A knob with its sentence of help below it, if it has one."""
    if help:
        more = (ipywidgets.HTML(f"<span class='kdlab-help'>{html.escape(help)}</span>",
                                layout={"width": "min(100%, 480px)"}), *more)
    return ipywidgets.VBox([knob, *more], layout={"min_width": "0"}) if more else knob


def report_error(
    error: BaseException, note: str = "(the picture shows the last values that worked)"
) -> str:
    """One line for people, the traceback folded under it: HTML."""
    said = (explain(error) if isinstance(error, ValidationError)
            else f"{type(error).__name__}: {error}")
    line = (said.splitlines() or [""])[0]
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    trace = "".join(traceback.format_exception(error))
    return (
        f"<div role='alert' class='kdlab-error'><b>{html.escape(line)}</b> {html.escape(note)}"
        f"<details><summary>traceback</summary><pre>{html.escape(trace)}</pre></details></div>"
    )


def problem_line(lines: list[str], role: str = "role='alert'") -> str:
    """What cannot be read, as HTML; there is no traceback to it."""
    return f"<div {role} class='kdlab-error'><b>{html.escape('; '.join(lines))}</b></div>"
