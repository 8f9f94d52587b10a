"""A folder of aligned face pictures as a set: one identity a sub-folder, read when wanted.

Nothing is decoded while the folder is listed, and of a picture no more is kept than its name, so
that 5.8 million of them take about 200 MB. How names become labels stands in `_list`, how a file
becomes pixels in `decode`: other layouts and crops change those two.
"""

import bisect
import csv
import difflib
import hashlib
import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from kdlab.align import SIZES
from kdlab.data.batches import OnDisk
from kdlab.data.faces import SMALLEST

FORMAT = 1
MOST = 64_000_000  # pixels of a file: our choice, below Pillow's own guard of 89 million
LARGEST = 1024  # pixels a side of the set; as for a teacher's input
THREADS = 16  # readers at most; our choice: more wait for the disk or for Python
_PART = 64  # pictures shrunk at a time: float copies stay small
_LOOKED_AT = 8  # headers read at once, to refuse at the start what every file would say later


class ImageFolder:
    """Aligned faces in path/IDENTITY/PICTURE; a set as `FaceSet` is, of one crop.

    path: the folder. Its sub-folders, by name, are the labels 0, 1, ...; in them, by name, every
    file with a suffix that Pillow knows is a picture; other files and hidden ones are left out.
    size: pixels a side; files may be larger, never smaller, and are square.   crop: how the
    pictures were aligned, "arcface" or "dlib".   groups: None, or a CSV of two columns, the name
    of an identity or of a picture ("IDENTITY/PICTURE") and its group, a number from 0; a heading
    line may stand above.   workers: reading threads; results do not depend on them.

    labels: (N,) int64.   groups: (N,) int64 or None.   identities: the names, by label.
    key: changes with the name, the length or the time of any file, and with the groups.

    Raises FileNotFoundError, or ValueError of one line: no sub-folder, fewer than two, one without
    a picture, pictures that are not square or too small, groups that do not fit.
    """

    def __init__(self, path: str | Path, size: int = 112, crop: str = "arcface",
                 groups: str | Path | None = None, *, workers: int | None = None):
        if crop not in SIZES or not SMALLEST <= size <= LARGEST:
            raise ValueError(f"crop must be one of {', '.join(SIZES)} and size {SMALLEST} to "
                             f"{LARGEST} pixels, not {crop!r} and {size}")
        self.path, self.crop, self.sizes = Path(path), crop, {crop: size}
        self._workers = workers or min(THREADS, os.cpu_count() or 1)
        self._hash = hashlib.sha256(f"kdlab folder {FORMAT}\n".encode())
        self._list()
        self.groups = None if groups is None else self._grouped(Path(groups))
        self.key = self._hash.hexdigest()
        for row in np.linspace(0, len(self) - 1, _LOOKED_AT, dtype=np.int64).tolist():
            with opened(self.name(row), size):
                pass

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> Path:
        """The file of a row."""
        return self.path / self.identities[self.labels[row]] / self._names(row, row + 1)[0]

    def pixels(self, crop: str | None = None, size: int | None = None) -> OnDisk:
        """What `Batches` takes: the set's pictures in its crop, size x size, read when wanted."""
        return OnDisk(self, crop or self.crop, size or self.sizes[self.crop])

    def read(self, crop: str, size: int, rows) -> Tensor:
        """The named pictures, (n, 3, size, size) uint8 RGB, in the order of `rows` (n,).

        size: pixels, 24 to the set's own, shrunk by area from the file.   Raises KeyError on
        another crop, ValueError on another size and on a file that is no such picture, which it
        names, IndexError on a row beyond the set.
        """
        if crop not in self.sizes:
            raise KeyError(f"the pictures in {self.path} are the crop {self.crop!r}, not {crop!r}")
        if not SMALLEST <= size <= self.sizes[crop]:
            raise ValueError(f"a picture's size must be {SMALLEST} to {self.sizes[crop]} pixels "
                             f"(the size of the set), not {size}")
        rows = torch.as_tensor(rows, dtype=torch.int64).tolist()
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(f"{self.path} holds pictures 0 to {len(self) - 1}, asked were "
                             f"{min(rows)} to {max(rows)}")
        found = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for start in range(0, len(rows), _PART):
            part = rows[start:start + _PART]
            pictures = list(self._readers.map(lambda row: decode(self.name(row), size), part))
            for side in {len(picture) for picture in pictures}:
                alike = [k for k, picture in enumerate(pictures) if len(picture) == side]
                x = torch.from_numpy(np.stack([pictures[k] for k in alike])).permute(0, 3, 1, 2)
                if side != size:  # as FaceSet.read
                    x = F.interpolate(x.float(), size=(size, size), mode="area").round_()
                    x = x.clamp_(0, 255).to(torch.uint8)
                found[start:start + _PART][alike] = x
        return found

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers, "kdlab reader")

    def _list(self) -> None:
        """Walk the folder: identities, labels, names, and the hash of it all."""
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: no such folder of pictures")
        suffixes = tuple(suffix for suffix, kind in Image.registered_extensions().items()
                         if kind in formats())
        with os.scandir(self.path) as entries:
            self.identities = sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())
        if not self.identities:
            raise ValueError(f"{self.path} holds no sub-folder; make one for each identity, with "
                             "the pictures of it inside")
        names, ends, counts = bytearray(), array("q", [0]), []  # no object a picture
        for identity in self.identities:
            with os.scandir(self.path / identity) as entries:
                pictures = sorted((e.name, e) for e in entries
                                  if e.name[0] != "." and e.name.lower().endswith(suffixes)
                                  and e.is_file())
            if not pictures:
                raise ValueError(f"{self.path / identity} holds no picture; every sub-folder is an "
                                 "identity: remove it, or put its pictures (.jpg, .png, ...) there")
            for name, entry in pictures:
                found = entry.stat()
                self._hash.update(os.fsencode(f"{identity}/{name}\0") + b"%d %d\n" % (
                    found.st_size, found.st_mtime_ns))
                names += os.fsencode(name)
                ends.append(len(names))
            counts.append(len(pictures))
        if len(self.identities) < 2:
            raise ValueError(f"{self.path} holds one identity, {self.identities[0]!r}; nobody can "
                             "be told from anybody, add the pictures of others")
        self._text, self._ends = bytes(names), np.array(ends)
        self._first = np.concatenate([[0], np.cumsum(counts)])  # row where each identity starts
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    def _names(self, start: int, stop: int) -> list[str]:
        ends = self._ends[start:stop + 1].tolist()
        return [os.fsdecode(self._text[a:b]) for a, b in zip(ends, ends[1:], strict=False)]

    def _grouped(self, path: Path) -> np.ndarray:
        """(N,) int64 groups of a CSV."""
        groups = np.full(len(self), -1, np.int64)
        labels = {name: label for label, name in enumerate(self.identities)}
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(csv.reader(file), 1):
                where = f"{path} line {number}"
                if len(line) != 2:
                    raise ValueError(f"{where}: a line is a name and a group, not {len(line)} "
                                     "fields")
                name, group = line[0].strip(), line[1].strip()
                if number == 1 and not group.isdecimal():
                    continue  # a heading
                rows = self._rows(name, labels)
                if rows is None:
                    near = difflib.get_close_matches(name, labels, n=1)
                    mend = f"did you mean {near[0]!r}?" if near else "names are as in the folder"
                    raise ValueError(f"{where}: {self.path} has no {name!r}; {mend}")
                if not group.isdecimal() or len(group) > 9:
                    raise ValueError(f"{where}: a group is a number from 0, not {group!r}")
                if ((groups[rows] != -1) & (groups[rows] != int(group))).any():
                    raise ValueError(f"{where}: {name!r} was in another group before")
                groups[rows] = int(group)
        if (groups < 0).any():
            row = int(np.argmin(groups))
            raise ValueError(f"{path} gives {self.name(row).relative_to(self.path)} no group "
                             f"({(groups < 0).sum()} pictures have none); add a line for each")
        self._hash.update(groups.tobytes())
        return groups

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


