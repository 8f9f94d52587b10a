"""One look for every figure: colours by method, a quiet theme, nothing that uploads.

Colours of the papers' own methods are those of Okabe and Ito (Color Universal Design, 2008); the
older baselines take Paul Tol's "muted" scheme (SRON/EPS/TN/09-002, 2021). Both are made for
colour-blind readers, and because no palette of twenty is safe alone, each method also has a
marker and a dash that no other method shares with it.
"""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"  # Okabe and Ito
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
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
    "mfd": Look(ORANGE, "star", "solid", "MFD"),
    # their variants and controls
    "reverse_distillation": Look("#8C3F66", "x", "dot", "reverse distillation (ReFO)"),
    "arcdistill": Look("#8F3F00", "diamond-open", "dash", "ArcDistill"),
    "cosdistill": Look("#B8804D", "diamond-open", "dot", "CosDistill"),
    "feature_l2": Look("#00543D", "triangle-up-open", "dash", "feature L2"),
    "adversarial_debiasing": Look("#8A6000", "star-open", "dash", "adversarial debiasing"),
    "cosface": Look("#A3A3A3", "square-open", "dot", "CosFace alone"),
    "cross_entropy": Look("#444444", "square-open", "solid", "cross entropy"),
    # the baselines
    "hinton_kd": Look(SKY, "triangle-down", "solid", "Hinton KD"),
    "rkd": Look("#332288", "pentagon", "dashdot", "RKD"),
    "fitnet": Look("#117733", "hexagon", "dot", "FitNet"),
    "attention_transfer": Look("#44AA99", "pentagon", "dot", "attention transfer"),
    "nst": Look("#88CCEE", "hexagon", "dash", "NST"),
    "sp": Look("#999933", "triangle-down", "dash", "SP"),
    "cckd": Look("#CC6677", "pentagon", "solid", "CCKD"),
    "darkrank": Look("#882255", "hexagon", "dashdot", "DarkRank"),
    "triplet_distillation": Look("#AA4499", "triangle-down", "dot", "triplet distillation"),
    "margin_distillation": Look("#C9B458", "hexagon", "solid", "margin distillation"),
}

# Rows that are no methods (factors, numbers of people): what they are, their label says. Ours.
PLAIN = Look("#4A5568", "circle", "solid", "")

# For names that are no method, in this order (yellow last: it is faint on white).
FALLBACK = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = ("circle", "diamond", "triangle-up", "cross", "square", "x", "star", "pentagon")
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
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        layout={
            "width": WIDTH,
            "height": HEIGHT,
            "font": {"family": "DejaVu Sans, Verdana, sans-serif", "size": 12, "color": "#222222"},
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
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 20, "t": 56, "b": 50},
            "legend": {"font": {"size": 11}},
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

    Spare looks differ from one another and take colours that no named method in the list uses, as
    long as there are any.
    """
    known = {name: method(name) for name in names}
    used = {own.color for own in known.values() if own}
    colors = [color for color in FALLBACK if color not in used] or list(FALLBACK)
    result, spare = {}, 0
    for name, own in known.items():
        if own:
            result[name] = own
            continue
        result[name] = Look(
            colors[spare % len(colors)],
            MARKERS[spare % len(MARKERS)],
            DASHES[spare // len(colors) % len(DASHES)],
            name,
        )
        spare += 1
    return result


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
