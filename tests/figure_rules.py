"""What every figure owes its readers, as one list of complaints; both figure walks use it.

Contrast is WCAG 2.2's: (L1 + 0.05) / (L2 + 0.05) of the relative luminances, at least 4.5 for text
(1.4.3) and 3 for what is drawn (1.4.11). Bands and fills may be fainter: their curve is drawn too.
"""

import io
import re
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from kdlab.plots import png
from kdlab.plots.axes import color, merged, values

TEXT, DRAWN = 4.5, 3.0
SMALLEST = 11  # pixels of a letter's body; smaller is hard to read at arm's length; ours


def linear(rgb) -> np.ndarray:
    """sRGB components in 0..1 to linear light (IEC 61966-2-1)."""
    rgb = np.asarray(rgb, float)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(rgb) -> float:
    """Relative luminance, 0 black to 1 white (WCAG 2.2)."""
    return float(linear(rgb) @ [0.2126, 0.7152, 0.0722])


def over(ink, paper, opacity: float = 1.0) -> np.ndarray:
    """The opaque RGB that a CSS colour makes on an opaque one."""
    rgba = np.array(color(ink, opacity) if isinstance(ink, str) else ink, float)
    return rgba[3] * rgba[:3] + (1 - rgba[3]) * rgb(paper)


def rgb(value) -> np.ndarray:
    return np.array(color(value)[:3] if isinstance(value, str) else value, float)


def contrast(ink, paper, opacity: float = 1.0) -> float:
    """1 to 21; `ink` may let `paper` shine through."""
    light, dark = sorted((luminance(over(ink, paper, opacity)), luminance(rgb(paper))))[::-1]
    return (light + 0.05) / (dark + 0.05)


def faults(fig: go.Figure) -> list[str]:
    """Everything that is wrong with a figure, in words; [] for a good one."""
    layout = _layout(fig)
    traces = [trace for trace in fig.data if trace.visible not in (False, "legendonly")]
    papers = [layout.get("paper_bgcolor"), layout.get("plot_bgcolor")]
    if any(paper is None or color(paper)[3] < 1 for paper in papers):
        return ["the figure has no opaque paper of its own; a dark page would shine through"]
    return [
        *_names(fig, layout, traces), *_sizes({"layout": layout, "data": fig.to_dict()["data"]}),
        *_written(layout, traces), *_drawn(layout, traces), *_alike(layout, traces), *_picture(fig),
    ]  # fmt: skip


def _layout(fig: go.Figure) -> dict:
    """The layout over its template's, axes too."""
    own = fig.layout.to_plotly_json()
    template = (own.pop("template", None) or {}).get("layout") or {}
    whole = merged(template, own)
    for key in [key for key in own if key[1:5] == "axis"]:
        whole[key] = merged(template.get(key[:5]) or {}, own[key])
    return whole


def _axes(trace) -> tuple[str, str]:
    named = trace.to_plotly_json()
    return named.get("xaxis", "x"), named.get("yaxis", "y")


def _text(part) -> str:
    return (part if isinstance(part, str) else (part or {}).get("text")) or ""


def _names(fig, layout: dict, traces: list) -> Iterator[str]:
    """A title, and on every axis with ticks what it measures; pictures and categories excepted."""
    panels = {_axes(trace) for trace in traces}
    headings = [note for note in layout.get("annotations") or () if note.get("xref") == "paper"]
    if not _text(layout.get("title")).strip() and len(headings) < max(2, len(panels)):
        yield "no title, and no heading over each panel"
    for pair in sorted(panels):
        here = [trace for trace in traces if _axes(trace) == pair]
        if all(trace.type == "image" for trace in here):
            continue
        for name in pair:
            axis = layout.get(f"{name[0]}axis{name[1:]}") or {}
            bare = axis.get("visible") is False or axis.get("showticklabels") is False
            words = axis.get("type") == "category" or axis.get("ticktext") is not None and any(
                not str(t).strip("0123456789.,-+%e ") == "" for t in axis["ticktext"])
            if not (bare or words) and not _text(axis.get("title")).strip():
                yield f"axis {name} has ticks and no title"


def _sizes(part, where: str = "") -> Iterator[str]:
    """Every font with a size of its own, wherever it stands."""
    if isinstance(part, list | tuple):
        for i, inner in enumerate(part):
            yield from _sizes(inner, f"{where}[{i}]")
    elif isinstance(part, dict):
        for key, inner in part.items():
            if key.endswith("font") and isinstance(inner, dict) and inner.get("size") is not None:
                if np.min(values(inner["size"])) < SMALLEST:
                    yield f"{where}.{key} is {inner['size']} px, under {SMALLEST}"
            yield from _sizes(inner, f"{where}.{key}" if where else key)


