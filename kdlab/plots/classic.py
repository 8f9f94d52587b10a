"""Figures that put the classic distillation methods side by side: what each sees, keeps and does.

One picture per idea, not per method: matrices of a batch (distances, cosines, gradients), ranks,
attention on the faces, and rows of switches.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from kdlab.plots.style import FALLBACK, GREY, INK, MARKERS, PLAIN, TEMPLATE, looks

CELL = 42  # pixels of a matrix's cell: three figures of 11 px; ours
LINE = 24  # pixels a row of names needs; ours
SAME = 1e-6  # relative; a ratio nearer to 1 is called unchanged: float64 leaves 1e-10. Ours
WARM = np.array([213, 94, 0])  # vermillion, laid over what a map attends to


def attended(faces: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Faces under their attention maps: grey where there is none, vermillion where it is highest.

    faces: (N, 3, S, S) uint8.   maps: (N, H, W), 0 or more, of any size.   Returns (N, 3, S, S)
    uint8; each map is divided by its own maximum.
    """
    faces, maps = np.asarray(faces), np.asarray(maps, float)
    if len(faces) != len(maps) or maps.ndim != 3:
        raise ValueError(f"{len(faces)} faces and maps of shape {maps.shape}; give (N, H, W)")
    side, made = faces.shape[-1], []
    for face, own in zip(faces, maps, strict=True):
        share = Image.fromarray((255 * own / max(own.max(), 1e-12)).astype(np.uint8))
        heat = np.asarray(share.resize((side, side), Image.Resampling.BILINEAR)) / 255
        grey = np.repeat(face.mean(0)[None], 3, 0)
        made.append((1 - 0.65 * heat) * grey + 0.65 * heat * WARM[:, None, None])
    return np.stack(made).astype(np.uint8)


def matrices(panels: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str],
             title: str, *, unit: str, limits: tuple[float, float] | None = None,
             text: Mapping[str, np.ndarray] | None = None, diverging: bool = False,
             subtitle: str | None = None, down: str = "", across: str = "",
             decimals: int = 2) -> go.Figure:  # fmt: skip
    """Matrices of one kind side by side on one colour scale, with their numbers in the cells.

    panels: heading -> (R, C); NaN stays white.   rows, columns: R and C names.   unit: beside the
    colour scale.   limits: its ends; None: the data's.   text: heading -> (R, C) words in the
    place of the numbers.   diverging: a scale with its middle at 0.   Raises ValueError for a
    matrix of another shape.
    """
    panels = {name: np.asarray(values, float) for name, values in panels.items()}
    for name, values in panels.items():
        if values.shape != (len(rows), len(columns)):
            raise ValueError(f"matrix '{name}' is {values.shape}, the names make "
                             f"({len(rows)}, {len(columns)})")
    every = np.concatenate([values.ravel() for values in panels.values()])
    low, high = limits or (np.nanmin(every), np.nanmax(every))
    wide, tall = CELL * len(columns), max(LINE, CELL * 0.8) * len(rows)
    fig = make_subplots(1, len(panels), subplot_titles=list(panels) if len(panels) > 1 else None,
                        horizontal_spacing=0.06, shared_yaxes=True)
    fig.update_annotations(font_size=13)
    for place, (name, values) in enumerate(panels.items(), 1):
        words = (text or {}).get(name)
        fig.add_trace(go.Heatmap(
            z=values, x=list(columns), y=list(rows), zmin=low, zmax=high, name=name,
            zmid=0 if diverging else None, colorscale="RdBu_r" if diverging else "Cividis",
            text=words, texttemplate="%{text}" if words is not None else f"%{{z:.{decimals}f}}",
            textfont={"size": 11}, showscale=place == len(panels),
            colorbar={"title": {"text": unit, "side": "right"}},
            hovertemplate=f"%{{y}}, %{{x}}: %{{z:.{decimals + 1}f}}<extra>{name}</extra>",
        ), 1, place)  # fmt: skip
        fig.update_xaxes(type="category", title_text=across, tickangle=-60, row=1, col=place)
        fig.update_yaxes(type="category", autorange="reversed", row=1, col=place,
                         title_text=down if place == 1 else "")
    left = 20 + 7 * max(map(len, rows))
    fig.update_layout(
        template=TEMPLATE, title={"text": title} | (
            {"subtitle": {"text": subtitle}} if subtitle else {}),
        width=min(940, max(480, left + 130 + round((wide + 40) * len(panels)))),
        height=round(tall + 150 + 6 * max(map(len, columns))),
        margin={"l": left, "r": 100, "t": 84, "b": 40 + 6 * max(map(len, columns))},
    )  # fmt: skip
    return fig


