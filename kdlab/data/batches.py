"""Shuffled batches of faces that fit in memory, flipped at random, the same for the same seed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdlab.outputs import Targets

MEAN = DIVIDE = 127.5  # insightface's input: 0 .. 255 onto -1 .. 1


class Batch(NamedTuple):
    """What one training step is given.

    images: (B, 3, H, W) float32, (x - 127.5) / 127.5.   targets: labels and, if known, groups.
    index: (B,) int64, the rows of the set.   flipped: (B,) bool, mirrored left to right.
    Index and flip together name the exact picture, which is what a cached teacher looks up.
    """

    images: Tensor
    targets: Targets
    index: Tensor
    flipped: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Images and targets on `device`; index and flip stay where the cache reads them."""
        targets = (None if t is None else t.to(device, non_blocking=True) for t in self.targets)
        return self._replace(images=self.images.to(device, non_blocking=True),
                             targets=Targets(*targets))


class Batches:
    """A set of faces as seeded, shuffled epochs.

    pixels: (N, 3, S, S) uint8, RGB; labels: (N,) integers from 0; groups: (N,) integers from 0
    or None. Every image is seen once an epoch (with `drop_last`, a remainder smaller than
    `batch_size` is left out), each mirrored with probability 1/2 unless `flip` is False.
    An epoch depends on (seed, epoch) and nothing else, so a run can resume at any of them.
    channels_last: the memory format of the batches. crop: the alignment the pixels came from
    ("arcface", "dlib"), which a student's file then records. key: the set's (`FaceSet.key`);
    train() then refuses a cache of another set.

    Raises ValueError for an empty set, wrong shapes or types, negative labels or groups, and for
    fewer images than one batch (with `drop_last`).
    """

    def __init__(self, pixels: Tensor, labels, batch_size: int, seed: int = 0, flip: bool = True,
                 drop_last: bool = True, groups=None, *, channels_last: bool = False,
                 crop: str | None = None, key: str | None = None):
        if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8:
            raise ValueError("pixels must be a uint8 tensor of RGB values from 0 to 255; "
                             "normalising is done here, per batch")
        S = pixels.shape[-1] if pixels.ndim == 4 else 0
        if S == 0 or pixels.shape[1:] != (3, S, S):
            raise ValueError(f"pixels must be (N, 3, S, S), not {tuple(pixels.shape)}")
        if len(pixels) == 0:
            raise ValueError("the set holds no images; there is nothing to train on")
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        if drop_last and len(pixels) < batch_size:
            raise ValueError(f"the set holds {len(pixels)} images, fewer than one batch of "
                             f"{batch_size}; lower batch_size or pass drop_last=False")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        self.pixels, self.batch_size, self.seed = pixels, batch_size, seed
        self.flip, self.drop_last, self.channels_last = flip, drop_last, channels_last
        self.crop, self.key = crop, key
        self.labels = _integers("labels", labels, pixels)
        self.groups = None if groups is None else _integers("groups", groups, pixels)

    @property
    def num_classes(self) -> int:
        """The highest label plus one: the class rows a classification loss needs."""
        return int(self.labels.max()) + 1

    @property
    def preprocessing(self) -> dict[str, object]:
        """How a network trained on these batches wants its pictures, keyed as in a teacher file."""
        return {"crop": self.crop, "size": self.pixels.shape[-1], "channels": "RGB",
                "mean": [MEAN] * 3, "divide": DIVIDE}

    def __len__(self) -> int:
        """Batches an epoch."""
        N, B = len(self.pixels), self.batch_size
        return N // B if self.drop_last else -(-N // B)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch (from 0), in an order drawn from (seed, epoch)."""
        rng = np.random.default_rng((self.seed, epoch))
        order = torch.from_numpy(rng.permutation(len(self.pixels)))
        mirror = torch.from_numpy(rng.random(len(self.pixels)) < 0.5)  # per image, by row
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[start:start + self.batch_size]
            flipped = mirror[index] if self.flip else torch.zeros(len(index), dtype=torch.bool)
            yield self.batch(index, flipped)

    def batch(self, index: Tensor, flipped: Tensor) -> Batch:
        """The named rows, mirrored where `flipped`; for samplers that choose rows themselves."""
        here = index.to(self.pixels.device)
        images = self.pixels.index_select(0, here)  # (B, 3, S, S) uint8: a quarter of the float
        mirrored = flipped.to(self.pixels.device)
        images[mirrored] = images[mirrored].flip(-1)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        groups = None if self.groups is None else self.groups[here]
        return Batch(images.float().sub_(MEAN).div_(DIVIDE), Targets(self.labels[here], groups),
                     index, flipped)


def _integers(name: str, values, pixels: Tensor) -> Tensor:
    """`values` as (N,) int64 beside `pixels`, or a ValueError that says what is wrong."""
    values = torch.as_tensor(values)
    if values.shape != (len(pixels),):
        raise ValueError(f"{name} must be ({len(pixels)},), one for each image, "
                         f"not {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, not {values.dtype}")
    if (values < 0).any():
        row = int((values < 0).nonzero()[0])
        raise ValueError(f"{name} must be 0 or more; row {row} has {int(values[row])}")
    return values.to(pixels.device, torch.int64)
