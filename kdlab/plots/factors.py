"""Figures about factors: what turning, ageing or covering a face does to its similarity."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from kdlab.plots.png import data_uri, encode
from kdlab.plots.style import DASHES, FALLBACK, GREY, INK, MARKERS, TEMPLATE, band

SIDE = 150  # pixels of a face; ours: two of them make the height of the figure


def factor_words(grid: np.ndarray, own: Mapping[str, np.ndarray], at: float, variant: str,
                 factor: str, unit: str) -> str:  # fmt: skip
    """The similarity at one value of the factor, in words."""
    k = int(np.argmin(np.abs(np.asarray(grid) - at)))
    return f"{variant}, {factor} {grid[k]:g} {unit}: similarity {own[variant][k]:.2f}"


def factor_view(grid: np.ndarray, own: Mapping[str, np.ndarray], strangers: np.ndarray,
                faces: Mapping[str, np.ndarray], reference: np.ndarray, at: float, variant: str,
                *, factor: str, unit: str) -> go.Figure:  # fmt: skip
    """A reference picture over a changed one, and the curve of their similarity.

    grid: (K,) values of the factor.   own: variant -> (K,) similarities of the reference with the
    same person's pictures.   strangers: (S, K), the same for other people's (shaded: lowest to
    highest).   faces: variant -> (K, 3, H, H) uint8.   reference: (3, H, H) uint8.
    at: the value shown, rounded to the grid.   Raises ValueError for a variant without a curve.
    """
    if variant not in own or variant not in faces:
        raise ValueError(f"no variant '{variant}'; there are {', '.join(own)}")
    k = int(np.argmin(np.abs(np.asarray(grid) - at)))
    fig = make_subplots(1, 2, column_widths=[0.22, 0.78], horizontal_spacing=0.1)
    both = Image.fromarray(_stack(reference, faces[variant][k]))
    fig.add_trace(go.Image(source=data_uri(encode(both)), hoverinfo="skip"), 1, 1)
    low, high = np.min(strangers, 0), np.max(strangers, 0)
    shade = band(np.asarray(grid, float), low, high, GREY, "other people")
    fig.add_trace(shade.update(showlegend=True, mode="lines", name="other people, all"), 1, 2)
    for place, (name, curve) in enumerate(own.items()):
        ink = FALLBACK[place % len(FALLBACK)]
        fig.add_scatter(x=grid, y=curve, mode="lines+markers", name=f"same person, {name}", row=1,
                        col=2, line={"color": ink, "width": 2, "dash": DASHES[place % len(DASHES)]},
                        marker={"symbol": MARKERS[place % len(MARKERS)], "size": 6})  # fmt: skip
    fig.add_scatter(x=[grid[k]], y=[own[variant][k]], mode="markers", showlegend=False, row=1,
                    col=2, name="shown", marker={"symbol": "circle-open", "size": 17,
                                                 "color": INK})  # fmt: skip
    bare = {"showgrid": False, "showline": False, "ticks": "", "showticklabels": False}
    size = reference.shape[-1]
    fig.update_xaxes(range=[-0.5, size - 0.5], row=1, col=1, **bare)
    fig.update_yaxes(range=[2 * size + _gap(size) - 0.5, -0.5], row=1, col=1, **bare)
    fig.update_xaxes(title_text=f"{factor} ({unit})", row=1, col=2)
    fig.update_yaxes(title_text="cosine similarity", row=1, col=2)
    words = factor_words(grid, own, at, variant, factor, unit)
    fig.update_layout(
        template=TEMPLATE, width=830, height=2 * SIDE + 150,
        title={"text": f"Similarity as {factor} changes",
               "subtitle": {"text": f"top: reference; bottom: {words}"}},
        margin={"l": 15, "r": 15, "t": 56, "b": 90},
        legend={"orientation": "h", "x": 0.3, "y": -0.2, "yanchor": "top"},
    )  # fmt: skip
    return fig


def _gap(size: int) -> int:
    return max(2, size // 30)


def _stack(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Two (3, H, H) pictures, one over the other on white: (2 H + gap, H, 3)."""
    above, below = np.asarray(above), np.asarray(below)
    size = above.shape[-1]
    sheet = np.full((2 * size + _gap(size), size, 3), 255, np.uint8)
    sheet[:size], sheet[-size:] = above.transpose(1, 2, 0), below.transpose(1, 2, 0)
    return sheet