def rank_view(teacher: Sequence[int], student: Sequence[int], names: Sequence[str], query: str,
              listed: int) -> go.Figure:  # fmt: skip
    """The faces around one face, nearest first, as the teacher and as the student order them.

    teacher, student: (K,) indices into names, nearest first, the same faces.   listed: how many of
    the teacher's nearest are in the list that is transferred; their lines are drawn in full.
    Raises ValueError where the two do not hold the same faces.
    """
    if sorted(teacher) != sorted(student):
        raise ValueError("the two orders do not hold the same faces")
    fig = go.Figure()
    for place, face in enumerate(teacher):
        inside = place < listed
        ends = [place + 1, list(student).index(face) + 1]
        fig.add_scatter(
            x=["teacher", "student"], y=ends, mode="lines+markers+text", text=[names[face], ""],
            showlegend=False, name=names[face], textposition="middle left",
            textfont={"size": 12, "color": INK},
            line={"color": FALLBACK[place % len(FALLBACK)] if inside else GREY,
                  "dash": "solid" if inside else "dot", "width": 2.5 if inside else 1.2},
            marker={"symbol": MARKERS[place % len(MARKERS)], "size": 9,
                    "color": FALLBACK[place % len(FALLBACK)] if inside else GREY},
            hovertemplate=f"{names[face]}: rank %{{y}} for the %{{x}}<extra></extra>",
        )  # fmt: skip
        fig.add_scatter(x=["student"], y=ends[1:], mode="text", text=[names[face]],
                        textposition="middle right", textfont={"size": 12, "color": INK},
                        name=names[face], showlegend=False, hoverinfo="skip")
    fig.update_yaxes(range=[len(teacher) + 0.6, 0.4], dtick=1, title_text="rank (1: nearest)")
    fig.update_xaxes(type="category", range=[-0.4, 1.4])
    words = f"in full: the {listed} that are listed" if listed < len(teacher) else "all are listed"
    return fig.update_layout(template=TEMPLATE, width=480, height=380, title={
        "text": f"Who lies near {query}?", "subtitle": {"text": words}})


def moved_losses(ratios: Mapping[str, float], subtitle: str) -> go.Figure:
    """Each method's loss after the teacher was moved, as a multiple of the loss before.

    ratios: method -> new / old, 0 or more; a method of `METHODS` keeps its look.   Filled: changed;
    open: the same to a millionth.   subtitle: what was done to the teacher.
    """
    low, high = 0.05, 20  # of the axis; what leaves it stands at its end
    fig = go.Figure()
    for place, (name, own) in enumerate(looks(ratios).items()):
        ratio, same = ratios[name], abs(ratios[name] - 1) < SAME
        fig.add_scatter(
            x=[float(np.clip(ratio, low, high))], y=[place], mode="markers+text", name=own.label,
            showlegend=False, text=["   same" if same else f"   x {ratio:.3g}   "],
            textposition="middle left" if ratio > 4 else "middle right",
            textfont={"size": 11, "color": INK},
            marker={"symbol": "circle-open" if same else "diamond", "size": 11,
                    "color": GREY if same else PLAIN.color, "line": {"width": 2}},
            hovertemplate=f"{ratio:.6g}<extra>{own.label}</extra>",
        )  # fmt: skip
    names = [own.label for own in looks(ratios).values()]
    fig.update_yaxes(range=[len(ratios) - 0.5, -0.5], tickvals=list(range(len(ratios))),
                     ticktext=names)
    fig.update_xaxes(type="log", range=list(np.log10([low, high])), tickvals=[0.1, 0.5, 1, 2, 10],
                     ticktext=["0.1", "0.5", "1", "2", "10"],
                     title_text="loss after / loss before (no unit)")
    fig.add_vline(x=1, line={"color": INK, "width": 1.2}, layer="below")
    return fig.update_layout(
        template=TEMPLATE, width=640, height=130 + LINE * len(ratios), margin={"l": 160},
        title={"text": "The teacher's numbers move", "subtitle": {"text": subtitle}})  # fmt: skip


