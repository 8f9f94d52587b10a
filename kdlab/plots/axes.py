"""The PNG twin's axes: values, colours, text, ticks and ranges of a plotly layout."""

import base64
import re

import numpy as np
from matplotlib import ticker
from matplotlib.colors import to_rgba

DASHES = {"solid": "-", "dash": (0, (5, 2.5)), "dot": (0, (1.2, 2)), "dashdot": (0, (5, 2, 1.2, 2)),
          "longdash": (0, (9, 3)), "longdashdot": (0, (9, 3, 1.2, 3))}  # fmt: skip
_TAGS = re.compile(r"</?(?:b|i|em|strong|span|a)(?:\s[^>]*)?>")
_POWER = re.compile(r"<(su[bp])>(.*?)</\1>")


def points(pixels: float) -> float:
    """CSS pixels to matplotlib's points at 100 dpi."""
    return pixels * 0.72


def merged(base: dict, over: dict) -> dict:
    """`base` updated by `over`, dicts inside dicts as well."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        result[key] = merged(old, value) if both else value
    return result


def values(data) -> np.ndarray | None:
    """A plotly data array as numpy: lists, arrays, and plotly's base64 form alike."""
    if isinstance(data, dict) and "bdata" in data:
        array = np.frombuffer(base64.b64decode(data["bdata"]), dtype=data["dtype"])
        shape = data.get("shape")
        return array if shape is None else array.reshape([int(n) for n in str(shape).split(",")])
    return None if data is None else np.asarray(data)


def color(value, alpha: float = 1.0) -> tuple:
    """A CSS colour as matplotlib's RGBA; rgb(), rgba(), hexadecimal and names."""
    found = re.fullmatch(r"rgba?\(([^)]*)\)", str(value).strip())
    if not found:
        red, green, blue, own = to_rgba(value)
        return red, green, blue, own * alpha
    red, green, blue, *own = (float(part) for part in found[1].split(","))
    return red / 255, green / 255, blue / 255, (own[0] if own else 1.0) * alpha


def clean(text: str) -> str:
    """plotly's small HTML as matplotlib text: line breaks, raised and lowered numbers."""
    text = re.sub(r"<br\s*/?>", "\n", str(text)).replace("$", r"\$")
    text = _POWER.sub(lambda m: f"${'^' if m[1] == 'sup' else '_'}{{{m[2]}}}$", _TAGS.sub("", text))
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def place(ax, side: str, data) -> np.ndarray:
    """Coordinates along one axis; strings become 0, 1, 2, ... in order of appearance."""
    array = np.atleast_1d(values(data))
    if array.dtype.kind not in "OUS":
        return array.astype(float)
    if all(isinstance(v, int | float | np.number) or v is None for v in array.tolist()):
        return np.array([np.nan if v is None else v for v in array], float)
    known = ax.kd_categories[side] = ax.kd_categories[side] or []
    known += [v for v in dict.fromkeys(array.tolist()) if v not in known]
    return np.array([known.index(v) for v in array.tolist()], float)


def number_format(pattern: str):
    """A d3 format such as ".0%", ".2f", ",d" or "" as a function of a number."""
    if not re.fullmatch(r",?(\.\d+)?[%fegd]?", pattern):
        raise ValueError(f"the PNG twin cannot write numbers as '{pattern}'; use .2f, .0% or ,d")
    if pattern.endswith("d"):
        return lambda v: format(round(v), pattern.replace("d", "").replace(".0", "") + "d")
    return lambda v: format(v, pattern)


def finish(twin) -> None:
    """Titles, ticks, grid and range of every axis."""
    limits = {}
    for ax in twin.subplots.values():
        for side, name in zip("xy", ax.kd_axes, strict=True):
            layout = twin.axis(name)
            _ticks(ax, side, layout)
            span = _range(ax, side, layout)
            limits.setdefault(layout.get("matches") or name, []).append((ax, side, layout, span))
    for group in limits.values():
        fixed = [span for _, _, layout, span in group if layout.get("range") is not None]
        spans = np.array(fixed or [span for *_, span in group])
        low, high = (spans[0]) if fixed else (spans.min(), spans.max())
        for ax, side, layout, _ in group:
            ends = (high, low) if layout.get("autorange") == "reversed" else (low, high)
            getattr(ax, f"set_{side}lim")(*ends)


