"""CIFAR-10 as its authors distribute it for Python: six pickles of 10,000 pictures of 32 x 32.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The files are read by
`kdlab.data.unpickle`, which runs nothing, from the folder or from the archive as it was downloaded,
of which nothing is unpacked to the disk.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.data.pickled import Array, kind
from kdlab.data.shown import shown
from kdlab.data.unpickle import loads, unpickled

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
COUNT, SIDE = 10_000, 32  # pictures a file, pixels a side
MOST = 64 * 2**20  # bytes of a file; the authors' have 31 MB: our choice
ALL = 4 * MOST  # bytes that the archive may unpack to; the authors' has 186 MB: our choice
_BLOCK = 512  # of a tar file
_PADDING = 2**20  # bytes of zeros at its end are fewer; tar writes 10,240 at most


class Cifar10(NamedTuple):
    """pixels: (N, 3, 32, 32) uint8 RGB.   labels: (N,) int64, rows of `CLASSES`."""

    pixels: np.ndarray
    labels: np.ndarray


def read_cifar10(path: str | Path, part: str = "train") -> Cifar10:
    """The 50,000 pictures to train on or the 10,000 to test on, in the order of the files.

    path: the folder cifar-10-batches-py, the one it lies in, or cifar-10-python.tar.gz.
    part: "train" or "test".
    Raises FileNotFoundError that says what to put where, another OSError that names the file,
    ValueError of one line for a file that is not what it should be.
    """
    if part not in FILES:
        raise ValueError(f"part must be one of {', '.join(FILES)}, not {part!r}")
    path, files = Path(path), FILES[part]
    pixels = np.empty((len(files) * COUNT, 3, SIDE, SIDE), np.uint8)
    labels = np.empty(len(pixels), np.int64)
    for name, file, value in (_archived if path.is_file() else _stored)(path, files):
        rows = slice(files.index(name) * COUNT, (files.index(name) + 1) * COUNT)
        pixels[rows], labels[rows] = _batch(value, file)
    return Cifar10(pixels, labels)


def _batch(value: object, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (COUNT, 3, 32, 32) and labels (COUNT,) of one file."""
    if type(value) is not dict:
        raise ValueError(f"{file} holds {kind(value)}, not a batch of CIFAR-10")
    value = {key.decode("latin-1") if type(key) is bytes else key: value[key] for key in value}
    data, labels = value.get("data"), value.get("labels")
    shape = COUNT, 3 * SIDE * SIDE
    if type(data) is not Array or data.shape != shape:
        raise ValueError(f"{file}: data must be uint8 values {shape}, not "
                         f"{data.shape if type(data) is Array else kind(data)}; is it CIFAR-10?")
    if type(labels) is not list or len(labels) != COUNT:
        raise ValueError(f"{file}: labels must be a list of {COUNT}, not {kind(labels)}"
                         f"{f' of {len(labels)}' if type(labels) is list else ''}")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            raise ValueError(f"{file} picture {row}: the label is no number from 0 to "
                             f"{len(CLASSES) - 1}")
    return data.values().reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)


def _stored(path: Path, files: list[str]) -> Iterator[tuple[str, str, object]]:
    """Name, file and value of each file of the folder."""
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    for name in files:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{shown(folder / name)}: no such file; download {ARCHIVE} (CIFAR-10, the version "
                f"for Python) from its authors and name it, or unpack it and name {FOLDER}")
        yield name, shown(folder / name), unpickled(folder / name, MOST, dicts=True)


def _archived(path: Path, files: list[str]) -> Iterator[tuple[str, str, object]]:
    """As `_stored`, in the order of the archive."""
    left = set(files)
    for name, data in _unpacked(path, files):
        if name not in left:
            raise ValueError(f"{shown(path)} holds {FOLDER}/{name} twice; download it anew")
        left.remove(name)
        file = f"{shown(path)} {name}"
        yield name, file, loads(data, file, dicts=True)
    for name in sorted(left):
        raise ValueError(f"{shown(path)} holds no {FOLDER}/{name}; is it {ARCHIVE}?")


def _unpacked(path: Path, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """The named files of the archive; of all others not even the names are looked into.

    No link, long name or extension of the tar format is followed: the authors' archive has none.
    """
    left = ALL  # a small archive may unpack to terabytes
    with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as stream:
        try:
            while (head := stream.read(_BLOCK)) != bytes(_BLOCK):  # zeros end it
                digits = head[124:136].strip(b" \0")
                if len(head) < _BLOCK or not digits.isdigit():
                    raise ValueError("it is cut short or no tar file")
                size = int(digits, 8)
                room = -(-size // _BLOCK) * _BLOCK
                left -= _BLOCK + room
                if left < 0:
                    raise ValueError(f"it unpacks to more than {ALL} bytes")
                folder, _, name = head[:100].split(b"\0")[0].decode("latin-1").rpartition("/")
                if folder.removeprefix("./") != FOLDER or name not in files:
                    stream.seek(room, 1)
                    continue
                if head[156:157] not in (b"0", b"\0") or size > MOST:
                    raise ValueError(f"its {name} is no plain file of 31 million bytes")
                data = stream.read(room)
                if len(data) < room:
                    raise ValueError(f"it ends in the middle of {name}")
                yield name, data[:size]
            if len(stream.read(_PADDING)) == _PADDING:  # at its very end gzip compares checksums
                raise ValueError("something follows its end")
        except (ValueError, EOFError, zlib.error, OSError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{shown(path)} cannot be read as {ARCHIVE} ({said[:200]}); download "
                             "it anew") from error
