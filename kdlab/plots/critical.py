"""Figures about critical pairs: the soft step that finds them, and their share while training.

Huang, Wu, Xu, Ding, "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR
2022, figures 3 and 4. Indicators, slopes and shares come from the caller.
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import DASHES, GREY, TEMPLATE, band, beads, figure, looks
from kdlab.plots.thresholds import POINTS, heading, inks


def indicator_view(
    x: np.ndarray,
    soft: Mapping[float, np.ndarray],
    slope: Mapping[float, np.ndarray],
    *,
    title: str = "The soft step at a threshold, and where it teaches",
    subtitle: str | None = "a pair where the slope is next to 0 teaches the student nothing",
) -> go.Figure:
    """EKD's G (eq. 10) and its derivative (eq. 13), one curve for each temperature.

    x: (X,) similarity less threshold, in cosines.   soft, slope: temperature -> (X,), the same
    temperatures. A slope of 0 has no place on the logarithmic axis: its curve ends.
    Raises ValueError where soft and slope have other temperatures or lengths.
    """
    x = np.asarray(x, float)
    if list(soft) != list(slope) or not soft:
        raise ValueError(f"soft has the temperatures {list(soft)}, slope {list(slope)}; "
                         "give both the same, at least one")
    for tau in soft:
        if np.shape(soft[tau]) != x.shape or np.shape(slope[tau]) != x.shape:
            raise ValueError(f"temperature {tau:g}: soft and slope must be {x.shape}, as x is")
    fig = make_subplots(1, 2, horizontal_spacing=0.14,
                        subplot_titles=["soft step G (eq. 10)", "its slope (eq. 13)"])  # fmt: skip
    fig.update_annotations(font_size=13)
    fig.add_scatter(x=[x.min(), 0, x.max()], y=[0, 1, 1], mode="lines", row=1, col=1,
                    name="hard step: slope 0", hoverinfo="skip",
                    line={"color": GREY, "width": 1.6, "shape": "hv", "dash": "dot"})  # fmt: skip
    styles = zip(soft, inks(len(soft)), (d for d in DASHES * len(soft) if d != "dot"),
                 strict=False)  # fmt: skip
    peaks = [float(np.nanmax(values)) for values in slope.values()]
    for (tau, ink, dash), peak in zip(styles, peaks, strict=True):
        steep = np.asarray(slope[tau], float)
        shown = {"mode": "lines", "name": f"τ = {tau:g}", "legendgroup": f"{tau:g}",
                 "line": {"color": ink, "width": 2, "dash": dash}}  # fmt: skip
        fig.add_scatter(x=x, y=soft[tau], row=1, col=1, **shown)
        fig.add_scatter(x=x, y=np.where(steep > 0, steep, np.nan), row=1, col=2, **shown,
                        showlegend=False)  # fmt: skip
        beside = x[np.flatnonzero(steep > peak / 2)[-1]]
        fig.add_annotation(x=beside, y=np.log10(peak), text=f"τ = {tau:g}", showarrow=False,
                           xanchor="left", xshift=3, font={"size": 11}, row=1, col=2)
    fig.update_xaxes(title_text="similarity less threshold (cosine)", nticks=6)
    fig.update_yaxes(title_text="G (1: passes the threshold)", row=1, col=1)
    fig.update_yaxes(title_text="dG/dx (per unit of cosine, log scale)", type="log", row=1, col=2,
                     range=[np.log10(min(peaks)) - 2, np.log10(max(peaks)) + 0.4], dtick=1,
                     exponentformat="power")  # fmt: skip
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), width=760, height=420,
        margin={"t": 84}, legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )  # fmt: skip


def critical_timeline(
    steps: np.ndarray,
    shares: Mapping[str, np.ndarray],
    *,
    kind: str = "positive",
    early: float | None = None,
    title: str | None = None,
    subtitle: str | None = None,
) -> go.Figure:
    """The share of critical pairs while training, one curve for each run.

    steps: (T,).   shares: name -> (T,) fractions of the pairs looked at, or (seeds, T): their mean
    in a band from the lowest to the highest seed. Smoothing is the caller's.   kind: of pair, for
    the title.   early: a step; what lies before it is shaded, as the paper's Figure 4 leaves it
    out.   Raises ValueError for shares that do not fit steps.
    """
    steps = np.asarray(steps, float)
    look = looks(shares)
    fig = figure(title or f"Critical among the {kind} pairs", subtitle)
    for place, (name, values) in enumerate(shares.items()):
        runs = np.atleast_2d(np.asarray(values, float))
        if runs.shape[1] != len(steps):
            raise ValueError(f"'{name}' has {runs.shape[1]} values for {len(steps)} steps")
        keep = np.flatnonzero(np.isfinite(runs).all(0))
        if not len(keep):
            raise ValueError(f"'{name}' has no step with a value in every run; nothing to draw")
        keep = keep[np.unique(np.linspace(0, len(keep) - 1, POINTS).round().astype(int))]
        runs, at = runs[:, keep], steps[keep]
        if len(runs) > 1:
            fig.add_trace(band(at, runs.min(0), runs.max(0), look[name].color, name))
        mean = runs.mean(0)
        fig.add_scatter(
            x=at.astype(np.float32), y=mean.astype(np.float32), mode="lines", showlegend=False,
            name=look[name].label, legendgroup=name,
            line={"color": look[name].color, "dash": look[name].dash, "width": 2},
            hovertemplate="step %{x}: %{y:.1%}<extra>" + look[name].label + "</extra>",
        )  # fmt: skip
        spots = ((np.arange(4) + (place + 0.5) / len(shares)) / 4 * len(at)).astype(int)
        fig.add_trace(beads(at[np.unique(spots)], mean[np.unique(spots)], look[name], name))
    if early is not None:
        fig.add_shape(type="rect", x0=float(steps[0]), x1=early, y0=0, y1=1, yref="y domain",
                      fillcolor=GREY, opacity=0.14, line={"width": 0}, layer="below")  # fmt: skip
        # Under the curves, which begin high: at the top it would hide them.
        fig.add_annotation(x=early, y=0.02, yref="y domain", text="shaded: the start, which the "
                           "paper leaves out", showarrow=False, xanchor="left", yanchor="bottom",
                           xshift=4, font={"size": 11}, bgcolor="rgba(255,255,255,0.85)")
    fig.update_xaxes(title_text="training step")
    fig.update_yaxes(title_text=f"critical share (% of {kind} pairs)", tickformat=".0%",
                     rangemode="tozero")  # fmt: skip
    return fig
