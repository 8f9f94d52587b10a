"""RecordIO, the container MXNet keeps its sets in: records by key, in one file.

A file is a row of chunks, little endian, each at a multiple of 4 bytes: the magic word, a word of
flag (upper 3 bits) and length (lower 29), the payload, zeros up to the next multiple of 4. A chunk
of flag 0 is a whole record; 1, 2 and 3 are the first, the middle ones and the last of a record cut
wherever the magic stood in it at a multiple of 4: there the word is left out, and put back here. So
in a file the magic begins a chunk and nothing else, which is how a scan finds its way past damage.

A record is a header of 24 bytes (flag, label, id, id2), after it as many float32 labels as a flag
above 0 says, then a picture. The index is text beside the file: a line a record, key and byte.

Source: the forms written by dmlc-core (recordio.h) and by MXNet 1.9.1 (recordio.py).
"""

import os
import struct
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.progress import progress

MAGIC = struct.pack("<I", 0xCED7230A)
CHUNK, HEADER = struct.Struct("<4sI"), struct.Struct("<IfQQ")
LENGTH = (1 << 29) - 1  # the bits of a chunk's second word that are its length
BEGIN = HEADER.size + 8  # what tells a record without its picture: the header, two labels
LEAST = CHUNK.size + HEADER.size  # bytes of the shortest record in a file
AHEAD = 1 << 20  # bytes a pass through the file reads at once; our choice
SOUGHT = 1 << 12  # bytes searched at once for the next record after damage; our choice
PART = 1 << 24  # bytes a scan takes between two words about how far it is; our choice
LINES = 1000  # faults kept in words, more are only counted; our choice
AGAIN = "copy the file again, or leave such records out with on_bad='skip'"
REBUILT = "remove the .idx, it is then made anew from the .rec"


class Faults:
    """What is wrong with a file: the first fault raised, or all of them counted and passed over.

    on_bad: "raise" or "skip".   count: faults met.   lines: the first 1000 of them in words.
    """

    def __init__(self, on_bad: str, count: int = 0, lines: list[str] | None = None):
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad must be 'raise' or 'skip', not {on_bad!r}")
        self.on_bad, self.count, self.lines = on_bad, count, list(lines or [])

    def note(self, line: object, count: int = 1) -> None:
        """Raise ValueError of this line, or count it and go on."""
        if self.on_bad == "raise":
            raise ValueError(str(line))
        self.count += count
        if len(self.lines) < LINES:
            self.lines.append(str(line))


class Head(NamedTuple):
    """What a record says before its picture.

    key: the header's id.   labels: the first two at most.   picture: its bytes, 0 for a record
    that holds none.   start: where in the record it begins.   end: the byte after the record.
    """

    key: int
    labels: tuple[float, ...]
    picture: int
    start: int
    end: int


