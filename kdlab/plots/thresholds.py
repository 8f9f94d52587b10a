"""Figures about EKD's thresholds: over training, and against the pairs of both models.

Huang, Wu, Xu, Ding, "Evaluation-oriented Knowledge Distillation for Deep Face Recognition", CVPR
2022, eq. 4 and figure 2. Thresholds come from the caller; only what a drawing needs (bins, a
choice of points) is made here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.relations import rate, spread
from kdlab.plots.style import (
    GENUINE,
    GREY,
    IMPOSTOR,
    INK,
    MARKERS,
    TEMPLATE,
    faded,
    figure,
)

# An ordered scale, from a lenient rate to a strict one: matplotlib's "plasma" without its light
# end, so that each has a contrast of 3:1 to the paper.
INKS = ("#E3685F", "#CB4679", "#AA2395", "#7E03A8", "#4C02A1", "#0D0887")
POINTS = 250  # of a curve: a panel is about as many pixels wide; ours
PANEL = 330  # pixels of a panel's width and height; ours
BINS = 90  # of a density; ours
LABEL = 0.115  # of the axis, from label to label: 30 of the 278 pixels of a small multiple
HARDEST = 60  # pairs drawn one by one in a density's tail; ours
ROW, GAP = 2.3, 1.15  # places of the two models in `threshold_strips`: their distance, half a row


def threshold_timeline(
    steps: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    fprs: Sequence[float],
    *,
    reference: str | None = "true quantile",
    overlay: bool = False,
    marks: Mapping[str, float] | None = None,
    title: str = "Thresholds while training",
    subtitle: str | None = "at a curve's end: the false-positive rate it is for",
) -> go.Figure:
    """Thresholds over steps: a panel for each kind, the reference dotted in every one.

    steps: (T,).   kinds: name -> (T, K) cosine similarities, NaN where there is none; one to five
    with the reference.   fprs: K fractions, one colour and one label each.   overlay: all kinds in
    one panel, for one to three FPRs.   marks: words -> step, vertical lines.
    Raises ValueError for kinds that do not fit steps and fprs.
    """
    kinds = {name: np.asarray(values, float) for name, values in kinds.items()}
    steps = np.asarray(steps, float)
    for name, values in kinds.items():
        if values.shape != (len(steps), len(fprs)):
            raise ValueError(f"kind '{name}' is {values.shape} and should be (T, K) = "
                             f"({len(steps)}, {len(fprs)}): steps, FPRs")
    if not 1 <= len(kinds) <= 5 or not len(steps):
        raise ValueError(f"threshold_timeline draws one to five kinds over at least one step, got "
                         f"{len(kinds)} over {len(steps)}")
    own = [name for name in kinds if name != reference] or list(kinds)
    more = [name for name in kinds if name not in own]
    panels = {"": own + more} if overlay else {name: [name, *more] for name in own}
    dash = dict(zip(own, ("solid", "dash", "dashdot", "longdash", "longdashdot"), strict=False))
    wide = min(2, len(panels))
    high = -(-len(panels) // wide)
    cells = [{}] * len(panels) + [None] * (wide * high - len(panels))
    specs = [cells[row * wide : (row + 1) * wide] for row in range(high)]
    names = list(panels) if len(panels) > 1 else None  # one panel is named by its legend
    fig = make_subplots(high, wide, specs=specs, subplot_titles=names,
                        horizontal_spacing=0.26 / wide, vertical_spacing=0.22 / high)
    fig.update_annotations(font_size=13)
    keep = np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int))
    for name in kinds:  # the legend: a dash is a kind, whatever its colour
        fig.add_scatter(x=[None], y=[None], mode="lines", name=name,
                        line={"color": INK, "dash": dash.get(name, "dot"), "width": 2})  # fmt: skip
    seen = np.concatenate([values[np.isfinite(values)] for values in kinds.values()])
    low, top = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    pad = 0.05 * max(top - low, 1e-3)
    ends = [low - pad, top + pad * (1 + 1.4 * len(marks or ()))]
    for place, drawn in enumerate(panels.values()):
        spot = {"row": place // wide + 1, "col": place % wide + 1}
        for name in drawn:
            for k, ink in enumerate(inks(len(fprs))):
                fig.add_scatter(
                    x=steps[keep].astype(np.float32), mode="lines", showlegend=False, **spot,
                    y=kinds[name][keep, k].astype(np.float32), name=f"{name}, FPR {rate(fprs[k])}",
                    line={"color": ink, "dash": dash.get(name, "dot"),
                          "width": 2 if name in own else 1.6},
                    hovertemplate=f"step %{{x}}: %{{y:.3f}}<extra>{name}, "
                                  f"FPR {rate(fprs[k])}</extra>",
                )  # fmt: skip
        _ends(fig, steps, kinds[drawn[0]], fprs, ends, spot)
        for row, (words, step) in enumerate((marks or {}).items()):
            fig.add_vline(x=step, line={"color": GREY, "width": 1}, layer="below", **spot)
            fig.add_annotation(x=step, y=ends[1], text=words, showarrow=False, xanchor="left",
                               yanchor="top", xshift=2, yshift=-13 * row, **spot,
                               font={"size": 11, "color": GREY}, bgcolor="rgba(255,255,255,0.85)")
    span = max(float(steps[-1] - steps[0]), 1e-9)
    fig.update_xaxes(title_text="training step", nticks=5,
                     range=[steps[0] - 0.02 * span, steps[-1] + 0.24 * span])  # fmt: skip
    fig.update_yaxes(title_text="threshold (cosine similarity)", range=ends)
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), margin={"t": 84, "r": 20},
        width=620 if wide == 1 else PANEL * wide, height=100 + PANEL * high,
        legend={"orientation": "h", "x": 0, "y": -66 / (PANEL * high), "yanchor": "top"},
    )  # fmt: skip


def threshold_strips(
    teacher: tuple[np.ndarray, np.ndarray, np.ndarray],
    student: tuple[np.ndarray, np.ndarray, np.ndarray],
    fprs: Sequence[float],
    *,
    title: str = "One false-positive rate, two similarities",
    subtitle: str | None = "lines: thresholds, with their false-positive rate and similarity; "
                           f"ticks: the {HARDEST} hardest pairs",
) -> go.Figure:
    """Both models' pairs over one axis, the threshold of each FPR joined from one to the other.

    teacher, student: (genuine (P,), impostor (Q,), thresholds (K,)), cosine similarities.
    fprs: K fractions. A curve is scaled to its peak; the HARDEST pairs of each kind are ticks.
    Raises ValueError for empty or non-finite similarities, or thresholds that do not fit fprs.
    """
    models = {"teacher": (teacher, ROW), "student": (student, 0.0)}
    for name, (parts, _) in models.items():
        for kind, values in zip(("genuine", "impostor", "threshold"), parts, strict=True):
            if np.size(values) == 0 or not np.all(np.isfinite(values)):
                raise ValueError(f"the {name}'s {kind} values are empty or not finite")
        if np.shape(parts[2]) != (len(fprs),):
            raise ValueError(f"the {name} has {np.size(parts[2])} thresholds for {len(fprs)} FPRs")
    every = np.concatenate([np.ravel(v) for parts, _ in models.values() for v in parts])
    low, high = float(every.min()), float(every.max())
    span = max(high - low, 1e-3)
    edges = np.linspace(low, low + span, BINS + 1)
    fig = figure(title, subtitle, height=520)
    for name, (parts, base) in models.items():
        for way, values, ink, words in ((1, parts[0], GENUINE, "same person (above the line)"),
                                        (-1, parts[1], IMPOSTOR, "two people (below)")):
            count, _ = np.histogram(values, edges)
            outline = np.repeat(edges, 2)
            tall = np.concatenate([[0], np.repeat(count / count.max(), 2), [0]])
            fig.add_scatter(
                x=outline, y=base + 0.9 * way * tall, mode="lines", fill="toself", name=words,
                fillcolor=faded(ink, 0.2), legendgroup=words, showlegend=name == "teacher",
                line={"color": ink, "width": 1.5, "dash": "solid" if way > 0 else "dash"},
                hoverinfo="skip",
            )  # fmt: skip
            hard = np.sort(way * np.asarray(values, float).ravel())[:HARDEST] * way
            fig.add_scatter(
                x=np.repeat(hard, 3), y=np.tile([base, base + 0.13 * way, np.nan], len(hard)),
                mode="lines", line={"color": ink, "width": 1}, showlegend=False, hoverinfo="skip",
                legendgroup=words, name=f"{name}, hardest {words}",
            )  # fmt: skip
    _joined(fig, [np.asarray(parts[2], float) for parts, _ in models.values()], fprs, low, span)
    fig.update_xaxes(title_text="cosine similarity", range=[low - 0.03 * span, high + 0.03 * span])
    fig.update_yaxes(title_text="share of pairs (each curve scaled to its peak)",
                     tickvals=[0, ROW], ticktext=["student", "teacher"], showgrid=False,
                     range=[-GAP - 0.8, ROW + GAP + 0.8])  # fmt: skip
    return fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"})


def heading(title: str, subtitle: str | None) -> dict:
    """layout.title."""
    return {"text": title} | ({"subtitle": {"text": subtitle}} if subtitle else {})


def inks(count: int) -> list[str]:
    """`count` colours of the ordered scale, its ends first apart."""
    return [INKS[i] for i in np.linspace(0, len(INKS) - 1, count).round().astype(int)]


def _ends(fig: go.Figure, steps: np.ndarray, values: np.ndarray, fprs: Sequence[float],
          ends: list[float], spot: dict) -> None:  # fmt: skip
    """A marker at the last value of every FPR's curve, and its label beside it."""
    span, wide = ends[1] - ends[0], max(float(steps[-1] - steps[0]), 1e-9)
    known = np.isfinite(values)
    last = [int(np.flatnonzero(column)[-1]) for column in known.T if column.any()]
    rows = [k for k in range(len(fprs)) if known[:, k].any()]
    tips = np.array([values[n, k] for n, k in zip(last, rows, strict=True)])
    order = np.argsort(tips, kind="stable")
    places = spread(tips[order], 0.062 * span, ends[0] + 0.03 * span, ends[1] - 0.03 * span)
    for place, j in zip(places, order, strict=True):
        k, x = rows[j], float(steps[last[j]])
        ink = inks(len(fprs))[k]
        fig.add_scatter(x=[x, x + 0.06 * wide], y=[tips[j], place], mode="lines", name="leader",
                        showlegend=False, hoverinfo="skip", line={"color": ink, "width": 1},
                        **spot)  # fmt: skip
        fig.add_scatter(x=[x], y=[tips[j]], mode="markers", name=f"FPR {rate(fprs[k])}",
                        showlegend=False, hoverinfo="skip", **spot,
                        marker={"color": ink, "symbol": MARKERS[k % len(MARKERS)], "size": 7})
        fig.add_annotation(x=x + 0.065 * wide, y=place, text=rate(fprs[k]), showarrow=False,
                           xanchor="left", yanchor="middle", font={"size": 11}, **spot)


