"""What a run's log says while it is written: five views of its columns."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.style import figure, looks
from kdlab.plots.training import history

POINTS = 500  # of a curve: a panel is some 200 pixels wide; ours
VIEWS = ("losses", "learning rate", "gradient and shares", "speed and data wait", "diagnostics")
SPEED = {"images_per_second": "images/s", "data_wait": "waiting for data",
         "memory_mb": "memory"}  # column -> panel
UNITS = {"images/s": "images/s", "waiting for data": "share of the time (0 to 1)",
         "memory": "MB", "gradient norm": "norm (no unit)",
         "shares of the terms": "share of the gradient (0 to 1)",
         "learning rate": "learning rate (no unit)"}
TOGETHER = 6  # curves that still can be told apart in one panel; ours


def monitor_view(columns: Mapping[str, np.ndarray], view: str = "losses",
                 title: str = "Training") -> go.Figure:
    """One of VIEWS of a log's columns over steps, thinned to about 500 points a curve.

    columns: name -> (rows,) as `kdlab.train.History.columns`, NaN where a row lacks it: "loss" and
    "name/term" (losses), "lr", "gradient_norm" and "name.term_share", SPEED, and whatever else is
    called "name.key", which with "validation" are the diagnostics.
    A view of which nothing is logged yet says so.   Raises ValueError for another view.
    """
    panels = monitor_panels(columns, view)
    names = [name for group in panels.values() for name in group]
    if not names:
        return _empty(title, view)
    shown = {name: thinned(columns[name]) for name in names} | {"step": columns["step"]}
    fig = history(shown, panels, units=UNITS, title=f"{title}: {view}")
    short = {name: _short(name) for group in panels.values() if len(group) > 1 for name in group}
    wide = min(3, len(panels))
    fig.update_layout(width=max(420, (440 if wide == 2 else 300) * wide))
    return _relabelled(fig, short) if short else fig


def _short(name: str) -> str:
    """What tells a curve from those beside it: "1e-2" of thresholds, the term of a share."""
    if name.endswith("_share"):
        return name.removesuffix("_share").replace(".", "/")
    return name.rpartition("_")[2]


def _relabelled(fig: go.Figure, short: Mapping[str, str]) -> go.Figure:
    """One look and one entry in the legend for curves of one short name, in all panels; below."""
    look, listed = looks(dict.fromkeys(short.values())), set()
    for trace in fig.data:
        if trace.legendgroup not in short:
            continue
        own = look[short[trace.legendgroup]]
        trace.update(name=own.label, legendgroup=own.label,
                     line={"color": own.color, "dash": own.dash})
        if "markers" in trace.mode:
            trace.update(marker={"color": own.color, "symbol": own.marker},
                         showlegend=own.label not in listed)
            listed.add(own.label)
    room = fig.layout.height - fig.layout.margin.t - 50  # 50: the template's bottom
    return fig.update_layout(
        height=fig.layout.height + 40, margin={"b": 90},
        legend={"orientation": "h", "x": 0, "y": -60 / room, "yanchor": "top"})


def monitor_panels(columns: Mapping[str, np.ndarray], view: str) -> dict[str, list[str]]:
    """Panel -> its columns, those of which something is logged.

    Shares of the terms stand together; so do diagnostics of one loss that differ only in the part
    after the last "_" (thresholds at several rates).   ValueError for a view that is not in VIEWS.
    """
    if view not in VIEWS:
        raise ValueError(f"no view {view!r}; there are: {', '.join(VIEWS)}")
    there = [name for name, values in columns.items() if np.isfinite(values).any()]
    terms = [name for name in there if "/" in name]
    shares = [f"{name.replace('/', '.')}_share" for name in terms]
    if view == "losses":
        return {name: [name] for name in ["loss", *terms] if name in there}
    if view == "learning rate":
        return {"learning rate": ["lr"]} if "lr" in there else {}
    if view == "speed and data wait":
        return {panel: [name] for name, panel in SPEED.items() if name in there}
    if view == "gradient and shares":
        found = {"gradient norm": [name for name in ["gradient_norm"] if name in there],
                 "shares of the terms": [name for name in shares if name in there]}
        return {panel: group for panel, group in found.items() if group}
    found = {}
    for name in there:
        if name == "validation" or ("." in name and "/" not in name and name not in shares):
            loss, dot, key = name.rpartition(".")
            found.setdefault(f"{loss}{dot}{key.rpartition('_')[0] or key}", []).append(name)
    panels = {}
    for stem, group in found.items():
        many = 1 < len(group) <= TOGETHER
        panels |= {stem: group} if many else {name: [name] for name in group}
    return panels


def thinned(values: np.ndarray, points: int = POINTS) -> np.ndarray:
    """The values with all but about `points` of the finite ones made NaN, first and last kept."""
    there = np.flatnonzero(np.isfinite(values))
    if len(there) <= points:
        return values
    kept = np.full(len(values), np.nan)
    some = there[np.linspace(0, len(there) - 1, points).round().astype(int)]
    kept[some] = values[some]
    return kept


def monitor_words(columns: Mapping[str, np.ndarray], view: str) -> str:
    """The alt text of `monitor_view`: every curve's last value, and where it began."""
    told = []
    for group in monitor_panels(columns, view).values():
        for name in group:
            values = columns[name][np.isfinite(columns[name])]
            told.append(f"{name} {values[0]:.4g} to {values[-1]:.4g}")
    if not told:
        return f"No curves yet: nothing of the view '{view}' is logged."
    last = int(columns["step"][-1])
    return f"Curves over {last} training steps, {view}: {'; '.join(told)}."


def _empty(title: str, view: str) -> go.Figure:
    fig = figure(f"{title}: {view}", "nothing of this is logged yet", height=200)
    fig.add_scatter(x=[], y=[], showlegend=False)
    bare = {"showticklabels": False, "range": [0, 1]}
    return fig.update_xaxes(title_text="step", **bare).update_yaxes(title_text="value", **bare)
