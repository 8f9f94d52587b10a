"""Widgets around kdlab.plots, without arithmetic; nothing else in kdlab imports ipywidgets."""

from kdlab.ui.controls import Control, choice, slider, toggle
from kdlab.ui.explore import threshold_panel
from kdlab.ui.explorer import (
    centre_player,
    embedding_explorer,
    explorer,
    pair_viewer,
    relation_explorer,
)
from kdlab.ui.faces import face_panel, factor_panel
from kdlab.ui.form import Form, form
from kdlab.ui.monitor import run_monitor
from kdlab.ui.operating import operating_panel, rules_panel
from kdlab.ui.panel import Panel, debounce, live_figure, panel
from kdlab.ui.schema import controls
from kdlab.ui.timeline import threshold_timeline

__all__ = [
    "Control", "Form", "Panel", "centre_player", "choice", "controls", "debounce",
    "embedding_explorer", "explorer", "face_panel", "factor_panel", "form", "live_figure",
    "operating_panel", "pair_viewer", "panel", "relation_explorer", "rules_panel",
    "run_monitor", "slider", "threshold_panel", "threshold_timeline", "toggle",
]  # fmt: skip
