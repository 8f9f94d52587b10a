"""The PNG twin of a plotly figure, drawn by matplotlib: no browser, no kaleido, no network.

It draws what kdlab's figures use (see `draw.py` for the traces) and raises ValueError by name for
anything else, so that nothing silently disappears from a printed copy. Layout follows plotly:
margins in pixels around a "paper" square from (0, 0) to (1, 1), axes at their domains in it,
margins that grow until tick labels, titles and legend fit.
"""

import base64
import io
import threading

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxTransformTo
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kdlab.plots.axes import clean, finish, merged, points
from kdlab.plots.draw import DRAW
from kdlab.plots.extras import place_extras
from kdlab.plots.fields import heat_bar

LIMIT = 150_000  # bytes; a heavier picture gets a palette of 256 colours (a notebook stays small)
_DRAWING = threading.Lock()  # matplotlib is not thread-safe and panels draw in a thread
PAD = 6  # pixels kept free at the rim; ours
UNSUPPORTED = ("scene", "polar", "geo", "map", "mapbox", "ternary", "smith", "sliders",
               "updatemenus", "selections")  # fmt: skip
ANCHORS = {("left", "top"): "upper left", ("left", "middle"): "center left",
           ("left", "bottom"): "lower left", ("center", "top"): "upper center",
           ("center", "middle"): "center", ("center", "bottom"): "lower center",
           ("right", "top"): "upper right", ("right", "middle"): "center right",
           ("right", "bottom"): "lower right"}  # fmt: skip


def png(fig: go.Figure, alt: str = "", scale: float = 1.0) -> bytes:
    """The figure as PNG bytes, layout.width x layout.height pixels times `scale`.

    alt: stored as the PNG's Description.   Raises ValueError naming a trace kind or layout part
    that cannot be drawn.
    """
    with _DRAWING:
        canvas = _Twin(fig, scale).draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    info = PngInfo()
    if alt:
        info.add_text("Description", alt)
    data = encode(image, info)
    return data if len(data) <= LIMIT else encode(image.quantize(256, dither=0), info)


def size(fig: go.Figure) -> tuple[int, int]:
    """(width, height) in pixels: the figure's own, else its template's, else plotly's 700 x 450."""
    own, default = fig.layout, fig.layout.template.layout
    return own.width or default.width or 700, own.height or default.height or 450


