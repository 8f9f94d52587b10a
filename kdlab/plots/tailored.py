"""Figures about tailored teachers: are they universal, is the gap bridged, what does it bring?

Li et al., "Rethinking Feature-based Knowledge Distillation for Face Recognition", CVPR 2023,
supplement, table 1. Printed numbers stand in panels of their own, as in `ablation`: other networks,
other data, another metric. Gains over the untailored teacher, in rows, are `ablation_plot`'s.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.ablation import LINE, PRINTED, TINT
from kdlab.plots.dimension import BELOW
from kdlab.plots.style import BLACK, GREY, PURPLE, TEMPLATE, VERMILLION, Look, figure, looks
from kdlab.plots.thresholds import heading

WIDE = 860  # pixels, as `ablation_plot`; ours
LEFT, RIGHT = 190, 20  # pixels of the margins beside a table of panels; ours
HEAD = 26  # pixels from a panel's heading to the words over its row of panels; ours
NUMBER = 44  # pixels of a printed number beside its mark; ours
OURS, THEIRS = "computed here", "printed in the paper: other networks, data and metric"
ROLES = {"teacher": Look(BLACK, "circle", "solid", "teacher"),
         "student": Look(VERMILLION, "diamond", "solid", "student"),
         "proxy": Look(PURPLE, "x", "solid", "student proxy")}  # fmt: skip


def universality(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    printed: Mapping[str, Mapping[str, float]] | None = None,
    *,
    metric: str = "TPR at FPR 1e-3",
    printed_metric: str = "MR-all",
    title: str = "One tailored teacher, several students",
    subtitle: str | None = "a row: a teacher, a column: a student; dotted: the first teacher's",
) -> go.Figure:
    """Table 1 in miniature: a panel for each student, a row in it for each teacher.

    rows: R teachers, the untailored one first.   columns: C students, at most four.
    values, low, high: (R, C) fractions with their intervals, NaN where it was not run.
    printed: teacher -> {student: percent}, in panels of their own below, numbers beside the marks.
    Raises ValueError for arrays that are not (R, C), more than four students, or an interval that
    does not hold its value.
    """
    parts = [np.asarray(part, float) for part in (values, low, high)]
    if any(part.shape != (len(rows), len(columns)) for part in parts) or not parts[0].size:
        raise ValueError(f"values, low and high should be {(len(rows), len(columns))}: teachers, "
                         f"students; they are {[part.shape for part in parts]}")
    value, below, above = parts
    if (below > value).any() or (above < value).any():
        raise ValueError("a value is outside its interval")
    theirs = list(dict.fromkeys(s for cells in (printed or {}).values() for s in cells))
    wide = max(len(columns), len(theirs))
    if wide > 4:
        raise ValueError(f"universality draws at most four students, got {wide}")
    lines = [len(rows), len(printed)] if printed else [len(rows)]
    names = [list(columns), theirs][: len(lines)]
    cells = [[{} if c < len(part) else None for c in range(wide)] for part in names]
    tall = [LINE * (n + 1) for n in lines]
    between = 120 if printed else 0  # pixels: ticks, titles and the next heading
    fig = make_subplots(
        len(lines), wide, specs=cells, subplot_titles=[n for part in names for n in part],
        row_heights=tall, horizontal_spacing=0.04, vertical_spacing=between / (sum(tall) + between),
    )  # fmt: skip
    fig.update_annotations(font_size=12)
    look = looks(rows)
    for c, student in enumerate(columns):
        spot = {"row": 1, "col": c + 1}
        for r, teacher in enumerate(rows):
            if np.isnan(value[r, c]):
                fig.add_annotation(xref="x domain" if c == 0 else f"x{c + 1} domain", x=0.06, y=r,
                                   yref="y" if c == 0 else f"y{c + 1}", text="not run",
                                   showarrow=False, xanchor="left", yanchor="middle",
                                   font={"size": 11, "color": GREY})  # fmt: skip
                continue
            _dot(fig, [value[r, c]], [r], look[teacher], spot, f"%{{x:.1%}}<extra>{student}, "
                 f"{teacher}</extra>", [above[r, c] - value[r, c]], [value[r, c] - below[r, c]])
        if np.isnan(value[:, c]).all():  # an axis without a trace does not exist
            fig.add_scatter(x=[None], y=[None], mode="markers", name="nothing yet", **spot)
    seen = np.concatenate([part[np.isfinite(part)] for part in parts])
    ends = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    _table(fig, 1, list(rows), value, ends, f"{metric} (%)", ".0%")
    if printed:
        grid = np.array([[cells.get(s, np.nan) for s in theirs] for cells in printed.values()])
        ink, symbol = PRINTED[0]
        for c, student in enumerate(theirs):
            spot, seen = {"row": 2, "col": c + 1}, np.flatnonzero(np.isfinite(grid[:, c]))
            fig.add_scatter(
                x=grid[seen, c], y=seen, mode="markers+text", name=f"printed: {student}", **spot,
                text=[f"{v:.2f}" for v in grid[seen, c]], textposition="middle right",
                textfont={"size": 11}, hoverinfo="skip",
                marker={"color": ink, "symbol": symbol, "size": 9, "line": {"width": 1.8}},
            )  # fmt: skip
        ends = np.nanmin(grid), np.nanmax(grid)
        share = NUMBER * wide / (WIDE - LEFT - RIGHT)  # of a panel
        _table(fig, 2, list(printed), grid, ends, f"{printed_metric} (%)", "", TINT, share)
    for part, words in enumerate((OURS, THEIRS)[: len(lines)]):
        top = 1 - part * (tall[0] + between) / (sum(tall) + between)
        fig.add_annotation(text=f"<b>{words}</b>", xref="paper", yref="paper", x=0, y=top,
                           xanchor="left", yanchor="bottom", yshift=HEAD, showarrow=False)
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), showlegend=False, width=WIDE,
        height=sum(tall) + between + 180, margin={"t": 108, "l": LEFT, "b": 64, "r": RIGHT},
    )  # fmt: skip


def intrinsic_gap(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    gaps: Mapping[str, tuple[float, float, float]] | None = None,
    proxy: Mapping[str, Sequence[float]] | None = None,
    *,
    title: str = "The gap between teacher and student",
    subtitle: str | None = "small: a seed; large: the mean; the line between: student less teacher",
) -> go.Figure:
    """Dimensions of teacher and student on one line a row, the gap as the length between them.

    rows: label (before, after; which student) -> (teacher's dimensions, student's), one a seed.
    gaps: label -> (student less teacher, low, high), written in its row.   proxy: label -> the
    student proxy's dimensions, rows above the others.
    Raises ValueError without rows, or for a row without a finite dimension.
    """
    if not rows:
        raise ValueError("there are no rows; nothing to draw")
    lines = {label: {"proxy": seeds} for label, seeds in (proxy or {}).items()}
    lines |= {label: dict(zip(("teacher", "student"), pair, strict=True))
              for label, pair in rows.items()}  # fmt: skip
    seen, fig = [], figure(title, subtitle, width=WIDE, height=150 + 44 * len(lines))
    told = set()
    for y, (label, parts) in enumerate(lines.items()):
        means = {}
        for role, seeds in parts.items():
            seeds = np.asarray(seeds, float)
            if not seeds.size or not np.isfinite(seeds).all():
                raise ValueError(f"row '{label}': the {role} has no dimension, or one not finite")
            means[role] = float(seeds.mean())
            seen += seeds.tolist()
        if len(means) == 2:
            fig.add_scatter(x=list(means.values()), y=[y, y], mode="lines", showlegend=False,
                            hoverinfo="skip", name=f"gap, {label}",
                            line={"color": GREY, "width": 3})  # fmt: skip
        for role, mean in means.items():
            _seeds(fig, parts[role], [y] * len(parts[role]), [mean], [y], ROLES[role],
                   f"{label}: %{{x:.2f}}<extra>{role}</extra>", role not in told)
            told.add(role)
        if gaps and label in gaps:
            fig.add_annotation(x=sum(means.values()) / 2, y=y, showarrow=False, yshift=15,
                               text="gap {:+.2f} [{:.2f}, {:.2f}]".format(*gaps[label]),
                               font={"size": 11}, bgcolor="rgba(255,255,255,0.85)")  # fmt: skip
    room = 0.12 * (max(seen) - min(seen)) or 1.0
    fig.update_xaxes(title_text="estimated intrinsic dimension (no unit)",
                     range=[min(seen) - room, max(seen) + room])  # fmt: skip
    fig.update_yaxes(tickvals=list(range(len(lines))), ticktext=list(lines),
                     range=[len(lines) - 0.5, -0.7])  # fmt: skip
    return fig.update_layout(legend=BELOW | {"y": -70 / (44 * len(lines) + 44)})


def dimension_and_rate(
    teachers: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    metric: str = "student's TPR at FPR 1e-3",
    title: str = "The teacher's dimension and the student's rate",
    subtitle: str | None = "small: a seed; large: the mean of a kind of teacher",
) -> go.Figure:
    """The student's rate over its teacher's dimension: a shape and colour for each kind of teacher.

    teachers: kind -> (dimensions of the teachers (S,), rates of their students (S,), fractions),
    one pair a seed.   Raises ValueError without teachers, or for lists that are empty, not finite
    or of unequal length.
    """
    if not teachers:
        raise ValueError("there are no teachers; nothing to draw")
    fig = figure(title, subtitle, width=680, height=480)
    for kind, look in looks(teachers).items():
        x, y = (np.asarray(part, float) for part in teachers[kind])
        if x.ndim != 1 or x.shape != y.shape or not x.size or not np.isfinite([x, y]).all():
            raise ValueError(f"teacher '{kind}': dimensions and rates should be (S,) and finite")
        _seeds(fig, x, y, [x.mean()], [y.mean()], look,
               f"dimension %{{x:.2f}}, rate %{{y:.1%}}<extra>{look.label}</extra>", True)
    fig.update_xaxes(title_text="teacher's estimated intrinsic dimension (no unit)")
    fig.update_yaxes(title_text=f"{metric} (%)", tickformat=".0%")
    return fig.update_layout(legend=BELOW)


def _dot(fig: go.Figure, x: list, y: list, look: Look, spot: dict, hover: str, above: list,
         below: list) -> None:  # fmt: skip
    fig.add_scatter(
        x=x, y=y, mode="markers", name=look.label, showlegend=False, hovertemplate=hover, **spot,
        marker={"color": look.color, "symbol": look.marker, "size": 9,
                "line": {"width": 1.8, "color": look.color}},
        error_x={"type": "data", "array": above, "arrayminus": below, "thickness": 1.8, "width": 4,
                 "color": look.color},
    )  # fmt: skip


def _seeds(fig: go.Figure, x: Sequence[float], y: Sequence[float], mean_x: list, mean_y: list,
           look: Look, hover: str, legend: bool) -> None:
    """Every seed small and open, their mean large and filled."""
    shape = look.marker.removesuffix("-open")
    for xs, ys, name, symbol, size in ((x, y, "seeds", f"{shape}-open", 7),
                                       (mean_x, mean_y, "mean", shape, 12)):
        fig.add_scatter(
            x=np.asarray(xs, float), y=np.asarray(ys, float), mode="markers", name=look.label,
            legendgroup=look.label, showlegend=legend and name == "mean", hovertemplate=hover,
            marker={"color": look.color, "symbol": symbol, "size": size,
                    "line": {"width": 1.4, "color": look.color}},
        )  # fmt: skip


def _table(fig: go.Figure, row: int, labels: list[str], grid: np.ndarray, ends: tuple, words: str,
           form: str, tint: str | None = None, share: float = 0.0) -> None:
    """Axes of one row of panels: equal x, teachers down, the first teacher's value dotted.

    share: of a panel's width, left free on the right for what is written beside the marks.
    """
    low, high = ends
    room = 0.1 * (high - low) or 0.01
    low, high = low - room, high + room
    high = low + (high - low) / (1 - share)
    for c in range(grid.shape[1]):
        spot = {"row": row, "col": c + 1}
        if tint:
            plot = fig.get_subplot(row, c + 1)
            x, y = (axis.plotly_name.replace("axis", "") for axis in (plot.xaxis, plot.yaxis))
            fig.add_shape(type="rect", xref=f"{x} domain", x0=0, x1=1, yref=f"{y} domain", y0=0,
                          y1=1, fillcolor=tint, line={"width": 0}, layer="below")  # fmt: skip
        if np.isfinite(grid[0, c]):
            fig.add_vline(x=grid[0, c], line={"color": GREY, "width": 1.2, "dash": "dot"},
                          layer="below", **spot)  # fmt: skip
        fig.update_xaxes(range=[low, high], nticks=5 if grid.shape[1] < 4 else 3, tickformat=form,
                         title={"text": words, "font": {"size": 11}}, **spot)  # fmt: skip
        fig.update_yaxes(range=[len(labels) - 0.4, -0.6], tickvals=list(range(len(labels))),
                         ticktext=labels, showticklabels=c == 0, ticks="outside" if c == 0 else "",
                         **spot)  # fmt: skip
