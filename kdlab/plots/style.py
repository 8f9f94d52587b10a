"""One look for every figure: colours by method, a quiet theme, nothing that uploads.

Colours of the papers' own methods are those of Okabe and Ito (Color Universal Design, 2008); the
older baselines take Paul Tol's "muted" scheme (SRON/EPS/TN/09-002, 2021). Both are made for
colour-blind readers, and because no palette of twenty is safe alone, each method also has a
marker and a dash that no other method shares with it; curves carry both (`beads`).

Every colour that draws data has a contrast of at least 3:1 to the paper, and every colour that
writes 4.5:1 (WCAG 2.2, 1.4.11 and 1.4.3). Okabe and Ito's orange (2.2:1) and sky blue (2.3:1) and
some of Tol's are too faint on white and stand here darker, at the same proportions of linear red,
green and blue. Their yellow (1.3:1) is left out: dark enough to see, it is olive. A figure brings
its own white paper, also into a dark notebook, so that these numbers hold in both.
"""

import sys
from collections.abc import Iterable
from itertools import cycle
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

PAPER, INK = "#FFFFFF", "#222222"  # what a figure lies on and is written with; ours
BLACK, GREEN, BLUE = "#000000", "#009E73", "#0072B2"  # Okabe and Ito
VERMILLION, PURPLE = "#D55E00", "#CC79A7"
ORANGE, SKY = "#C38600", "#499AC9"  # theirs, darkened: #E69F00 and #56B4E9
GREY, LIGHT = "#6B6B6B", "#E5E5E5"  # text and grid that stay behind the data; ours


class Look(NamedTuple):
    """How one method is drawn: colour "#rrggbb", plotly marker symbol, plotly dash, label."""

    color: str
    marker: str
    dash: str
    label: str


METHODS: dict[str, Look] = {
    "teacher": Look(BLACK, "circle", "solid", "teacher"),
    "dlib_resnet29": Look("#2A6F97", "square", "dashdot", "dlib (photographs)"),
    "arcface": Look(GREY, "square", "dash", "ArcFace alone"),
    # the five papers
    "shrinkteanet": Look(GREEN, "triangle-up", "solid", "ShrinkTeaNet"),
    "ekd": Look(BLUE, "circle", "dash", "EKD"),
    "adadistill": Look(VERMILLION, "diamond", "solid", "AdaDistill"),
    "feature_only": Look(PURPLE, "cross", "solid", "feature only (ReFO)"),
    "mfd": Look(ORANGE, "star", "dashdot", "MFD"),
    # their variants and controls
    "reverse_distillation": Look("#8C3F66", "x", "dot", "reverse distillation (ReFO)"),
    "arcdistill": Look("#8F3F00", "diamond-open", "dash", "ArcDistill"),
    "cosdistill": Look("#B8804D", "diamond-open", "dot", "CosDistill"),
    "feature_l2": Look("#00543D", "triangle-up-open", "dash", "feature L2"),
    "adversarial_debiasing": Look("#8A6000", "star-open", "dash", "adversarial debiasing"),
    "cosface": Look("#929292", "square-open", "dot", "CosFace alone"),
    "cross_entropy": Look("#444444", "square-open", "solid", "cross entropy"),
    # the baselines
    "hinton_kd": Look(SKY, "triangle-down", "solid", "Hinton KD"),
    "rkd": Look("#332288", "pentagon", "dashdot", "RKD"),
    "fitnet": Look("#117733", "hexagon", "dot", "FitNet"),
    "attention_transfer": Look("#40A191", "pentagon", "dot", "attention transfer"),
    "nst": Look("#6599B4", "triangle-right", "dash", "NST"),
    "sp": Look("#999933", "triangle-down", "dash", "SP"),
    "cckd": Look("#CC6677", "triangle-right", "solid", "CCKD"),
    "darkrank": Look("#882255", "hexagon", "dashdot", "DarkRank"),
    "triplet_distillation": Look("#AA4499", "triangle-left", "dot", "triplet distillation"),
    "margin_distillation": Look("#A39246", "triangle-left", "solid", "margin distillation"),
}

# Rows that are no methods (factors, numbers of people): what they are, their label says. Ours.
PLAIN = Look("#4A5568", "circle", "solid", "")

# For names that are no method, in this order. Nine and four have no common divisor, so that a
# marker comes back with the same dash only after 36 names.
FALLBACK = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("circle", "diamond", "triangle-up", "cross", "square", "x", "star", "pentagon",
           "triangle-down")  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")

GENUINE, IMPOSTOR = BLUE, ORANGE  # the two score distributions, everywhere

