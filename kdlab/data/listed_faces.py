"""A set of pictures that a list names one by one, with a label and a group each."""

import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from kdlab.align import SIZES
from kdlab.data.batches import OnDisk
from kdlab.data.faces import SMALLEST
from kdlab.data.pictures import aligned, decode
from kdlab.data.reading import Readers, read_rows
from kdlab.data.shown import shown

FORMAT = 1
SIZE = 176  # pixels: MFD's input for both sets


class ListedFaces:
    """Pictures of one folder, each named by a list with its label and its group.

    names: files in `folder`.   labels, groups: (N,) integers from 0.   classes, group_names: what
    these mean, by number.   size: pixels a side of the crop "whole", the picture as it is; larger
    ones are shrunk.   cut: take the central square of one that is not square, else it is refused.
    landmarks: (N, 5, 2) float32 in pixels, then the crops are "arcface" and "dlib" instead.

    labels, groups: (N,) int64.   key: changes with name, length or time of any file, with labels,
    groups and landmarks.   left_out: names that the list or the folder has and this set has not.
    Raises FileNotFoundError for a picture that is not there, ValueError in words.
    """

    def __init__(self, folder: Path, names: list[str], labels, groups, size: int = SIZE, *,
                 cut: bool = False, landmarks: np.ndarray | None = None, left_out=(),
                 classes: tuple[str, ...] = (), group_names: tuple[str, ...] = ()):
        if not names:
            raise ValueError(f"{shown(folder)}: the list names no picture for this set")
        self.path, self._names, self.landmarks = Path(folder), list(names), landmarks
        self.labels, self.groups = np.array(labels, np.int64), np.array(groups, np.int64)
        self.classes, self.group_names, self.left_out = classes, group_names, list(left_out)
        self.crop = "whole" if landmarks is None else "arcface"
        self.sizes = {"whole": size} if landmarks is None else dict(SIZES)
        if size < SMALLEST:
            raise ValueError(f"size must be {SMALLEST} pixels or more, not {size}")
        self._cut, self._readers = cut, Readers()
        content = hashlib.sha256(f"kdlab listed {FORMAT}\n".encode())
        for name in self._names:
            about = os.stat(self.path / name)
            content.update(os.fsencode(f"{name}\0") + b"%d %d\n" % (
                about.st_size, about.st_mtime_ns))
        for values in (self.labels, self.groups, landmarks):
            content.update(b"none\n" if values is None else values.tobytes())
        self.key = content.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, row: int) -> Path:
        """The file of a row."""
        return self.path / self._names[row]

    def pixels(self, crop: str | None = None, size: int | None = None) -> OnDisk:
        """What `Batches` takes: the set's pictures, size x size, read when wanted."""
        return OnDisk(self, crop or self.crop, size or self.sizes[crop or self.crop])

    def read(self, crop: str, size: int, rows) -> Tensor:
        """The named pictures, as `ImageFolder.read` does."""
        return read_rows(self, shown(self.path), crop, size, rows,
                         partial(self._decoded, crop=crop, size=size), self._readers)

    def _decoded(self, row: int, crop: str, size: int) -> np.ndarray:
        name = self.name(row)
        if self.landmarks is not None:
            return aligned(decode(name, 1, False), self.landmarks[row], crop, shown(name))
        picture = decode(name, size, square=not self._cut)
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        return picture[top:top + side, left:left + side]
