"""Whatever set of faces a path leads to, its faults passed over and each picture by itself.

Training stops at the first file that is wrong; who checks a set wants to know of all.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdlab.data.bins import read_bin
from kdlab.data.faces import SMALLEST, FaceSet
from kdlab.data.folder import ImageFolder
from kdlab.data.pictures import Record, decode
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.records import Faults
from kdlab.data.shown import shown


class Opened(NamedTuple):
    """A set to be checked.   name: its path.   kind: in words.   is_same: (P,) bool where rows 2k
    and 2k + 1 are pair k (a .bin), else None.   faults: what the reader passed over."""

    faces: object
    name: str
    kind: str
    is_same: np.ndarray | None
    faults: Faults


def open_set(path: str | Path) -> Opened:
    """A folder of identities, a .rec or its folder, a .bin, or the folder of a rendered set.

    Faults of single files or records are passed over and kept; FileNotFoundError, PermissionError
    or a ValueError of one line where there is no set at all.
    """
    path, name = Path(path), shown(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file or folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says it
        if path.suffix == ".bin" and path.is_file():
            pairs = read_bin(path, SMALLEST)
            return Opened(pairs.pictures, name, "pairs (.bin)", pairs.is_same, Faults("skip"))
        if path.suffix == ".rec" or path.is_dir() and any(path.glob("*.rec")):
            faces = RecordIOFaces(path, SMALLEST, on_bad="skip")
            return Opened(faces, name, "RecordIO", None, faces.faults)
        if (path / "finished.json").is_file() and (path / "factors.npz").is_file():
            return Opened(_rendered(path), name, "rendered", None, Faults("skip"))
        if path.is_dir():
            faces = ImageFolder(path, SMALLEST, on_bad="skip")
            return Opened(faces, name, "folder", None, faces.faults)
    raise ValueError(f"{name} is no data set; name a folder with a sub-folder for each identity, a "
                     ".rec, a .bin, or the folder of a rendered set")


def opened_set(path) -> Opened:
    """As `open_set`; a set of faces is taken as it is."""
    if isinstance(path, Opened):
        return path
    if isinstance(path, str | os.PathLike):
        return open_set(path)
    name = getattr(path, "path", type(path).__name__)
    return Opened(path, shown(name), type(path).__name__, None,
                  getattr(path, "faults", Faults("skip")))


def picture_of(one: Opened, row: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as it is stored (aligned, where landmarks say how); ValueError."""
    faces = one.faces
    if isinstance(faces, FaceSet):
        return next(iter(faces.crops.values()))[row].transpose(1, 2, 0)
    if getattr(faces, "landmarks", None) is not None:
        return faces.read(faces.crop, faces.sizes[faces.crop], [row])[0].permute(1, 2, 0).numpy()
    if hasattr(faces, "picture"):
        return decode(Record(faces.picture(row), row_name(one, row)), 1)
    if isinstance(faces, ImageFolder):
        return decode(faces.name(row), 1)
    crop, size = next(iter(faces.sizes.items()))
    return faces.read(crop, size, [row])[0].permute(1, 2, 0).numpy()


def row_name(one: Opened, row: int) -> str:
    """How a person finds a picture."""
    if not hasattr(one.faces, "name"):
        return f"{one.name} picture {row}"
    name = one.faces.name(row)
    return shown(name) if isinstance(name, Path) else str(name)


def _rendered(path: Path) -> FaceSet:
    crops = {}
    try:
        for crop in ("arcface", "dlib"):
            if (path / f"{crop}.npy").exists():
                crops[crop] = np.load(path / f"{crop}.npy", mmap_mode="r", allow_pickle=False)
        with np.load(path / "factors.npz", allow_pickle=False) as factors:
            labels = np.unique(factors["identity"], return_inverse=True)[1].astype(np.int64)
        fine = crops and all(x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] == 3
                             and len(x) == len(labels) > 0 for x in crops.values())
    except Exception as error:  # zip, npy and header readers raise whatever they meet
        raise ValueError(f"{shown(path)} is a damaged rendered set "
                         f"({' '.join(str(error).split())[:200]}); render it again") from error
    if not fine:
        raise ValueError(f"{shown(path)} is a damaged rendered set (its arrays do not fit each "
                         "other); render it again")
    return FaceSet(crops, labels, shown(path))
