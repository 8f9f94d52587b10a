"""Figures about angles and distances: the force of a loss, its path, what reaches which stage.

Duong, Luu, Quach, Le, "ShrinkTeaNet", arXiv:1905.10620, equations 4, 6 and 7. What is drawn is
computed by the caller. Angles are degrees here, radians in the losses.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import (
    BLACK,
    GREEN,
    GREY,
    INK,
    TEMPLATE,
    VERMILLION,
    Look,
    beads,
    figure,
    looks,
)
from kdlab.plots.thresholds import heading

# The losses that are compared, the same in all figures here; ours, after the two methods' looks.
KINDS = {
    "L2": Look("#00543D", "triangle-up-open", "dash", "L2"),
    "1 - cos": Look(GREEN, "triangle-up", "solid", "1 − cos"),
    "(1 - cos)²": Look(VERMILLION, "diamond", "dot", "(1 − cos)²"),
}
TERMS = {
    "stage1": Look("#0072B2", "circle", "solid", "term of stage 1"),
    "stage2": Look("#CC79A7", "square", "dash", "term of stage 2"),
    "stage3": Look(VERMILLION, "diamond", "dot", "term of stage 3"),
    "embedding": Look(BLACK, "cross", "dashdot", "term of the embedding"),
}
MARKS = ("dashdot", "longdash", "dot")  # of upright lines, in this order; ours
HEAD = 0.35  # of an arrow's length, its barbs; ours
BEADS = 4  # marks on a path; ours


def kind_looks(names: Sequence[str], known: Mapping[str, Look] = KINDS) -> dict[str, Look]:
    """The look of each name: its own where `known` has it, else a spare one."""
    spare = looks([name for name in names if name not in known])
    return {name: known.get(name) or spare[name] for name in names}


def force_field(
    points: np.ndarray,
    forces: np.ndarray,
    teacher: Sequence[float],
    kind: str,
    *,
    longest: float = 0.3,
    title: str | None = None,
    subtitle: str | None = "an arrow: minus the gradient where the student's embedding stands",
) -> go.Figure:
    """Where a loss pushes an embedding of two numbers: an arrow at each point of a grid.

    points, forces: (N, 2), no unit.   teacher: (2,), the embedding to be matched.   kind: a name of
    KINDS for the look, or any other.   longest: an arrow's greatest length on the axes; all are
    scaled alike.
    Raises ValueError for arrays of other shapes or forces that are not finite.
    """
    points, forces = np.asarray(points, float), np.asarray(forces, float)
    if points.shape != forces.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points and forces must be (N, 2) alike, got {points.shape} and "
                         f"{forces.shape}")
    if not np.isfinite(forces).all():
        raise ValueError("a force is not finite; leave the origin out of the grid")
    size = np.linalg.norm(forces, axis=1)
    arrows = forces * longest / (size.max() or 1)
    ends = points + arrows
    back = np.stack([-arrows[:, 1], arrows[:, 0]], 1)  # a quarter turn
    barbs = [ends - HEAD * arrows + sign * 0.5 * HEAD * back for sign in (1, -1)]
    gap = np.full_like(points, np.nan)
    lines = np.stack([points, ends, barbs[0], ends, barbs[1], gap], 1).reshape(-1, 2)
    look = kind_looks([kind])[kind]
    fig = figure(title or f"Where {look.label} pushes", subtitle, width=520, height=500)
    fig.add_scatter(x=lines[:, 0].astype(np.float32), y=lines[:, 1].astype(np.float32),
                    mode="lines", line={"color": look.color, "width": 1.6}, name=look.label,
                    hoverinfo="skip", showlegend=False)  # fmt: skip
    fig.add_scatter(x=[0, teacher[0]], y=[0, teacher[1]], mode="lines", hoverinfo="skip",
                    line={"color": INK, "width": 1.4, "dash": "dot"}, name="direction",
                    showlegend=False)  # fmt: skip
    fig.add_scatter(x=[teacher[0]], y=[teacher[1]], mode="markers+text", text=["teacher"],
                    textposition="top center", name="teacher", showlegend=False,
                    marker={"color": BLACK, "size": 12, "symbol": "circle"})  # fmt: skip
    reach = float(np.abs(points).max()) + longest
    fig.update_xaxes(title_text="first number of the embedding (no unit)", range=[-reach, reach])
    fig.update_yaxes(title_text="second number (no unit)", range=[-reach, reach])
    return fig.update_layout(margin_t=72)


def angle_view(
    theta: np.ndarray,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    marks: Mapping[str, float] | None = None,
    *,
    log: bool = False,
    title: str = "What an angle costs, and how hard it is pulled back",
    subtitle: str | None = None,
) -> go.Figure:
    """Losses over the angle between two embeddings, and their slopes, a curve for each loss.

    theta: (T,) ascending, degrees.   curves: name -> (loss (T,), slope (T,) a radian), no unit.
    marks: words -> degrees, upright lines, at most three.   log: upright axes in powers of ten; a
    value of 0 has no place there.   Raises ValueError for curves of another length, or more marks.
    """
    theta = np.asarray(theta, float)
    if len(marks or {}) > len(MARKS):
        raise ValueError(f"angle_view draws {len(MARKS)} marks at most, got {len(marks)}")
    fig = make_subplots(1, 2, horizontal_spacing=0.13, subplot_titles=["loss", "pull (its slope)"])
    fig.update_annotations(font_size=13)
    parts = [np.asarray(part, float) for pair in curves.values() for part in pair]
    if any(part.shape != theta.shape for part in parts):
        raise ValueError(f"losses and slopes must be ({theta.size},) like theta, got "
                         f"{[part.shape for part in parts]}")
    top = max(float(part.max()) for part in parts)
    low = 1e-4 if log else -0.04 * top  # four powers of ten are enough to tell slopes apart; ours
    for rank, (name, look) in enumerate(kind_looks(list(curves)).items()):
        for column, values in enumerate(curves[name], 1):
            values = np.asarray(values, float)
            keep = values > low
            _curve(fig, theta[keep], values[keep], look, name, {"row": 1, "col": column},
                   column == 1, (rank + 0.5) / len(curves))
    for (words, at), dash in zip((marks or {}).items(), MARKS, strict=False):
        for column in (1, 2):
            fig.add_scatter(x=[at, at], y=[max(low, 1e-4), top], mode="lines", name=words,
                            legendgroup=words, showlegend=column == 1, hoverinfo="name",
                            line={"color": GREY, "width": 1.8, "dash": dash}, row=1, col=column)
    fig.update_xaxes(title_text="angle to the teacher (degrees)", range=[0, 180], dtick=30)
    for column, what in ((1, "loss"), (2, "pull, a radian")):
        words = f"{what} (no unit{', log scale' if log else ''})"
        ends = [float(np.log10(low)), float(np.log10(1.5 * top))] if log else [low, 1.04 * top]
        fig.update_yaxes(title_text=words, range=ends, row=1, col=column,
                         **({"type": "log", "exponentformat": "power", "dtick": 1} if log else {}))
    return _below(fig, title, subtitle)


def descent_paths(
    paths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    target: float | None = None,
    title: str = "One embedding on its way to the teacher",
    subtitle: str | None = None,
) -> go.Figure:
    """Length and angle of an embedding, step by step, a curve for each loss.

    paths: loss -> (lengths (T + 1,), angles in degrees (T + 1,)), the start included; numbers that
    are not finite end a curve.   target: the teacher's length, dotted.
    Raises ValueError without paths, or for one whose parts differ in length.
    """
    if not paths:
        raise ValueError("there are no paths; nothing to draw")
    fig = make_subplots(1, 2, horizontal_spacing=0.12, subplot_titles=["length", "angle"])
    fig.update_annotations(font_size=13)
    for rank, (name, look) in enumerate(kind_looks(list(paths)).items()):
        length, angle = (np.asarray(part, float) for part in paths[name])
        if length.shape != angle.shape or length.ndim != 1 or not length.size:
            raise ValueError(f"path '{name}': lengths and angles must be (T + 1,) alike, got "
                             f"{length.shape} and {angle.shape}")
        step = np.arange(len(length))
        for column, values in ((1, length), (2, angle)):
            _curve(fig, step, values, look, name, {"row": 1, "col": column}, column == 1,
                   (rank + 0.5) / len(paths))
    if target is not None:
        fig.add_hline(y=target, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=1)
    seen = np.concatenate([np.asarray(length, float) for length, _ in paths.values()])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    fig.update_xaxes(title_text="step", nticks=6)
    fig.update_yaxes(title_text="length (no unit)", row=1, col=1)
    if seen.max() > 100 * seen.min():  # a path that flies away would flatten the others
        fig.update_yaxes(title_text="length (no unit, log scale)", type="log", row=1, col=1,
                         exponentformat="power")  # fmt: skip
    fig.update_yaxes(title_text="angle to the teacher (degrees)", range=[-8, 188], dtick=45,
                     row=1, col=2)  # fmt: skip
    return _below(fig, title, subtitle)


def stage_forces(
    norms: Mapping[str, Sequence[float]],
    *,
    title: str = "Which term reaches which stage",
    subtitle: str | None = None,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """Gradient norm of each term in the weights of each stage, on a logarithmic axis.

    norms: term -> (n,) norms in stages 1 ... n, no unit. A norm of 0 has no place on the axis: it
    is missing, and a term that is 0 everywhere is named in the corner.   limits: of the upright
    axis.   Raises ValueError without terms, or for lists of unequal length.
    """
    lengths = {len(values) for values in norms.values()}
    if len(lengths) != 1:
        raise ValueError(f"every term needs one norm a stage, got lists of {sorted(lengths)}")
    stages = np.arange(1, lengths.pop() + 1)
    fig = figure(title, subtitle, width=720, height=440)
    silent = []
    for name, look in kind_looks(list(norms), TERMS).items():
        values = np.asarray(norms[name], float)
        values = np.where(values > 0, values, np.nan)
        if np.isnan(values).all():
            silent.append(name)
            continue
        fig.add_scatter(
            x=stages, y=values, mode="lines+markers", name=look.label,
            line={"color": look.color, "dash": look.dash, "width": 2},
            marker={"color": look.color, "symbol": look.marker, "size": 10},
            hovertemplate=f"stage %{{x}}: %{{y:.3g}}<extra>{look.label}</extra>",
        )  # fmt: skip
    if silent:
        fig.add_annotation(xref="paper", x=0.02, yref="paper", y=0.03, showarrow=False,
                           xanchor="left", yanchor="bottom", font={"size": 11},
                           text=f"no gradient: {', '.join(silent)}")  # fmt: skip
    fig.update_xaxes(title_text="stage of the student", tickvals=stages.tolist(),
                     range=[0.7, len(stages) + 0.3])  # fmt: skip
    fig.update_yaxes(title_text="gradient norm (no unit, log scale)", type="log",
                     exponentformat="power")  # fmt: skip
    if limits is not None:
        fig.update_yaxes(range=[float(np.log10(end)) for end in limits])
    return fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
                             showlegend=True, margin_t=72)


def _below(fig: go.Figure, title: str, subtitle: str | None) -> go.Figure:
    """The common layout of two panels, the legend below them."""
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), width=820, height=420,
        margin={"t": 88}, legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )  # fmt: skip


def _curve(fig: go.Figure, x: np.ndarray, y: np.ndarray, look: Look, name: str, spot: dict,
           legend: bool, shift: float) -> None:
    """A line, and marks on it between those of the other lines; it ends where y does."""
    known = np.flatnonzero(np.isfinite(y))
    known = known[known == np.arange(len(known))]  # up to the first that is not finite
    if not len(known):
        return
    fig.add_scatter(x=x[known], y=y[known].astype(np.float32), mode="lines", name=look.label,
                    legendgroup=name, showlegend=False,
                    line={"color": look.color, "dash": look.dash, "width": 2},
                    hovertemplate="step %{x}: %{y:.3g}<extra>" + look.label + "</extra>", **spot)
    at = np.unique(((np.arange(BEADS) + shift) / BEADS * len(known)).astype(int))
    fig.add_trace(beads(x[known][at], y[known][at], look, name).update(showlegend=legend), **spot)
