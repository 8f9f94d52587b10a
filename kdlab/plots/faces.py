"""Figures made of face pictures: contact sheets, and the pairs a model gets wrong."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from kdlab.plots.png import LIMIT, data_uri, encode
from kdlab.plots.style import GREY, figure

WIDEST = 940  # pixels; JupyterLab's page in a window of 1,400, its sidebar open
MOST = 200  # faces in one figure; more are smaller than a thumbnail
SMALLEST = 64  # pixels a face is enlarged to at least, in whole steps so that it stays crisp


def _check(images: np.ndarray, what: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{what} must be uint8 pictures of shape (N, 3, S, S), got "
            f"{images.dtype} {tuple(images.shape)}"
        )
    if not 0 < len(images) <= MOST:
        raise ValueError(f"{what} holds {len(images)} pictures; show 1 to {MOST} at a time")
    return images


def _montage(images: np.ndarray, columns: int, gap_x: np.ndarray, gap_y: int) -> np.ndarray:
    """(N, 3, S, S) -> one (H, W, 3) picture on white; gap_x: white pixels left of each column."""
    n, _, high, wide = images.shape
    rows = -(-n // columns)
    left = np.cumsum(gap_x) + wide * np.arange(columns)
    sheet = np.full((rows * (high + gap_y) - gap_y, left[-1] + wide, 3), 255, np.uint8)
    for i, face in enumerate(images.transpose(0, 2, 3, 1)):
        y, x = (i // columns) * (high + gap_y), left[i % columns]
        sheet[y : y + high, x : x + wide] = face
    return sheet


def _source(sheet: np.ndarray) -> str:
    """The sheet as a data: address; a palette of 256 colours where true colour is too heavy."""
    picture = Image.fromarray(sheet)
    data = encode(picture)
    return data_uri(data if len(data) <= LIMIT else encode(picture.quantize(256, dither=0)))


def _sheet_figure(sheet: np.ndarray, title: str, subtitle: str | None, zoom: float) -> go.Figure:
    """A figure whose plot area is the sheet, `zoom` screen pixels to one of its pixels."""
    high, wide = sheet.shape[:2]
    fig = figure(title, subtitle, showlegend=False)
    fig.add_trace(go.Image(source=_source(sheet), hoverinfo="skip"))
    bare = {"showgrid": False, "showline": False, "ticks": "", "showticklabels": False}
    fig.update_xaxes(range=[-0.5, wide - 0.5], **bare)
    fig.update_yaxes(range=[high - 0.5, -0.5], **bare)
    top = 58 if subtitle else 40
    fig.update_layout(
        margin={"l": 10, "r": 10, "t": top, "b": 10},
        width=max(round(wide * zoom) + 20, 360),
        height=round(high * zoom) + top + 10,
    )
    extra = fig.layout.width - 20 - round(wide * zoom)  # a narrow sheet keeps its shape
    fig.update_layout(margin_r=10 + extra)
    return fig


def _fit(images: np.ndarray, across: int, room: int) -> tuple[np.ndarray, int]:
    """Pictures no larger than `across` of them need to fit WIDEST, and their whole-number zoom."""
    size = images.shape[-1]
    most = max(16, (WIDEST - room) // across)
    if size > most:
        small = [Image.fromarray(face).resize((most, most), Image.Resampling.BOX)
                 for face in images.transpose(0, 2, 3, 1)]  # fmt: skip
        return np.stack([np.asarray(face) for face in small]).transpose(0, 3, 1, 2), 1
    return images, max(1, min(-(-SMALLEST // size), most // size))


def contact_sheet(
    images: np.ndarray,
    columns: int,
    row_labels: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    gap: int = 2,
    *,
    title: str = "Faces",
    subtitle: str | None = None,
) -> go.Figure:
    """Pictures in rows of `columns`, as one PNG inside the figure.

    images: (N, 3, S, S) uint8 RGB, N up to 200.   row_labels: one for each row.   titles: one for
    each column, or one for each picture.   gap: white pixels between pictures.   Pictures keep
    their pixels (whole-number zoom) unless the sheet were wider than a notebook's column.
    Raises ValueError on another shape or dtype, or a wrong number of labels.
    """
    images = _check(images, "images")
    columns = min(columns, len(images))
    if columns < 1:
        raise ValueError(f"columns must be 1 or more, got {columns}")
    rows = -(-len(images) // columns)
    for name, labels, allowed in (
        ("row_labels", row_labels, {rows}),
        ("titles", titles, {columns, len(images)}),
    ):
        if labels is not None and len(labels) not in allowed:
            raise ValueError(f"{len(labels)} {name} for {rows} rows of {columns} pictures")
    images, zoom = _fit(images, columns, gap * columns + 20)
    high, wide = images.shape[2:]
    each = titles is not None and len(titles) == len(images) and rows > 1
    gap_y = -(-16 // zoom) if each else gap  # 16 px: a line of small text
    gap_x = np.array([0] + [gap] * (columns - 1))
    sheet = _montage(images, columns, gap_x, gap_y)
    if each:  # room for the titles of the first row
        sheet = np.concatenate([np.full((gap_y, *sheet.shape[1:]), 255, np.uint8), sheet])
    fig = _sheet_figure(sheet, title, subtitle, zoom)
    first = gap_y if each else 0
    centre_x = np.arange(columns) * (wide + gap) + (wide - 1) / 2
    if row_labels is not None:
        fig.update_yaxes(
            tickvals=first + np.arange(rows) * (high + gap_y) + (high - 1) / 2,
            ticktext=list(row_labels), showticklabels=True, tickfont_size=11,
        )  # fmt: skip
        longest = max(len(str(label)) for label in row_labels)
        grown = 7 * longest + 8  # about 7 px a character at 11 px
        fig.update_layout(margin_l=10 + grown, width=fig.layout.width + grown)
    if titles is not None and not each:
        fig.update_xaxes(tickvals=centre_x, ticktext=list(titles), showticklabels=True,
                         side="top", tickfont_size=11)  # fmt: skip
        fig.update_layout(margin_t=fig.layout.margin.t + 20, height=fig.layout.height + 20)
    elif titles is not None:
        for i, text in enumerate(titles):
            y = first + (i // columns) * (high + gap_y) - 0.5
            fig.add_annotation(x=centre_x[i % columns], y=y, text=str(text), showarrow=False,
                               yanchor="bottom", font={"size": 11, "color": GREY})  # fmt: skip
    return fig


def pair_grid(
    left: np.ndarray,
    right: np.ndarray,
    scores: np.ndarray,
    titles: str | Sequence[str],
    *,
    columns: int = 4,
    title: str = "Pairs the model gets wrong",
    subtitle: str | None = None,
) -> go.Figure:
    """Pairs of faces side by side, each with what it is and its similarity above it.

    left, right: (P, 3, S, S) uint8.   scores: (P,) similarity.   titles: one for all pairs or one
    for each, such as "genuine, rejected" or "impostor, accepted".   Raises ValueError when the
    numbers of pictures, scores and titles disagree.
    """
    left, right = _check(left, "left"), _check(right, "right")
    titles = [titles] * len(left) if isinstance(titles, str) else list(titles)
    if left.shape != right.shape or not len(left) == len(scores) == len(titles):
        raise ValueError(
            f"{left.shape} left, {right.shape} right, {len(scores)} scores and {len(titles)} "
            "titles do not make pairs; give as many of each"
        )
    columns = min(columns, len(left))
    faces = np.stack([left, right], axis=1).reshape(-1, *left.shape[1:])
    faces, zoom = _fit(faces, 2 * columns, 24 * columns)
    high, wide = faces.shape[2:]
    zoom = max(zoom, -(-70 // wide)) if columns * 140 <= WIDEST else zoom  # room for the words
    gap_x = np.array([0] + [1, max(1, 24 // zoom)] * columns)[: 2 * columns]
    gap_y = -(-36 // zoom)  # 36 px: two lines of small text
    sheet = _montage(faces, 2 * columns, gap_x, gap_y)
    sheet = np.concatenate([np.full((gap_y, *sheet.shape[1:]), 255, np.uint8), sheet])
    fig = _sheet_figure(sheet, title, subtitle, zoom)
    starts = np.cumsum(gap_x) + wide * np.arange(2 * columns)
    for i, (score, text) in enumerate(zip(scores, titles, strict=True)):
        fig.add_annotation(
            x=(starts[2 * (i % columns)] + starts[2 * (i % columns) + 1] + wide - 1) / 2,
            y=gap_y + (i // columns) * (high + gap_y) - 0.5,
            text=f"{text}<br>similarity {score:.2f}", showarrow=False, yanchor="bottom",
            font={"size": 11},
        )  # fmt: skip
    return fig
