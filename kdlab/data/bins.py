"""The .bin files of face verification (LFW, AgeDB-30, CFP-FP, CALFW, CPLFW ...), as pairs.

Such a file is the pickle of two lists: encoded pictures, 2P of them, and P answers; pictures 2k and
2k + 1 are pair k. A picture is bytes (older files, of Python 2) or a uint8 array (n,) or (n, 1), as
OpenCV gives it. It is read by `kdlab.data.unpickle`, which runs nothing.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from kdlab.data.pickled import Array, kind
from kdlab.data.pictures import Record, decode, opened
from kdlab.data.reading import Readers, check_size, look, read_rows
from kdlab.data.shown import shown
from kdlab.data.unpickle import unpickled

FORMAT = 1
MOST = 2**32  # bytes; the published sets have about 100 MB: our choice


class Pairs(NamedTuple):
    """pictures: the 2P pictures; rows 2k and 2k + 1 are pair k.   is_same: (P,) bool."""

    pictures: "Pictures"
    is_same: np.ndarray


class Pictures:
    """Encoded pictures as a set of faces, decoded when they are read.

    files: N encoded pictures, any format that Pillow knows, square, `size` pixels a side or more.
    name: of the file they came from.   labels, groups: None; such a file names no person.
    key: the set's, of its content.   The rest as in ImageFolder.
    """

    labels = groups = None

    def __init__(self, files: list[bytes], name: str, size: int = 112, crop: str = "arcface", *,
                 workers: int | None = None):
        check_size(crop, size)
        self._files, self._name, self.crop, self.sizes = files, name, crop, {crop: size}
        self._readers = Readers(workers)
        once = {id(data): data for data in files}  # a pickle may name one picture a million times
        hashes = {name: hashlib.sha256(data).digest() for name, data in once.items()}
        content = hashlib.sha256(f"kdlab bin {FORMAT}\n".encode())
        for data in files:
            content.update(hashes[id(data)])
        self.key = content.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def name(self, row: int) -> str:
        """What errors call a row."""
        return f"{self._name} picture {row} (pair {row // 2})"

    def picture(self, row: int) -> bytes:
        """The encoded picture of a row, JPEG as a rule."""
        return self._files[row]

    def read(self, crop: str, size: int, rows) -> Tensor:
        """The named pictures, (n, 3, size, size) uint8 RGB, in the order of `rows` (n,).

        size: pixels, 24 to the set's own, shrunk by area from the picture.   Raises KeyError on
        another crop, ValueError on another size and on what is no such picture, which it names,
        IndexError on a row beyond the set.
        """
        return read_rows(self, self._name, crop, size, rows, partial(self._decoded, size=size),
                         self._readers)

    def _decoded(self, row: int, size: int) -> np.ndarray:
        """(S, S, 3) uint8, S at least `size`."""
        return decode(Record(self._files[row], self.name(row)), size)

    def header(self, row: int) -> None:
        """ValueError where a row is no such picture."""
        opened(Record(self._files[row], self.name(row)), self.sizes[self.crop]).close()


def read_bin(path: str | Path, size: int = 112, crop: str = "arcface", *,
             workers: int | None = None) -> Pairs:
    """A .bin file's pictures and answers: what `embed_set` and `verification_accuracy` take.

    size: pixels a side; the pictures may be larger, never smaller, and are square.   crop: how
    they were aligned; the published ones are "arcface".   workers: decoding threads.

    No picture is decoded before it is read. Raises FileNotFoundError, PermissionError, and
    ValueError of one line that names the file and the byte or the record: not a pickle of pictures
    and answers, truncated, hostile, or none of eight pictures such as the set asks for.
    """
    name = shown(path)
    value = unpickled(path, MOST)
    if type(value) not in (list, tuple) or len(value) != 2:
        raise ValueError(f"{name} holds {_what(value)}, not pictures and answers; is it a .bin of "
                         "pairs?")
    files, answers = value
    files, is_same = _encoded(files, name), _answers(answers, name)
    if len(files) != 2 * len(is_same) or not files:
        raise ValueError(f"{name} holds {len(files)} pictures and {len(is_same)} answers; there "
                         "must be one answer for every two, and one at least")
    pictures = Pictures(files, name, size, crop, workers=workers)
    look(len(files), pictures.header, lenient=True)  # single bad ones are named when they are read
    return Pairs(pictures, is_same)


def _what(value: object) -> str:
    return f"{kind(value)} of {len(value)}" if type(value) in (list, tuple) else kind(value)


def _encoded(files: object, name: str) -> list[bytes]:
    """The bytes of all pictures, however each of them is written."""
    if type(files) not in (list, tuple):
        raise ValueError(f"{name}: the pictures are {kind(files)}, not a list")
    found = []
    for row, file in enumerate(files):
        if type(file) is Array and max(file.shape) == len(file.data):  # (n,), (n, 1) or (1, n)
            file = file.data
        if type(file) is not bytes:
            shape = f" {file.shape}" if type(file) is Array else ""
            raise ValueError(f"{name} picture {row} (pair {row // 2}) is {kind(file)}{shape}, not "
                             "the bytes of an encoded picture")
        found.append(file)
    return found


def _answers(answers: object, name: str) -> np.ndarray:
    """(P,) bool."""
    if type(answers) is Array and len(answers.shape) == 1:
        answers = answers.values().tolist()
    if type(answers) not in (list, tuple):
        raise ValueError(f"{name}: the answers are {kind(answers)}, not a list")
    for pair, answer in enumerate(answers):
        if type(answer) not in (bool, int) or answer not in (0, 1):
            raise ValueError(f"{name} pair {pair}: the answer is {kind(answer)}"
                             f"{f' {answer}' if type(answer) is int else ''}, not True or False")
    return np.array(answers, dtype=bool)
