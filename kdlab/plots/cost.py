"""What more processes change: hours and what a step waits for (`kdlab.train.scale`), gradients."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import TEMPLATE, Look, beads, looks
from kdlab.plots.thresholds import heading

PARTS = {"compute_seconds": "compute", "exchange_seconds": "gradients", "gather_seconds": "gather",
         "read_seconds": "reading (meanwhile)"}  # key of a row -> its curve
RUN = "by the model", "W GPUs, 1/W of the hours"


def hours_view(rows: Sequence[Mapping[str, float]], *, title: str = "What more GPUs buy",
               subtitle: str | None = None) -> go.Figure:
    """Hours of a run over GPUs beside the ideal, and the parts of a step; both axes logarithmic.

    rows: as from `kdlab.train.scale.scale`, one a number of GPUs, ascending. Parts of a step below
    a thousandth of the largest are not shown.
    Raises ValueError without rows, or where the numbers of GPUs do not ascend.
    """
    gpus = np.array([row["gpus"] for row in rows], float)
    if not len(gpus) or (np.diff(gpus) <= 0).any():
        raise ValueError("hours_view wants a row for each number of GPUs, ascending")
    fig = make_subplots(1, 2, horizontal_spacing=0.13, column_widths=[0.5, 0.5],
                        subplot_titles=["the run", "one step"])
    fig.update_annotations(font_size=13)
    hours = np.array([row["hours"] for row in rows])
    look = looks([*RUN, *PARTS.values()])
    for name, y in zip(RUN, (hours, hours[0] * gpus[0] / gpus), strict=True):
        _curve(fig, 1, gpus, y, look[name])
    for key, name in PARTS.items():
        _curve(fig, 2, gpus, 1000 * np.array([row[key] for row in rows]), look[name])
    for column, words in ((1, "hours"), (2, "milliseconds")):
        room = 0.06 * np.log10(gpus[-1] / gpus[0]) or 0.2
        fig.update_xaxes(title_text="GPUs, log scale", type="log", tickvals=gpus,
                         ticktext=[f"{n:g}" for n in gpus], row=1, col=column,
                         range=np.log10(gpus[[0, -1]]) + [-room, room])
        fig.update_yaxes(title_text=f"{words}, log scale", type="log", row=1, col=column,
                         **_decades([y for t in fig.data if t.xaxis == ("x", "x2")[column - 1]
                                     for y in t.y]))
    return _laid_out(fig, title, subtitle)


def dealt_view(processes: Sequence[int], length: Mapping[str, Sequence[float]],
               direction: Mapping[str, Sequence[float]], *,
               title: str = "A gradient, dealt to processes",
               subtitle: str | None = None) -> go.Figure:
    """Gradients of a batch dealt to W processes, beside that of one process with the whole batch.

    processes: (K,) W, ascending.   length: way -> (K,) norms as multiples of the whole batch's.
    direction: the same ways -> (K,) cosines to it.   Raises ValueError where those do not fit.
    """
    W = np.array(processes, float)
    if set(length) != set(direction) or any(len(y) != len(W) for y in [*length.values(),
                                                                       *direction.values()]):
        raise ValueError("dealt_view wants a length and a direction of every way at every W")
    fig = make_subplots(1, 2, horizontal_spacing=0.13, subplot_titles=["length", "direction"])
    fig.update_annotations(font_size=13)
    look = looks(length)
    for column, ways in ((1, length), (2, direction)):
        for way in length:
            _curve(fig, column, W, np.array(ways[way]), look[way])
        fig.update_xaxes(title_text="processes, log scale", type="log", tickvals=W,
                         ticktext=[f"{n:g}" for n in W], row=1, col=column)
    fig.update_yaxes(title_text="multiple of the whole batch's, log scale", type="log", row=1,
                     col=1, **_decades([y for ys in length.values() for y in ys], decades=9))
    fig.update_yaxes(title_text="cosine to the whole batch's", range=[-1.08, 1.08], row=1, col=2)
    return _laid_out(fig, title, subtitle)


def hours_words(rows: Sequence[Mapping[str, float]]) -> str:
    """The alt text of `hours_view`."""
    told = [f"{row['gpus']:g} GPU{'s' * (row['gpus'] > 1)} {row['hours']:.3g} hours "
            f"({100 * row['efficiency']:.0f} % of the ideal, bound by {row['bound']})"
            for row in rows]
    return f"Hours of a run by a model, and the parts of its steps: {'; '.join(told)}."


def _curve(fig: go.Figure, column: int, x: np.ndarray, y: np.ndarray, look: Look) -> None:
    """A line, its markers and its entry in the legend, which it has once; 0 is left out."""
    kept = y != 0
    if not kept.any():
        return
    fig.add_scatter(x=x[kept], y=y[kept], mode="lines", name=look.label, legendgroup=look.label,
                    line={"color": look.color, "dash": look.dash, "width": 2}, showlegend=False,
                    hovertemplate="%{x:g} GPUs: %{y:.3g}<extra>" + look.label + "</extra>",
                    row=1, col=column)  # fmt: skip
    listed = {t.name for t in fig.data if t.showlegend is not False}
    entry = beads(x[kept], y[kept], look, look.label)
    fig.add_trace(entry.update(showlegend=look.label not in listed), row=1, col=column)


def _laid_out(fig: go.Figure, title: str, subtitle: str | None) -> go.Figure:
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), width=900, height=430,
        margin={"t": 96 if subtitle else 76, "b": 100},
        legend={"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"})


def _decades(values: Sequence[float], decades: float = 3) -> dict:
    """Range, at most so many powers of ten, and ticks at 1, 2 and 5 of each, or at 1 if crowded."""
    finite = np.array([v for v in values if np.isfinite(v) and v > 0])
    high = np.log10(finite.max()) + 0.12
    low = max(np.log10(finite.min()) - 0.12, high - decades)
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    ticks = [m * 10.0**p for p in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in steps]
    ticks = [t for t in ticks if low <= np.log10(t) <= high]
    return {"range": [low, high], "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