def encode(image: Image.Image, info: PngInfo | None = None) -> bytes:
    """PNG bytes of a PIL image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, optimize=False)
    return buffer.getvalue()


def data_uri(png_bytes: bytes) -> str:
    """PNG bytes as a `data:` address, which plotly and HTML take as an image source."""
    return "data:image/png;base64," + base64.b64encode(png_bytes).decode()


class _Twin:
    """One drawing: the plotly layout, the matplotlib canvas, and the axes by subplot name."""

    def __init__(self, fig: go.Figure, scale: float):
        layout = fig.layout.to_plotly_json()
        template = layout.pop("template", None) or {}
        self.layout = merged(template.get("layout", {}), layout)
        self.axis_defaults = {s: template.get("layout", {}).get(f"{s}axis", {}) for s in "xy"}
        bad = [key for key in UNSUPPORTED if layout.get(key)]  # a template may style them
        if bad:
            raise ValueError(f"the PNG twin cannot draw layout.{bad[0]}; leave it out")
        defaults = template.get("data", {})
        self.traces = []
        for trace in fig.data:
            if trace.type not in DRAW:
                known = ", ".join(sorted(DRAW))
                raise ValueError(
                    f"the PNG twin cannot draw a trace of kind '{trace.type}'; it knows {known}"
                )
            base = (defaults.get(trace.type) or [{}])[0]
            self.traces.append(merged(base, trace.to_plotly_json()))
        self.width, self.height = size(fig)
        self.dpi = 100 * scale
        self.unit = scale  # device pixels in one layout pixel
        self.figure = Figure(figsize=(self.width / 100, self.height / 100), dpi=self.dpi)
        self.canvas = FigureCanvasAgg(self.figure)
        self.figure.patch.set_facecolor(self.layout.get("paper_bgcolor") or "white")
        margin = self.layout.get("margin") or {}
        default = {"l": 80, "r": 80, "t": 100, "b": 80}  # plotly's
        self.margin = {side: float(margin.get(side, default[side])) for side in "lrtb"}
        self.area = Bbox.unit()
        self.paper = BboxTransformTo(self.area)  # follows `area` when the margins grow
        self._set_area()
        self.subplots = {}
        self.bars = []
        self.entries = []  # legend: (handle, label)

    def _set_area(self) -> None:
        m, u = self.margin, self.unit
        right, top = self.width - m["r"], self.height - m["t"]
        if right - m["l"] < 20 or top - m["b"] < 20:
            raise ValueError(
                f"a figure of {self.width:g} x {self.height:g} pixels leaves no room inside its "
                "labels; give layout.width and layout.height more"
            )
        self.area.set_points(np.array([[m["l"] * u, m["b"] * u], [right * u, top * u]]))

    def axis(self, name: str) -> dict:
        """Layout of axis "x", "y3", ...: the template's under the figure's own."""
        key = name[0] + "axis" + name[1:]
        return merged(self.axis_defaults[name[0]], self.layout.get(key) or {})

    def subplot(self, x: str, y: str):
        """The matplotlib axes of a plotly subplot, made at its first use."""
        if (x, y) not in self.subplots:
            ax = self.figure.add_axes((0, 0, 1, 1))
            ax.kd_axes = (x, y)
            ax.kd_categories = {"x": None, "y": None}
            ax.set_facecolor(self.layout.get("plot_bgcolor") or "white")
            for side in "xy":
                layout = self.axis(x if side == "x" else y)
                if layout.get("overlaying"):
                    raise ValueError("the PNG twin cannot draw overlaying axes; use two panels")
                if layout.get("type") == "log":
                    getattr(ax, f"set_{side}scale")("log")
            self.subplots[x, y] = ax
        return self.subplots[x, y]

    def _place(self) -> None:
        """Put every axes at its domain of the current paper square."""
        for (x, y), ax in self.subplots.items():
            (x0, x1), (y0, y1) = self.domain(x), self.domain(y)
            corners = self.paper.transform([(x0, y0), (x1, y1)])
            ax.set_position(Bbox(corners / (self.width * self.unit, self.height * self.unit)))
        for bar, ax in self.bars:
            box, wide = ax.get_position(), 14 / self.width  # 14 px, half of plotly's 30
            bar.set_position((box.x1 + 12 / self.width, box.y0, wide, box.height))

    def domain(self, name: str) -> tuple[float, float]:
        return tuple(self.axis(name).get("domain") or (0.0, 1.0))

    def draw(self) -> FigureCanvasAgg:
        counts = {}
        for trace in self.traces:
            if trace.get("visible", True) is not True:
                continue
            ax = self.subplot(trace.get("xaxis", "x"), trace.get("yaxis", "y"))
            index = counts[ax] = counts.get(ax, -1) + 1
            handle = DRAW[trace["type"]](self, ax, trace, index)
            if trace.get("showlegend", len(self.traces) > 1) and trace.get("name") and handle:
                self.entries.append((handle, clean(trace["name"])))
            heat_bar(self, ax, trace)
        finish(self)
        place_extras(self)
        self._legend_and_title()
        self._place()
        for _ in range(3):  # the growth of one margin may wrap or shift another
            if self._grow() < 30:  # pixels; less does not change what ticks fit
                break
        self.canvas.draw()
        return self.canvas

    def _legend_and_title(self) -> None:
        self.legend, self.heading = None, []
        place = self.layout.get("legend") or {}
        if self.entries and self.layout.get("showlegend", True):
            flat = place.get("orientation") == "h"
            xa = place.get("xanchor") or "left"
            ya = place.get("yanchor") or ("bottom" if flat else "top")
            spot = (place.get("x", 0 if flat else 1.02), place.get("y", -0.2 if flat else 1))
            size = points((place.get("font") or {}).get("size", 11))
            handles, labels = zip(*self.entries, strict=True)
            columns = len(labels) if flat else 1
            while True:
                self.legend = self.figure.legend(
                    handles, labels, loc=ANCHORS[xa, ya], bbox_to_anchor=spot,
                    bbox_transform=self.paper, borderaxespad=0, frameon=bool(place.get("bgcolor")),
                    facecolor=place.get("bgcolor") or "none", framealpha=0.85, edgecolor="none",
                    ncols=columns, fontsize=size, handlelength=2.4,
                )  # fmt: skip
                box = self.legend.get_window_extent(self.canvas.get_renderer())
                fits = box.width <= self.area.width and box.x1 <= (self.width - PAD) * self.unit
                if columns == 1 or fits:
                    break
                self.legend.remove()
                columns -= 1
        title = self.layout.get("title") or {}
        title = {"text": title} if isinstance(title, str) else title
        lines = [(title, 15, "#222222"), (title.get("subtitle") or {}, 12, "#6B6B6B")]
        for part, size, color in lines:
            if part.get("text"):
                font = part.get("font") or {}
                text = self.figure.text(
                    0, 0, clean(part["text"]), fontsize=points(font.get("size", size)),
                    color=font.get("color", color), va="top", linespacing=1.25,
                )  # fmt: skip
                self.heading.append(text)

    def _grow(self) -> float:
        """Grow the margins by what sticks out; the largest growth in pixels."""
        renderer, u = self.canvas.get_renderer(), self.unit
        boxes = [ax.get_tightbbox(renderer) for ax in self.figure.axes]
        boxes += [self.legend.get_window_extent(renderer)] if self.legend else []
        boxes += [text.get_window_extent(renderer) for text in self.figure.texts
                  if text not in self.heading]  # fmt: skip
        boxes = [box for box in boxes if box is not None and box.width and box.height]
        head = sum(text.get_window_extent(renderer).height / u + 4 for text in self.heading)
        whole = Bbox.union(boxes) if boxes else self.area
        over = {
            "l": PAD - whole.x0 / u,
            "r": whole.x1 / u - (self.width - PAD),
            "b": PAD - whole.y0 / u,
            "t": whole.y1 / u - (self.height - PAD - head - (PAD if head else 0)),
        }
        grown = max(0.0, *over.values())
        for side, pixels in over.items():
            if pixels > 0.5:
                self.margin[side] += pixels
        if grown > 0.5:
            self._set_area()
            self._place()
        y = self.height - PAD
        for text in self.heading:
            text.set_position((self.area.x0 / u / self.width, y / self.height))
            y -= text.get_window_extent(renderer).height / u + 4
        return grown
