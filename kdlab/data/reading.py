"""Rows of a set whose pictures lie in files: what all such sets share, whatever files they are."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.align import SIZES
from kdlab.data.faces import SMALLEST

LARGEST = 1024  # pixels a side of a set; as for a teacher's input
THREADS = 16  # readers at most; our choice: more wait for the disk or for Python
_PART = 64  # pictures shrunk at a time: float copies stay small
_LOOKED_AT = 8  # headers read at once, to refuse at the start what every file would say later


class Readers:
    """Threads that read and decode; a process that was forked gets its own.   workers: None as
    many as there are cores, 16 at most; results do not depend on them."""

    def __init__(self, workers: int | None = None):
        self._workers, self._pool = workers or min(THREADS, os.cpu_count() or 1), (0, None)

    def map(self, function: Callable[[int], np.ndarray], rows: list[int]) -> list[np.ndarray]:
        if self._pool[0] != os.getpid():
            self._pool = os.getpid(), ThreadPoolExecutor(self._workers, "kdlab reader")
        return list(self._pool[1].map(function, rows))


def check_size(crop: str, size: int) -> None:
    """ValueError for a crop that nothing is aligned to, or pictures too small or too large."""
    if crop not in SIZES or not SMALLEST <= size <= LARGEST:
        raise ValueError(f"crop must be one of {', '.join(SIZES)} and size {SMALLEST} to "
                         f"{LARGEST} pixels, not {crop!r} and {size}")


def read_rows(faces, where: str, crop: str, size: int, rows,
              decoded: Callable[[int], np.ndarray], readers: Readers) -> Tensor:
    """The named pictures, (n, 3, size, size) uint8 RGB, in the order of `rows` (n,).

    faces: the set.   where: its name.   decoded: a row -> (S, S, 3) uint8, S >= size, shrunk here
    by area.   Raises KeyError on a crop the set does not have, ValueError on a size other than 24
    to the crop's own, IndexError on a row beyond the set, and whatever `decoded` raises.
    """
    if crop not in faces.sizes:
        raise KeyError(f"the pictures in {where} are the crop "
                       f"{' or '.join(map(repr, faces.sizes))}, not {crop!r}")
    if size != faces.sizes[crop] and not SMALLEST <= size < faces.sizes[crop]:
        raise ValueError(f"a picture's size must be {SMALLEST} to {faces.sizes[crop]} pixels "
                         f"(the size of the set), not {size}")
    rows = torch.as_tensor(rows, dtype=torch.int64).tolist()
    if rows and not 0 <= min(rows) <= max(rows) < len(faces):
        raise IndexError(f"{where} holds pictures 0 to {len(faces) - 1}, asked were "
                         f"{min(rows)} to {max(rows)}")
    found = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    for start in range(0, len(rows), _PART):
        pictures = readers.map(decoded, rows[start:start + _PART])
        for side in {len(picture) for picture in pictures}:
            alike = [k for k, picture in enumerate(pictures) if len(picture) == side]
            x = torch.from_numpy(np.stack([pictures[k] for k in alike])).permute(0, 3, 1, 2)
            if side != size:  # as FaceSet.read
                x = F.interpolate(x.float(), size=(size, size), mode="area").round_()
                x = x.clamp_(0, 255).to(torch.uint8)
            found[start:start + _PART][alike] = x
    return found


def look(count: int, header: Callable[[int], object], lenient: bool) -> None:
    """Judge a few headers of a set's `count` pictures before any is decoded.

    header: a row -> ValueError where it is no such picture. The first is raised; with `lenient`
    only where all of these few are bad, for single ones are named when they are read.
    """
    rows, failed = np.linspace(0, count - 1, _LOOKED_AT, dtype=np.int64).tolist(), []
    for row in rows:
        try:
            header(row)
        except ValueError as error:
            failed.append(error)
    if failed and (not lenient or len(failed) == len(rows)):
        raise failed[0]


def or_another(faces, row: int, picture: Callable[[int], np.ndarray], who: str) -> np.ndarray:
    """`picture(row)`; where that is a ValueError and the set passes faults over, the next picture
    of the same identity that can be read.

    faces: a set with `labels`, `faults` and `replaced`, the rows of which was told.   who: the
    identity, in words.
    """
    try:
        return picture(row)
    except ValueError as error:
        if faces.faults.on_bad == "raise":
            raise
        line = str(error)
    if row not in faces.replaced:
        faces.replaced.add(row)
        faces.faults.note(line)
        warnings.warn(f"{line} (until then another picture of {who} is read in its place)",
                      stacklevel=2)
    same = np.flatnonzero(faces.labels == faces.labels[row])
    for other in np.roll(same, -np.searchsorted(same, row))[1:].tolist():
        try:
            return picture(other)
        except ValueError:
            continue
    raise ValueError(f"of {who} no picture can be read: {line}")
