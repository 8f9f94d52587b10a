"""A notebook workbench for face knowledge distillation.

`import kdlab` costs nothing: names are loaded when first used, and PyTorch with them.
"""

import importlib
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("kdlab")
except PackageNotFoundError:  # a copy of the folder, as on a GPU machine that can install nothing
    __version__ = "not installed"
__all__ = ["Context", "Run", "claim", "home", "launch", "show_source", "start", "stored"]

_FROM = {  # name -> the module that defines it
    "Context": "kdlab.notebook",
    "Run": "kdlab.train.launch",
    "claim": "kdlab.notebook",
    "launch": "kdlab.train.launch",
    "show_source": "kdlab.notebook",
    "start": "kdlab.notebook",
    "stored": "kdlab.results",
}


def home() -> Path:
    """The folder that holds notebooks/, studies/ and data/: $KDLAB_HOME, or the checkout."""
    return Path(os.environ.get("KDLAB_HOME") or Path(__file__).resolve().parents[1])


def __getattr__(name: str):
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"kdlab.{name}"):
        return importlib.import_module(f"kdlab.{name}")
    raise AttributeError(f"kdlab has no {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
