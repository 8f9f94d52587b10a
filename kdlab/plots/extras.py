"""The PNG twin's extras: shapes, layout images and annotations, at their plotly references."""

import base64
import io

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory
from PIL import Image

from kdlab.plots.axes import DASHES, clean, color, place, points


def _transform(twin, xref: str, yref: str, what: str):
    """(axes, matplotlib transform) of plotly references such as "x2", "x domain", "paper"."""
    names = [ref.split(" ")[0] for ref in (xref, yref)]
    for (x, y), ax in twin.subplots.items():
        if names[0] in (x, "paper") and names[1] in (y, "paper"):
            sides = []
            for ref in (xref, yref):
                domain = ax.transAxes if ref.endswith(" domain") else ax.transData
                sides.append(twin.paper if ref == "paper" else domain)
            return ax, blended_transform_factory(*sides)
    if names == ["paper", "paper"]:
        return None, twin.paper
    raise ValueError(f"the PNG twin found no axes for a layout.{what} at ({xref}, {yref})")


def place_extras(twin) -> None:
    """Shapes, layout images and annotations. Shapes below the data stay below it."""
    for shape in twin.layout.get("shapes") or ():
        _shape(twin, shape)
    for picture in twin.layout.get("images") or ():
        ax, transform = _transform(twin, picture.get("xref", "paper"), picture.get("yref", "paper"),
                                   "image")  # fmt: skip
        if ax is None or transform.contains_branch(twin.paper):
            raise ValueError("the PNG twin draws a layout.image on axes only; set xref and yref")
        x, y, wide, high = (float(picture[key]) for key in ("x", "y", "sizex", "sizey"))
        limits = ax.get_xlim(), ax.get_ylim()
        down = high if limits[1][0] > limits[1][1] else -high
        ax.imshow(decode(picture["source"]), extent=(x, x + wide, y + down, y), aspect="auto",
                  interpolation="none", zorder=0.5)  # fmt: skip
        ax.set(xlim=limits[0], ylim=limits[1])
    for note in twin.layout.get("annotations") or ():
        _note(twin, note)


def decode(source: str) -> np.ndarray:
    """Pixels (H, W, 3 or 4) of a data: address; anything else would reach for the network."""
    if not str(source).startswith("data:image/"):
        raise ValueError("pictures in figures must be data: addresses, not links or files")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGBA"))


def _shape(twin, shape: dict) -> None:
    kind = shape.get("type", "rect")
    if kind not in ("line", "rect"):
        raise ValueError(f"the PNG twin cannot draw a shape of kind '{kind}'; use line or rect")
    ax, transform = _transform(twin, shape.get("xref", "x"), shape.get("yref", "y"), "shape")
    (x0, x1), (y0, y1) = (
        place(ax, s, [shape[s + "0"], shape[s + "1"]])
        if ax is not None and shape.get(f"{s}ref", s) == ax.kd_axes["xy".index(s)]
        else (float(shape[s + "0"]), float(shape[s + "1"]))
        for s in "xy"
    )
    line = shape.get("line") or {}
    order = 0.6 if shape.get("layer") == "below" else 2.5
    style = {
        "linewidth": points(line.get("width", 2)),
        "linestyle": DASHES[line.get("dash", "solid")],
        "transform": transform,
        "zorder": order,
    }
    alpha = shape.get("opacity", 1)
    edge = color(line.get("color") or "#444444", alpha)
    target = ax if ax is not None else twin.figure
    limits = None if ax is None else (ax.get_xlim(), ax.get_ylim())
    if kind == "line":
        target.add_artist(Line2D([x0, x1], [y0, y1], color=edge, **style))
    else:
        fill = shape.get("fillcolor")
        target.add_artist(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor=edge,
                                    facecolor=color(fill, alpha) if fill else "none",
                                    **style))  # fmt: skip
    if limits:
        ax.set(xlim=limits[0], ylim=limits[1])


def _thirds(apply: bool, value: float, low: str, middle: str, high: str) -> str:
    return middle if not apply or 1 / 3 <= value <= 2 / 3 else low if value < 1 / 3 else high


def _note(twin, note: dict) -> None:
    if note.get("visible") is False or not note.get("text"):
        return
    xref, yref = note.get("xref", "x"), note.get("yref", "y")
    ax, transform = _transform(twin, xref, yref, "annotation")
    spot = []
    for side, ref in (("x", xref), ("y", yref)):
        value = note[side]
        on_axis = ax is not None and ref == ax.kd_axes["xy".index(side)]
        value = float(place(ax, side, [value])[0]) if on_axis else float(value)
        # plotly gives an annotation's place on a log axis as a power of ten
        spot.append(10**value if on_axis and twin.axis(ref).get("type") == "log" else value)
    arrow = note.get("showarrow", True)
    shift = (note.get("ax", -10), -note.get("ay", -30)) if arrow else (0, 0)
    shift = (shift[0] + note.get("xshift", 0), shift[1] + note.get("yshift", 0))
    xa, ya = note.get("xanchor", "auto"), note.get("yanchor", "auto")
    if xa == "auto":  # plotly: by thirds on paper, centred on data
        xa = _thirds(xref == "paper" and not arrow, spot[0], "left", "center", "right")
    if ya == "auto":
        ya = _thirds(yref == "paper" and not arrow, spot[1], "bottom", "middle", "top")
    font = note.get("font") or {}
    box = note.get("bgcolor")
    line = {"arrowstyle": "-|>", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2,
            "color": color(note.get("arrowcolor") or "#6B6B6B")}  # fmt: skip
    ax = ax if ax is not None else next(iter(twin.subplots.values()))
    ax.annotate(
        clean(note["text"]), spot, xycoords=transform, xytext=(points(shift[0]), points(shift[1])),
        textcoords="offset points", ha=xa, va="center" if ya == "middle" else ya,
        fontsize=points(font.get("size", 12)), color=color(font.get("color") or "#222222"),
        rotation=-float(note.get("textangle") or 0), annotation_clip=False, zorder=4,
        multialignment=note.get("align", "center"),
        bbox={"facecolor": color(box), "edgecolor": "none", "pad": 1.5} if box else None,
        arrowprops=line if arrow else None,
    )  # fmt: skip
