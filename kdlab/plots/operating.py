"""Figures about operating points: what a target FPR rests on, and what two rules make of it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.style import BLUE, GREY, INK, VERMILLION, figure
from kdlab.plots.verification import score_histograms

RED = "#B00020"  # a rate that the data cannot show; dark enough to read as text
FEW = 10  # impostor pairs; with fewer accepted, one pair more or less moves the FPR by over 10 %
RULES = {"below": (BLUE, "solid", "circle"), "nearest": (VERMILLION, "dash", "diamond")}


class Support(NamedTuple):
    """What a target FPR rests on.   expected: impostor pairs it allows, a fraction of one too.

    state: "measured", "few" (under FEW pairs) or "none" (under one pair).
    """

    expected: float
    state: str


def support(impostors: int, fpr: float) -> Support:
    """How many of `impostors` pairs a target FPR allows, and whether that is enough to speak of."""
    expected = impostors * fpr
    nearly = expected * (1 + 1e-9)  # 1000 * 1e-3 is a full pair, whatever the rounding
    return Support(expected, "none" if nearly < 1 else "few" if nearly < FEW else "measured")


def operating_words(impostors: int, fpr: float, tpr: float, low: float, high: float,
                    threshold: float, needed: tuple[int, int]) -> str:  # fmt: skip
    """One operating point in words; where the data ends, that and what it would take.

    tpr with its interval low..high: fractions.   needed: (impostor pairs, people with one picture
    each) for FEW pairs to be expected at this FPR.
    """
    expected, state = support(impostors, fpr)
    rate = f"TPR {100 * tpr:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    take = (f"{FEW} would need {needed[0]:,} pairs: one picture each of {needed[1]:,} people")
    if state == "none":
        return (f"FPR {fpr:.0e} is NOT MEASURABLE here: it allows {expected:.2g} of {impostors:,} "
                f"impostor pairs. {take}")  # fmt: skip
    words = f"FPR {fpr:.2g}: threshold {threshold:.3f}, {rate}, {int(expected + 1e-6):,} impostors"
    return f"{words} pass" if state == "measured" else f"{words} pass, FEW. {take}"


def operating_view(genuine: np.ndarray, impostor: np.ndarray, fpr: float,
                   point: tuple[float, float, float, float], needed: tuple[int, int]
                   ) -> go.Figure:  # fmt: skip
    """The score histograms with the threshold of a target FPR, red where the data ends.

    point: (tpr, threshold, low, high), rule "below".   needed: see `operating_words`. Grey: the
    thresholds that fewer than FEW impostor pairs reach; red: those that none reaches.
    """
    tpr, threshold, low, high = point
    state = support(np.size(impostor), fpr).state
    ink = RED if state == "none" else INK
    words = operating_words(np.size(impostor), fpr, tpr, low, high, threshold, needed)
    fig = score_histograms(genuine, impostor, log_counts=True, subtitle=_lines(words),
                           title="Threshold of a target false-positive rate")  # fmt: skip
    top = np.sort(np.partition(impostor, -min(FEW, np.size(impostor)))[-FEW:])
    right = max(float(np.max(genuine)), float(top[-1])) + 0.02
    for x0, x1, fill in ((top[0], top[-1], GREY), (top[-1], right, RED)):
        fig.add_shape(type="rect", x0=float(x0), x1=float(x1), y0=0, y1=1, yref="y domain",
                      fillcolor=fill, opacity=0.14, line={"width": 0}, layer="below")  # fmt: skip
    fig.add_shape(type="line", x0=threshold, x1=threshold, y0=0, y1=1, yref="y domain",
                  line={"color": ink, "width": 2.5 if state == "none" else 1.5,
                        "dash": "solid" if state == "none" else "dot"})  # fmt: skip
    fig.add_annotation(x=right, y=0.02, yref="y domain", showarrow=False, xanchor="right",
                       yanchor="bottom", align="right", font={"size": 11, "color": RED},
                       bgcolor="rgba(255,255,255,0.85)", text="no impostor<br>reaches here")
    fig.update_layout(title_subtitle_font_color=RED if state == "none" else GREY)
    fig.update_yaxes(**_decades(fig.data[-1].y))
    return fig


def _lines(words: str) -> str:
    """A break before what it would take: one line is as wide as the figure."""
    return words.replace(f". {FEW} would", f".<br>{FEW} would")


def rules_words(targets: np.ndarray, rules: Mapping[str, tuple[np.ndarray, np.ndarray]],
                at: float) -> str:  # fmt: skip
    """What each rule gives at the target nearest to `at`.   rules: name -> (fpr, tpr)."""
    k = _nearest(targets, at)
    each = [f"{name}: FPR {fpr[k]:.2e} ({fpr[k] / targets[k]:.2f} x the target), "
            f"TPR {100 * tpr[k]:.1f} %" for name, (fpr, tpr) in rules.items()]  # fmt: skip
    return f"target {targets[k]:.1e}. " + "; ".join(each)


def rules_view(targets: np.ndarray, rules: Mapping[str, tuple[np.ndarray, np.ndarray]], at: float,
               pairs: int) -> go.Figure:  # fmt: skip
    """The FPR each rule really gives against the FPR asked for, both logarithmic.

    targets: (A,) ascending.   rules: "below", "nearest" -> (fpr, tpr), (A,) fractions.
    at: the target marked.   pairs: impostor pairs. A rate of 0 is drawn on the lower rim.
    """
    floor = min(float(targets[0]), 1 / pairs) / 2
    k = _nearest(targets, at)
    words = rules_words(targets, rules, at).replace(". below", ".<br>below").replace("; ", "<br>")
    fig = figure("The false-positive rate asked for, and the one got", words, height=440)
    fig.add_scatter(x=targets[[0, -1]], y=targets[[0, -1]], mode="lines", name="as asked",
                    line={"color": GREY, "dash": "dot", "width": 1.2})  # fmt: skip
    for name, (fpr, _) in rules.items():
        ink, dash, symbol = RULES[name]
        y = np.maximum(fpr, floor)
        fig.add_scatter(x=targets, y=y, mode="lines", name=f"rule {name}",
                        line={"color": ink, "dash": dash, "width": 2, "shape": "hv"})  # fmt: skip
        fig.add_scatter(x=targets[[k]], y=y[[k]], mode="markers", showlegend=False, name=name,
                        marker={"color": ink, "symbol": symbol, "size": 10})  # fmt: skip
    span = [np.log10(floor), np.log10(max(float(np.max(f)) for f, _ in rules.values())) + 0.1]
    fig.update_xaxes(title_text="target FPR (fraction, log scale)", type="log",
                     **_decades(targets))  # fmt: skip
    fig.update_yaxes(title_text="FPR got (fraction, log scale; lower rim: 0)", type="log",
                     range=span, **_decades(10.0 ** np.array(span)))  # fmt: skip
    fig.update_layout(margin_t=100, legend={"orientation": "h", "x": 0, "y": -0.2,
                                            "yanchor": "top"})  # fmt: skip
    return fig


def _nearest(grid: np.ndarray, value: float) -> int:
    """Index of the grid's value nearest on a logarithmic scale."""
    return int(np.argmin(np.abs(np.log(grid) - np.log(value))))


def _decades(values: np.ndarray) -> dict:
    """Ticks of a logarithmic axis at powers of ten, written out: a third of the drawing time of
    those with minor ticks between, which a slider would wait for."""
    values = np.asarray(values, float)
    ends = np.log10([np.nanmin(values[values > 0]), np.nanmax(values)])
    powers = range(int(np.floor(ends[0])), int(np.ceil(ends[1])) + 1)
    return {"tickvals": [10.0**p for p in powers], "ticktext": [f"{10.0**p:g}" for p in powers]}
