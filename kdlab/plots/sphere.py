"""The unit sphere as a picture that can be turned: points, class centres, fields of forces.

A parallel projection: what a far eye sees from `turn` degrees around and `tilt` degrees up. A
figure in two dimensions is the same live, in print and to a reader who works by keyboard, and a
slider turns it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import INK, TEMPLATE, VERMILLION, Look, looks

LINES = "#8C8C8C"  # graticule: 3.4:1 on white; ours
SIDE = 400  # pixels of the square that holds a sphere
GAP = 30  # pixels between two spheres
TOP, BELOW, LEFT = 96, 80, 20  # pixels of the figure's rim: headings, legend, left and right
RANGE = [-1.08, 1.08]


def project(points: np.ndarray, turn: float, tilt: float) -> np.ndarray:
    """(..., 3) -> (..., 3): to the right, upwards, and towards the eye.   Angles in degrees."""
    a, e = np.radians(turn), np.radians(tilt)
    right = [-np.sin(a), np.cos(a), 0]
    up = [-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e)]
    eye = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    return np.asarray(points, float) @ np.array([right, up, eye]).T


def sphere_view(
    spheres: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    *,
    names: Sequence[str],
    turn: float = 30,
    tilt: float = 20,
    title: str = "Points on the unit sphere",
    subtitle: str | None = None,
    size: float = 7,
) -> go.Figure:
    """Points on one sphere or two, by class; those on the far side are open and smaller.

    spheres: heading -> (points (N, 3), labels (N,), centres (C, 3) or None); rows are brought to
    length 1 here, label -1 is not drawn, centres are large marks with a ray from the middle.
    names: one a class.   turn, tilt: where the eye stands, degrees.   A point's `customdata` is
    its row.   Raises ValueError for arrays that do not fit together or a row without a direction.
    """
    named = list(enumerate(looks(names).values()))
    fig = _spheres(list(spheres), title, subtitle, turn, tilt)
    for column, (head, (points, labels, centres)) in enumerate(spheres.items(), 1):
        points, labels = _unit(points, f"points of '{head}'"), np.asarray(labels)
        if labels.shape != (len(points),) or not np.isin(labels, range(-1, len(names))).all():
            raise ValueError(f"labels of '{head}' must be ({len(points)},) and from -1 to "
                             f"{len(names) - 1}, one for each point, got {labels.shape}")
        seen, traces = project(points, turn, tilt), []
        for k, look in named:
            for near in (False, True):
                here = np.flatnonzero((labels == k) & ((seen[:, 2] >= 0) == near))
                if not len(here):
                    continue
                traces.append(go.Scatter(
                    x=seen[here, 0].astype(np.float32), y=seen[here, 1].astype(np.float32),
                    mode="markers", name=look.label, legendgroup=look.label, customdata=here,
                    showlegend=False, marker=_marker(look, near, size),
                    hovertemplate=f"{look.label}, row %{{customdata}}<extra></extra>",
                ))  # fmt: skip
        if centres is not None:
            traces += _centres(_unit(centres, f"centres of '{head}'"), named, turn, tilt)
        fig.add_traces(traces, rows=1, cols=column)
    _legend(fig, named)
    return fig


def force_field(
    points: np.ndarray,
    forces: Mapping[str, np.ndarray],
    *,
    names: Sequence[str],
    centres: np.ndarray,
    own: int = 0,
    beyond: float | None = None,
    longest: float = 0.22,
    turn: float = 30,
    tilt: float = 20,
    title: str = "The force on a row, wherever it stands",
    subtitle: str | None = None,
) -> go.Figure:
    """Arrows on spheres side by side, on the near side only, all of one scale.

    points: (N, 3) on the sphere.   forces: heading -> (N, 3), one or two; the longest arrow of all
    is `longest` radii long.   names, centres: of the classes, (C, 3).   own: the row's class.
    beyond: degrees from the own centre, drawn as a dashed circle, or None.   turn, tilt: degrees.
    Raises ValueError for forces that do not fit the points.
    """
    points, centres = _unit(points, "points"), _unit(centres, "centres")
    forces = {head: np.asarray(f, float) for head, f in forces.items()}
    for head, f in forces.items():
        if f.shape != points.shape or not np.isfinite(f).all():
            raise ValueError(f"force '{head}' must be finite and {points.shape}, got {f.shape}")
    unit = longest / max(max(np.linalg.norm(f, axis=1).max() for f in forces.values()), 1e-12)
    near = project(points, turn, tilt)[:, 2] > 0.05  # at the rim an arrow is a dot
    named = list(enumerate(looks(names).values()))
    fig = _spheres(list(forces), title, subtitle, turn, tilt)
    for column, f in enumerate(forces.values(), 1):
        start = project(points[near], turn, tilt)[:, :2]
        x, y = arrows(start, unit * project(f[near], turn, tilt)[:, :2])
        fig.add_scatter(x=x, y=y, mode="lines", name="force", line={"color": INK, "width": 1.3},
                        showlegend=column == 1, hoverinfo="skip", row=1, col=column)  # fmt: skip
        if beyond is not None:
            ring = project(cap(centres[own], beyond), turn, tilt)
            ring[ring[:, 2] < 0] = np.nan
            fig.add_scatter(x=ring[:, 0], y=ring[:, 1], mode="lines", name=f"{beyond:.0f}° away",
                            line={"color": VERMILLION, "width": 2.5, "dash": "dash"},
                            showlegend=column == 1, hoverinfo="skip",
                            row=1, col=column)  # fmt: skip
        fig.add_traces(_centres(centres, named, turn, tilt), rows=1, cols=column)
    _legend(fig, named)
    return fig


def arrows(start: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrows from `start` along `way`, both (N, 2), as one line with gaps: x and y."""
    end = start + way
    heads = []
    for side in (150, -150):  # degrees off the way, back from its end
        c, s = np.cos(np.radians(side)), np.sin(np.radians(side))
        heads.append(end + 0.35 * way @ np.array([[c, s], [-s, c]]))
    gap = np.full_like(start, np.nan)
    path = np.stack([start, end, heads[0], end, heads[1], gap], 1).reshape(-1, 2)
    return path[:, 0].astype(np.float32), path[:, 1].astype(np.float32)


