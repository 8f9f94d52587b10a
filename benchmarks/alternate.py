"""What the training benchmarks share: steps timed from outside train(), and blocks that take turns.

train() asks its batches for the next one once a step, so the times of asking are the times of the
steps, and nothing in the loop is touched. Two forms are compared in short blocks, A B B A A B ...:
what the machine does besides drifts slowly and falls on both.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from kdlab.data import Batch

RESAMPLES = 10_000  # of the bootstrap over pairs of blocks, ours: intervals to two digits


class Steps:
    """`batches` as one epoch of so many steps, epochs one after another, timed.

    before: called with the number of steps done, before each is given.
    wall, cpu: (steps + 1,) seconds when each step was asked for and, last, when the end was: by the
    clock, and by the processor's time for this process, which other work does not lengthen.
    """

    def __init__(self, batches, steps: int, before: Callable[[int], None] | None = None):
        self.batches, self.steps, self.before = batches, steps, before
        self.wall, self.cpu = [], []

    def __getattr__(self, name: str):
        return getattr(self.batches, name)  # batch_size, key, pixels, ...: theirs

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        done = start
        while done < self.steps:
            turn, first = divmod(done, len(self.batches))
            stream = self.batches.epoch(turn, first)
            for _ in range(min(len(self.batches) - first, self.steps - done)):
                if self.before is not None:
                    self.before(done)
                self._mark()
                yield next(stream)
                done += 1
        self._mark()

    def seconds(self, warm: int = 0) -> tuple[float, float]:
        """Mean seconds of a step after the first `warm`: by the clock, by processor time."""
        steps = len(self.wall) - 1 - warm
        return tuple((t[-1] - t[warm]) / steps for t in (self.wall, self.cpu))

    def _mark(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


Form = Callable[[int], Steps]  # runs so many steps and says when they were


def alternate(one: Form, other: Form, pairs: int, steps: int, warm: int) -> dict:
    """Time of a step of `one` over that of `other`, in `pairs` of blocks of `steps`.

    The first `warm` steps of every block are not counted, nor a first block of each form. Returns
    the median ratio over pairs with its 95 % bootstrap interval over them, by the clock ("ratio",
    "low", "high", "ratios") and by processor time ("processor_ratio"), and the median seconds of
    both.
    """
    for form in (other, one):
        form(warm + 1)
    found = []  # (pairs, 2 forms, 2 clocks)
    for pair in range(pairs):
        order = (one, other) if pair % 2 else (other, one)
        times = {form: form(warm + steps).seconds(warm) for form in order}
        found.append([times[one], times[other]])
    found = np.array(found)
    wall, cpu = (found[:, 0] / found[:, 1]).T
    low, high = interval(wall)
    return {"ratio": float(np.median(wall)), "low": low, "high": high, "ratios": wall.tolist(),
            "processor_ratio": float(np.median(cpu)), "pairs": pairs, "steps": steps,
            "seconds": float(np.median(found[:, 0, 0])),
            "seconds_other": float(np.median(found[:, 1, 0]))}


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median of (n,) ratios."""
    rows = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    medians = np.median(np.asarray(ratios)[rows], axis=1)
    return tuple(float(x) for x in np.quantile(medians, (0.025, 0.975)))


def machine(device: str = "cpu") -> dict:
    """Where and how numbers were made: command, versions, processor or GPU, load before."""
    told = {"command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(), "device": device,
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
    if device == "cuda":
        told |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                 "cudnn": torch.backends.cudnn.version(),
                 "gpu_memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9}
    return told
