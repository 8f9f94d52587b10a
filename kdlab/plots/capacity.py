"""A figure about the capacity of a teacher: its own rate, and that of the students it taught.

Boutros, Struc, Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition", ECCV
2024, the choice of the teacher. Printed numbers come from the caller and have a panel of their own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import GREY, INK, TEMPLATE, looks
from kdlab.plots.thresholds import heading


def teacher_view(
    teachers: Mapping[str, tuple[float, Sequence[float]]],
    printed: Mapping[str, tuple[float, float]] | None = None,
    *,
    alone: float | None = None,
    metric: str = "TPR at FPR 1e-3 (%)",
    printed_metric: str = "mean accuracy (%)",
    title: str = "Does the better teacher teach better?",
    subtitle: str | None = "small: a seed; large: the mean of the students of one teacher",
) -> go.Figure:
    """A student's rate over its teacher's own, a mark for each teacher.

    teachers: name -> (its own rate, its students' rates, one a seed), fractions.   printed: name ->
    (teacher's, student's) in percent, in a panel of its own.   alone: the student's rate without a
    teacher, a line.   Raises ValueError without teachers.
    """
    if not teachers:
        raise ValueError("there are no teachers; nothing to draw")
    heads = ["computed here", "printed for the paper: other data"] if printed else ["computed here"]
    fig = make_subplots(1, len(heads), subplot_titles=heads, horizontal_spacing=0.12)
    fig.update_annotations(font_size=13)
    middle = np.mean([min(rate for rate, _ in teachers.values()),
                      max(rate for rate, _ in teachers.values())])
    spots = {name: np.array([rate, np.mean(rates)]) for name, (rate, rates) in teachers.items()}
    for name, own in looks(teachers).items():
        # Away from the nearest other mark, whose name may stand close.
        away = min((spots[name] - spots[other] for other in spots if other != name),
                   key=np.linalg.norm, default=np.ones(2))  # fmt: skip
        side = ("top" if away[1] > 0 else "bottom",
                "left" if teachers[name][0] > middle else "right")
        rate, seeds = teachers[name][0], np.asarray(teachers[name][1], float)
        shape = own.marker.removesuffix("-open")
        for xs, ys, symbol, size, words in (
                ([rate] * len(seeds), seeds, f"{shape}-open", 7, None),
                ([rate], [seeds.mean()], shape, 12, [own.label])):  # fmt: skip
            fig.add_scatter(
                x=xs, y=ys, mode="markers+text" if words else "markers", name=name,
                text=[f"  {words[0]}  "] if words else None,
                textposition=" ".join(side), legendgroup=name, showlegend=False, row=1, col=1,
                marker={"color": own.color, "symbol": symbol, "size": size,
                        "line": {"width": 1.4, "color": own.color}},
            )  # fmt: skip
    if alone is not None:
        fig.add_hline(y=alone, line={"color": GREY, "width": 1.4, "dash": "dash"}, row=1, col=1)
        fig.add_annotation(xref="x domain", x=1, yref="y", y=alone, text="student alone",
                           showarrow=False, xanchor="right", yanchor="bottom", font={"size": 11})
    order = sorted(printed or {}, key=lambda name: printed[name])
    for name, (theirs, students) in (printed or {}).items():
        side = "bottom center" if order.index(name) % 2 else "top center"
        fig.add_scatter(x=[theirs], y=[students], mode="markers+text", text=[name],
                        name=f"printed: {name}", textposition=side, showlegend=False,
                        row=1, col=2, marker={"color": INK, "symbol": "circle-open", "size": 9,
                                              "line": {"width": 1.8}})  # fmt: skip
    for column, words in enumerate((metric, printed_metric)[: len(heads)], 1):
        own = teachers.values() if column == 1 else printed.values()
        x, y = [rate for rate, _ in own], np.ravel([v for _, vs in own for v in np.atleast_1d(vs)])
        for update, what, ends in (
                (fig.update_xaxes, "teacher's", x),
                (fig.update_yaxes, "student's", [*y, *([alone] if alone and column == 1 else [])])):
            low, high = min(ends), max(ends)
            room = 0.2 * (high - low) or 0.01
            update(title_text=f"{what} {words}", range=[low - room, high + room], row=1, col=column,
                   tickformat=".0%" if column == 1 else "", nticks=6)  # fmt: skip
    return fig.update_layout(template=TEMPLATE, title=heading(title, subtitle), height=440,
                             width=900 if printed else 560, margin={"t": 96})  # fmt: skip