# plotly 7 shows an upload button ("Share chart") unless told otherwise, and would send the data to
# plotlyServerURL. Faces and their scores are biometric data: both off, the button also removed by
# name. An empty URL makes plotly.js refuse even when the button is forced back.
CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud"],
    "displaylogo": False,
    "responsive": False,
}

WIDTH, HEIGHT = 760, 420  # pixels; fits a notebook's text column and a printed page


def _template() -> go.layout.Template:
    axis = {
        "showline": True,
        "linecolor": GREY,
        "gridcolor": LIGHT,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": GREY,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12}},
    }
    return go.layout.Template(
        layout={
            "width": WIDTH,
            "height": HEIGHT,
            "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": INK},
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 8},
                "font": {"size": 15},
                "subtitle": {"font": {"size": 12, "color": GREY}},
            },
            "colorway": list(FALLBACK),
            "colorscale": {"sequential": "Cividis", "diverging": "RdBu_r"},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 20, "t": 56, "b": 50},
            "legend": {"font": {"size": 11}, "itemwidth": 44},  # a whole period of each dash
            "hovermode": "closest",
        },
        data={"heatmap": [{"colorscale": "Cividis"}]},
    )


TEMPLATE = _template()


def figure(title: str, subtitle: str | None = None, **layout) -> go.Figure:
    """An empty figure in the kdlab theme; `layout` are plotly layout keys."""
    text = {"text": title} | ({"subtitle": {"text": subtitle}} if subtitle else {})
    return go.Figure(layout={"template": TEMPLATE, "title": text} | layout)


def method(name: str) -> Look | None:
    """The look of a method in METHODS; "Feature-Only" and "feature_only" are the same one."""
    return METHODS.get(name.strip().lower().replace("-", "_").replace(" ", "_"))


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name, in order: a method's own where METHODS knows it, else a spare one.

    Spare looks differ from one another, and from every named method in the list by more than
    colour; they take colours that no named method uses, as long as there are any.
    """
    known = {name: method(name) for name in names}
    used = [own for own in known.values() if own]
    colors = [c for c in FALLBACK if c not in {own.color for own in used}] or FALLBACK
    free = [m for m in MARKERS if m not in {own.marker for own in used}] or MARKERS
    shapes = (shape for shape in zip(cycle(MARKERS), cycle(DASHES), strict=False)
              if shape[0] in free and shape not in {own[1:3] for own in used})  # fmt: skip
    inks = cycle(colors)
    return {name: own or Look(next(inks), *next(shapes), name) for name, own in known.items()}


def beads(x: np.ndarray, y: np.ndarray, look: Look, group: str) -> go.Scatter:
    """A few markers on a curve, and its entry in the legend, marker and dash together.

    x, y: (K,) points of the curve.   group: the legendgroup of the curve's own trace, which draws
    the line (with `showlegend=False`); the gaps between the points here keep a second one out.
    """
    gapped = np.full((2, 2 * len(x)), np.nan, np.float32)
    gapped[:, ::2] = x, y
    return go.Scatter(
        x=gapped[0], y=gapped[1], mode="lines+markers", name=look.label, legendgroup=group,
        line={"color": look.color, "dash": look.dash, "width": 2}, hoverinfo="skip",
        marker={"color": look.color, "symbol": look.marker, "size": 8},
    )  # fmt: skip


def faded(color: str, alpha: float) -> str:
    """"#rrggbb" with an opacity in 0..1, for bands: "rgba(r, g, b, alpha)"."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha:g})"


def band(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str, name: str
) -> go.Scatter:
    """A filled region between two curves over `x`, as one closed outline in single precision."""
    outline = np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
    return go.Scatter(
        x=outline[0].astype(np.float32), y=outline[1].astype(np.float32), fill="toself",
        fillcolor=faded(color, 0.2), line={"width": 0}, mode="lines", hoverinfo="skip",
        showlegend=False, legendgroup=name, name=name,
    )  # fmt: skip


def no_upload() -> None:
    """Give every plotly renderer of this process CONFIG, so that `fig.show()` is safe as well.

    They get it whenever plotly hands them out, which it does by its module's `__getattr__`; made
    here, they would import nbformat and with it every grammar of JSON Schema, seconds in a kernel.
    """
    hand_out = pio.__getattr__

    def safely(name: str):
        if name in ("renderers", "show"):
            for _, renderer in hand_out("renderers").items():
                if hasattr(renderer, "config"):
                    renderer.config = {**(renderer.config or {}), **CONFIG}
        return hand_out(name)

    pio.__getattr__ = safely
    if "plotly.io._renderers" in sys.modules:  # somebody may hold them already
        safely("renderers")
