"""Widgets around kdlab.plots, without arithmetic; nothing else in kdlab imports ipywidgets."""

from kdlab.ui.controls import Control, choice, slider, toggle
from kdlab.ui.explore import threshold_panel
from kdlab.ui.panel import Panel, debounce, live_figure, panel

__all__ = [
    "Control", "Panel", "choice", "debounce", "live_figure", "panel", "slider", "threshold_panel",
    "toggle",
]  # fmt: skip
