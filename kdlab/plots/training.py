"""Training curves."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import BLUE, TEMPLATE, band, beads, looks

BEADS = 3  # markers on a curve; a panel is a third as wide as a figure; ours


def history(
    columns: Mapping[str, np.ndarray],
    terms: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    x: str = "step",
    units: Mapping[str, str] | None = None,
    title: str = "Training",
) -> go.Figure:
    """Training curves, one panel for each quantity, over `x` ("step", "epoch", ...).

    columns: name -> (T,) values, or (seeds, T): the mean with a band from the lowest to the
    highest seed; NaN where nothing was logged.   terms: the columns to draw, or panel -> columns
    to draw together; None: all, one panel each.   units: panel -> unit; without one the axis says
    that the quantity has none (a loss).
    Raises ValueError naming a missing column.
    """
    if terms is None:
        terms = [name for name in columns if name != x]
    panels = terms if isinstance(terms, Mapping) else {name: [name] for name in terms}
    for name in [x, *(name for group in panels.values() for name in group)]:
        if name not in columns and name != x:
            raise ValueError(f"no column '{name}' in the log; it has {', '.join(columns)}")
    if not panels:
        raise ValueError("history got no columns to draw")
    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    fig = make_subplots(high, wide, subplot_titles=list(panels), horizontal_spacing=0.1,
                        vertical_spacing=0.28 / high)  # fmt: skip
    look = looks(dict.fromkeys(name for group in panels.values() for name in group))
    listed = set()  # names that the legend holds already
    for place, (panel, group) in enumerate(panels.items()):
        spot = {"row": place // wide + 1, "col": place % wide + 1}
        for rank, name in enumerate(group):
            runs = np.atleast_2d(np.asarray(columns[name], float))
            steps = np.asarray(columns.get(x, np.arange(runs.shape[1])), float)
            seen = np.isfinite(runs).any(axis=0)
            steps, runs = steps[seen], runs[:, seen]
            several = len(group) > 1
            ink, dash = (look[name].color, look[name].dash) if several else (BLUE, "solid")
            if len(runs) > 1:
                least, most = np.nanmin(runs, 0), np.nanmax(runs, 0)
                fig.add_trace(band(steps, least, most, ink, name), **spot)
            mean = np.nanmean(runs, 0)
            fig.add_scatter(
                x=steps, y=mean, mode="lines" if len(steps) > 1 else "markers", legendgroup=name,
                line={"color": ink, "width": 2, "dash": dash}, name=look[name].label,
                showlegend=False, **spot,
            )  # fmt: skip
            if several and len(steps):  # each curve's markers between those of the others
                at = (np.arange(BEADS) + (rank + 0.5) / len(group)) / BEADS * (len(steps) - 1)
                at = np.unique(at.round().astype(int))
                entry = beads(steps[at], mean[at], look[name], name)
                fig.add_trace(entry.update(showlegend=name not in listed), **spot)
                listed.add(name)
        fig.update_yaxes(title_text=(units or {}).get(panel, "value (no unit)"), **spot)
        fig.update_xaxes(title_text=x, nticks=5, **spot)
    fig.update_annotations(font_size=12)
    fig.update_layout(template=TEMPLATE, title={"text": title}, width=max(420, 300 * wide),
                      height=110 + 230 * high, margin={"t": 70})  # fmt: skip
    return fig
