"""Figures about the intrinsic dimension: TwoNN's fit, and what its estimates depend on.

Facco, d'Errico, Rodriguez, Laio, "Estimating the intrinsic dimension of datasets by a minimal
neighborhood information", Scientific Reports 7, 2017, figures 1 and 2; dimension by layer after
Ansuini, Laio, Macke, Zoccolan, NeurIPS 2019, figure 2. Estimates and points come from the caller;
only what a drawing needs (a choice of points, places side by side) is made here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import BLUE, GREEN, INK, ORANGE, TEMPLATE, VERMILLION, Look, figure, looks
from kdlab.plots.thresholds import heading

Series = tuple[Sequence[float], Sequence[float] | None, Sequence[float] | None]
LIMIT = 2000  # points of a fit drawn one by one: more only thicken the line; ours
TAIL = 200  # of these at most for the discarded ones, the largest among them; ours
STEP = 0.012  # of the axis: two series' points at one x stand so far apart; ours
TICKS = 9  # so many places or fewer are all named on the axis; ours
BELOW = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}  # a legend under the axis


def pareto_fit(
    x: np.ndarray,
    y: np.ndarray,
    kept: np.ndarray,
    dimension: float,
    stderr: float | None = None,
    *,
    truth: float | None = None,
    limit: int = LIMIT,
    title: str = "The slope is the dimension",
    subtitle: str | None = None,
) -> go.Figure:
    """TwoNN's fit: a point for each ratio, and the line through the origin whose slope is d.

    x, y: (n,) ln mu and -ln(1 - F); a y that is infinite (F = 1) is not drawn.   kept: (n,) bool,
    the points of the fit, the others are the discarded tail.   dimension, stderr: of the estimate,
    written in the legend.   truth: the known dimension, a dashed line.   limit: points at most,
    even by rank; without `subtitle` the figure says how many of how many it shows.
    Raises ValueError for arrays that do not fit together, a kept point that is not finite, or
    nothing kept.
    """
    x, y, kept = np.asarray(x, float), np.asarray(y, float), np.asarray(kept, bool)
    if x.ndim != 1 or not x.shape == y.shape == kept.shape:
        raise ValueError(f"x, y and kept should be (n,) and are {x.shape}, {y.shape}, {kept.shape}")
    finite = np.isfinite(x) & np.isfinite(y)
    if not kept.any() or not finite[kept].all():
        raise ValueError("no point is kept for the fit, or one of them is not finite")
    rest = _evenly(x, finite & ~kept, min(TAIL, limit // 2))
    used = _evenly(x, kept, limit - len(rest))
    shown = len(used) + len(rest)
    said = "" if shown == len(x) else f"; {shown:,} of them drawn, evenly by rank"
    fig = figure(title, subtitle or f"{len(x):,} points{said}", width=700, height=480)
    for rows, name, ink, symbol in ((used, "kept", BLUE, "circle"),
                                    (rest, "discarded", ORANGE, "x")):
        count = int((kept if name == "kept" else ~kept).sum())
        if len(rows):
            fig.add_scatter(
                x=x[rows].astype(np.float32), y=y[rows].astype(np.float32), mode="markers",
                name=f"{name}, {count:,}", marker={"color": ink, "symbol": symbol, "size": 6},
                hovertemplate="ln μ %{x:.3f}, −ln(1 − F) %{y:.2f}<extra>" + name + "</extra>",
            )  # fmt: skip
    drawn = np.concatenate([used, rest])
    right, top = float(x[drawn].max()) or 1.0, float(y[drawn].max()) or 1.0
    spread = "" if stderr is None else f" ± {stderr:.2g}"
    lines = [(f"slope d = {dimension:.2f}{spread}", dimension, VERMILLION, "solid")]
    if truth is not None:
        lines.append((f"true d = {truth:g}", truth, INK, "dash"))
    for name, slope, ink, dash in lines:
        end = min(right, 1.05 * top / slope) if slope > 0 else right
        fig.add_scatter(x=[0, end], y=[0, slope * end], mode="lines", name=name, hoverinfo="skip",
                        line={"color": ink, "dash": dash, "width": 2})  # fmt: skip
    fig.update_xaxes(title_text="ln(r<sub>2</sub> / r<sub>1</sub>) (no unit)",
                     range=[-0.02 * right, 1.04 * right])  # fmt: skip
    fig.update_yaxes(title_text="−ln(1 − F), F = rank / n (no unit)",
                     range=[-0.02 * top, 1.06 * top])  # fmt: skip
    return fig.update_layout(legend=BELOW)


def dimension_against(
    x: Sequence[float],
    series: Mapping[str, Series],
    *,
    quantity: str = "points n",
    log: bool = True,
    truth: float | None = None,
    title: str = "Estimated dimension",
    subtitle: str | None = None,
) -> go.Figure:
    """Estimates with their intervals over the number of points, the noise, the duplicates, ...

    x: (K,), positive on a log axis.   series: name (estimator, space) -> (estimate, low, high),
    (K,) each; low and high None without intervals, NaN where there is no value.   quantity: what x
    is, with its unit.   truth: the known dimension, a dashed line.   Several series stand a little
    apart at the same x; hovering tells the x itself.
    Raises ValueError for series that do not fit x, hold no estimate, or for x <= 0 on a log axis.
    """
    x = np.asarray(x, float)
    if log and not (x > 0).all():
        raise ValueError(f"a log axis has no place for {quantity} = {x.min():g}; set log=False")
    fig = figure(title, subtitle)
    if truth is not None:
        _truth(fig, [x.min(), x.max()], [truth, truth], f"true dimension {truth:g}")
    _curves(fig, x, series, log=log)
    fig.update_xaxes(title_text=f"{quantity}{', log scale' if log else ''}",
                     type="log" if log else "linear", **_named(x, log))  # fmt: skip
    fig.update_yaxes(title_text="estimated dimension (no unit)")
    return fig.update_layout(legend=BELOW)


def dimension_recovered(
    truth: Sequence[float],
    series: Mapping[str, Series],
    *,
    title: str = "Known dimension, estimated dimension",
    subtitle: str | None = "on the dashed line: recovered exactly",
) -> go.Figure:
    """Estimates over the true dimension, with the diagonal.

    truth: (K,).   series: name -> (estimate, low, high), (K,) each, as in `dimension_against`.
    Raises ValueError for series that do not fit, or hold no estimate.
    """
    truth = np.asarray(truth, float)
    fig = figure(title, subtitle, width=620, height=560)
    _truth(fig, [0, truth.max()], [0, truth.max()], "estimate = truth")
    _curves(fig, truth, series, log=False)
    fig.update_xaxes(title_text="true dimension (no unit)", rangemode="tozero",
                     **_named(truth, False))  # fmt: skip
    fig.update_yaxes(title_text="estimated dimension (no unit)", rangemode="tozero")
    return fig.update_layout(legend=BELOW | {"y": -0.14})


def dimension_by_layer(
    layers: Sequence[str],
    networks: Mapping[str, Series],
    *,
    title: str = "Dimension from the picture to the embedding",
    subtitle: str | None = None,
) -> go.Figure:
    """Estimates layer by layer: input, stages, embedding; one curve a network.

    layers: L names, in order.   networks: name -> (estimate, low, high), (L,) each; low and high
    None without intervals, NaN for a layer that the network has not.
    Raises ValueError for networks that do not fit the layers, or hold no estimate.
    """
    places = np.arange(len(layers), dtype=float)
    fig = figure(title, subtitle)
    _curves(fig, places, networks, log=False, words=list(layers))
    fig.update_xaxes(title_text="layer, from input to output", tickvals=places,
                     ticktext=list(layers))  # fmt: skip
    fig.update_yaxes(title_text="estimated dimension (no unit)", rangemode="tozero")
    return fig.update_layout(legend=BELOW)


def neighbours_by_identity(
    per_identity: Sequence[int],
    estimate: Sequence[float],
    low: Sequence[float] | None,
    high: Sequence[float] | None,
    share_first: Sequence[float],
    share_second: Sequence[float],
    *,
    title: str = "Whose neighbours are measured?",
    subtitle: str | None = None,
) -> go.Figure:
    """The estimate over images per identity, and beside it how often a neighbour is the same one.

    per_identity: (K,) whole numbers from 1.   estimate, low, high: (K,), of the dimension.
    share_first, share_second: (K,) fractions of points whose first and second neighbour shows the
    same person.   Raises ValueError for arrays that do not fit or no estimate.
    """
    x = np.asarray(per_identity, float)
    fig = make_subplots(1, 2, horizontal_spacing=0.14)
    look = Look(BLUE, "circle", "solid", "estimate")
    _curves(fig, x, {"estimate": (estimate, low, high)}, log=True, look={"estimate": look},
            spot={"row": 1, "col": 1}, showlegend=False)  # fmt: skip
    shares = {"first neighbour": (share_first, None, None),
              "second neighbour": (share_second, None, None)}  # fmt: skip
    ink = {"first neighbour": Look(VERMILLION, "diamond", "solid", "first neighbour"),
           "second neighbour": Look(GREEN, "triangle-up", "dash", "second neighbour")}  # fmt: skip
    _curves(fig, x, shares, log=True, look=ink, spot={"row": 1, "col": 2}, form=".0%")
    fig.update_xaxes(title_text="images per identity, log scale", type="log", **_named(x, True))
    fig.update_yaxes(title_text="estimated dimension (no unit)", row=1, col=1)
    fig.update_yaxes(title_text="neighbour is the same person (% of points)", tickformat=".0%",
                     range=[-0.04, 1.04], row=1, col=2)  # fmt: skip
    return fig.update_layout(template=TEMPLATE, title=heading(title, subtitle),
                             legend=BELOW | {"x": 0.57})  # fmt: skip


def _evenly(x: np.ndarray, chosen: np.ndarray, most: int) -> np.ndarray:
    """Rows of `chosen` in ascending x; at most `most` of them, even by rank with both ends."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(x[rows], kind="stable")]
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _truth(fig: go.Figure, x: list, y: list, name: str) -> None:
    fig.add_scatter(x=x, y=y, mode="lines", name=name, hoverinfo="skip",
                    line={"color": INK, "dash": "dash", "width": 1.5})  # fmt: skip


