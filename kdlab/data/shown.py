"""Paths in words."""

import os
from pathlib import Path


def shown(path: str | Path) -> str:
    """A path as it can be printed on one line, whatever bytes are in it."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]
