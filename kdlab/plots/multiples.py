"""Small multiples: several figures of one kind in one, for a copy that has no slider."""

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import TEMPLATE

PANEL = 360, 300  # pixels of one small picture; ours
GAP = 84  # pixels between two panels: ticks, a title beside them and the neighbour's last label
MARGIN = 60, 20  # pixels left and right of all panels
HEAD = 60  # pixels above them, for the title
KEPT = ("title", "type", "range", "tickformat", "dtick", "tickvals", "ticktext", "rangemode",
        "exponentformat", "autorange", "ticksuffix", "categoryorder", "categoryarray", "side",
        "showgrid", "showline", "showticklabels", "ticks", "nticks")  # fmt: skip


def multiples(figures: Mapping[str, go.Figure], title: str | None = None) -> go.Figure:
    """Put figures of one subplot each side by side, the key of each as its heading.

    A figure's subtitle goes under its heading: there a callback writes its numbers. Pictures keep
    their shape.   title: of the whole; None takes the figures' own, or writes each of them under
    its heading where they differ.   Raises ValueError for a figure with
    several subplots (show those one after the other instead) or for none at all.
    """
    if not figures:
        raise ValueError("multiples got no figures")
    for name, fig in figures.items():
        if not single(fig):
            raise ValueError(f"figure '{name}' has several subplots; show it by itself")
    if len(figures) == 1:
        return next(iter(figures.values()))
    columns = 2  # three would be wider than JupyterLab's page on a laptop
    rows = -(-len(figures) // columns)
    own = {name: fig.layout.title.text for name, fig in figures.items()}
    alike = len(set(own.values())) == 1
    headings = []
    for name, fig in figures.items():
        notes = ["" if title or alike else own[name], fig.layout.title.subtitle.text]
        notes = [_wrapped(note) for note in notes if note]
        headings.append("<br>".join([f"<b>{name}</b>", *notes]))
    lines = max(heading.count("<br>") for heading in headings) + 1
    inside = PANEL[0] * columns - sum(MARGIN)  # pixels
    wide = (inside - GAP * (columns - 1)) / columns
    high = max(_height(fig, wide) for fig in figures.values()) + 14 * lines
    cells = [{}] * len(figures) + [None] * (rows * columns - len(figures))
    specs = [cells[row * columns : (row + 1) * columns] for row in range(rows)]
    result = make_subplots(rows, columns, specs=specs, subplot_titles=headings,
                           horizontal_spacing=GAP / inside,
                           vertical_spacing=(74 + 14 * lines) / (high * rows))  # fmt: skip
    result.update_annotations(font_size=11)
    named = set()
    for place, fig in enumerate(figures.values()):
        spot = {"row": place // columns + 1, "col": place % columns + 1}
        number = "" if place == 0 else str(place + 1)
        for trace in fig.data:
            copy = type(trace)(trace)
            if copy.name and copy.name in named:
                copy.showlegend = False
            if trace.type != "image" and copy.showlegend is not False:  # pictures have no entry
                named.add(copy.name)
            result.add_trace(copy, **spot)
        for side, update in (("x", result.update_xaxes), ("y", result.update_yaxes)):
            axis = fig.layout[f"{side}axis"].to_plotly_json()
            update({key: axis[key] for key in KEPT if key in axis}, **spot)
            if words := fig.layout[f"{side}axis"].title.text:
                update(title_text=_wrapped(words, 46), **spot)
        for shape in fig.layout.shapes:
            result.add_shape(_moved(shape, number))
        for note in fig.layout.annotations:
            result.add_annotation(_moved(note, number))
    first = next(iter(figures.values())).layout
    shown = first.showlegend is not False
    whole = title or (first.title.text if alike else "")
    below = 20 if all(map(_pictures, figures.values())) else 90  # axis titles and the legend
    result.update_layout(
        template=TEMPLATE, title={"text": whole}, showlegend=shown,
        width=PANEL[0] * columns, height=high * rows + below, barmode=first.barmode,
        margin={"t": (HEAD if whole else HEAD // 2) + 14 * lines, "l": MARGIN[0],
                "r": MARGIN[1], "b": below},
        legend={"orientation": "h", "x": 0, "y": -84 / (high * rows), "yanchor": "top"},
    )  # fmt: skip
    return result


def _height(fig: go.Figure, wide: float) -> float:
    """Pixels to plan for a panel that is `wide` pixels wide; for pictures as their shape asks."""
    if not _pictures(fig) or not fig.layout.xaxis.range:
        return PANEL[1]
    across, down = (abs(ends[1] - ends[0]) for ends in (fig.layout.xaxis.range,
                                                        fig.layout.yaxis.range))  # fmt: skip
    return wide * down / across + HEAD


def _pictures(fig: go.Figure) -> bool:
    return all(trace.type == "image" for trace in fig.data)


def single(fig: go.Figure) -> bool:
    """True when every trace lies on the figure's first x and y axes."""
    return all(
        (trace.to_plotly_json().get("xaxis", "x"), trace.to_plotly_json().get("yaxis", "y"))
        == ("x", "y")
        for trace in fig.data
    )


def _wrapped(text: str, width: int = 52) -> str:
    """Lines of at most `width` characters (what fits above a panel), joined by <br>."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def _moved(part, number: str) -> dict:
    """A shape or annotation with its references turned to subplot `number`."""
    part = part.to_plotly_json()
    for side in "xy":
        ref = part.get(f"{side}ref", side)
        on_domain = ref == "paper" or ref.endswith(" domain")
        part[f"{side}ref"] = f"{side}{number}" + (" domain" if on_domain else "")
    return part
