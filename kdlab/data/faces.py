"""A set of aligned faces: pictures in one or more crops, and who is on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 24  # pixels: a face of it has its eyes 7 pixels apart, the least that is still a face
_PART = 512  # pictures shrunk at a time: float copies stay small


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces, possibly memory-mapped.

    crops: name ("arcface" 112 x 112, "dlib" 150 x 150) -> (N, 3, S, S) uint8, RGB.
    labels: (N,) int64, identity.   key: changes whenever a pixel or a label could.
    factors: what is known of each image, name -> (N, ...) array (rendered sets only).
    """

    crops: Mapping[str, np.ndarray]
    labels: np.ndarray
    key: str
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> None:
        """The sensitive attribute of each picture: not stated by such a set (factors may)."""
        return None

    @property
    def sizes(self) -> dict[str, int]:
        """The crops there are, each with the side in pixels it is stored at."""
        return {name: images.shape[-1] for name, images in self.crops.items()}

    def pixels(self, crop: str, size: int | None = None) -> Tensor:
        """All pictures of a crop as one uint8 tensor (N, 3, size, size), shrunk by area.

        size: pixels, 24 to the crop's own.   Raises KeyError on a crop the set does not have and
        ValueError on another size.
        """
        return self.read(crop, self._own(crop) if size is None else size,
                         np.arange(len(self.crops[crop])))

    def read(self, crop: str, size: int, rows: np.ndarray | Tensor) -> Tensor:
        """The named pictures of a crop, (n, 3, size, size) uint8, in the order of `rows`.

        rows: (n,) integers from 0, repeats allowed; of a memory-mapped crop no others are read.
        size: pixels, 24 to the crop's own, shrunk by area.   Raises KeyError on a crop the set does
        not have, ValueError on another size or rows that are no integers, IndexError on a row
        beyond the set.
        """
        own, images = self._own(crop), self.crops[crop]
        if size != own and not SMALLEST <= size < own:
            raise ValueError(f"a picture's size must be {SMALLEST} to {own} pixels (the crop "
                             f"{crop!r} is stored at {own}), not {size}")
        rows = _integers(rows)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
            raise IndexError(f"the set holds pictures 0 to {len(images) - 1}, asked were "
                             f"{rows.min()} to {rows.max()}")
        found = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for start in range(0, len(rows), _PART):
            x = torch.from_numpy(images[rows[start:start + _PART]])
            if size != own:
                x = F.interpolate(x.float(), size=(size, size), mode="area")
                x = x.round_().clamp_(0, 255)
            found[start:start + _PART] = x
        return found

    def _own(self, crop: str) -> int:
        if crop not in self.crops:
            raise KeyError(f"this set has the crops {', '.join(self.crops)}, not {crop!r}")
        return self.sizes[crop]


def _integers(rows) -> np.ndarray:
    """`rows` as (n,) int64; a mask or floats would silently name other pictures."""
    rows = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
    if rows.ndim != 1 or not (np.issubdtype(rows.dtype, np.integer) or rows.size == 0):
        raise ValueError("rows must be a list of picture numbers from 0, not "
                         f"{rows.dtype} of shape {rows.shape}")
    return rows.astype(np.int64)
