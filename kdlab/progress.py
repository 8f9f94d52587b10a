"""One progress bar: tqdm for a person, a line now and then for a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm


def headless() -> bool:
    """Is there nobody to show widgets and bars to? By KDLAB_HEADLESS; empty and "0" mean no."""
    return os.environ.get("KDLAB_HEADLESS", "") not in ("", "0")


def progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yield from `items` and say how far it is.

    Headless: one plain line every 5 seconds at most, nothing for short loops.
    Otherwise tqdm (the plain one: tqdm.auto fails where ipywidgets is missing or old).
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if not headless():
        yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True,
                        mininterval=0.5)
        return
    start = spoken = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - spoken >= 5:
            spoken = now
            print(f"{label}: {done}/{total or '?'} after {now - start:.0f} s", file=sys.stderr)