def cap(centre: np.ndarray, degrees: float, count: int = 121) -> np.ndarray:
    """The circle that many degrees from a centre (3,): (count, 3) points, first equal to last."""
    first = np.cross(centre, np.eye(3)[np.argmin(np.abs(centre))])
    first /= np.linalg.norm(first)
    around = np.linspace(0, 2 * np.pi, count)[:, None]
    ring = np.cos(around) * first + np.sin(around) * np.cross(centre, first)
    return np.cos(np.radians(degrees)) * centre + np.sin(np.radians(degrees)) * ring


def _unit(x: np.ndarray, what: str) -> np.ndarray:
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != 3:
        raise ValueError(f"{what} must be (N, 3), got {x.shape}")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise ValueError(f"{what} hold a row without a direction (0 or not finite)")
    return x / length


def _spheres(headings: list[str], title: str, subtitle: str | None, turn: float, tilt: float):
    """Empty spheres side by side, with outline and graticule."""
    count = len(headings)
    if not 1 <= count <= 2:
        raise ValueError(f"one sphere or two stand side by side, got {count}")
    inside = SIDE * count + GAP * (count - 1)
    fig = make_subplots(1, count, subplot_titles=[f"<b>{h}</b>" if h else "" for h in headings],
                        horizontal_spacing=GAP / inside)  # fmt: skip
    fig.update_annotations(font_size=13)
    lines = _graticule(turn, tilt)
    for column in range(1, count + 1):
        fig.add_scatter(x=lines[:, 0], y=lines[:, 1], mode="lines", name="sphere", row=1,
                        col=column, line={"color": LINES, "width": 0.8, "dash": "dot"},
                        showlegend=False, hoverinfo="skip")  # fmt: skip
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(range=RANGE, visible=False)
    text = {"text": title} | ({"subtitle": {"text": subtitle}} if subtitle else {})
    return fig.update_layout(
        template=TEMPLATE, title=text, width=inside + 2 * LEFT + 180 * (count == 1),
        height=SIDE + TOP + BELOW * (count > 1) + LEFT * (count == 1),
        margin={"l": LEFT, "r": LEFT + 180 * (count == 1), "t": TOP,
                "b": BELOW if count > 1 else LEFT},
        legend={} if count == 1 else {"orientation": "h", "x": 0, "y": -0.03, "yanchor": "top"},
    )  # fmt: skip


def _graticule(turn: float, tilt: float) -> np.ndarray:
    """Outline, then meridians and parallels on the near side: (M, 2), NaN between pieces."""
    around = np.linspace(0, 2 * np.pi, 91)
    pieces = [np.stack([np.cos(around), np.sin(around)], 1)]
    circles = [cap(np.array([0.0, 0.0, 1.0]), angle) for angle in (30, 60, 90, 120, 150)]
    circles += [cap(np.array([np.cos(a), np.sin(a), 0.0]), 90) for a in np.arange(6) * np.pi / 6]
    for circle in circles:
        seen = project(circle, turn, tilt)
        pieces.append(np.where(seen[:, 2:] >= 0, seen[:, :2], np.nan))
    gap = np.full((1, 2), np.nan)
    return np.concatenate([row for piece in pieces for row in (piece, gap)]).astype(np.float32)


def _marker(look: Look, near: bool, size: float) -> dict:
    symbol = look.marker.removesuffix("-open")
    if near:
        return {"color": look.color, "symbol": symbol, "size": size,
                "line": {"color": INK, "width": 0.5}}  # fmt: skip
    return {"color": look.color, "symbol": f"{symbol}-open", "size": 0.7 * size,
            "line": {"width": 1}}  # fmt: skip


def _legend(fig, named) -> None:
    """One entry a class, drawn as on the near side wherever its points are."""
    fig.add_traces([
        go.Scatter(x=[np.nan], y=[np.nan], mode="markers", name=look.label,
                   legendgroup=look.label, marker=_marker(look, True, 9), hoverinfo="skip")
        for _, look in named
    ], rows=1, cols=1)  # fmt: skip


def _centres(centres: np.ndarray, named: list, turn: float, tilt: float) -> list[go.Scatter]:
    """Rays and large marks."""
    seen, traces = project(centres, turn, tilt), []
    for k, look in named:
        near = seen[k, 2] >= 0
        shared = {"name": look.label, "legendgroup": look.label, "showlegend": False}
        traces.append(go.Scatter(
            x=[0, seen[k, 0]], y=[0, seen[k, 1]], mode="lines", hoverinfo="skip",
            line={"color": look.color, "width": 2 if near else 1,
                  "dash": "solid" if near else "dot"}, **shared,
        ))  # fmt: skip
        traces.append(go.Scatter(
            x=[seen[k, 0]], y=[seen[k, 1]], mode="markers", marker=_marker(look, near, 15),
            hovertemplate=f"centre of {look.label}<extra></extra>", **shared,
        ))  # fmt: skip
    return traces
