"""Maps in two dimensions: embeddings of pictures, and class centres that move.

Coordinates come from the caller (UMAP, t-SNE or a projection): such a map shows who is near whom,
and no number may be read from it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import FALLBACK, GREY, INK, TEMPLATE, looks

PEOPLE = len(FALLBACK)  # as many colours as a colour-blind reader keeps apart
LIMIT = 1500  # pictures in one map: a front end redraws that many marks without a delay; ours
REST = "other people"


def embedding_map(
    maps: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    people: Sequence[int] | None = None,
    limit: int = LIMIT,
    axis: str = "map axis",
    title: str = "The same pictures as each network places them",
) -> go.Figure:
    """Maps side by side, each picture a point, a person by colour and shape, the same in all.

    maps: name -> (N, 2), one to three maps of the same N pictures.   labels: (N,) int, the person.
    people: those to tell apart, at most PEOPLE; None: the ones with the most pictures. All others
    are grey.   limit: pictures at most, at even steps; the subtitle says how many are shown.
    axis: what one axis is, such as "UMAP axis"; maps have no unit.   A point's `customdata` is its
    picture number.   Raises ValueError for maps that do not fit the labels.
    """
    maps = {name: np.asarray(xy, np.float32) for name, xy in maps.items()}
    labels = np.asarray(labels)
    for name, xy in maps.items():
        if xy.shape != (len(labels), 2) or not np.isfinite(xy).all():
            raise ValueError(f"map '{name}' must be finite and ({len(labels)}, 2), one row for "
                             f"each label, got {xy.shape}")
    if not 1 <= len(maps) <= 3 or not len(labels):
        raise ValueError(f"embedding_map draws one to three maps of at least one picture, got "
                         f"{len(maps)} maps of {len(labels)} pictures")
    count = min(limit, len(labels))
    rows = np.arange(count) * len(labels) // count
    fig = make_subplots(1, len(maps), subplot_titles=list(maps), horizontal_spacing=0.13)
    fig.update_annotations(font_size=13)
    for column, xy in enumerate(maps.values(), 1):
        for name, (here, marker) in _groups(labels, people).items():
            here = rows[here[rows]]
            if len(here):
                fig.add_scatter(
                    x=xy[here, 0], y=xy[here, 1], mode="markers", name=name, marker=marker,
                    legendgroup=name, showlegend=column == 1, customdata=here, row=1, col=column,
                    hovertemplate=f"picture %{{customdata}}, {name}<extra></extra>",
                )  # fmt: skip
        for update, ends, way in ((fig.update_xaxes, xy[rows, 0], "1"),
                                  (fig.update_yaxes, xy[rows, 1], "2")):
            update(title_text=f"{axis} {way} (no unit)", range=_range(ends), row=1, col=column)
    shown = "all" if count == len(labels) else f"{count:,} of"
    told = f"{shown} {len(labels):,} pictures of {len(np.unique(labels)):,} people"
    return _dress(fig, title, told, width=[480, 800, 1000][len(maps) - 1])


def centre_map(
    positions: np.ndarray,
    *,
    classes: Sequence[int] | None = None,
    frame: int = -1,
    targets: np.ndarray | None = None,
    target_name: str = "teacher's centres",
    axis: str = "map axis",
    title: str = "Class centres and the way they came",
    subtitle: str | None = None,
) -> go.Figure:
    """Class centres as points, with the trails they left.

    positions: (C, 2), or (T, C, 2) at T moments: trails run through all of them and the points
    stand at `frame`.   classes: those to tell apart by colour and shape, at most PEOPLE; None: the
    first ones.   targets: (C, 2), where the centres should go, drawn as open triangles.   axis:
    what one axis is.   A point's `customdata` is its class number; names of traces with centres are
    unique, see `centre_frame`.   The axes hold all moments.   Raises ValueError for another shape.
    """
    positions = np.asarray(positions, np.float32)
    frames = positions[None] if positions.ndim == 2 else positions
    if frames.ndim != 3 or frames.shape[2] != 2 or not frames.size or not np.isfinite(frames).all():
        raise ValueError(f"positions must be finite and (C, 2) or (T, C, 2), got {positions.shape}")
    count = frames.shape[1]
    every = frames.reshape(-1, 2)
    fig = go.Figure()
    if len(frames) > 1:
        gaps = np.concatenate([frames, np.full((1, count, 2), np.nan, np.float32)])
        trail = gaps.transpose(1, 0, 2).reshape(-1, 2)
        fig.add_scatter(x=trail[:, 0], y=trail[:, 1], mode="lines", name="trails",
                        line={"color": "#8C8C8C", "width": 1}, hoverinfo="skip")  # fmt: skip
    if targets is not None:
        targets = np.asarray(targets, np.float32)
        if targets.shape != (count, 2) or not np.isfinite(targets).all():
            raise ValueError(f"targets must be finite and ({count}, 2), got {targets.shape}")
        every = np.concatenate([every, targets])
        fig.add_scatter(x=targets[:, 0], y=targets[:, 1], mode="markers", name=target_name,
                        marker={"symbol": "triangle-down-open", "size": 10, "color": INK},
                        legendgroup="targets", customdata=np.arange(count),
                        hovertemplate=f"class %{{customdata}}, {target_name}<extra></extra>",
                        )  # fmt: skip
    numbers = np.arange(count)
    chosen = numbers[:PEOPLE] if classes is None else classes
    for name, (here, marker) in _groups(numbers, chosen, "class", "other classes").items():
        here = np.flatnonzero(here)
        fig.add_scatter(x=frames[frame, here, 0], y=frames[frame, here, 1], mode="markers",
                        name=name, marker=marker | {"size": marker["size"] + 3}, customdata=here,
                        hovertemplate="class %{customdata}<extra></extra>")  # fmt: skip
    fig.update_xaxes(title_text=f"{axis} 1 (no unit)", range=_range(every[:, 0]))
    fig.update_yaxes(title_text=f"{axis} 2 (no unit)", range=_range(every[:, 1]))
    return _dress(fig, title, subtitle, width=620, height=540)


def centre_frame(fig: go.Figure, centres: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Trace name -> (x, y) of a `centre_map` whose classes stand at `centres` (C, 2)."""
    moved = {}
    for trace in fig.data:
        if trace.customdata is not None and trace.legendgroup != "targets":
            here = centres[np.asarray(trace.customdata, int)]
            moved[trace.name] = here[:, 0], here[:, 1]
    return moved