def _range(ax, side: str, layout: dict) -> tuple[float, float]:
    log = layout.get("type") == "log"
    if layout.get("range") is not None:
        low, high = (float(v) for v in layout["range"])
        return (10**low, 10**high) if log else (low, high)
    if ax.kd_categories[side]:
        return -0.5, len(ax.kd_categories[side]) - 0.5
    low, high = getattr(ax, f"get_{side}lim")()
    if layout.get("rangemode") == "tozero" and not log:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def _ticks(ax, side: str, layout: dict) -> None:
    axis = getattr(ax, f"{side}axis")
    font = layout.get("tickfont") or {}
    ax.tick_params(axis=side, labelsize=points(font.get("size", 12)), length=3, width=0.7,
                   color="#6B6B6B", labelrotation=-float(layout.get("tickangle") or 0),
                   top=layout.get("side") == "top" and side == "x",
                   labeltop=layout.get("side") == "top" and side == "x",
                   labelbottom=layout.get("side") != "top")  # fmt: skip
    if layout.get("side") == "top":
        axis.set_label_position("top")
    shown = layout.get("visible", True) is not False
    spine_color = color(layout.get("linecolor") or "#444444")
    for edge in ("bottom", "top") if side == "x" else ("left", "right"):
        first = edge in ("bottom", "left")
        line = shown and layout.get("showline", False) and (first or bool(layout.get("mirror")))
        ax.spines[edge].set(visible=line, color=spine_color, linewidth=0.8)
    ax.set_axisbelow(True)
    if not shown:
        axis.set_visible(False)
        return
    if layout.get("showgrid", True):
        ax.grid(True, axis=side, color=color(layout.get("gridcolor") or "#E5E5E5"), linewidth=0.7)
    if layout.get("zeroline"):
        line = ax.axvline if side == "x" else ax.axhline
        line(0, color=color(layout.get("zerolinecolor") or "#6B6B6B"), linewidth=0.9, zorder=1)
    title = layout.get("title") or {}
    text = title if isinstance(title, str) else title.get("text")
    if text:
        size = {} if isinstance(title, str) else title.get("font") or {}
        axis.set_label_text(clean(text), fontsize=points(size.get("size", 12)))
        axis.labelpad = 4
    known, ticks = ax.kd_categories[side], values(layout.get("tickvals"))
    prefix, suffix = layout.get("tickprefix") or "", layout.get("ticksuffix") or ""
    write = number_format(layout.get("tickformat") or "")
    if layout.get("showticklabels") is False or layout.get("ticks") == "":
        ax.tick_params(axis=side, length=0)
    if ticks is not None:
        labels = layout.get("ticktext")
        labels = [f"{prefix}{write(v)}{suffix}" for v in ticks] if labels is None else labels
        axis.set_major_locator(ticker.FixedLocator(place(ax, side, ticks)))
        axis.set_major_formatter(ticker.FixedFormatter([clean(v) for v in values(labels)]))
        axis.set_minor_locator(ticker.NullLocator())
    elif known:
        axis.set_major_locator(ticker.FixedLocator(np.arange(len(known))))
        axis.set_major_formatter(ticker.FixedFormatter([clean(v) for v in known]))
    elif layout.get("type") == "log":
        axis.set_major_locator(ticker.LogLocator(numticks=9))
        axis.set_minor_formatter(ticker.NullFormatter())
        if layout.get("tickformat"):
            axis.set_major_formatter(ticker.FuncFormatter(lambda v, _: clean(write(v))))
    else:
        step = layout.get("dtick")
        count = layout.get("nticks") or 7
        axis.set_major_locator(
            ticker.MultipleLocator(float(step))
            if step
            else ticker.MaxNLocator(count, steps=[1, 2, 5, 10])
        )
        if layout.get("tickformat") or prefix or suffix:
            plain = write if layout.get("tickformat") else lambda v: f"{v:g}"
            axis.set_major_formatter(
                ticker.FuncFormatter(lambda v, _: clean(f"{prefix}{plain(v)}{suffix}"))
            )
    if layout.get("showticklabels") is False:
        axis.set_major_formatter(ticker.NullFormatter())
        axis.set_minor_formatter(ticker.NullFormatter())
