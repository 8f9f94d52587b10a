"""Figures about the shape of an embedding: what a picture of it keeps, its hubs, its spread.

All numbers come from the caller (kdlab.geometry, scikit-learn); only what a drawing needs (counts
in cells, a median, shares) is made here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.dimension import BELOW
from kdlab.plots.maps import embedding_map
from kdlab.plots.style import BLUE, INK, PAPER, VERMILLION, figure, looks

CELLS = 40  # of a count of pairs, along each axis; ours
FEWEST = 20  # pairs a median is drawn from; ours
PAD = 0.06  # of the spread, left free beside the outermost points, as in `embedding_map`
Interval = tuple[float, float, float]  # estimate, low, high


def map_with_centres(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    centres: Mapping[str, np.ndarray],
    *,
    centre_name: str = "class centre",
    shared: bool = False,
    **options,
) -> go.Figure:
    """`embedding_map` with class centres, open triangles; the centre of class c is card N + c.

    maps: name -> (N, 2).   labels: (N,).   centres: name of a map -> (C, 2), drawn in the same
    picture; a map without any has none.   shared: one range of axes for all maps, which then are
    parts of one picture.   options: of `embedding_map`.   Raises ValueError for centres of no map
    or of another shape.
    """
    fig = embedding_map(maps, labels, **options)
    if unknown := sorted(centres.keys() - maps.keys()):
        raise ValueError(f"centres are given for '{unknown[0]}', which is no map")
    shown = True
    for column, name in enumerate(maps, 1):
        if name not in centres:
            continue
        own = np.asarray(centres[name], np.float32)
        if own.ndim != 2 or own.shape[1] != 2 or not np.isfinite(own).all():
            raise ValueError(f"centres of '{name}' must be finite and (C, 2), got {own.shape}")
        fig.add_scatter(
            x=own[:, 0], y=own[:, 1], mode="markers", name=f"{centre_name}s", showlegend=shown,
            legendgroup="centres", customdata=len(labels) + np.arange(len(own)), row=1, col=column,
            marker={"symbol": "triangle-down-open", "size": 11, "color": INK,
                    "line": {"width": 1.6, "color": INK}},
            hovertemplate=f"{centre_name}<extra></extra>",
        )  # fmt: skip
        shown = False
    every = {name: np.concatenate([np.asarray(part[name], np.float32) for part in (maps, centres)
                                   if name in part]) for name in maps}  # fmt: skip
    whole = np.concatenate(list(every.values()))
    for column, own in enumerate(every.values(), 1):
        low, high = (whole if shared else own).min(0), (whole if shared else own).max(0)
        room = PAD * (high - low)
        for update, k in ((fig.update_xaxes, 0), (fig.update_yaxes, 1)):
            update(range=[float(low[k] - room[k]), float(high[k] + room[k])], row=1, col=column)
    return fig


def grouped_map(maps: Mapping[str, np.ndarray], groups: np.ndarray, *, item: str = "point",
                group: str = "cluster", **options) -> go.Figure:
    """`embedding_map` of what is neither pictures nor people, in its own words.

    maps: name -> (N, 2).   groups: (N,) int.   item, group: what a point and a colour are.
    options: of `embedding_map`.
    """
    fig = embedding_map(maps, groups, **options)
    several = "people" if group == "person" else f"{group}s"

    def said(words: str) -> str:
        for old, new in (("picture", item), ("person", group), ("people", several)):
            words = words.replace(old, new)
        return words

    for trace in fig.data:
        trace.update(name=said(trace.name), legendgroup=said(trace.legendgroup),
                     hovertemplate=said(trace.hovertemplate))
    return fig.update_layout(title_subtitle_text=said(fig.layout.title.subtitle.text))


def distance_view(true: np.ndarray, drawn: np.ndarray, *, title: str = "Distances, true and drawn",
                  subtitle: str | None = None) -> go.Figure:
    """How far pairs are apart in a picture over how far they are in the embedding.

    true, drawn: (P,) distances of the same pairs; the drawn ones, which have no unit, are divided
    by the longest. The darker a cell the more pairs (a logarithmic scale); the line is the median.
    Raises ValueError for other shapes, or a picture of one point.
    """
    true, drawn = np.asarray(true, float), np.asarray(drawn, float)
    if true.ndim != 1 or true.shape != drawn.shape or not drawn.size or not drawn.max() > 0:
        raise ValueError(f"distances should be (P,) and (P,), not all 0; got {true.shape}, "
                         f"{drawn.shape}")
    drawn = drawn / drawn.max()
    edges = np.linspace(0, 1.02 * true.max(), CELLS + 1), np.linspace(0, 1.02, CELLS + 1)
    count = np.histogram2d(true, drawn, edges)[0]
    x, y = ((side[1:] + side[:-1]) / 2 for side in edges)
    shade = np.log10(count.T, out=np.full(count.T.shape, np.nan), where=count.T > 0)
    fig = figure(title, subtitle, width=520, height=460)
    fig.add_trace(go.Heatmap(x=x, y=y, z=shade.astype(np.float32), showscale=False, zmin=-1,
                             colorscale=[[0, PAPER], [1, BLUE]], hoverinfo="skip"))
    place = np.clip(np.digitize(true, edges[0]) - 1, 0, CELLS - 1)
    some = [k for k in range(CELLS) if (place == k).sum() >= FEWEST]
    fig.add_scatter(x=x[some], y=[np.median(drawn[place == k]) for k in some], mode="lines",
                    name="median", line={"color": VERMILLION, "width": 3},
                    hovertemplate="at %{x:.2f} the median is %{y:.2f}<extra></extra>")
    fig.update_xaxes(title_text="distance in the embedding (unit vectors)", range=[0, edges[0][-1]])
    fig.update_yaxes(title_text="distance in the picture (of its longest)", range=[0, 1.02])
    return fig.update_layout(legend=BELOW)


def measures_view(views: Mapping[str, Mapping[str, Interval | float]], *,
                  title: str = "What the picture keeps", subtitle: str | None = None) -> go.Figure:
    """Measures of several pictures, a line each, on one scale from below 0 to 1.

    views: picture -> {measure: value, or (value, low, high)}; the measures of the first, in its
    order; one that another picture lacks is left out there.
    Raises ValueError without a picture, or for a value outside its interval.
    """
    if not views:
        raise ValueError("there are no pictures to measure")
    measures = list(next(iter(views.values())))
    fig = figure(title, subtitle, height=150 + 46 * len(measures))
    lowest = 0.0
    for k, (view, look) in enumerate(looks(views).items()):
        found = {m: np.ravel(views[view][m]) for m in measures if m in views[view]}
        parts = np.array([v if len(v) == 3 else np.repeat(v, 3) for v in found.values()])
        value, low, high = parts.T
        if (low > value).any() or (high < value).any():
            raise ValueError(f"a value of '{view}' is outside its interval")
        lowest = min(lowest, low.min())
        apart = 0.16 * (k - (len(views) - 1) / 2)
        fig.add_scatter(
            x=value, y=[measures.index(m) + apart for m in found], mode="markers", name=look.label,
            marker={"color": look.color, "symbol": look.marker, "size": 10},
            error_x={"type": "data", "array": high - value, "arrayminus": value - low,
                     "thickness": 1.6, "width": 4, "color": look.color},
            customdata=list(found), hovertemplate=f"%{{customdata}}: %{{x:.2f}}<extra>{view}"
            "</extra>",
        )  # fmt: skip
    fig.add_vline(x=0, line={"color": INK, "width": 1.2}, layer="below")
    fig.update_xaxes(title_text="value (1: as good as can be)", range=[lowest - 0.06, 1.06])
    fig.update_yaxes(tickvals=list(range(len(measures))), ticktext=measures,
                     range=[len(measures) - 0.5, -0.5])  # fmt: skip
    return fig.update_layout(legend=BELOW | {"y": -60 / (fig.layout.height - 106)})


def occurrence_view(counts: Mapping[str, Sequence[np.ndarray]], k: int, *,
                    title: str = "Hubs: in how many lists does a picture stand?",
                    subtitle: str | None = None) -> go.Figure:
    """The share of pictures that stand in at least so many lists of k nearest.

    counts: network -> its runs, (N,) numbers of lists each; a curve is the mean over the runs.
    A log scale: hubs are few. Raises ValueError for a network without runs.
    """
    fig = figure(title, subtitle)
    most = max((int(np.max(run)) for runs in counts.values() for run in runs), default=0)
    smallest = 1.0
    for name, look in looks(counts).items():
        if not len(counts[name]):
            raise ValueError(f"network '{name}' has no runs; nothing to draw")
        places = np.arange(most + 1)
        share = np.mean([(np.asarray(run)[:, None] >= places).mean(0) for run in counts[name]], 0)
        places, share = places[share > 0], share[share > 0]
        smallest = min(smallest, share[-1])
        marks = np.unique(np.linspace(0, len(places) - 1, 8).round().astype(int))
        fig.add_scatter(x=places, y=share, mode="lines", legendgroup=name, showlegend=False,
                        name=look.label, line={"color": look.color, "dash": look.dash, "width": 2},
                        hovertemplate=f"%{{y:.2%}} in %{{x}} or more<extra>{look.label}</extra>")
        gapped = np.full((2, 2 * len(marks)), np.nan)
        gapped[:, ::2] = places[marks], share[marks]
        fig.add_scatter(x=gapped[0], y=gapped[1], mode="lines+markers", legendgroup=name,
                        name=look.label, hoverinfo="skip",
                        line={"color": look.color, "dash": look.dash, "width": 2},
                        marker={"color": look.color, "symbol": look.marker, "size": 8})  # fmt: skip
    fig.add_vline(x=k, line={"color": INK, "width": 1.2, "dash": "dot"}, layer="below")
    fig.update_xaxes(title_text=f"lists of {k} nearest that a picture stands in (dotted: the mean)")
    fig.update_yaxes(title_text="pictures in at least so many (%)", type="log", tickformat=".1%",
                     dtick=1, range=[np.log10(smallest) - 0.1, 0.05])
    return fig.update_layout(legend=BELOW)


def networks_view(networks: Mapping[str, tuple[Sequence[float], Sequence[float]]], across: str,
                  up: str, *, percent: bool = False, title: str = "Networks by two measures",
                  subtitle: str | None = "small: a seed; large: the mean") -> go.Figure:
    """Networks by two measures: every seed small and open, the mean large and filled.

    networks: name -> (x, y), (S,) each.   across, up: axis titles with their units; percent: y is a
    fraction, written in percent.   Raises ValueError for lists that are empty or do not fit.
    """
    fig = figure(title, subtitle, width=640, height=480)
    for name, look in looks(networks).items():
        x, y = (np.asarray(part, float) for part in networks[name])
        if x.ndim != 1 or x.shape != y.shape or not x.size or not np.isfinite([x, y]).all():
            raise ValueError(f"network '{name}': both measures should be (S,) and finite")
        shape = look.marker.removesuffix("-open")
        form = "%{y:.1%}" if percent else "%{y:.3f}"
        for xs, ys, symbol, size in ((x, y, f"{shape}-open", 7),
                                     ([x.mean()], [y.mean()], shape, 12)):
            fig.add_scatter(
                x=xs, y=ys, mode="markers", name=look.label, legendgroup=name,
                showlegend=size == 12, hovertemplate=f"%{{x:.3f}}, {form}<extra>{look.label}"
                "</extra>", marker={"color": look.color, "symbol": symbol, "size": size,
                                    "line": {"width": 1.4, "color": look.color}},
            )  # fmt: skip
    fig.update_xaxes(title_text=across)
    fig.update_yaxes(title_text=up, **({"tickformat": ".0%"} if percent else {}))
    return fig.update_layout(legend=BELOW)
