"""Small multiples: several figures of one kind in one, for a copy that has no slider."""

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kdlab.plots.style import TEMPLATE

PANEL = 360, 300  # pixels of one small picture; ours
KEPT = ("title", "type", "range", "tickformat", "dtick", "tickvals", "ticktext", "rangemode",
        "exponentformat", "autorange", "ticksuffix", "categoryorder", "categoryarray", "side",
        "showgrid", "showline", "showticklabels", "ticks", "nticks")  # fmt: skip


def multiples(figures: Mapping[str, go.Figure], title: str | None = None) -> go.Figure:
    """Put figures of one subplot each side by side, the key of each as its heading.

    A figure's subtitle goes under its heading: there a callback writes its numbers.
    title: of the whole; None takes the first figure's.   Raises ValueError for a figure with
    several subplots (show those one after the other instead) or for none at all.
    """
    if not figures:
        raise ValueError("multiples got no figures")
    for name, fig in figures.items():
        if not single(fig):
            raise ValueError(f"figure '{name}' has several subplots; show it by itself")
    if len(figures) == 1:
        return next(iter(figures.values()))
    columns = 2 if len(figures) in (2, 4) else 3
    rows = -(-len(figures) // columns)
    headings = []
    for name, fig in figures.items():
        note = fig.layout.title.subtitle.text
        headings.append(f"<b>{name}</b>" + (f"<br>{_wrapped(note)}" if note else ""))
    lines = max(heading.count("<br>") for heading in headings) + 1
    high = PANEL[1] + 14 * lines
    result = make_subplots(rows, columns, subplot_titles=headings, horizontal_spacing=0.09,
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
            named.add(copy.name)
            result.add_trace(copy, **spot)
        for side, update in (("x", result.update_xaxes), ("y", result.update_yaxes)):
            axis = fig.layout[f"{side}axis"].to_plotly_json()
            update({key: axis[key] for key in KEPT if key in axis}, **spot)
        for shape in fig.layout.shapes:
            result.add_shape(_moved(shape, number))
        for note in fig.layout.annotations:
            result.add_annotation(_moved(note, number))
    first = next(iter(figures.values())).layout
    shown = first.showlegend is not False
    result.update_layout(
        template=TEMPLATE, title={"text": title or first.title.text}, showlegend=shown,
        width=PANEL[0] * columns, height=high * rows + 90, barmode=first.barmode,
        margin={"t": 60 + 14 * lines, "l": 60, "r": 20, "b": 90},
        legend={"orientation": "h", "x": 0, "y": -70 / (high * rows), "yanchor": "top"},
    )  # fmt: skip
    return result


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
