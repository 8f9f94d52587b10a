"""Figures about verification: score histograms, ROC curves, paired differences."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.style import (
    GENUINE,
    IMPOSTOR,
    INK,
    PLAIN,
    band,
    beads,
    faded,
    figure,
    looks,
    method,
)

BEADS = 4  # markers on a curve: about one for each decade of the FPR; ours
BINS = 60  # enough to see a mode, few enough that a bin of 1,000 pairs is not noise; ours
POINTS = 600  # a curve's points in the notebook: about one for each pixel of its width
Z95 = 1.959964  # normal quantile of a two-sided 95 % interval


def score_range(genuine: np.ndarray, impostor: np.ndarray) -> tuple[float, float, float]:
    """(lowest score, the middle between the two medians, highest score)."""
    both = np.concatenate([np.asarray(genuine).ravel(), np.asarray(impostor).ravel()])
    middle = (np.median(genuine) + np.median(impostor)) / 2
    return float(both.min()), float(middle), float(both.max())


def finest_fpr(impostor: np.ndarray) -> float:
    """One impostor pair as a rate: the smallest FPR above zero that this set can show."""
    return 1 / np.size(impostor)


def _wilson(count: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of shares count / n (Wilson 1927), good for empty bins too."""
    share, z2 = count / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def score_histograms(
    genuine: np.ndarray,
    impostor: np.ndarray,
    thresholds: float | Mapping[str, float] | None = None,
    *,
    title: str = "Similarity of genuine and impostor pairs",
    subtitle: str | None = None,
    log_counts: bool = False,
) -> go.Figure:
    """Two histograms of cosine similarity, each in percent of its own pairs, with 95 % bands.

    genuine, impostor: (P,) scores.   thresholds: one number, or label -> number; vertical lines.
    log_counts: logarithmic ordinate, to see the tail where small false-positive rates live.
    Raises ValueError for an empty or non-finite list of scores.
    """
    lists = {"genuine (same person)": genuine, "impostor (two people)": impostor}
    for name, scores in lists.items():
        if np.size(scores) == 0 or not np.all(np.isfinite(scores)):
            raise ValueError(f"{name} scores are empty or not finite; nothing to draw")
    low, _, high = score_range(genuine, impostor)
    edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
    fig = figure(title, subtitle)
    floor = 100 / max(np.size(scores) for scores in lists.values()) / 2  # half of one pair, in %
    for (name, scores), ink in zip(lists.items(), (GENUINE, IMPOSTOR), strict=True):
        count, _ = np.histogram(scores, edges)
        share = 100 * count / np.size(scores)
        below, above = (100 * bound for bound in _wilson(count, np.size(scores)))
        if log_counts:  # an empty bin has no logarithm: its line stops, its band goes on
            below, above = np.maximum(below, floor), np.maximum(above, floor)
            share = np.where(count, share, np.nan)
        outline = np.repeat(edges, 2)[1:-1]  # the steps' corners
        twice = [np.repeat(v, 2) for v in (share, below, above)]
        fig.add_trace(band(outline, twice[1], twice[2], ink, name))
        fig.add_scatter(
            x=outline, y=twice[0], mode="lines", name=f"{name}, {np.size(scores):,} pairs",
            line={"color": ink, "width": 2, "dash": "solid" if ink == GENUINE else "dash"},
            fill=None if log_counts else "tozeroy", fillcolor=faded(ink, 0.15), legendgroup=name,
            hovertemplate="similarity %{x:.2f}: %{y:.2g} % of pairs<extra></extra>",
        )  # fmt: skip
    if thresholds is not None:
        _threshold_lines(fig, thresholds)
    fig.update_xaxes(title_text="cosine similarity")
    fig.update_yaxes(title_text="share of pairs in the bin (%)", rangemode="tozero")
    if log_counts:
        fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"})
    return fig


