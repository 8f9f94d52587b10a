"""The PNG twin's surfaces: heat maps, pictures, and the colour scale beside them."""

import re

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from plotly.colors import get_colorscale

from kdlab.plots.axes import clean, color, number_format, place, points, values
from kdlab.plots.extras import decode


def color_map(part: dict, data: np.ndarray, prefix: str) -> ScalarMappable:
    """The colours of a plotly colour axis: "z" of a heat map or "c" of markers."""
    scale = part.get("colorscale") or "Cividis"
    stops = get_colorscale(scale) if isinstance(scale, str) else scale
    colors = LinearSegmentedColormap.from_list("kdlab", [(float(s), color(c)) for s, c in stops])
    if part.get("reversescale"):
        colors = colors.reversed()
    finite = data[np.isfinite(data)] if data.size else np.array([0.0, 1.0])
    low, high = (part.get(f"{prefix}{end}") for end in ("min", "max"))
    low, high = (finite.min() if low is None else low), (finite.max() if high is None else high)
    middle = part.get(f"{prefix}mid")
    if middle is not None:
        reach = max(high - middle, middle - low)
        low, high = middle - reach, middle + reach
    return ScalarMappable(Normalize(float(low), float(high)), colors)


def heatmap(twin, ax, trace: dict, index: int):
    """A matrix as colours, row 0 at y = 0, with numbers in the cells on request."""
    z = values(trace["z"]).astype(float)
    centres = []
    for side, n in (("x", z.shape[1]), ("y", z.shape[0])):
        given = trace.get(side)
        centres.append(np.arange(n, dtype=float) if given is None else place(ax, side, given))
    edges = []
    for c in centres:
        half = np.diff(c) / 2 if len(c) > 1 else np.array([0.5])
        inner = c[:-1] + half[: len(c) - 1]
        edges.append(np.concatenate([[c[0] - half[0]], inner, [c[-1] + half[-1]]]))
    shared = twin.layout.get(trace.get("coloraxis") or "", {})
    part = {k.replace("cm", "zm", 1): v for k, v in shared.items()} or trace
    colors = color_map(part, z, "z")
    ax.pcolormesh(*edges, np.ma.masked_invalid(z), cmap=colors.cmap, norm=colors.norm)
    pattern = trace.get("texttemplate")
    if pattern:
        found = re.fullmatch(r"%\{(z|text)(?::([^}]*))?\}(.*)", pattern)
        if not found:
            raise ValueError(f"the PNG twin cannot write '{pattern}'; use %{{z:.2f}} or %{{text}}")
        text = values(trace["text"]) if found[1] == "text" else z
        write = str if found[1] == "text" else number_format(found[2] or "")
        size = points((trace.get("textfont") or {}).get("size", 11))
        for (row, column), value in np.ndenumerate(z):
            if np.isfinite(value):
                rgb = np.array(colors.to_rgba(value)[:3])
                linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
                # Where white and black read equally well (WCAG 2.2, relative luminance).
                dark = linear @ (0.2126, 0.7152, 0.0722) < 0.179
                ax.text(centres[0][column], centres[1][row],
                        clean(write(text[row, column]) + found[3]), fontsize=size, ha="center",
                        va="center", color="white" if dark else "black")  # fmt: skip
    if part.get("showscale", True):
        ax.kd_bar = colors, part.get("colorbar") or {}
    return None


def heat_bar(twin, ax, trace: dict) -> None:
    """The colour scale beside its subplot, once."""
    marker = trace.get("marker") or {}
    if trace["type"] in ("scatter", "scattergl") and marker.get("showscale"):
        ax.kd_bar = color_map(marker, values(marker["color"]).astype(float), "c"), (
            marker.get("colorbar") or {}
        )
    colors, layout = getattr(ax, "kd_bar", (None, None))
    if colors is None or any(parent is ax for _, parent in twin.bars):
        return
    holder = twin.figure.add_axes((0, 0, 0.1, 0.1), label=f"bar{len(twin.bars)}")
    made = twin.figure.colorbar(colors, cax=holder)
    made.outline.set_visible(False)
    title = layout.get("title") or {}
    text = title if isinstance(title, str) else title.get("text")
    made.set_label(clean(text or ""), fontsize=points(12))
    write = number_format(layout.get("tickformat") or "")
    if layout.get("tickformat"):
        made.ax.yaxis.set_major_formatter(lambda v, _: clean(write(v)))
    made.ax.tick_params(labelsize=points(12), length=3, width=0.7)
    twin.bars.append((holder, ax))


def image(twin, ax, trace: dict, index: int):
    """Pixels from `z` or a data: address, pixel (0, 0) at the top left as in plotly.

    Axes with a picture shrink until its pixels are square, which is plotly's default too.
    """
    pixels = values(trace.get("z"))
    pixels = decode(trace["source"]) if pixels is None else pixels.astype(np.uint8)
    x0, y0 = trace.get("x0", 0), trace.get("y0", 0)
    dx, dy = trace.get("dx", 1), trace.get("dy", 1)
    high, wide = pixels.shape[:2]
    x0, y0 = x0 - dx / 2, y0 - dy / 2
    ax.imshow(pixels, extent=(x0, x0 + dx * wide, y0 + dy * high, y0), aspect=1,
              interpolation="none", zorder=1)  # fmt: skip
    return None
