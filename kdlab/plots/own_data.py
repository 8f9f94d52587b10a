"""Figures about files and protocols: the fields of a record, the folds of a verification."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from kdlab.plots.style import BLUE, GREY, INK, VERMILLION, figure

SHOWN = 12  # bytes of a field that are written; of longer ones the first; ours


def record_view(fields: Sequence[tuple[str, bytes, str]], *,
                title: str = "A record, field by field", subtitle: str | None = None
                ) -> go.Figure:  # fmt: skip
    """A line a field: its name, its first bytes in hexadecimal, what they say.

    fields: (name, bytes, meaning) in the order of the file, 1 to 24 of them; names may come again.
    ValueError where there is none.
    """
    if not 1 <= len(fields) <= 24:
        raise ValueError(f"record_view draws 1 to 24 fields, not {len(fields)}")
    fig = figure(title, subtitle, showlegend=False, height=130 + 26 * len(fields))
    places, texts, far = [], [], SHOWN + 1
    for row, (_, data, meaning) in enumerate(fields):
        if row % 2 == 0:
            fig.add_shape(type="rect", x0=-0.5, x1=far + 8.5, y0=row - 0.5, y1=row + 0.5,
                          fillcolor="#F1F1F1", line={"width": 0}, layer="below")  # fmt: skip
        hexes = [f"{byte:02x}" for byte in data[:SHOWN]] + ["…"] * (len(data) > SHOWN)
        places += [(column, row) for column in range(len(hexes))]
        texts += hexes
        fig.add_annotation(x=far + 0.2, y=row, text=meaning, showarrow=False, xanchor="left",
                           font={"size": 12, "color": INK})  # fmt: skip
    x, y = zip(*places, strict=True) if places else ((), ())
    fig.add_scatter(x=x, y=y, mode="text", text=texts, textfont={"size": 12, "color": BLUE},
                    hoverinfo="skip", name="bytes")  # fmt: skip
    fig.update_xaxes(title_text="byte of the field (hexadecimal), and what the field says",
                     range=[-0.5, far + 8.5], tickvals=list(range(0, SHOWN, 2)),
                     showgrid=False)  # fmt: skip
    fig.update_yaxes(tickvals=list(range(len(fields))), ticktext=[name for name, _, _ in fields],
                     range=[len(fields) - 0.5, -0.5], showgrid=False)  # fmt: skip
    return fig


def folds_view(grid: np.ndarray, accuracy: np.ndarray, thresholds: np.ndarray, folds: np.ndarray,
               *, title: str = "Accuracy over the threshold, and the folds",
               subtitle: str | None = None) -> go.Figure:  # fmt: skip
    """Accuracy of all pairs at every threshold, and of each fold at the one chosen without it.

    grid, accuracy: (T,) squared distances and fractions.   thresholds, folds: (F,) likewise.
    """
    fig = figure(title, subtitle)
    fig.add_scatter(x=grid, y=np.asarray(accuracy, np.float32), mode="lines",
                    name="all pairs at this threshold", line={"color": GREY, "width": 2},
                    hovertemplate="%{x:.2f}: %{y:.1%}<extra></extra>")  # fmt: skip
    fig.add_scatter(x=thresholds, y=folds, mode="markers",
                    name="a fold, threshold from the others",
                    marker={"color": VERMILLION, "symbol": "diamond", "size": 9},
                    hovertemplate="threshold %{x:.2f}, its fold %{y:.1%}<extra></extra>"
                    )  # fmt: skip
    mean = float(np.mean(folds))
    fig.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=mean, y1=mean,
                  line={"color": VERMILLION, "width": 1.2, "dash": "dot"})  # fmt: skip
    fig.add_annotation(x=1, xref="x domain", y=mean, text=f"mean of the folds {mean:.1%}",
                       showarrow=False, xanchor="right", yanchor="bottom", font={"size": 11},
                       bgcolor="rgba(255,255,255,0.85)")  # fmt: skip
    fig.update_xaxes(title_text="threshold (squared distance of unit embeddings)")
    fig.update_yaxes(title_text="pairs judged rightly (%)", tickformat=".0%")
    fig.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"})
    return fig