def _threshold_lines(fig: go.Figure, thresholds: float | Mapping[str, float]) -> None:
    if not isinstance(thresholds, Mapping):
        thresholds = {f"threshold {float(thresholds):.3f}": thresholds}
    for row, (label, value) in enumerate(thresholds.items()):
        fig.add_shape(type="line", x0=value, x1=value, y0=0, y1=1, yref="y domain",
                      line={"color": INK, "width": 1.5, "dash": "dot"})  # fmt: skip
        fig.add_annotation(x=value, y=1 - 0.07 * row, yref="y domain", text=label, showarrow=False,
                           xanchor="left", yanchor="top", xshift=4, font={"size": 11},
                           bgcolor="rgba(255,255,255,0.85)")  # fmt: skip


def threshold_view(
    genuine: np.ndarray, impostor: np.ndarray, threshold: float, tpr: float, fpr: float
) -> go.Figure:
    """The score histograms with one threshold and the rates it gives, written above them.

    tpr, fpr: fractions in 0..1, computed by the caller at `threshold`.
    """
    words = (
        f"threshold {threshold:.3f}: accepts {100 * tpr:.1f} % of genuine pairs (TPR) "
        f"and {100 * fpr:.3g} % of impostor pairs (FPR)"
    )
    return score_histograms(genuine, impostor, float(threshold), subtitle=words)


def _thin(fpr: np.ndarray, floor: float) -> np.ndarray:
    """Indices of at most about POINTS points, even in log FPR, the last point kept."""
    if len(fpr) <= POINTS:
        return np.arange(len(fpr))
    grid = np.geomspace(floor, 1, POINTS)
    return np.unique(np.append(np.searchsorted(fpr, grid, side="right") - 1, len(fpr) - 1).clip(0))


def roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    supported: float | None = None,
    marks: Sequence[tuple[str, float, float, float, float]] = (),
    *,
    title: str = "True against false positives",
    subtitle: str | None = None,
) -> go.Figure:
    """ROC curves over a logarithmic false-positive rate.

    curves: name -> (fpr, tpr), both (A,) fractions, fpr ascending.   bands: name -> (low, high) of
    the tpr on the same points.   supported: the smallest FPR the test set can measure (for example
    10 / impostor pairs); below it the figure is greyed.   marks: (curve name, fpr, tpr, low, high),
    operating points with their intervals.   Raises ValueError when a curve has no positive FPR.
    """
    look = looks(curves)
    bands = bands or {}
    positive = {name: np.asarray(fpr, float) for name, (fpr, _) in curves.items()}
    for name, fpr in positive.items():
        if not (fpr > 0).any():
            raise ValueError(f"curve '{name}' has no false-positive rate above 0; nothing to draw")
    lowest = min(float(fpr[fpr > 0].min()) for fpr in positive.values())
    lowest = min([lowest] + [mark[1] for mark in marks if mark[1] > 0])
    left = np.floor(np.log10(supported) - 0.5) if supported else np.log10(lowest)
    left = max(left, np.log10(lowest) - 0.3) if supported and supported < lowest else left
    fig = figure(title, subtitle)
    for place, (name, (fpr, tpr)) in enumerate(curves.items()):
        fpr = np.maximum(positive[name], 10**left)  # a rate of 0 has no place on a log axis
        keep = _thin(fpr, 10**left)
        if name in bands:
            low, high = (np.asarray(bound, float)[keep] for bound in bands[name])
            corners = np.repeat(fpr[keep], 2)[1:], np.repeat(low, 2)[:-1], np.repeat(high, 2)[:-1]
            fig.add_trace(band(*corners, look[name].color, name))
        fig.add_scatter(
            x=fpr[keep].astype(np.float32), y=np.asarray(tpr, np.float32)[keep], mode="lines",
            name=look[name].label, legendgroup=name, showlegend=False,
            line={"color": look[name].color, "dash": look[name].dash, "shape": "hv", "width": 2},
            hovertemplate="FPR %{x:.2g}, TPR %{y:.1%}<extra>" + look[name].label + "</extra>",
        )  # fmt: skip
        spots = 10 ** (left * (np.arange(BEADS) + (place + 0.5) / len(curves)) / BEADS)
        spots = np.maximum(spots, fpr[0])  # a curve's own: markers of curves that meet stay apart
        steps = np.searchsorted(fpr, spots, side="right") - 1
        fig.add_trace(beads(spots, np.asarray(tpr, float)[steps], look[name], name))
    for name, fpr, tpr, low, high in marks:
        own = looks([*curves, name])[name]
        fig.add_scatter(
            x=[fpr], y=[tpr], mode="markers", showlegend=False, legendgroup=name, name=own.label,
            marker={"color": own.color, "symbol": own.marker, "size": 9},
            error_y={"type": "data", "array": [high - tpr], "arrayminus": [tpr - low],
                     "thickness": 1.5, "width": 4},
        )  # fmt: skip
    if supported:
        fig.add_shape(
            type="rect", x0=10**left, x1=supported, y0=0, y1=1, yref="y domain",
            fillcolor="rgba(120,120,120,0.18)", line={"width": 0}, layer="below",
        )  # fmt: skip
        fig.add_annotation(x=np.log10(supported), y=0.02, yref="y domain", showarrow=False,
                           text=f"too few impostor pairs<br>below {supported:.1g}", xanchor="left",
                           yanchor="bottom", align="left", xshift=4, font={"size": 11},
                           bgcolor="rgba(255,255,255,0.85)")  # fmt: skip
    fig.update_xaxes(title_text="false-positive rate (fraction of impostor pairs, log scale)",
                     type="log", range=[left, 0], dtick=1, exponentformat="power")  # fmt: skip
    fig.update_yaxes(title_text="true-positive rate (% of genuine pairs)", tickformat=".0%",
                     rangemode="tozero")  # fmt: skip
    return fig


