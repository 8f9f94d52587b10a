"""MXNet's face sets (train.rec, train.idx, property) as a set of faces, in Python alone.

How a file is cut into records stands in kdlab.data.records, which records are pictures and whose in
kdlab.data.record_table.
"""

import hashlib
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from kdlab.data.batches import OnDisk
from kdlab.data.pictures import Record, decode, opened
from kdlab.data.reading import Readers, check_size, look, or_another, read_rows
from kdlab.data.record_table import label_of, pictures, stamp
from kdlab.data.records import AGAIN, Records

FORMAT = 1
SIDE = 112  # pixels, where no property file says them: insightface's sets


class RecordIOFaces:
    """Aligned faces in a .rec file; a set as `FaceSet` is, of one crop.

    path: the .rec, or a folder with train.rec (or one other .rec). Beside it lie the .idx, made
    anew where it is missing, and `property` (identities, height, width), which may be missing.
    size: pixels a side, None as `property` says, else 112; pictures may be larger, never smaller,
    and are square.   crop: how they were aligned, "arcface" or "dlib".
    on_bad: "raise" stops at the first record that is not what it should be. "skip" leaves out of
    the set the records without a place, a picture or a label, and reads in place of a picture that
    cannot be decoded the next one of the same identity; `faults` counts and names them.
    workers: reading threads; results do not depend on them. Processes may share the object.

    labels: (N,) int64.   groups: None.   key: changes with the length or the time of the .rec, and
    with the place and label of any picture.   faults: `.count` and `.lines`, empty with "raise".
    replaced: rows whose picture cannot be decoded.

    Raises FileNotFoundError, PermissionError, or ValueError of one line that names file, record
    and byte: records cut short, keys twice or of another file, labels that are no whole numbers
    from 0 or beyond 2^24, one identity only, pictures not square or too small.
    """

    groups = None

    def __init__(self, path: str | Path, size: int | None = None, crop: str = "arcface", *,
                 on_bad: str = "raise", workers: int | None = None):
        self._again = partial(RecordIOFaces, path, size, crop, on_bad=on_bad, workers=workers)
        self.path = _rec(Path(path))
        classes, side = _property(self.path.with_name("property"))
        size = side if size is None else size
        check_size(crop, size)
        self.crop, self.sizes = crop, {crop: size}
        self._records = Records(self.path)
        self._table, self.faults = pictures(self.path, on_bad)  # (3, N) keys, bytes, labels
        self.labels = np.array(self._table[2])
        self._readers, self.replaced = Readers(workers), set()
        self._check(classes)
        key = hashlib.sha256(f"kdlab recordio {FORMAT} {stamp(self.path)}\n".encode())
        key.update(self._table)
        self.key = key.hexdigest()
        if self.faults.count:
            warnings.warn(f"{self.path}: {self.faults.count} faults passed over, the first: "
                          f"{self.faults.lines[0]}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self):
        return self._again, ()  # a process started anew opens the file itself

    def name(self, row: int) -> str:
        """Where a row is: file, record and byte."""
        return self._records.name(int(self._table[1, row]), int(self._table[0, row]))

    def pixels(self, crop: str | None = None, size: int | None = None) -> OnDisk:
        """What `Batches` takes: the set's pictures in its crop, size x size, read when wanted."""
        return OnDisk(self, crop or self.crop, size or self.sizes[self.crop])

    def picture(self, row: int) -> bytes:
        """The file packed in a record, JPEG as a rule, not decoded."""
        return self._picture(row).getvalue()

    def read(self, crop: str, size: int, rows) -> Tensor:
        """The named pictures, (n, 3, size, size) uint8 RGB, in the order of `rows` (n,).

        size: pixels, 24 to the set's own, shrunk by area from the file.   Raises KeyError on
        another crop, ValueError on another size and on a record that is no such picture, which it
        names, IndexError on a row beyond the set.
        """
        return read_rows(self, str(self.path), crop, size, rows, partial(self._decoded, size=size),
                         self._readers)

    def _picture(self, row: int) -> Record:
        key, at = self._table[:2, row].tolist()
        head, content = self._records.picture(at, key)
        name = self._records.name(at, key)
        if label_of(head, name) != self.labels[row]:
            raise ValueError(f"{name} has the label {head.labels[0]:g}, the directory gives it "
                             f"{self.labels[row]}; {AGAIN}")
        return Record(content, name)

    def _decoded(self, row: int, size: int) -> np.ndarray:
        """(S, S, 3) uint8, S at least `size`; with "skip" perhaps of another row."""
        return or_another(self, row, lambda row: decode(self._picture(row), size),
                          f"identity {self.labels[row]}")

    def _check(self, classes: int | None) -> None:
        """ValueError unless these labels and a few of the pictures can be a set."""
        row = int(self.labels.argmax())
        if classes is not None and self.labels[row] >= classes:
            raise ValueError(f"{self.name(row)} has the label {self.labels[row]}, beside it "
                             f"`property` speaks of {classes} identities; it is another set's")
        if (self.labels == self.labels[0]).all():
            raise ValueError(f"{self.path} holds one identity, {self.labels[0]}; nobody can be "
                             "told from anybody, add the pictures of others")
        look(len(self), lambda row: opened(self._picture(row), self.sizes[self.crop]).close(),
             self.faults.on_bad == "skip")


def _rec(path: Path) -> Path:
    """The .rec that is meant."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.rec"))
    if path / "train.rec" in found or len(found) != 1:
        return path / "train.rec"
    return found[0]


def _property(path: Path) -> tuple[int | None, int]:
    """Identities and pixels a side; None and 112 where the file is missing."""
    try:
        with open(path, "rb") as file:
            line = file.readline(100)
    except FileNotFoundError:
        return None, SIDE
    try:
        classes, height, width = map(int, line.split(b","))
        if height != width or classes < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{path} must begin with identities,height,width of square pictures, as "
                         f"in 85742,112,112, not with {line[:40]!r}; mend or remove it") from None
    return classes, height
