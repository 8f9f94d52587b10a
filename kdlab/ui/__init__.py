"""Widgets around kdlab.plots, without arithmetic; nothing else in kdlab imports ipywidgets."""

from kdlab.ui.controls import Control, choice, slider, toggle
from kdlab.ui.explore import threshold_panel
from kdlab.ui.faces import face_panel, factor_panel
from kdlab.ui.operating import operating_panel, rules_panel
from kdlab.ui.panel import Panel, debounce, live_figure, panel

__all__ = [
    "Control", "Panel", "choice", "debounce", "face_panel", "factor_panel", "live_figure",
    "operating_panel", "panel", "rules_panel", "slider", "threshold_panel", "toggle",
]  # fmt: skip
