"""Figures that set our numbers beside a paper's printed ones, and keep the two apart.

A printed number comes from other data, another network and no stated interval: it has a panel, an
axis and markers of its own, so that only sign and order can be compared.
Huang, Wu, Xu, Ding, "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR
2022, tables 1 and 5.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import BLACK, GREY, INK, PLAIN, TEMPLATE, Look, method

Row = tuple[str, float | None, float | None, float | None, float | Sequence[float] | None]
LINE = 24  # pixels of a row; ours
TINT = "#F3F3F3"  # behind printed numbers and headings; ours
PRINTED = ((BLACK, "circle-open"), (GREY, "diamond-open"), (INK, "square-open"))


def ablation_plot(
    groups: Mapping[str, Sequence[Row]],
    *,
    unit: str = "points of TPR",
    printed: Sequence[str] = ("IJB-C at FPR 1e-4", "IJB-C at FPR 1e-5"),
    title: str = "What each choice is worth",
    subtitle: str = "difference to the student alone; filled: the 95 % interval excludes zero",
) -> go.Figure:
    """An ablation in groups of rows: our differences on the left, the printed ones on the right.

    groups: heading -> rows (label, estimate, low, high, printed). Estimate and interval in `unit`,
    all None for a row not run, which reads "not tested"; printed: a number, one for each name in
    `printed` (NaN or None where the paper has none), or None for a row the paper has not.   A
    label's words before the first ", " choose a method's look, EKD's if they name none.
    Raises ValueError without rows, or for an interval that does not hold its estimate.
    """
    plain = method("ekd")._replace(label="")
    axes = f"difference ({unit})", f"printed difference ({unit})"
    return _beside(groups, 0.0, plain, printed, axes, title, subtitle)


def cost_plot(
    ours: Mapping[str, tuple[float, float, float] | None],
    printed: Mapping[str, float],
    *,
    title: str = "What a step costs",
    subtitle: str = "time of a step, as a multiple of the plain student's; "
                    "filled: the interval excludes 1",
) -> go.Figure:
    """Step times as ratios to the plain step: ours on the left, the paper's Table 5 on the right.

    ours: label -> (ratio, low, high), or None where it was not measured.   printed: label ->
    ratio; the same label shares a row. Rows in the order of `ours`, then what only the paper has.
    Raises ValueError as `ablation_plot` does.
    """
    names = dict.fromkeys([*ours, *printed])
    rows = [(name, *(ours.get(name) or (None,) * 3), printed.get(name)) for name in names]
    axes = "step time / plain step (no unit)", "printed ratio (no unit)"
    fig = _beside({"": rows}, 1.0, PLAIN, ("Table 5",), axes, title, subtitle)
    for column, most in enumerate(([row[3] for row in rows], printed.values()), 1):
        top = max([1.0, *(value for value in most if value is not None)])
        fig.update_xaxes(range=[0, 1.12 * top], row=1, col=column)
    return fig


def _beside(groups: Mapping[str, Sequence[Row]], zero: float, plain: Look, names: Sequence[str],
            axes: tuple[str, str], title: str, subtitle: str) -> go.Figure:  # fmt: skip
    """Two panels over the same rows: ours | printed. A group without a name has no heading."""
    if not any(groups.values()):
        raise ValueError("there are no rows; nothing to draw")
    places, heads, ticks = [], [], []  # a row or a heading is one place down from the one before
    at = 0
    for heading, rows in groups.items():
        if heading:
            heads.append((at, heading))
            at += 1
        for row in rows:
            places.append((at, row))
            at += 1
    fig = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.05,
                        subplot_titles=["computed here", "printed in the paper: other data"])
    fig.update_annotations(font_size=13)
    for y, (label, estimate, low, high, _) in places:
        first, comma, rest = label.partition(", ")
        own = method(first)
        ticks.append(own.label + comma + rest if own else label)
        if estimate is None:
            _note(fig, 1, y, zero, "not tested")
            continue
        if not low <= estimate <= high:
            raise ValueError(f"row '{label}': estimate {estimate:g} is outside "
                             f"[{low:g}, {high:g}]")
        own, clear = own or plain, low > zero or high < zero
        fig.add_scatter(
            x=[estimate], y=[y], mode="markers", name=ticks[-1], showlegend=False, row=1, col=1,
            marker={"color": own.color, "size": 10, "line": {"width": 1.8, "color": own.color},
                    "symbol": own.marker.removesuffix("-open") + ("" if clear else "-open")},
            error_x={"type": "data", "array": [high - estimate], "arrayminus": [estimate - low],
                     "thickness": 1.8, "width": 5, "color": own.color},
            hovertemplate=f"{estimate:.3g} [{low:.3g}, {high:.3g}]<extra>{ticks[-1]}</extra>",
        )  # fmt: skip
    if all(row[1] is None for _, row in places):  # an axis without a trace does not exist
        fig.add_scatter(x=[None], y=[None], mode="markers", showlegend=False, name="nothing yet",
                        row=1, col=1)
    values = np.array([_printed(row[4], len(names)) for _, row in places])
    for y in (y for (y, _), row in zip(places, values, strict=True) if np.isnan(row).all()):
        _note(fig, 2, y, zero, "not printed")
    for column, (name, (ink, symbol)) in enumerate(zip(names, PRINTED, strict=False)):
        kept = np.flatnonzero(np.isfinite(values[:, column]))
        fig.add_scatter(
            x=values[kept, column], y=[places[i][0] for i in kept], mode="markers", row=1, col=2,
            name=f"printed: {name}", marker={"color": ink, "symbol": symbol, "size": 9,
                                             "line": {"width": 1.8}},
            text=[ticks[i] for i in kept], hovertemplate="%{x:.3g}<extra>%{text}</extra>",
        )  # fmt: skip
    fig.add_shape(type="rect", xref="x2 domain", x0=0, x1=1, yref="y2 domain", y0=0, y1=1,
                  fillcolor=TINT, line={"width": 0}, layer="below")  # fmt: skip
    for y, heading in heads:
        fig.add_shape(type="rect", xref="x domain", x0=0, x1=1, yref="y", y0=y - 0.42, y1=y + 0.42,
                      fillcolor=TINT, line={"width": 0}, layer="below")  # fmt: skip
        fig.add_annotation(xref="x domain", x=0, yref="y", y=y, text=f"<b>{heading}</b>",
                           showarrow=False, xanchor="left", yanchor="middle", xshift=4)  # fmt: skip
    ours = [bound for _, row in places for bound in row[2:4] if bound is not None]
    theirs = values[~np.isnan(values)]
    for column, (words, seen) in enumerate(zip(axes, (ours, theirs), strict=True), 1):
        low, high = min([zero, *seen]), max([zero, *seen])  # zero is in view
        room = 0.08 * (high - low) or 1.0
        fig.update_xaxes(range=[low - room, high + room], row=1, col=column)
        fig.add_vline(x=zero, line={"color": INK, "width": 1.2}, layer="below", row=1, col=column)
        fig.update_xaxes(title_text=words, row=1, col=column, nticks=6)
        fig.update_yaxes(range=[at - 0.5, -0.5], tickvals=[y for y, _ in places], ticktext=ticks,
                         showticklabels=column == 1, ticks="outside" if column == 1 else "",
                         row=1, col=column)  # fmt: skip
    tall = LINE * max(at, 8)  # fewer rows would leave no room beside their labels
    return fig.update_layout(
        template=TEMPLATE, title={"text": title, "subtitle": {"text": subtitle}}, width=860,
        height=190 + tall, margin={"t": 84, "l": 160, "b": 90},
        legend={"orientation": "h", "x": 0, "y": -66 / (tall + 16), "yanchor": "top"},
        showlegend=True,
    )  # fmt: skip


def _printed(value, count: int) -> np.ndarray:
    """The printed numbers of one row, NaN where there is none: (count,)."""
    found = [value] if value is None or np.ndim(value) == 0 else list(value)
    if value is None:
        found = [None] * count
    if len(found) != count:
        raise ValueError(f"a row has {len(found)} printed numbers for {count} names")
    return np.array([np.nan if v is None else v for v in found], float)


def _note(fig: go.Figure, column: int, y: float, x: float, words: str) -> None:
    fig.add_annotation(x=x, y=y, text=words, showarrow=False, xanchor="left", yanchor="middle",
                       xshift=6, font={"size": 11, "color": GREY}, row=1, col=column)  # fmt: skip
