"""A set of aligned faces: pictures in one or more crops, and who is on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 24  # pixels: a face of it has its eyes 7 pixels apart, the least that is still a face


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

    def pixels(self, crop: str, size: int | None = None) -> Tensor:
        """All pictures of a crop as one uint8 tensor (N, 3, size, size), shrunk by area.

        size: pixels, 24 to the crop's own.   Raises KeyError on a crop the set does not have and
        ValueError on another size.
        """
        if crop not in self.crops:
            raise KeyError(f"this set has the crops {', '.join(self.crops)}, not {crop!r}")
        images = self.crops[crop]
        own = images.shape[-1]
        if size in (None, own):
            return torch.from_numpy(np.array(images))
        if not SMALLEST <= size < own:
            raise ValueError(f"a picture's size must be {SMALLEST} to {own} pixels (the crop "
                             f"{crop!r} is stored at {own}), not {size}")
        parts = []
        for start in range(0, len(images), 512):  # 512 at a time: float copies stay small
            x = torch.from_numpy(np.array(images[start:start + 512])).float()
            x = F.interpolate(x, size=(size, size), mode="area")
            parts.append(x.round().clamp(0, 255).to(torch.uint8))
        return torch.cat(parts)