def interval_plot(
    rows: Sequence[tuple[str, float, float, float]],
    unit: str,
    zero_line: bool = True,
    *,
    title: str = "Estimates with their intervals",
    quantity: str = "difference",
) -> go.Figure:
    """One line a row: an estimate with its interval, the first row on top.

    rows: (label, estimate, low, high), in `unit` (for example "percentage points"); a label's words
    before the first ", " choose its look: a method's own, one plain look for all others.   With
    `zero_line` a filled marker means that the interval excludes zero, an open one that it does not.
    Raises ValueError when rows is empty or an interval does not hold its estimate.
    """
    if not rows:
        raise ValueError("interval_plot got no rows; nothing to draw")
    for label, estimate, low, high in rows:
        if not low <= estimate <= high:
            raise ValueError(f"row '{label}': estimate {estimate:g} is outside [{low:g}, {high:g}]")
    parts = {row[0]: row[0].partition(", ") for row in rows}  # "ekd, FPR 1e-3": EKD's colour
    look = {first: method(first) or PLAIN._replace(label=first) for first, _, _ in parts.values()}
    named = {row: look[first].label + comma + rest for row, (first, comma, rest) in parts.items()}
    note = "filled: the interval excludes zero; open: it does not" if zero_line else None
    fig = figure(title, note, height=120 + 34 * len(rows), showlegend=False)
    for label, estimate, low, high in rows:
        own, shown = look[parts[label][0]], named[label]
        clear = not zero_line or low > 0 or high < 0
        fig.add_scatter(
            x=[estimate], y=[shown], mode="markers", name=shown,
            marker={"color": own.color, "size": 10,
                    "symbol": own.marker.removesuffix("-open") + ("" if clear else "-open")},
            error_x={"type": "data", "array": [high - estimate], "arrayminus": [estimate - low],
                     "thickness": 1.8, "width": 5, "color": own.color},
            hovertemplate=f"{estimate:.3g} [{low:.3g}, {high:.3g}] {unit}<extra></extra>",
        )  # fmt: skip
    if zero_line:
        fig.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, yref="y domain", layer="below",
                      line={"color": INK, "width": 1.2})  # fmt: skip
    fig.update_xaxes(title_text=f"{quantity} ({unit})")
    names = list(dict.fromkeys(named.values()))
    fig.update_yaxes(type="category", categoryorder="array", categoryarray=names,
                     range=[len(names) - 0.5, -0.5])  # fmt: skip
    return fig
