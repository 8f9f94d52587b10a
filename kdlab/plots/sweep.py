"""A sweep over a loss's weight, against a margin inside of which a difference counts as none.

Li et al., "Rethinking Feature-based Knowledge Distillation for Face Recognition", CVPR 2023,
supplement, tables 2 (beta1) and 3 (beta2). The printed rates have a panel of their own, as in
`ablation`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.ablation import PRINTED, TINT
from kdlab.plots.style import GREY, INK, PAPER, SKY, TEMPLATE, faded, method
from kdlab.plots.thresholds import heading

OURS, THEIRS = "computed here", "printed in the paper: other data"
WIDE, ALONE = 860, 700  # pixels, with the paper's panel and without; ours


def weight_sweep(
    values: Sequence[float],
    difference: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    margin: float,
    default: float,
    paper: Mapping[str, Mapping[float, float]] | None = None,
    *,
    symbol: str = "β<sub>2</sub>",
    look: str = "feature_only",
    unit: str = "points of TPR",
    printed_unit: str = "points",
    title: str = "Does the weight matter?",
    subtitle: str | None = "filled: the whole interval lies inside the margin",
) -> go.Figure:
    """Differences to the default weight, over the weight, against a margin of equivalence.

    values: (K,) weights above 0.   difference, low, high: (K,) in `unit`, to the run at `default`
    (0 there).   margin: differences within +-margin count as none, drawn as a band.   paper:
    series -> {weight: printed rate in %}, beside it as differences to the printed one at `default`,
    without the margin, which is ours.   look: a method's name in METHODS.
    Raises ValueError for arrays that do not fit, weights or a margin not above 0, an interval that
    does not hold its difference, a printed series without the default, or more than three.
    """
    x, value, below, above = (np.asarray(part, float) for part in (values, difference, low, high))
    if x.ndim != 1 or not x.shape == value.shape == below.shape == above.shape or not x.size:
        raise ValueError("values, difference, low and high should be (K,) each")
    if not (x > 0).all() or not margin > 0:
        raise ValueError("weights (log axis) and margin should be above 0")
    if (below > value).any() or (above < value).any():
        raise ValueError("a difference is outside its interval")
    own, words = method(look), f"{symbol}, log scale"
    panels = {"column_widths": [0.55, 0.45], "horizontal_spacing": 0.13,
              "subplot_titles": [OURS, THEIRS]}  # fmt: skip
    fig = make_subplots(1, 2, **panels) if paper else make_subplots(1, 1)
    fig.update_annotations(font_size=13)
    fig.add_shape(type="rect", xref="x domain", x0=0, x1=1, yref="y", y0=-margin, y1=margin,
                  fillcolor=faded(SKY, 0.22), line={"width": 0}, layer="below")  # fmt: skip
    fig.add_annotation(xref="x domain", x=1, yref="y", y=margin, text=f"margin ±{margin:g}",
                       showarrow=False, xanchor="right", yanchor="bottom", font={"size": 11})
    inside = (below > -margin) & (above < margin)
    fig.add_scatter(x=x, y=value, mode="lines", name=own.label, showlegend=False,
                    line={"color": own.color, "width": 1.5}, hoverinfo="skip",
                    row=1, col=1)  # fmt: skip
    fig.add_scatter(
        x=x, y=value, mode="markers", name=own.label, showlegend=False, row=1, col=1,
        marker={"color": [own.color if k else PAPER for k in inside], "size": 10,
                "symbol": "circle", "line": {"width": 2, "color": own.color}},
        error_y={"type": "data", "array": above - value, "arrayminus": value - below,
                 "thickness": 1.8, "width": 5, "color": own.color},
        hovertemplate="%{x:g}: %{y:.2f}<extra>" + own.label + "</extra>",
    )  # fmt: skip
    ends = np.array([*below, *above, -margin, margin])
    _weights(fig, 1, x, ends, default, words, f"difference ({unit})")
    if paper:
        _printed(fig, paper, default, words, f"printed difference ({printed_unit})")
    return fig.update_layout(
        template=TEMPLATE, title=heading(title, subtitle), width=WIDE if paper else ALONE,
        height=440, margin={"t": 90 if paper else 60},
        legend={"orientation": "h", "x": 0.4 if paper else 0, "y": -0.2, "yanchor": "top"},
    )  # fmt: skip


def _weights(fig: go.Figure, column: int, x: np.ndarray, ends: np.ndarray, default: float,
             words: str, unit: str) -> None:  # fmt: skip
    """Axes of one sweep: every weight named, zero and the default drawn."""
    spot = {"row": 1, "col": column}
    low, high = float(ends.min()), float(ends.max())
    room = 0.1 * (high - low) or 1.0
    logs = np.log10([*x, default])
    side = 0.08 * np.ptp(logs) or 0.3
    fig.add_scatter(x=[default, default], y=[low - room, high + room], mode="lines", name="default",
                    line={"color": GREY, "width": 1.4, "dash": "dot"}, showlegend=False,
                    hoverinfo="skip", **spot)  # fmt: skip
    fig.add_annotation(x=np.log10(default), y=low - 0.6 * room, text="default", showarrow=False,
                       xanchor="left", xshift=4, font={"size": 11, "color": GREY},
                       bgcolor="rgba(255,255,255,0.85)", **spot)  # fmt: skip
    fig.update_xaxes(title_text=words, type="log", tickvals=np.unique(x),
                     ticktext=[f"{v:g}" for v in np.unique(x)],
                     range=[logs.min() - side, logs.max() + side], **spot)  # fmt: skip
    fig.update_yaxes(title_text=unit, range=[low - room, high + room], zeroline=True,
                     zerolinecolor=INK, **spot)  # fmt: skip


def _printed(fig: go.Figure, paper: Mapping[str, Mapping[float, float]], default: float,
             words: str, unit: str) -> None:  # fmt: skip
    """The paper's rates as differences to its own default, open markers on tinted ground."""
    fig.add_shape(type="rect", xref="x2 domain", x0=0, x1=1, yref="y2 domain", y0=0, y1=1,
                  fillcolor=TINT, line={"width": 0}, layer="below")  # fmt: skip
    if len(paper) > len(PRINTED):
        raise ValueError(f"weight_sweep draws {len(PRINTED)} printed series, got {len(paper)}")
    seen, places = [0.0], []
    for (name, rates), (ink, symbol), dash in zip(paper.items(), PRINTED, ("solid", "dash", "dot"),
                                                  strict=False):  # fmt: skip
        if default not in rates:
            raise ValueError(f"the printed series '{name}' has no rate at the default {default:g}")
        x = np.array(sorted(rates), float)
        gain = [rates[weight] - rates[default] for weight in sorted(rates)]
        fig.add_scatter(
            x=x, y=gain, mode="lines+markers", name=f"printed: {name}", row=1, col=2,
            line={"color": ink, "dash": dash, "width": 1.5},
            marker={"color": ink, "symbol": symbol, "size": 9, "line": {"width": 1.8}},
            hovertemplate="%{x:g}: %{y:+.2f}<extra>" + name + "</extra>",
        )  # fmt: skip
        seen += gain
        places += x.tolist()
    _weights(fig, 2, np.array(places), np.array(seen), default, words, unit)