def _joined(fig: go.Figure, thresholds: list[np.ndarray], fprs: Sequence[float], low: float,
            span: float) -> None:  # fmt: skip
    """A line for each FPR: label, the teacher's threshold, the student's, label."""
    places = []
    for values in thresholds:
        order = np.argsort(values, kind="stable")
        spots = np.empty(len(values))
        spots[order] = spread(values[order], LABEL * span, low, low + span)
        places.append(spots)
    for k, ink in enumerate(inks(len(fprs))):
        theirs, mine = (float(values[k]) for values in thresholds)
        fig.add_scatter(
            x=[places[0][k], theirs, theirs, mine, mine, places[1][k]], mode="lines",
            y=[ROW + GAP, ROW + 0.95, ROW - 0.95, 0.95, -0.95, -GAP], showlegend=False,
            line={"color": ink, "width": 1.6}, name=f"FPR {rate(fprs[k])}", hoverinfo="skip",
        )  # fmt: skip
        for spot, value, y, side in ((places[0][k], theirs, ROW + GAP, "bottom"),
                                     (places[1][k], mine, -GAP, "top")):
            lines = [f"<b>{rate(fprs[k])}</b>", f"{value:.2f}"]
            fig.add_annotation(x=float(spot), y=y, text="<br>".join(lines), showarrow=False,
                               yanchor=side, xanchor="center", font={"size": 11})