def _named(x: np.ndarray, log: bool) -> dict:
    """Axis keys that name every place, where there are few and they do not crowd."""
    places = np.unique(x)
    spots = np.log10(places) if log else places
    near = np.diff(spots).min() / np.ptp(spots) if len(places) > 1 else 1
    if len(places) > TICKS or near < 0.6 / TICKS:
        return {}
    return {"tickvals": places, "ticktext": [f"{v:,g}" for v in places]}


def _curves(fig: go.Figure, x: np.ndarray, series: Mapping[str, Series], *, log: bool,
            words: list[str] | None = None, look: Mapping[str, Look] | None = None,
            spot: dict | None = None, form: str = ".2f", showlegend: bool = True) -> None:
    """A line with markers and error bars for each series; they stand side by side at one x."""
    look = look or looks(series)
    spots = np.log10(x) if log else x
    step = STEP * np.ptp(spots) if len(x) > 1 else 0.0
    said = [f"{v:,g}" for v in x] if words is None else words
    if not series:
        raise ValueError("there are no series; nothing to draw")
    for k, (name, parts) in enumerate(series.items()):
        value, below, above = (None if part is None else np.asarray(part, float) for part in parts)
        for part in (value, below, above):
            if part is not None and part.shape != x.shape:
                raise ValueError(f"series '{name}' has {part.shape} numbers for {len(x)} places")
        if not np.isfinite(value).any():
            raise ValueError(f"series '{name}' holds no estimate; nothing to draw")
        error = {}
        if below is not None and above is not None:
            if (below > value).any() or (above < value).any():
                raise ValueError(f"series '{name}': an estimate is outside its interval")
            error = {"error_y": {"type": "data", "array": above - value,
                                 "arrayminus": value - below, "thickness": 1.5, "width": 4}}
        apart = (k - (len(series) - 1) / 2) * step
        own = look[name]
        fig.add_scatter(
            x=10 ** (spots + apart) if log else spots + apart, y=value, mode="lines+markers",
            name=own.label, showlegend=showlegend, customdata=said, **error, **(spot or {}),
            line={"color": own.color, "dash": own.dash, "width": 2},
            marker={"color": own.color, "symbol": own.marker, "size": 8},
            hovertemplate=f"%{{customdata}}: %{{y:{form}}}<extra>{own.label}</extra>",
        )  # fmt: skip
