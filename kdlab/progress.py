"""One progress bar: tqdm for a person, a line now and then for a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # a bare GPU machine, where plain lines will do
    tqdm = None


def headless() -> bool:
    """Is there nobody to show widgets and bars to? By KDLAB_HEADLESS; empty and "0" mean no."""
    return os.environ.get("KDLAB_HEADLESS", "") not in ("", "0")


def in_kernel() -> bool:
    """Is this a notebook's kernel, and not a terminal?"""
    known = sys.modules.get("IPython")
    return known is not None and hasattr(known.get_ipython(), "kernel")


class Page:
    """Where tqdm writes in a notebook: one output, which an empty bar takes from the page again.

    A finished bar on a stream leaves a red strip of spaces there.
    """

    def __init__(self):
        self.shown = None

    def write(self, text: str) -> None:
        from IPython.display import display  # a kernel has it; a script need not wait for it

        bar = text.strip()
        data = {"text/plain": bar} if bar else {}
        if self.shown:
            self.shown.update(data, raw=True)
        elif bar:
            self.shown = display(data, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing waits."""


def progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yield from `items` and say how far it is.

    Headless: one plain line every 5 seconds at most, nothing for short loops.
    Otherwise tqdm (the plain one: tqdm.auto fails where ipywidgets is missing or old).
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if tqdm and not headless():
        where = {"file": Page(), "ncols": 80} if in_kernel() else {"dynamic_ncols": True}
        yield from tqdm(items, desc=label, total=total, leave=False, mininterval=0.5, **where)
        return
    start = spoken = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - spoken >= 5:
            spoken = now
            print(f"{label}: {done}/{total or '?'} after {now - start:.0f} s", file=sys.stderr)
