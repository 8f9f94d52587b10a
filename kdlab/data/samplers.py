"""Which rows make a batch, where chance alone would not do: pairs for EKD, equal groups for MFD."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class PairSampler:
    """Batches of random rows followed by identities x per_identity rows (EKD: 512 + 128 x 4).

    labels: (N,) integers from 0. The random part shows every row once an epoch, in a new order,
    the last incomplete batch left out; without one (`random` 0) an epoch is as many batches as
    would hold N rows. The other part draws identities without repetition, then images of each
    likewise; a row may stand in both parts. repeat=True (the released code) lets identities with
    fewer than per_identity images in and repeats their images in order, which pairs an image with
    itself. An epoch depends on (seed, epoch) and nothing else.

    Raises ValueError where too few identities have enough images or no batch can be filled.
    """

    def __init__(self, labels, random: int, identities: int, per_identity: int, *, seed: int = 0,
                 repeat: bool = False):
        self.labels = integers("labels", labels)
        if random < 0 or identities < 1 or per_identity < 2 or seed < 0:
            raise ValueError("PairSampler wants random and seed 0 or more, identities 1 or more "
                             f"and per_identity 2 or more, not {random}, {seed}, {identities} "
                             f"and {per_identity}")
        counts = np.bincount(self.labels)
        own = np.split(np.argsort(self.labels, kind="stable"), counts.cumsum()[:-1])
        self._rows = [rows for rows in own if len(rows) >= (1 if repeat else per_identity)]
        if len(self._rows) < identities:
            enough = "any image" if repeat else f"{per_identity} images or more"
            mend = "identities" if repeat else "identities or per_identity, or pass repeat=True"
            raise ValueError(f"a batch takes {identities} identities, but only {len(self._rows)} "
                             f"of the set's {np.count_nonzero(counts)} have {enough}; lower {mend}")
        self.random, self.identities, self.per_identity = random, identities, per_identity
        self.seed, self.repeat = seed, repeat
        if len(self) == 0:
            raise ValueError(f"the set holds {len(self.labels)} images, fewer than the "
                             f"{random or self.batch_size} one batch takes; lower the batch")

    @property
    def batch_size(self) -> int:
        return self.random + self.identities * self.per_identity

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.labels) // (self.random or self.batch_size)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(index (B,) int64, balanced (B,) bool) of every batch of an epoch (from 0)."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.labels))
        balanced = torch.arange(self.batch_size) >= self.random
        for step in range(len(self)):
            chosen = rng.choice(len(self._rows), self.identities, replace=False)
            parts = [order[step * self.random:(step + 1) * self.random]]
            for rows in (self._rows[k] for k in chosen):
                if len(rows) < self.per_identity:
                    parts.append(np.resize(rows, self.per_identity))
                else:
                    parts.append(rng.choice(rows, self.per_identity, replace=False))
            yield torch.from_numpy(np.concatenate(parts)), balanced.clone()


class GroupBalancedSampler:
    """Batches with equally many rows of every (group, label) cell: MFD's sampler.

    labels, groups: (N,) integers from 0.   batch_size: at most so many rows; every cell gives
    floor(batch_size / cells) to a cycle. Cycles go on until the biggest cell has been used once;
    smaller ones are reshuffled and repeated until then. cut="cycle": a batch is a cycle, exactly
    balanced, and `batch_size` becomes cells * floor(batch_size / cells). cut="batch" (the released
    code): the cycles one after another, cut into batches of batch_size, nearly balanced; the last,
    incomplete one is left out. An epoch depends on (seed, epoch) and nothing else.

    `len` is the number of batches that come. The released code's is that of the plain loader: 390
    on CIFAR-10S, where 624 come. Raises ValueError for an empty cell and for a batch that cannot
    be filled.
    """

    def __init__(self, labels, groups, batch_size: int, *, seed: int = 0, cut: str = "cycle"):
        self.labels = integers("labels", labels)
        self.groups = integers("groups", groups, len(self.labels))
        if cut not in ("cycle", "batch"):
            raise ValueError(f"cut must be one of cycle, batch, not {cut!r}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        classes = int(self.labels.max()) + 1
        cell = self.groups * classes + self.labels  # group by group, as released
        counts = np.bincount(cell, minlength=classes * (int(self.groups.max()) + 1))
        if not counts.all():
            group, label = divmod(int(counts.argmin()), classes)
            raise ValueError(f"no image is of class {label} and group {group}; every class needs "
                             "images of every group, numbered from 0 without gaps")
        self._rows = np.split(np.argsort(cell, kind="stable"), counts.cumsum()[:-1])
        cells = len(self._rows)
        self._share = batch_size // cells
        if self._share < 1:
            raise ValueError(f"batch_size {batch_size} is less than one row of each of the {cells} "
                             f"cells of class and group; raise it to {cells} or more")
        self._cycles = int(counts.max()) // self._share
        self.seed, self.cut = seed, cut
        self.batch_size = cells * self._share if cut == "cycle" else batch_size
        if len(self) == 0:
            raise ValueError(f"the biggest cell of class and group holds {counts.max()} images, "
                             f"too few to fill a batch of {batch_size}; lower batch_size")

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._cycles * len(self._rows) * self._share // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, None]]:
        """(index (B,) int64, None) of every batch of an epoch (from 0)."""
        rng = np.random.default_rng((self.seed, epoch))
        need = self._cycles * self._share
        drawn = [np.concatenate([rng.permutation(rows) for _ in range(-(-need // len(rows)))])
                 for rows in self._rows]
        cycles = [rows[:need].reshape(self._cycles, self._share) for rows in drawn]
        order = torch.from_numpy(np.concatenate(cycles, 1).reshape(-1))  # cycle, cell, row
        for index in order[:len(self) * self.batch_size].split(self.batch_size):
            yield index, None


def integers(name: str, values, number: int | None = None) -> np.ndarray:
    """`values` as (N,) int64 of 0 or more, or a ValueError in words; N is `number`, where given."""
    values = torch.as_tensor(values).cpu()
    if values.ndim != 1 or len(values) != (len(values) if number is None else number):
        raise ValueError(f"{name} must be ({'N' if number is None else number},), one for each "
                         f"image, not {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, not {values.dtype}")
    if len(values) == 0:
        raise ValueError(f"{name} are empty; there is nothing to draw from")
    values = values.to(torch.int64)  # torch compares no unsigned numbers but bytes
    if (values < 0).any():
        row = int((values < 0).nonzero()[0])
        raise ValueError(f"{name} must be 0 or more; row {row} has {int(values[row])}")
    return values.numpy()
