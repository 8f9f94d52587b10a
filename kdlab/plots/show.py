"""A figure into a notebook: one output that is interactive, printable and readable aloud."""

import base64
import json
import re
from pathlib import Path

import plotly.graph_objects as go
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from kdlab.cache import write_atomic
from kdlab.plots.png import png
from kdlab.plots.style import CONFIG

PLOTLY = "application/vnd.plotly.v1+json"


def bundle(fig: go.Figure, alt: str, name: str | None = None) -> tuple[dict, dict]:
    """The MIME bundle and its metadata that `show` sends.

    A front end takes the richest part it knows: JupyterLab and VS Code plotly's JSON (JupyterLab
    shows the PNG first and makes the live chart when the pointer enters), GitHub, nbconvert and
    print the PNG, a terminal or screen reader the text.
    Raises ValueError without alt text, or for a figure `png` cannot draw.
    """
    if not alt or not alt.strip():
        raise ValueError("this figure has no alt text; say in `alt` what a reader should see in it")
    config = dict(CONFIG)
    if name:
        config["toImageButtonOptions"] = {"filename": re.sub(r"[^\w.-]+", "-", name)}
    data = {
        PLOTLY: json.loads(fig.to_json(validate=False)) | {"config": config},
        "image/png": base64.b64encode(png(fig, alt)).decode(),
        "text/plain": alt,
    }
    metadata = {"image/png": {"alt": alt}}
    if name:
        metadata["kdlab"] = {"name": name}
    return data, metadata


def show(fig: go.Figure, alt: str, name: str | None = None) -> None:
    """Display `fig` with its PNG twin and alt text, the same with and without a front end.

    alt: one or two sentences that say what the picture shows.   name: what a saved copy is called.
    """
    data, metadata = bundle(fig, alt, name)
    if InteractiveShell.initialized():
        display(data, metadata=metadata, raw=True)
    else:  # a plain Python process has nowhere to put a picture
        print(alt)


def save_png(fig: go.Figure, path: str | Path, alt: str, scale: float = 1.0) -> None:
    """Write the PNG twin, whole or not at all; `scale` 2 doubles the pixels for print."""
    write_atomic(path, png(fig, alt, scale))
