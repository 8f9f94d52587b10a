"""A figure into a notebook: interactive, printable, and its words for those who hear them."""

import base64
import html
import json
import re
from pathlib import Path

import plotly.graph_objects as go
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from kdlab.cache import write_atomic
from kdlab.plots.png import png, size
from kdlab.plots.style import CONFIG

PLOTLY = "application/vnd.plotly.v1+json"
# What a drag and a double click do as well, or what does nothing here: the bar of all buttons lies
# upon the title while the pointer is in the chart.
SPARED = ["zoomIn2d", "zoomOut2d", "autoScale2d", "select2d", "lasso2d"]
# Out of sight and yet read aloud; display: none would silence it.
UNSEEN = ("position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;"
          "clip-path:inset(50%);white-space:nowrap")  # fmt: skip


def bundle(fig: go.Figure, alt: str, name: str | None = None) -> tuple[dict, dict]:
    """The MIME bundle and its metadata that `show` sends.

    A front end takes the richest part it knows: JupyterLab and VS Code plotly's JSON (JupyterLab
    shows the PNG first and makes the live chart when the pointer enters), GitHub, nbconvert and
    print the PNG, a terminal the text. nbconvert writes the metadata's words as the image's `alt`;
    JupyterLab's plotly renderer makes its image without one and reads no metadata: there `spoken`
    carries the words. The chart is as large as the PNG, whatever the page is, so that nothing moves
    when the pointer enters.
    Raises ValueError without alt text, or for a figure `png` cannot draw.
    """
    if not alt or not alt.strip():
        raise ValueError("this figure has no alt text; say in `alt` what a reader should see in it")
    config = CONFIG | {"modeBarButtonsToRemove": [*CONFIG["modeBarButtonsToRemove"], *SPARED]}
    if name:
        config["toImageButtonOptions"] = {"filename": re.sub(r"[^\w.-]+", "-", name)}
    chart = json.loads(fig.to_json(validate=False)) | {"config": config}
    chart["layout"] |= dict(zip(("width", "height"), size(fig), strict=True))
    data = {
        PLOTLY: chart,
        "image/png": base64.b64encode(png(fig, alt)).decode(),
        "text/plain": alt,
    }
    metadata = {"image/png": {"alt": alt}}
    if name:
        metadata["kdlab"] = {"name": name}
    return data, metadata


def spoken(alt: str) -> dict:
    """A MIME bundle that a page reads aloud after the picture and does not show."""
    return {"text/html": f'<p style="{UNSEEN}">Figure: {html.escape(alt)}</p>'}


def show(fig: go.Figure, alt: str, name: str | None = None) -> None:
    """Display `fig` with its PNG twin and alt text, the same with and without a front end.

    alt: one or two sentences that say what the picture shows; they follow the picture as text that
    a screen reader meets, because not every front end gives the image an `alt` (see `bundle`).
    name: what a saved copy is called.
    """
    data, metadata = bundle(fig, alt, name)
    if InteractiveShell.initialized():
        display(data, metadata=metadata, raw=True)
        display(spoken(alt), raw=True)
    else:  # a plain Python process has nowhere to put a picture
        print(alt)


def save_png(fig: go.Figure, path: str | Path, alt: str, scale: float = 1.0) -> None:
    """Write the PNG twin, whole or not at all; `scale` 2 doubles the pixels for print."""
    write_atomic(path, png(fig, alt, scale))
