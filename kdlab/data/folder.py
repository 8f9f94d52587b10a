"""A folder of face pictures as a set: one identity a sub-folder, read when wanted.

Nothing is decoded while the folder is listed, and of a picture no more is kept than its name, so
that 5.8 million of them take about 200 MB. How names become labels stands in `_list`, how a file
becomes pixels in kdlab.data.pictures; lists beside the pictures are read by kdlab.data.lists.
"""

import bisect
import difflib
import hashlib
import os
import warnings
from array import array
from pathlib import Path

import numpy as np
from torch import Tensor

from kdlab.align import SIZES
from kdlab.data.batches import OnDisk
from kdlab.data.lists import csv_lines, read_landmarks
from kdlab.data.pictures import aligned, decode, opened, suffixes
from kdlab.data.reading import Readers, check_size, look, or_another, read_rows
from kdlab.data.records import Faults
from kdlab.data.shown import shown

FORMAT = 1


class ImageFolder:
    """Faces in path/IDENTITY/PICTURE; a set as `FaceSet` is.

    path: the folder. Its sub-folders, by name, are the labels 0, 1, ...; in them, by name, every
    file with a suffix that Pillow knows is a picture; other files and hidden ones are left out.
    size: pixels a side; files may be larger, never smaller, and are square.   crop: how the
    pictures were aligned, "arcface" or "dlib".   groups: None, or a CSV of two columns, the name
    of an identity or of a picture ("IDENTITY/PICTURE") and its group, a number from 0; a heading
    line may stand above.   workers: reading threads; results do not depend on them.

    landmarks: None where the pictures are aligned, else a CSV that gives a line to each, as
    `kdlab.data.lists.read_landmarks` wants it. They may then be of any shape and size, the set
    offers both crops, "arcface" (112) and "dlib" (150), `crop` is what `pixels` gives when it is
    not asked for another, and `size` means nothing.
    on_bad: "raise" stops at the first file that is not what it should be. "skip" leaves out
    sub-folders without a picture or without permission, and reads in place of a picture that
    cannot be decoded the next one of the same identity; `faults` counts and names them.

    labels: (N,) int64.   groups: (N,) int64 or None.   identities: the names, by label.
    faults: `.count` and `.lines`, empty with "raise".   replaced: rows of such pictures.
    key: changes with the name, the length or the time of any file, with groups and landmarks.

    Raises FileNotFoundError, PermissionError, or ValueError of one line: no sub-folder, fewer than
    two, one without a picture, pictures that are not square or too small, lists that do not fit.
    """

    def __init__(self, path: str | Path, size: int = 112, crop: str = "arcface",
                 groups: str | Path | None = None, *, landmarks: str | Path | None = None,
                 on_bad: str = "raise", workers: int | None = None):
        check_size(crop, size)
        self.path, self.crop, self.faults = Path(path), crop, Faults(on_bad)
        self.sizes = {crop: size} if landmarks is None else dict(SIZES)
        self._readers, self.replaced = Readers(workers), set()
        self._hash = hashlib.sha256(f"kdlab folder {FORMAT}\n".encode())
        self._list()
        self.groups = None if groups is None else self._grouped(Path(groups))
        self.landmarks = None if landmarks is None else self._pointed(Path(landmarks))
        self.key = self._hash.hexdigest()
        look(len(self), self._header, self.faults.on_bad == "skip")
        if self.faults.count:
            warnings.warn(f"{shown(self.path)}: {self.faults.count} faults passed over, the first: "
                          f"{self.faults.lines[0]}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> Path:
        """The file of a row."""
        return self.path / self._relative(row)

    def pixels(self, crop: str | None = None, size: int | None = None) -> OnDisk:
        """What `Batches` takes: the set's pictures in its crop, size x size, read when wanted."""
        return OnDisk(self, crop or self.crop, size or self.sizes[crop or self.crop])

    def read(self, crop: str, size: int, rows) -> Tensor:
        """The named pictures, (n, 3, size, size) uint8 RGB, in the order of `rows` (n,).

        size: pixels, 24 to the set's own, shrunk by area from the file.   Raises KeyError on
        another crop, ValueError on another size and on a file that is no such picture, which it
        names, IndexError on a row beyond the set.
        """
        return read_rows(self, shown(self.path), crop, size, rows,
                         lambda row: self._decoded(row, crop, size), self._readers)

    def _picture(self, row: int, crop: str, size: int) -> np.ndarray:
        """(S, S, 3) uint8, S at least `size`."""
        if self.landmarks is None:
            return decode(self.name(row), size)
        name = self.name(row)
        return aligned(decode(name, 1, square=False), self.landmarks[row], crop, shown(name))

    def _decoded(self, row: int, crop: str, size: int) -> np.ndarray:
        """As `_picture`; with "skip" perhaps of another row."""
        return or_another(self, row, lambda row: self._picture(row, crop, size),
                          repr(self.identities[self.labels[row]]))

    def _header(self, row: int) -> None:
        """ValueError where a file is no such picture."""
        size = 1 if self.landmarks is not None else self.sizes[self.crop]
        opened(self.name(row), size, self.landmarks is None).close()

    def _list(self) -> None:
        """Walk the folder: identities, labels, names, and the hash of it all."""
        where = shown(self.path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"{where}: no such folder of pictures")
        with os.scandir(self.path) as entries:
            found = sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())
        if not found:
            raise ValueError(f"{where} holds no sub-folder; make one for each identity, with "
                             "the pictures of it inside")
        names, ends, counts = bytearray(), array("q", [0]), []  # no object a picture
        self.identities = []
        for identity in found:
            try:
                with os.scandir(self.path / identity) as entries:
                    pictures = sorted((e.name, e) for e in entries
                                      if e.name[0] != "." and e.name.lower().endswith(suffixes())
                                      and e.is_file())
            except PermissionError as error:
                if self.faults.on_bad == "raise":
                    raise
                self.faults.note(f"{shown(self.path / identity)}: {error.strerror}")
                continue
            if not pictures:
                self.faults.note(f"{shown(self.path / identity)} holds no picture; every "
                                 "sub-folder is an identity: remove it, or put its pictures "
                                 "(.jpg, .png, ...) there")
                continue
            for name, entry in pictures:
                about = entry.stat()
                self._hash.update(os.fsencode(f"{identity}/{name}\0") + b"%d %d\n" % (
                    about.st_size, about.st_mtime_ns))
                names += os.fsencode(name)
                ends.append(len(names))
            counts.append(len(pictures))
            self.identities.append(identity)
        if len(self.identities) < 2:
            own = f"one identity, {self.identities[0]!r}" if counts else "no picture"
            raise ValueError(f"{where} holds {own}; nobody can be told from anybody, add the "
                             "pictures of others")
        self._text, self._ends = bytes(names), np.array(ends)
        self._first = np.concatenate([[0], np.cumsum(counts)])  # row where each identity starts
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    def _names(self, start: int, stop: int) -> list[str]:
        ends = self._ends[start:stop + 1].tolist()
        return [os.fsdecode(self._text[a:b]) for a, b in zip(ends, ends[1:], strict=False)]

    def _relative(self, row: int) -> str:
        """ "IDENTITY/PICTURE" of a row, as lists name it."""
        return f"{self.identities[self.labels[row]]}/{self._names(row, row + 1)[0]}"

    def _grouped(self, path: Path) -> np.ndarray:
        """(N,) int64 groups of a CSV."""
        groups = np.full(len(self), -1, np.int64)
        labels = {name: label for label, name in enumerate(self.identities)}
        for number, where, line in csv_lines(path):
            if len(line) != 2:
                raise ValueError(f"{where}: a line is a name and a group, not {len(line)} fields")
            name, group = line[0].strip(), line[1].strip()
            if number == 1 and not group.isdecimal():
                continue  # a heading
            rows = self._rows(name, labels)
            if rows is None:
                near = difflib.get_close_matches(name, labels, n=1)
                mend = f"did you mean {near[0]!r}?" if near else "names are as in the folder"
                raise ValueError(f"{where}: {shown(self.path)} has no {name!r}; {mend}")
            if not group.isdecimal() or len(group) > 9:
                raise ValueError(f"{where}: a group is a number from 0, not {group!r}")
            if ((groups[rows] != -1) & (groups[rows] != int(group))).any():
                raise ValueError(f"{where}: {name!r} was in another group before")
            groups[rows] = int(group)
        if (groups < 0).any():
            row = int(np.argmin(groups))
            raise ValueError(f"{path} gives {shown(self._relative(row))} no group "
                             f"({(groups < 0).sum()} pictures have none); add a line for each")
        self._hash.update(groups.tobytes())
        return groups

    def _pointed(self, path: Path) -> np.ndarray:
        """(N, 5, 2) float32 landmarks of a CSV."""
        labels = {name: label for label, name in enumerate(self.identities)}

        def row_of(name: str) -> int | None:
            rows = self._rows(name, labels) if "/" in name else None
            return None if rows is None else rows.start

        points = read_landmarks(path, len(self), row_of, self._relative, shown(self.path))
        self._hash.update(b"landmarks\n" + points.tobytes())
        return points

    def _rows(self, name: str, labels: dict[str, int]) -> slice | None:
        """The rows of an identity, or of one picture; None for a name that is not there."""
        identity, _, picture = name.partition("/")
        if identity not in labels:
            return None
        start, stop = self._first[labels[identity]:labels[identity] + 2].tolist()
        if not picture:
            return slice(start, stop)
        own = self._names(start, stop)
        place = bisect.bisect_left(own, picture)
        return slice(start + place, start + place + 1) if picture in own[place:place + 1] else None