def _groups(labels, people, word: str = "person", rest: str = REST) -> dict[str, tuple]:
    """Name -> (rows as (N,) bool, marker), the grey ones first so that they lie below."""
    if people is None:
        known, counts = np.unique(labels, return_counts=True)
        people = np.sort(known[np.argsort(-counts, kind="stable")[:PEOPLE]])
    if len(people) > PEOPLE:
        raise ValueError(f"{len(people)} {word} colours asked for; a reader tells {PEOPLE} apart")
    others = ~np.isin(labels, people)
    faint = {"color": GREY, "symbol": "circle-open", "size": 6, "line": {"width": 1}}
    groups = {rest: (others, faint)} if others.any() else {}
    names = {f"{word} {own}": own for own in people}
    for name, look in looks(names).items():
        marker = {"color": look.color, "symbol": look.marker, "size": 9,
                  "line": {"color": INK, "width": 0.6}}  # fmt: skip
        groups[name] = labels == names[name], marker
    return groups


def _range(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.06 * (high - low) or 1.0
    return [low - pad, high + pad]


def _dress(fig: go.Figure, title: str, subtitle: str | None, width: int, height: int = 500):
    text = {"text": title} | ({"subtitle": {"text": subtitle}} if subtitle else {})
    return fig.update_layout(
        template=TEMPLATE, title=text, width=width, height=height, hovermode="closest",
        margin_t=84 if subtitle else 56,
        legend={"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"},
    )  # fmt: skip
