"""The PNG twin's traces: one function per plotly trace kind, collected in DRAW.

Each takes (twin, matplotlib axes, trace as a dict, its index among the subplot's traces) and
returns the legend's handle, or None.
"""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kdlab.plots.axes import DASHES, clean, color, place, points, values
from kdlab.plots.fields import color_map, heatmap, image

SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X", "star": "*",
           "triangle-up": "^", "triangle-down": "v", "triangle-left": "<", "triangle-right": ">",
           "pentagon": "p", "hexagon": "h", "line-ns": "|", "line-ew": "_"}  # fmt: skip
STEPS = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid", "linear": "default"}


def _one_of(table: dict, key: str, what: str):
    if key not in table:
        raise ValueError(f"the PNG twin knows no {what} '{key}'; use one of {', '.join(table)}")
    return table[key]


def _auto(twin, index: int) -> str:
    colors = twin.layout.get("colorway") or ["#0072B2"]
    return colors[index % len(colors)]


def _pair(trace: dict) -> tuple[np.ndarray, np.ndarray]:
    x, y = values(trace.get("x")), values(trace.get("y"))
    return (np.arange(len(y)) if x is None else x), (np.arange(len(x)) if y is None else y)


def scatter(twin, ax, trace: dict, index: int):
    """Lines, markers, text, error bars and filled bands."""
    x, y = _pair(trace)
    x, y = place(ax, "x", x), place(ax, "y", y)
    mode = trace.get("mode") or ("lines+markers" if len(x) < 20 else "lines")  # plotly's default
    line, marker = trace.get("line") or {}, trace.get("marker") or {}
    alpha = trace.get("opacity", 1.0)
    flat = marker.get("color") if isinstance(marker.get("color"), str) else None
    stroke = line.get("color") or flat or _auto(twin, index)
    handle = {}
    face = _fill(ax, trace, x, y, stroke, alpha)
    ax.kd_previous = x, y
    if "lines" in mode and line.get("width", 2):
        step = _one_of(STEPS, line.get("shape", "linear"), "line shape")
        dash = _one_of(DASHES, line.get("dash", "solid"), "dash")
        handle |= {"color": color(stroke, alpha), "linestyle": dash,
                   "linewidth": points(line.get("width", 2))}  # fmt: skip
        ax.plot(x, y, drawstyle=step, solid_joinstyle="round", zorder=2, **handle)
    _errors(ax, trace, x, y, color(flat or stroke, alpha))
    if "markers" in mode:
        handle |= _markers(ax, twin, trace, x, y, flat or stroke, alpha)
    if "text" in mode:
        _labels(ax, trace, x, y)
    if not handle:  # a band without an outline, or text alone
        return Patch(facecolor=face, edgecolor="none") if face else None
    return Line2D([], [], **({"linestyle": "none"} | handle))


def _fill(ax, trace: dict, x, y, stroke: str, alpha: float) -> tuple | None:
    kind = trace.get("fill", "none")
    if kind in (None, "none"):
        return None
    face = trace.get("fillcolor")
    face = color(face, alpha) if face else color(stroke, 0.5 * alpha)  # plotly: half opacity
    step = {"hv": "post", "vh": "pre"}.get((trace.get("line") or {}).get("shape"))
    style = {"facecolor": face, "edgecolor": "none", "linewidth": 0, "zorder": 1.5}
    if kind == "toself":
        ax.fill(x, y, **style)
    elif kind == "tozeroy":
        ax.fill_between(x, y, 0, step=step, **style)
    elif kind == "tonexty" and hasattr(ax, "kd_previous"):
        px, py = ax.kd_previous
        ax.fill(np.concatenate([x, px[::-1]]), np.concatenate([y, py[::-1]]), **style)
    else:
        raise ValueError(f"the PNG twin cannot fill '{kind}' here; use toself, tozeroy or tonexty")
    return face


def _errors(ax, trace: dict, x, y, ink) -> None:
    for side in "xy":
        error = trace.get(f"error_{side}") or {}
        high = values(error.get("array"))
        if high is None or error.get("visible") is False:
            continue
        low = values(error.get("arrayminus"))
        spread = np.abs(np.array([high if low is None else low, high], float))
        own = color(error["color"]) if error.get("color") else ink
        ax.errorbar(x, y, **{f"{side}err": spread}, fmt="none", zorder=2.2, ecolor=own,
                    elinewidth=points(error.get("thickness", 2)), capthick=1,
                    capsize=points(error.get("width", 4)))  # fmt: skip


def _markers(ax, twin, trace: dict, x, y, flat: str, alpha: float) -> dict:
    marker = trace.get("marker") or {}
    edge = marker.get("line") or {}
    alpha *= marker.get("opacity", 1.0)
    size = values(marker.get("size", 6))
    given = marker.get("color")
    several = given is not None and not isinstance(given, str)
    ink = [color(flat, alpha)] * len(x)
    if several:
        shades = values(given)
        scale = marker | {"colorscale": marker.get("colorscale") or "Cividis"}
        ink = (
            [color(c, alpha) for c in shades]
            if shades.dtype.kind in "OUS"
            else color_map(scale, shades, "c").to_rgba(shades.astype(float), alpha=alpha)
        )
    names = marker.get("symbol", "circle")
    names = [names] * len(x) if isinstance(names, str) else list(names)
    rim = edge.get("color")
    for name in dict.fromkeys(names):
        shape = _one_of(SYMBOLS, name.removesuffix("-open"), "marker")
        here = np.array([n == name for n in names])
        ink_here = np.asarray(ink)[here]
        open_ = name.endswith("-open")
        ax.scatter(
            x[here], y[here], s=points(size[here] if size.ndim else size) ** 2, marker=shape,
            facecolors="none" if open_ else ink_here, zorder=3,
            edgecolors=color(rim, alpha) if isinstance(rim, str) else ink_here,
            linewidths=points(edge.get("width", 1.6 if open_ or shape in "|_" else 0)),
        )  # fmt: skip
    first = names[0] if names else "circle"
    return {
        "marker": SYMBOLS[first.removesuffix("-open")],
        "markersize": points(min(float(np.max(size)) if size.size else 6, 9)),
        "markerfacecolor": "none" if first.endswith("-open") else color(flat, alpha),
        "markeredgecolor": color(flat, alpha),
    }


