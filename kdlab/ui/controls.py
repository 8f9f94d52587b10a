"""Descriptions of controls, and the stock ipywidgets they become.

A description is plain data, so that a headless run needs no widget and a test can read defaults.
Stock controls only: they work in JupyterLab, Notebook 7, VS Code and Colab, and by keyboard.
A choice opens with Space or Enter: JupyterLab takes bare arrow keys for its own from a closed one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets

from kdlab.ui.knobs import Maybe, Number, Typed


class Control(NamedTuple):
    """One knob. kind: "slider" | "log_slider" | "choice" | "toggle" | "number" | "text" | "maybe".

    value: its default.   options: (low, high, step) of a slider, (label, value) pairs of a choice,
    (low, high, log, whole) of a number, (plain, none) of a text, the (control,) a "maybe" switches,
    else empty.   help: a sentence to show below it.
    """

    kind: str
    label: str
    value: Any
    options: tuple = ()
    unit: str = ""
    help: str = ""


def slider(
    low: float, high: float, step: float, value: float, unit: str = "", label: str = "",
    *, log: bool = False,
) -> Control:  # fmt: skip
    """A number in low..high; with `log` the slider moves in powers of ten, `step` in decades.

    Raises ValueError when the default lies outside, or a logarithmic range touches zero.
    """
    if not low < high or not low <= value <= high or not step > 0:
        raise ValueError(f"slider '{label}': need low < high, low <= value <= high and step > 0, "
                         f"got {low}, {high}, value {value}, step {step}")  # fmt: skip
    if log and low <= 0:
        raise ValueError(f"slider '{label}': a logarithmic range starts above 0, got {low}")
    return Control("log_slider" if log else "slider", label, value, (low, high, step), unit)


def choice(options: Sequence | Mapping[str, Any], value: Any, label: str = "") -> Control:
    """One of several values; a mapping gives label -> value.

    Raises ValueError when the default is not among them.
    """
    pairs = options.items() if isinstance(options, Mapping) else [(str(v), v) for v in options]
    pairs = tuple(pairs)
    if not any(value == own for _, own in pairs):
        raise ValueError(f"choice '{label}': {value!r} is not one of {[own for _, own in pairs]}")
    return Control("choice", label, value, pairs)


def toggle(value: bool, label: str = "") -> Control:
    """On or off."""
    return Control("toggle", label, bool(value))


def number(
    low: float, high: float, value: float, unit: str = "", label: str = "",
    *, log: bool = False, whole: bool = False,
) -> Control:  # fmt: skip
    """A number to type, and a slider over the usual range low..high; the field takes any number.

    Raises ValueError for an empty range, or a logarithmic one that touches zero.
    """
    if not low < high or (log and low <= 0):
        raise ValueError(f"number '{label}': need low < high, and low above 0 on a logarithmic "
                         f"scale, got {low}, {high}")  # fmt: skip
    return Control("number", label, value, (low, high, log, whole), unit)


def text(
    value: Any, unit: str = "", label: str = "", *, plain: bool = False, none: bool = False
) -> Control:
    """A line to type: YAML for a list or a mapping, or with `plain` the text as it stands.

    none: an empty line, or "none", is None.
    """
    return Control("text", label, value, (plain, none), unit)


def maybe(control: Control, value: Any) -> Control:
    """A control that can be switched off: its value is then None."""
    return control._replace(kind="maybe", value=value, options=(control,))


def reaching(control: Control, value: Any) -> Control:
    """The control with a range that holds `value` too.   ValueError where none can."""
    if control.kind not in ("slider", "log_slider"):
        if control.kind == "choice":
            choice(dict(control.options), value, control.label)
        return control
    low, high, *rest = control.options
    low, high = min(low, value), max(high, value)
    slider(low, high, *rest, value, label=control.label, log=control.kind == "log_slider")
    if isinstance(value, float) and not value.is_integer():  # so that no IntSlider cuts it
        low, high = float(low), float(high)
    return control._replace(options=(low, high, *rest))


def caption(name: str, control: Control) -> str:
    """The label with its unit; "1" is the unit of what has none, "epochs" that of epochs."""
    label = control.label or name
    return f"{label} ({control.unit})" if control.unit not in ("", "1", label) else label


def span(control: Control) -> str:
    """In words, what a control offers."""
    if control.kind == "toggle":
        return "yes or no"
    if control.kind == "choice":
        return ", ".join(label for label, _ in control.options)
    if control.kind == "text":
        return ("text" if control.options[0] else "YAML") + (", or none" * control.options[1])
    if control.kind == "maybe":
        return f"{span(control.options[0])}, or none"
    low, high, third = control.options[:3]
    log = third is True if control.kind == "number" else control.kind == "log_slider"
    return f"{low:g} to {high:g}{', logarithmic' if log else ''}"


def widget(name: str, control: Control) -> ipywidgets.Widget:
    """The ipywidget of a description; it reports when the hand lets go, not on the way."""
    text = caption(name, control)
    shared = {
        "description": text,
        "style": {"description_width": "initial"},
        "layout": {"width": "min(100%, 480px)"},
        "tooltip": f"{text}: {control.help}" if control.help else text,
    }
    if control.kind == "maybe":
        inner = control.options[0]._replace(label=control.label, unit=control.unit)
        return Maybe(name, widget(name, inner), control.value, shared)
    if control.kind == "number":
        return Number(name, control.value, *control.options, shared)
    if control.kind == "text":
        return Typed(name, control.value, *control.options, shared)
    if control.kind == "choice":
        return ipywidgets.Dropdown(options=control.options, value=control.value, **shared)
    if control.kind == "toggle":
        return ipywidgets.Checkbox(value=control.value, indent=False, **shared)
    low, high, step = control.options
    log = control.kind == "log_slider"
    whole = not log and all(isinstance(v, int) for v in (low, high, step, control.value))
    value = control.value if whole else float(control.value)
    return Number(name, value, low, high, log, whole, shared, step)
