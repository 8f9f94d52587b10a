"""Figures about margins: logits, losses and forces against an angle, and classes on a circle.

Deng et al., "ArcFace", CVPR 2019, figures 3 to 5; Wang et al., "CosFace", CVPR 2018, figures 2 and
4. What is drawn is computed by the caller. Angles are degrees here, radians in the losses.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INK,
    PAPER,
    PURPLE,
    TEMPLATE,
    VERMILLION,
    Look,
    beads,
    figure,
    looks,
)

# METHODS keeps greys for these losses, because elsewhere they stay behind the method that is looked
# at. Here they are what is looked at: looks of their own, the same in all figures. Ours.
KINDS = {
    "softmax": Look(BLACK, "circle", "solid", "softmax, no margin"),
    "cosface": Look(GREEN, "triangle-up", "dash", "CosFace"),
    "arcface": Look(BLUE, "square", "solid", "ArcFace"),
    "guarded": Look(VERMILLION, "diamond", "dot", "ArcFace, guarded"),
    "straight_through": Look(PURPLE, "cross", "dashdot", "ArcFace, straight-through"),
}
BEADS = 7  # marks on a curve, so that it is known without its colour; ours
SIDE, GAP = 270, 20  # pixels of the square that holds a circle, and between two


def kind_looks(names) -> dict[str, Look]:
    """The look of each name: a loss's own where KINDS knows it, else a spare one unlike these."""
    taken = {own[1:3] for own in KINDS.values()}
    spare = (look for look in looks(map(str, range(36))).values() if look[1:3] not in taken)
    return {name: KINDS.get(name) or next(spare)._replace(label=name) for name in names}


def angle_curves(
    theta: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    quantity: str,
    title: str,
    across: str = "angle to the own centre (degrees)",
    marks: Mapping[str, float] | None = None,
    subtitle: str | None = None,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """Curves over an angle, such as the logit of the own class.

    theta: (T,) ascending, degrees.   curves: name -> (T,), NaN where there is none; names of KINDS
    have their own look.   quantity: the upright axis with its unit.   across: the level one.
    marks: words -> degrees, dashed upright lines.   limits: of the upright axis; None: the data's.
    Raises ValueError for a curve of another length or one without a finite value.
    """
    theta = np.asarray(theta, float)
    fig = figure(title, subtitle, width=760, height=440)
    for k, (name, look) in enumerate(kind_looks(curves).items()):
        y = np.asarray(curves[name], float)
        if y.shape != theta.shape or not np.isfinite(y).any():
            raise ValueError(f"curve '{name}' must be ({theta.size},) like theta and somewhere "
                             f"finite, got {y.shape}")
        fig.add_scatter(
            x=theta.astype(np.float32), y=y.astype(np.float32), mode="lines", name=look.label,
            legendgroup=name, showlegend=False,
            line={"color": look.color, "dash": look.dash, "width": 2},
            hovertemplate=f"{look.label}: %{{y:.3g}} at %{{x:.0f}}°<extra></extra>",
        )  # fmt: skip
        known = np.flatnonzero(np.isfinite(y))
        shift = (k + 0.5) / len(curves)  # curves that coincide show their marks in turn
        spots = known[((np.arange(BEADS) + shift) / BEADS * len(known)).astype(int)]
        fig.add_trace(beads(theta[spots], y[spots], look, name))
    for words, at in (marks or {}).items():
        fig.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="y domain",
                      line={"color": GREY, "width": 1.2, "dash": "dash"})  # fmt: skip
        left = at < (theta[0] + theta[-1]) / 2  # the label stands where there is more room
        fig.add_annotation(x=at, y=1, yref="y domain", yanchor="top", text=words, showarrow=False,
                           xanchor="left" if left else "right", xshift=4 if left else -4,
                           font={"size": 11}, bgcolor=PAPER)  # fmt: skip
    fig.update_xaxes(title_text=across, range=[float(theta[0]), float(theta[-1])], dtick=30)
    fig.update_yaxes(title_text=quantity)
    if limits is not None:
        fig.update_yaxes(range=list(limits))
    if subtitle:
        fig.update_layout(margin_t=72)
    return fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"})


def margin_circle(
    centres: Sequence[float],
    half_widths: Mapping[str, float],
    *,
    names: Sequence[str] | None = None,
    title: str = "Where each class wins in spite of its margin",
    subtitle: str | None = None,
) -> go.Figure:
    """Classes on unit circles: a ray to each centre, and the arc on which the class wins.

    centres: (C,) degrees from the right, counterclockwise.   half_widths: heading of one circle,
    at most three -> degrees to both sides of a centre, the same for all; 0 or less: no class wins
    anywhere.   names: one a centre.   Raises ValueError for names that do not fit, a width beyond
    180, numbers that are not finite or another number of circles.
    """
    centres = np.asarray(centres, float)
    names = [f"class {k}" for k in range(len(centres))] if names is None else list(names)
    if centres.ndim != 1 or len(names) != len(centres) or not np.isfinite(centres).all():
        raise ValueError(f"centres must be finite and (C,) with C names, got {centres.shape} and "
                         f"{len(names)} names")
    if not 1 <= len(half_widths) <= 3 or not all(w <= 180 for w in half_widths.values()):
        raise ValueError(f"one to three half widths of at most 180 degrees, not {half_widths}")
    count = len(half_widths)
    inside = SIDE * count + GAP * (count - 1)
    fig = make_subplots(1, count, subplot_titles=[f"<b>{head}</b>" for head in half_widths],
                        horizontal_spacing=GAP / inside)  # fmt: skip
    fig.update_annotations(font_size=12)
    for column, width in enumerate(half_widths.values(), 1):
        traces = [_line(*_circle(np.linspace(0, 360, 181)), GREY, 1, "unit circle")]
        for (name, look), at in zip(looks(names).items(), centres, strict=True):
            ray = _circle(np.array([at]))
            traces.append(_line([0, ray[0][0]], [0, ray[1][0]], look.color, 1, name))
            if width > 0:
                arc = _circle(np.linspace(at - width, at + width, 61))
                traces.append(_line(*arc, look.color, 6, name))
            traces.append(go.Scatter(
                x=ray[0], y=ray[1], mode="markers", name=name, legendgroup=name,
                showlegend=column == 1, hovertemplate=f"centre of {name}<extra></extra>",
                marker={"color": look.color, "symbol": look.marker, "size": 11,
                        "line": {"color": INK, "width": 0.8}},
            ))  # fmt: skip
        fig.add_traces(traces, rows=1, cols=column)
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(range=[-1.1, 1.1], visible=False)
    text = {"text": title} | ({"subtitle": {"text": subtitle}} if subtitle else {})
    return fig.update_layout(
        template=TEMPLATE, title=text, width=inside + 40, height=SIDE + 96 + 76,
        margin={"l": 20, "r": 20, "t": 96, "b": 76},
        legend={"orientation": "h", "x": 0, "y": -0.04, "yanchor": "top"},
    )  # fmt: skip


def _circle(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(np.radians(degrees)), np.sin(np.radians(degrees))


def _line(x, y, ink: str, width: float, group: str) -> go.Scatter:
    """A line without an entry in the legend."""
    return go.Scatter(x=np.asarray(x, np.float32), y=np.asarray(y, np.float32), mode="lines",
                      line={"color": ink, "width": width}, name=group, legendgroup=group,
                      showlegend=False, hoverinfo="skip")  # fmt: skip