def _labels(ax, trace: dict, x, y) -> None:
    text = values(trace.get("text"))
    text = np.broadcast_to(text, x.shape)
    font = trace.get("textfont") or {}
    vertical, horizontal = trace.get("textposition", "middle center").split()
    shift = {"top": 5, "bottom": -5, "right": 5, "left": -5}
    for px, py, label in zip(x, y, text, strict=True):
        ax.annotate(
            clean(label), (px, py), textcoords="offset points", zorder=3.5,
            xytext=(shift.get(horizontal, 0), shift.get(vertical, 0)),
            ha={"left": "right", "right": "left"}.get(horizontal, "center"),
            va={"top": "bottom", "bottom": "top"}.get(vertical, "center"),
            fontsize=points(font.get("size", 12)),
            color=color(font.get("color") or "#222222"),
        )  # fmt: skip


def bar(twin, ax, trace: dict, index: int):
    """Bars, upright or lying, grouped, stacked or overlaid, with error bars."""
    x, y = _pair(trace)
    lying = trace.get("orientation") == "h"
    along, across = ("y", "x") if lying else ("x", "y")
    spot, length = place(ax, along, y if lying else x), place(ax, across, x if lying else y)
    same = [t for t in twin.traces if t["type"] == "bar" and t.get("visible", True) is True
            and (t.get("xaxis", "x"), t.get("yaxis", "y")) == ax.kd_axes]  # fmt: skip
    mode = twin.layout.get("barmode", "group")
    if mode not in ("group", "stack", "relative", "overlay"):
        raise ValueError(f"the PNG twin knows no barmode '{mode}'; use group, stack or overlay")
    step = np.diff(np.unique(spot)).min() if len(np.unique(spot)) > 1 else 1.0
    wide = step * (1 - twin.layout.get("bargap", 0.2))
    base = np.zeros_like(length) if trace.get("base") is None else values(trace["base"]) + 0.0
    if mode == "group":
        rank = next(i for i, t in enumerate(same) if t is trace)
        spot = spot + wide * ((rank + 0.5) / len(same) - 0.5)
        wide = wide / len(same)
    elif mode in ("stack", "relative"):
        heap = ax.kd_heap = getattr(ax, "kd_heap", {})
        base = np.array([heap.get((s, v < 0), 0.0) for s, v in zip(spot, length, strict=True)])
        heap |= {(s, v < 0): b + v for s, v, b in zip(spot, length, base, strict=True)}
    wide = trace.get("width") or wide
    marker = trace.get("marker") or {}
    given = marker.get("color") or _auto(twin, index)
    alpha = trace.get("opacity", 1.0) * marker.get("opacity", 1.0)
    ink = color(given, alpha) if isinstance(given, str) else [color(c, alpha) for c in given]
    (ax.barh if lying else ax.bar)(spot, length, wide, base, color=ink, linewidth=0, zorder=2)
    ends = (base + length, spot) if lying else (spot, base + length)
    _errors(ax, trace, *ends, color("#222222"))
    return Patch(facecolor=ink if isinstance(given, str) else ink[0])


def histogram(twin, ax, trace: dict, index: int):
    """Counts of x (or y, lying) in equal bins, with plotly's histnorm."""
    lying = trace.get("x") is None
    data = values(trace.get("y") if lying else trace.get("x")).astype(float)
    bins = trace.get("ybins" if lying else "xbins") or {}
    count = trace.get("nbinsy" if lying else "nbinsx") or 50
    edges = np.histogram_bin_edges(data, count)
    if {"start", "end", "size"} <= bins.keys():
        edges = np.arange(bins["start"], bins["end"] + bins["size"] / 2, bins["size"])
    height, _ = np.histogram(data, edges)
    norm = trace.get("histnorm") or ""
    share = {"": 1, "percent": 100 / data.size, "probability": 1 / data.size,
             "density": 1 / np.diff(edges), "probability density": 1 / np.diff(edges) / data.size}
    marker = trace.get("marker") or {}
    ink = color(marker.get("color") or _auto(twin, index), trace.get("opacity", 1.0))
    draw = ax.barh if lying else ax.bar
    draw((edges[1:] + edges[:-1]) / 2, height * _one_of(share, norm, "histnorm"), np.diff(edges),
         color=ink, linewidth=0, zorder=2)  # fmt: skip
    return Patch(facecolor=ink)


DRAW = {"scatter": scatter, "scattergl": scatter, "bar": bar, "histogram": histogram,
        "heatmap": heatmap, "image": image}  # fmt: skip