def _written(layout: dict, traces: list) -> Iterator[str]:
    """Text against what it stands on; a note on a panel against each shade it might stand on."""
    paper, plot = layout["paper_bgcolor"], layout["plot_bgcolor"]
    ink = (layout.get("font") or {}).get("color") or "#444444"  # plotly's default

    def of(part, key: str = "font"):
        return ((part if isinstance(part, dict) else {}).get(key) or {}).get("color") or ink

    title, legend = layout.get("title") or {}, layout.get("legend") or {}
    said = [("title", of(title), [paper]),
            ("subtitle", of((title if isinstance(title, dict) else {}).get("subtitle")), [paper]),
            ("legend", of(legend), [over(legend.get("bgcolor") or paper, paper)])]
    for key, axis in layout.items():
        if key[1:5] == "axis" and isinstance(axis, dict):
            said += [(f"{key} title", of(axis.get("title")), [paper]),
                     (f"{key} ticks", of(axis, "tickfont"), [paper])]
    shades = [over(shape["fillcolor"], plot, shape.get("opacity", 1))
              for shape in layout.get("shapes") or () if shape.get("fillcolor")]
    for note in layout.get("annotations") or ():
        grounds = [paper] if note.get("xref") == note.get("yref") == "paper" else [plot, *shades]
        if note.get("bgcolor"):
            grounds = [over(note["bgcolor"], ground) for ground in grounds]
        said.append((f"note '{note.get('text')}'", of(note), grounds))
    for trace in traces:
        if "text" in (getattr(trace, "mode", None) or ""):
            inks = values(trace.textfont.color if trace.textfont.color is not None else ink)
            said += [(f"text of '{trace.name}'", str(one), [plot]) for one in np.atleast_1d(inks)]
    for what, own, grounds in said:
        lowest = min(contrast(own, ground) for ground in grounds)
        if lowest < TEXT:
            yield f"{what}: contrast {lowest:.2f}, under {TEXT}"


def _drawn(layout: dict, traces: list) -> Iterator[str]:
    """Lines and marks against the plot's ground; a dark rim does for a faint mark."""
    plot = layout["plot_bgcolor"]
    for trace in traces:
        for what, ink, opacity in _inks(trace):
            found = contrast(ink, plot, opacity)
            if found < DRAWN:
                yield f"{what} of '{trace.name}': contrast {found:.2f}, under {DRAWN:g}"
    for shape in layout.get("shapes") or ():
        line = shape.get("line") or {}
        if shape.get("type") == "line" and line.get("width", 2) and line.get("color"):
            found = contrast(line["color"], plot, shape.get("opacity", 1))
            if found < DRAWN:
                yield f"a line across: contrast {found:.2f}, under {DRAWN:g}"


def _inks(trace) -> Iterator[tuple[str, str, float]]:
    """(what, colour, opacity) of a trace's lines and marks, as far as they have one of their own:
    the theme's colours are checked by themselves."""
    own = trace.to_plotly_json()
    opacity = own.get("opacity", 1)
    line, marker = own.get("line") or {}, own.get("marker") or {}
    if _has(trace, "lines") and line.get("width", 2) and line.get("color"):
        yield "line", line["color"], opacity
    if not _has(trace, "markers") or marker.get("color") is None:
        return
    given, rim = values(marker["color"]), marker.get("line") or {}
    if isinstance(rim.get("color"), str) and rim.get("width", 0) >= 1:
        yield "rim", rim["color"], opacity
    elif given.dtype.kind not in "OUS":
        yield "marks on a colour scale, without a rim", "#FFFFFF", 1
    else:
        seen = opacity * marker.get("opacity", 1)
        yield from (("mark", one, seen) for one in np.unique(given.astype(str)))


def _has(trace, part: str) -> bool:
    """Whether a trace draws "lines" or "markers"; bars count as marks."""
    if trace.type in ("bar", "histogram"):
        return part == "markers"
    if trace.type not in ("scatter", "scattergl"):
        return False
    size = 0 if trace.x is None else len(trace.x)
    return part in (trace.mode or ("lines+markers" if size < 20 else "lines"))  # plotly's default


def _alike(layout: dict, traces: list) -> Iterator[str]:
    """Two things of one panel that only their colour tells apart."""
    notes = [re.sub(r"<br>.*|<[^>]*>", "", note.get("text") or "")  # its first line, bare
             for note in layout.get("annotations") or () if note.get("xref") != "paper"]
    for pair in {_axes(trace) for trace in traces}:
        things = {}  # legend group -> (shapes, colours)
        for trace in traces:
            inks = {ink for what, ink, _ in _inks(trace) if what != "rim"}
            if _axes(trace) == pair and inks and not _labelled(trace, notes):
                shapes, colors = things.setdefault(trace.legendgroup or trace.name or id(trace),
                                                   (set(), set()))  # fmt: skip
                shapes |= _shapes(trace)
                colors |= inks
        for (one, a), (other, b) in combinations(things.items(), 2):
            if a[0] == b[0] and a[1] != b[1]:
                yield f"'{one}' and '{other}' differ in colour alone"


def _shapes(trace) -> set:
    found = {trace.type}
    if _has(trace, "lines") and trace.line.width != 0:
        found.add(("dash", trace.line.dash or "solid"))
    if _has(trace, "markers") and trace.type.startswith("scatter"):
        symbol = trace.marker.symbol
        found.add(("symbol", str(symbol if symbol is not None else "circle")))
    elif trace.type == "bar":
        found.add(("pattern", str(trace.marker.pattern.shape)))
    return found


def _labelled(trace, notes: list[str]) -> bool:
    """Words at the mark itself: its own text, a row of its own, or a note that ends its name."""
    words = any(v is not None and values(v).dtype.kind in "OUS" for v in (trace.x, trace.y))
    rows = words and trace.type != "bar" and len(trace.x) == 1
    return rows or "text" in (trace.mode or "") or any(
        note and (trace.name or "").endswith(note) for note in notes)


def _picture(fig: go.Figure) -> Iterator[str]:
    """The PNG twin: there, opaque, not one flat colour."""
    try:
        image = Image.open(io.BytesIO(png(fig, "words")))
    except ValueError as error:
        yield f"no PNG: {error}"
        return
    if image.mode not in ("RGB", "P") or "transparency" in image.info:
        yield f"a PNG of mode {image.mode} lets the page shine through"
    if np.asarray(image.convert("L")).std() < 1:
        yield "the PNG is one flat colour"