def switches(rows: Sequence[tuple[str, float, float]], title: str,
             subtitle: str = "of the student's gradient, the switched form against the default"
             ) -> go.Figure:  # fmt: skip
    """What a switch in the small print does to the gradient: its length, and its direction.

    rows: (words, ratio of the gradients' lengths, angle between them in degrees).   An angle of
    0 is another weight, whatever the length; anything else is another loss.
    """
    if not rows:
        raise ValueError("there are no rows; nothing to draw")
    fig = make_subplots(1, 2, horizontal_spacing=0.05, column_widths=[0.55, 0.45],
                        subplot_titles=["how much longer", "how far turned"])
    fig.update_annotations(font_size=13)
    places = np.arange(len(rows))
    turned = np.array([angle >= 1 for _, _, angle in rows])  # degree; less is not seen. Ours
    for kind, here, symbol in (("another weight", ~turned, "circle-open"),
                               ("another loss", turned, "diamond")):
        for column, part in enumerate(([r[1] for r in rows], [r[2] for r in rows]), 1):
            fig.add_scatter(
                x=np.array(part)[here], y=places[here], mode="markers", row=1, col=column,
                name=f"{kind}: turned by {'less' if symbol != 'diamond' else 'more'} than 1 degree",
                legendgroup=kind, showlegend=column == 1 and bool(here.any()),
                hovertemplate="%{x:.3g}<extra></extra>",
                marker={"symbol": symbol, "size": 10, "line": {"width": 2},
                        "color": PLAIN.color if symbol != "diamond" else FALLBACK[1]},
            )  # fmt: skip
    lengths = np.array([r[1] for r in rows])
    reach = max(1.2, 1.1 * np.abs(np.log10(lengths)).max())  # decades
    fig.update_xaxes(type="log", range=[-reach, reach], row=1, col=1, nticks=7,
                     exponentformat="power", title_text="ratio of lengths (no unit)")
    fig.update_xaxes(range=[-5, max(95, 5 + max(r[2] for r in rows))], row=1, col=2, dtick=30,
                     title_text="angle (degrees)")
    fig.add_vline(x=1, line={"color": INK, "width": 1.2}, layer="below", row=1, col=1)
    fig.add_vline(x=0, line={"color": INK, "width": 1.2}, layer="below", row=1, col=2)
    for column in (1, 2):
        fig.update_yaxes(range=[len(rows) - 0.5, -0.5], tickvals=places, row=1, col=column,
                         ticktext=[r[0] for r in rows], showticklabels=column == 1)
    tall = LINE * max(5, len(rows))  # fewer rows would leave no room beside their labels
    return fig.update_layout(
        template=TEMPLATE, width=900, height=190 + tall,
        title={"text": title, "subtitle": {"text": subtitle}},
        margin={"l": 30 + 7 * max(len(r[0]) for r in rows), "t": 84, "b": 90},
        legend={"orientation": "h", "x": 0, "y": -64 / tall, "yanchor": "top"},
    )  # fmt: skip


def curves(x: np.ndarray, lines: Mapping[str, np.ndarray], title: str, *, across: str, up: str,
           mark: float | None = None, logarithmic: bool = True) -> go.Figure:  # fmt: skip
    """Curves over one positive quantity, on a logarithmic axis.

    x: (K,).   lines: name -> (K,).   mark: a value of x to show by a line across.   logarithmic:
    the other axis too; without, it begins at 0.
    """
    fig = go.Figure()
    for name, look in looks(lines).items():
        fig.add_scatter(x=x, y=lines[name], mode="lines+markers", name=look.label,
                        line={"color": look.color, "dash": look.dash, "width": 2},
                        marker={"symbol": look.marker, "size": 7})
    if mark is not None:
        fig.add_vline(x=mark, line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    axis = {"type": "log", "exponentformat": "power"}
    ticks = [v for v in 2.0 ** np.arange(-1, 9) if min(x) <= v <= max(x)]
    fig.update_xaxes(title_text=across, tickvals=ticks, ticktext=[f"{v:g}" for v in ticks], **axis)
    fig.update_yaxes(title_text=up, **axis if logarithmic else {"rangemode": "tozero"})
    return fig.update_layout(
        template=TEMPLATE, width=640, height=400, showlegend=True, margin={"b": 90},
        title={"text": title},
        legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"},
    )  # fmt: skip


def handed_on(rows: Mapping[str, tuple[int, int]], title: str) -> go.Figure:
    """How many of the numbers a teacher offers change what the student is told.

    rows: what is compared -> (numbers that count, numbers offered).   Bars from 1 on a logarithmic
    axis with both numbers at their ends; 0 stands at the left end, open.
    """
    counts, places = np.array([count for count, _ in rows.values()]), np.arange(len(rows))
    ends = np.maximum(counts, 1)
    fig = go.Figure(go.Scatter(
        x=ends, y=places, mode="markers+text", showlegend=False, name="numbers that count",
        marker={"color": PLAIN.color, "size": 9, "line": {"width": 2},
                "symbol": ["circle" if count else "circle-open" for count in counts]},
        error_x={"type": "data", "array": 0 * ends, "arrayminus": ends - 1, "thickness": 5,
                 "width": 0, "color": PLAIN.color},
        text=[f"   {count:,} of {offered:,}" for count, offered in rows.values()],
        textposition="middle right", textfont={"size": 11, "color": INK}, hoverinfo="text",
    ))  # fmt: skip
    top = np.log10(ends.max()) + 1.4  # room for the words
    fig.update_xaxes(type="log", range=[-0.1, top], exponentformat="power",
                     title_text="independent numbers (logarithmic)")
    fig.update_yaxes(range=[len(rows) - 0.5, -0.5], tickvals=places, ticktext=list(rows))
    return fig.update_layout(template=TEMPLATE, width=760, height=120 + LINE * len(rows),
                             margin={"l": 220}, title={"text": title})
