"""Figures of `kdlab evaluate`: DET curves, and the pairs that a model has most wrong."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from scipy.special import ndtri

from kdlab.plots.faces import pair_grid
from kdlab.plots.style import GREY, beads, figure, looks

# Martin, Doddington, Kamm, Ordowski, Przybocki, "The DET curve in assessment of detection task
# performance", Eurospeech 1997: both rates on the scale of the normal quantile, where two normal
# distributions of scores make a straight line. Ticks in percent; the choice is ours.
TICKS = (0.0001, 0.001, 0.01, 0.1, 1, 5, 20, 50, 80, 95, 99, 99.9)
POINTS = 400  # of a curve, even along its axis; ours
BEADS = 4  # markers on a curve, as on a ROC's


def det(curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
        pairs: Mapping[str, tuple[int, int]] | None = None, *,
        title: str = "False negatives against false positives",
        subtitle: str | None = "both axes: normal deviates; the dotted line: equal rates"
        ) -> go.Figure:
    """DET curves: 1 - TPR over FPR, a normal quantile on both axes.

    curves: name -> (fpr, tpr), both (A,) fractions, fpr ascending (kdlab.evaluate.roc).   pairs:
    name -> (genuine, impostor) numbers of pairs; then a curve ends where a rate is below one pair.
    Rates of 0 and 1 have no place on such an axis and are left out.
    Raises ValueError when nothing of a curve can be drawn, which is so where no pair is mistaken.
    """
    look, drawn = looks(curves), {}
    for name, (fpr, tpr) in curves.items():
        x, y = np.asarray(fpr, np.float64), 1 - np.asarray(tpr, np.float64)
        genuine, impostor = (pairs or {}).get(name, (np.inf, np.inf))
        # A step's corner stands half a pair or more from 0 and 1, whatever rounding did to it.
        keep = (x > 0.5 / impostor) & (x < 1 - 0.5 / impostor)
        keep &= (y > 0.5 / genuine) & (y < 1 - 0.5 / genuine)
        if not keep.any():
            raise ValueError(f"curve '{name}' mistakes no genuine and impostor pair at once; it "
                             "has no DET curve")
        drawn[name] = ndtri(x[keep]), ndtri(y[keep])
    every = np.concatenate([np.concatenate(both) for both in drawn.values()])
    low, high = float(every.min()) - 0.1, max(float(every.max()) + 0.1, float(ndtri(0.5)))
    fig = figure(title, subtitle)
    fig.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, layer="below",
                  line={"color": GREY, "width": 1, "dash": "dot"})  # fmt: skip
    for place, (name, (x, y)) in enumerate(drawn.items()):
        grid = np.linspace(x[0], x[-1], POINTS)
        rows = np.unique(np.append(np.searchsorted(x, grid, "right") - 1, len(x) - 1))
        own = look[name]
        fig.add_scatter(
            x=x[rows].astype(np.float32), y=y[rows].astype(np.float32), mode="lines",
            name=own.label, legendgroup=name, showlegend=False,
            line={"color": own.color, "dash": own.dash, "shape": "hv", "width": 2},
            hoverinfo="skip",
        )  # fmt: skip
        spots = x[0] + (x[-1] - x[0]) * (np.arange(BEADS) + (place + 0.5) / len(drawn)) / BEADS
        at = (np.searchsorted(x, spots, "right") - 1).clip(0)
        fig.add_trace(beads(spots, y[at], own, name))
    ticks = [t for t in TICKS if low <= ndtri(t / 100) <= high]
    axis = {"tickvals": [float(ndtri(t / 100)) for t in ticks], "range": [low, high],
            "ticktext": [f"{t:g}" for t in ticks]}  # fmt: skip
    fig.update_xaxes(title_text="false-positive rate (% of impostor pairs)", **axis)
    fig.update_yaxes(title_text="false-negative rate (% of genuine pairs)", **axis)
    return fig


def worst_sheet(left: np.ndarray, right: np.ndarray, scores: np.ndarray, kinds: Sequence[str], *,
                title: str = "The pairs most wrong") -> go.Figure:
    """Pairs of faces, genuine ones first, in rows of as many as there are genuine ones.

    left, right: (P, 3, S, S) uint8; scores: (P,) cosine; kinds: "genuine" or "impostor" of each.
    """
    across = max(1, sum(kind == "genuine" for kind in kinds))
    return pair_grid(left, right, scores, kinds, columns=across, title=title,
                     subtitle="genuine: one person, least alike; impostor: two people, most alike")
