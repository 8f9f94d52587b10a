"""Shuffled batches of faces, flipped at random, the same for the same seed.

The pictures lie in memory, or are read while the step before trains (`OnDisk`). Of several
processes each makes its own rows of every batch, so that all together train on the same one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdlab.data.samplers import PairSampler, integers
from kdlab.outputs import Targets

MEAN = DIVIDE = 127.5  # insightface's input: 0 .. 255 onto -1 .. 1
AHEAD = 3  # batches made ahead of the one that trains: our choice, 0.2 GB at 512 x 112 x 112


class Batch(NamedTuple):
    """What one training step is given.

    images: (B, 3, H, W) float32, (x - 127.5) / 127.5.   targets: labels and, if known, groups and
    which rows a PairSampler drew as pairs (`balanced`).
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


class OnDisk:
    """Pictures that are read when they are wanted: what `Batches` takes where memory ends.

    faces: a set with `len` and `read(crop, size, rows)`, such as an ImageFolder or a FaceSet.
    shape: (N, 3, size, size), of uint8.
    """

    def __init__(self, faces, crop: str, size: int):
        self.faces, self.crop, self.size = faces, crop, size
        self.shape = (len(faces), 3, size, size)

    def __len__(self) -> int:
        return len(self.faces)

    def rows(self, index: Tensor) -> Tensor:
        """(B,) int64 -> (B, 3, S, S) uint8, memory of its own."""
        return self.faces.read(self.crop, self.size, index)


