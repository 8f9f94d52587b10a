"""The processes that torchrun started for one run: how they meet, and what they say at the end.

At the end they speak through the store they met at, not by a collective: that would wait for a
process that is no more.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from kdlab.train.config import TrainConfig
from kdlab.train.loop import pick_device

TIMEOUT = timedelta(hours=12)  # one may render or fill a cache while the others wait; ours
HEAR = timedelta(seconds=10)  # for each other's last words; ours


class Group:
    """Process `rank` of `world`; alone there is no store."""

    def __init__(self, rank: int = 0, world: int = 1, store: dist.Store | None = None):
        self.rank, self.world, self.store = rank, world, store

    def agree(self, line: str, trace: str) -> str:
        """The line of the process that failed first, if this one only lost it; and tell the others.

        trace: "" for an error that speaks for itself, else the traceback, which is printed.
        """
        if self.store is None:
            print(trace, end="", file=sys.stderr)
            return line
        if self.rank:
            self.store.set("kdlab/error", json.dumps([f"process {self.rank}: {line}", trace]))
            try:
                self.store.wait(["kdlab/heard"], HEAR)
            except RuntimeError:  # process 0 hangs, or is gone
                print(f"{trace}kdlab.train: process {self.rank}: {line}", file=sys.stderr)
            return line
        if trace and self.store.check(["kdlab/error"]):
            line, trace = json.loads(self.store.get("kdlab/error"))
        print(trace, end="", file=sys.stderr)
        self.store.set("kdlab/heard", "1")
        return line

    def numbers(self, value: float) -> list[float]:
        """Every process's number at process 0; elsewhere, and where one keeps silent, the own."""
        if self.store is None:
            return [value]
        self.store.set(f"kdlab/number/{self.rank}", repr(value))
        keys = [f"kdlab/number/{rank}" for rank in range(self.world)]
        try:
            self.store.wait([] if self.rank else keys, HEAR)
        except RuntimeError:
            return [value]
        return [value] if self.rank else [float(self.store.get(key)) for key in keys]


@contextmanager
def together(config: TrainConfig) -> Iterator[Group]:
    """The group that torchrun's variables ask for, initialised; without them this process alone.

    ValueError in words for a machine with fewer GPUs than processes.
    """
    device = pick_device(config.device)
    if "WORLD_SIZE" not in os.environ:
        yield Group()
        return
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", 0))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(f"{torch.cuda.device_count()} GPUs are here, and more processes; "
                             "start one process a GPU (--nproc-per-node)")
        torch.cuda.set_device(local)
    store, rank, world = next(dist.rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank,
                            world_size=world, timeout=TIMEOUT)
    try:
        yield Group(rank, world, store)
    finally:
        dist.destroy_process_group()  # the others hear at once that this one is gone