@cache
def formats() -> list[str]:
    """The kinds of file that are read, usual ones first, for Pillow tries them in order: all that
    it knows but EPS, which it hands to another program."""
    Image.init()
    usual = [kind for kind in ("JPEG", "PNG", "WEBP", "BMP") if kind in Image.OPEN]
    return usual + [kind for kind in Image.OPEN if kind not in ("EPS", *usual)]


def opened(path: Path, size: int) -> Image.Image:
    """The file, its header read and judged, not yet decoded; ValueError that names it."""
    try:
        image = Image.open(path, formats=formats())
    except Exception as error:  # Pillow's readers raise whatever their parsing meets
        raise unreadable(path, error) from error
    width, height = image.size
    if width * height > MOST:
        wrong = f"has {width} x {height} pixels, more than any aligned face; remove it"
    elif width != height:
        wrong = f"is {width} x {height} pixels; aligned pictures are square, align it first"
    elif width < size:
        wrong = f"is {width} pixels a side, the set asks for {size}; set size: {width} or less"
    else:
        return image
    image.close()
    raise ValueError(f"{path} {wrong}")


def decode(path: Path, size: int) -> np.ndarray:
    """A square picture of `size` pixels a side or more as (S, S, 3) uint8 RGB, upright.

    Grey becomes RGB, 16 bits become 8, what is transparent becomes black, of several frames the
    first is taken.   ValueError that names the file.
    """
    with opened(path, size) as image:
        try:
            image = ImageOps.exif_transpose(image)
            if image.mode[0] in "IF":  # Pillow clips these where it should scale
                image = Image.fromarray(eight_bits(np.asarray(image)))
            elif image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
        except Exception as error:  # as above
            raise unreadable(path, error) from error


def eight_bits(grey: np.ndarray) -> np.ndarray:
    """16-bit grey values as uint8, rounded.   ValueError for other numbers."""
    if grey.dtype.kind not in "iu" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its values are not those of 8 or 16 bits")
    return ((grey.astype(np.int64) + 128) // 257).astype(np.uint8)  # 65535 becomes 255


def unreadable(path: Path, error: Exception) -> ValueError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{path} cannot be read as a picture ({said[:200]}); restore or remove it")