class Batches:
    """A set of faces as seeded, shuffled epochs.

    pixels: (N, 3, S, S) uint8, RGB, or an object with that `shape`, `len` and `rows(index)`, whose
    next batches are then made in threads while one trains (`OnDisk`); labels: (N,) integers from
    0; groups: (N,) integers from 0 or None. Every image is seen once an epoch (with `drop_last`,
    a remainder smaller than `batch_size` is left out), each mirrored with probability 1/2 unless
    `flip` is False.
    An epoch depends on (seed, epoch) and nothing else, so a run can resume at any of them.
    channels_last: the memory format of the batches. crop: the alignment the pixels came from
    ("arcface", "dlib"), which a student's file then records. key: the set's (`FaceSet.key`);
    train() then refuses a cache of another set. sampler: a PairSampler or GroupBalancedSampler of
    these labels; it then decides rows, batch size and length of an epoch (leave `batch_size` out),
    `drop_last` means nothing and `seed` only flips: every drawn row by itself.
    rank, world: of several processes this one takes the rows rank, rank + world, ... of every
    batch; `batch_size`, `len` and all that is drawn stay those of the whole.

    Raises ValueError for an empty set, wrong shapes or types, negative labels or groups, for fewer
    images than one batch (with `drop_last`), for a sampler made of other labels, and for batches
    that the processes cannot share evenly.
    """

    def __init__(self, pixels: Tensor, labels, batch_size: int | None = None, seed: int = 0,
                 flip: bool = True, drop_last: bool = True, groups=None, *,
                 channels_last: bool = False, crop: str | None = None, key: str | None = None,
                 sampler=None, rank: int = 0, world: int = 1):
        if not hasattr(pixels, "rows") and getattr(pixels, "dtype", None) != torch.uint8:
            raise ValueError("pixels must be a uint8 tensor of RGB values from 0 to 255; "
                             "normalising is done here, per batch")
        S = pixels.shape[-1] if len(pixels.shape) == 4 else 0
        if S == 0 or pixels.shape[1:] != (3, S, S):
            raise ValueError(f"pixels must be (N, 3, S, S), not {tuple(pixels.shape)}")
        if len(pixels) == 0:
            raise ValueError("the set holds no images; there is nothing to train on")
        if batch_size is None and sampler is None:
            raise ValueError("batch_size is missing; only a sampler brings its own")
        if sampler is not None and batch_size not in (None, sampler.batch_size):
            raise ValueError(f"the sampler's batches hold {sampler.batch_size} images, batch_size "
                             f"is {batch_size}; leave batch_size out")
        batch_size = batch_size if sampler is None else sampler.batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        if sampler is None and drop_last and len(pixels) < batch_size:
            raise ValueError(f"the set holds {len(pixels)} images, fewer than one batch of "
                             f"{batch_size}; lower batch_size or pass drop_last=False")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        self._rank, self._world = rank, world  # no part of what defines the batches
        self._device = pixels.device if isinstance(pixels, Tensor) else torch.device("cpu")
        self.pixels, self.batch_size, self.seed = pixels, batch_size, seed
        self.flip, self.drop_last, self.channels_last = flip, drop_last, channels_last
        self.crop, self.key, self.sampler = crop, key, sampler
        self.labels = self._beside("labels", labels)
        self.groups = None if groups is None else self._beside("groups", groups)
        if sampler is not None and not np.array_equal(sampler.labels, self.labels.cpu()):
            raise ValueError(f"the sampler was made of other labels ({len(sampler.labels)}) than "
                             f"these ({len(pixels)}); make it of the same, in the same order")
        self._check_shares()

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
        if self.sampler is not None:
            return len(self.sampler)
        N, B = len(self.pixels), self.batch_size
        return N // B if self.drop_last else -(-N // B)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch (from 0), in an order drawn from (seed, epoch).

        start: batches to leave out at the front; they are drawn, but not made.
        """
        mine = slice(self._rank, None, self._world)
        jobs = (tuple(None if part is None else part[mine] for part in drawn)
                for drawn in islice(self._draw(epoch), start, None))
        if isinstance(self.pixels, Tensor):
            yield from (self.batch(*job) for job in jobs)
        else:
            yield from _ahead(self._read, jobs)

    def _draw(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """(index, flipped, balanced) of every batch of an epoch, for all processes together."""
        if self.sampler is not None:
            rng = np.random.default_rng((self.seed, epoch, 1))  # not the numbers the rows came from
            for index, balanced in self.sampler.epoch(epoch):
                flipped = torch.from_numpy((rng.random(len(index)) < 0.5) & self.flip)
                yield index, flipped, balanced
            return
        rng = np.random.default_rng((self.seed, epoch))
        order = torch.from_numpy(rng.permutation(len(self.pixels)))
        mirror = torch.from_numpy(rng.random(len(self.pixels)) < 0.5)  # per image, by row
        for first in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[first:first + self.batch_size]
            flipped = mirror[index] if self.flip else torch.zeros(len(index), dtype=torch.bool)
            yield index, flipped, None

    def batch(self, index: Tensor, flipped: Tensor, balanced: Tensor | None = None) -> Batch:
        """The named rows, mirrored where `flipped`.   index, flipped, balanced: (B,)."""
        here = index.to(self._device)
        if isinstance(self.pixels, Tensor):
            images = self.pixels.index_select(0, here)  # (B, 3, S, S) uint8: a quarter of the float
        else:
            images = self.pixels.rows(index)
        mirrored = flipped.to(self._device)
        images[mirrored] = images[mirrored].flip(-1)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        targets = Targets(self.labels[here], None if self.groups is None else self.groups[here],
                          None if balanced is None else balanced.to(self._device))
        return Batch(images.float().sub_(MEAN).div_(DIVIDE), targets, index, flipped)

    def _read(self, *job) -> Batch:
        """A batch as the GPU copies it without waiting."""
        batch = self.batch(*job)
        return batch._replace(images=batch.images.pin_memory()) if torch.cuda.is_available() \
            else batch

    def _beside(self, name: str, values) -> Tensor:
        """`values`, one integer for each image, on the images' device."""
        return torch.from_numpy(integers(name, values, len(self.pixels))).to(self._device)

    def _check_shares(self) -> None:
        """ValueError where a batch, or the random or the paired rows of one, cannot be shared."""
        W = self._world
        if not 0 <= self._rank < W:
            raise ValueError(f"process {self._rank} of {W} cannot be: processes count from 0")
        parts = {"a batch": self.batch_size}
        if isinstance(self.sampler, PairSampler):
            parts = {"the random rows of a batch": self.sampler.random,
                     "the paired rows of a batch": self.batch_size - self.sampler.random}
        elif self.sampler is None and not self.drop_last:
            parts["the last batch of an epoch"] = len(self.pixels) % self.batch_size
        for part, rows in parts.items():
            if rows % W:
                raise ValueError(f"{W} processes cannot share {part}, {rows} images, evenly; "
                                 f"choose a number that {W} divides, or other processes")


def _ahead(make: Callable[..., Batch], jobs: Iterable[tuple]) -> Iterator[Batch]:
    """make(*job) of every job, in order, the next ones already under way in threads."""
    pool, waiting = ThreadPoolExecutor(AHEAD, "kdlab batches"), deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(make, *job))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where the run ends in the middle of an epoch
        pool.shutdown(cancel_futures=True)