class Records:
    """The records of a file, each read from the byte where it begins.

    Reading moves no pointer, so threads and processes share one object.   ahead: bytes read at
    once, for one thread that goes through the file in order.
    Every ValueError is one line that names the file, the record and its byte; no length that the
    file states is believed beyond the file's own.
    """

    def __init__(self, path: Path, ahead: int = 0):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; name a .rec, or a folder with "
                                    "train.rec in it")
        self.path, self._ahead, self._window = path, ahead, (0, b"")
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size
        if self.size == 0:
            raise ValueError(f"{path} is empty; copy the file again")

    def name(self, at: int, key: int | None = None) -> str:
        """How a person finds a record."""
        return f"{self.path} " + (f"byte {at}" if key is None else f"record {key} (byte {at})")

    def head(self, at: int, key: int | None = None) -> Head:
        """What the record at a byte says before its picture.   key: the index's, then checked."""
        return self._record(at, key, BEGIN)[0]

    def picture(self, at: int, key: int) -> tuple[Head, bytes]:
        """The record at a byte and the file of the picture in it."""
        head, found = self._record(at, key, self.size)
        return head, bytes(memoryview(found)[head.start:])

    def scan(self, faults: Faults) -> np.ndarray:
        """(M, 2) int64: key and byte of every record, found by going through the whole file.

        Damaged stretches are passed over, each one fault, up to the next record.
        """
        rows = array("q")
        for _ in progress(Records(self.path, AHEAD)._walk(rows, faults),
                          f"{self.path}: scan, parts of {PART >> 20} MB", self.size // PART):
            pass
        return np.frombuffer(rows, np.int64).reshape(-1, 2)

    def _walk(self, rows: array, faults: Faults) -> Iterator[None]:
        at, told, lost = 0, PART, False
        while at < self.size:
            try:
                head = self.head(at)
                rows.extend((head.key, at))
                at, lost = head.end, False
            except ValueError as error:
                if not lost:
                    faults.note(error)
                at, lost = self._next(at + 4), True
            if at >= told:
                told = at - at % PART + PART
                yield

    def _next(self, at: int) -> int:
        """The first multiple of 4 from `at` on where the magic stands; the size if none is left."""
        while at < self.size:
            block = self._bytes(min(SOUGHT, self.size - at), at)
            place = block.find(MAGIC)
            while place % 4 and place >= 0:
                place = block.find(MAGIC, place + 1)
            if place >= 0:
                return at + place
            at += SOUGHT
        return self.size

    def _record(self, at: int, key: int | None, most: int) -> tuple[Head, bytearray]:
        """The record at a byte: its head, and its first bytes, `most` or some more."""
        found, total, end = bytearray(), 0, at
        try:
            for start, length in self._chunks(at):
                if end > at:
                    found += MAGIC
                    total += len(MAGIC)
                found += self._bytes(min(length, max(most - len(found), 0)), start)
                total, end = total + length, start + length + -length % 4
            head = _head(found, total, end)
        except ValueError as error:
            raise ValueError(f"{self.name(at, key)}: {error}; {AGAIN}") from None
        if key is not None and head.key not in (key, 0):  # 0: what packers write who say no key
            raise ValueError(f"{self.name(at, key)} says that its key is {head.key}, the index is "
                             f"wrong or another file's; {REBUILT}")
        return head, found

    def _chunks(self, at: int) -> Iterator[tuple[int, int]]:
        """First byte and length of each chunk's payload, of the record that begins at `at`."""
        first, flag = True, 1
        while flag in (1, 2):
            magic, word = CHUNK.unpack(self._bytes(CHUNK.size, at))
            flag, length = word >> 29, word & LENGTH
            if magic != MAGIC:
                raise ValueError(f"no record {'begins' if first else 'goes on'} at byte {at}")
            if flag not in ((0, 1) if first else (2, 3)):
                raise ValueError(f"the chunk at byte {at} has the flag {flag} where a record "
                                 f"{'begins' if first else 'goes on'}")
            start, at = at + CHUNK.size, at + CHUNK.size + length + -length % 4
            if at > self.size:
                raise ValueError(f"it ends at byte {at}, the file at {self.size}")
            yield start, length
            first = False

    def _bytes(self, count: int, at: int) -> bytes:
        start, window = self._window
        if not start <= at <= at + count <= start + len(window):
            if at + count > self.size:
                raise ValueError(f"it goes on beyond byte {self.size}, where the file ends")
            start, window = at, os.pread(self._file, max(count, self._ahead), at)
            if len(window) < count:
                raise ValueError("the file became shorter while it was read")
            if self._ahead:
                self._window = start, window
        return window[at - start:at - start + count]


def _head(found: bytearray, total: int, end: int) -> Head:
    """The head of a record of `total` bytes, of which these are the first."""
    if total < HEADER.size:
        raise ValueError(f"it holds {total} bytes, its header alone takes {HEADER.size}")
    flag, label, key, _ = HEADER.unpack_from(found)
    start = HEADER.size + 4 * flag
    if start > total:
        raise ValueError(f"it holds {total} bytes, too few for the {flag} labels it announces")
    if key >= 1 << 63:
        raise ValueError(f"its key is {key}, more than 63 bits")
    labels = struct.unpack_from(f"<{min(flag, 2)}f", found, HEADER.size) if flag else (label,)
    return Head(key, labels, total - start, start, end)
