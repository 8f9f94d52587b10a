"""Descriptions of controls, and the stock ipywidgets they become.

A description is plain data, so that a headless run needs no widget and a test can read defaults.
Stock controls only: they work in JupyterLab, VS Code and Colab, and by keyboard (Tab, arrows).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets


class Control(NamedTuple):
    """One knob. kind: "slider" | "log_slider" | "choice" | "toggle"; value: its default.

    options: (low, high, step) of a slider, (label, value) pairs of a choice, else empty.
    """

    kind: str
    label: str
    value: Any
    options: tuple = ()
    unit: str = ""


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


def widget(name: str, control: Control) -> ipywidgets.ValueWidget:
    """The ipywidget of a description; it reports when the hand lets go, not on the way."""
    text = control.label or name
    text = f"{text} ({control.unit})" if control.unit else text
    shared = {
        "description": text,
        "style": {"description_width": "initial"},
        "layout": {"width": "min(100%, 480px)"},
        "tooltip": text,
    }
    if control.kind == "choice":
        return ipywidgets.Dropdown(options=control.options, value=control.value, **shared)
    if control.kind == "toggle":
        return ipywidgets.Checkbox(value=control.value, indent=False, **shared)
    low, high, step = control.options
    shared["continuous_update"] = False
    if control.kind == "log_slider":
        return ipywidgets.FloatLogSlider(
            min=math.log10(low), max=math.log10(high), step=step, base=10, value=control.value,
            readout_format=".1e", **shared,
        )  # fmt: skip
    whole = all(isinstance(v, int) for v in (low, high, step, control.value))
    make = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    shared |= {} if whole else {"readout_format": f".{_digits(step)}f"}
    return make(min=low, max=high, step=step, value=control.value, **shared)


def _digits(step: float) -> int:
    """Decimals that tell two neighbouring slider positions apart."""
    return max(0, min(6, math.ceil(-math.log10(step) - 1e-9)))
