"""The faces of the GPU miniature: rendered by many processes into one file, and read from it.

A picture of the face world is small work for a GPU and much for Python, so several processes draw
on one GPU, each with people of its own. Every finished part leaves a mark; what is marked is not
drawn again, so a call that ends early is gone on with.
"""

import functools
import multiprocessing
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch

from kdlab.data import FaceSet
from kdlab.world.faces import FaceWorld

PART = 5  # people between two marks: seconds of one process's work
AT_ONCE = {"cpu": 16, "cuda": 50}  # pictures rendered together: what each device does fastest
SIDE = 112


def draw(folder: Path, name: str, people: range, each: int, device: str, workers: int,
         until: float) -> bool:
    """Render people x each pictures into folder/name.npy; False where time.monotonic() passed
    `until` before all were there. In this process with one worker, else in so many of their own.
    """
    marks = folder / f"{name}_done"
    marks.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npy"
    if not path.exists():
        fresh = folder / f"{name}.new.npy"
        np.lib.format.open_memmap(fresh, "w+", np.uint8, (len(people) * each, 3, SIDE, SIDE))
        fresh.rename(path)
    parts = [people[k:k + PART] for k in range(0, len(people), PART)]
    left = [part for part in parts if not (marks / str(part.start)).exists()]
    jobs = ((path, marks, part, part.start - people.start, each, device) for part in left)
    if workers == 1:
        for job in jobs:
            if time.monotonic() > until:
                return False
            _part(*job)
        return True
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        running = set()
        for job in jobs:
            if time.monotonic() > until:
                return False  # what is under way is finished first
            running.add(pool.submit(_part, *job))
            if len(running) > workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in running:
            future.result()
    return True


def _part(path: Path, marks: Path, people: range, first: int, each: int, device: str) -> None:
    """Render some people, the first of whom begins at row first * each, and leave the mark."""
    torch.set_num_threads(1)  # the processes are the parallelism
    pictures = np.load(path, mmap_mode="r+", allow_pickle=False)
    world, row = _world(device), first * each
    for i in people:
        for start in range(0, each, AT_ONCE[device]):
            some = range(start, min(start + AT_ONCE[device], each))
            made = world.render([(i, j) for j in some])["arcface"]
            pictures[row:row + len(some)] = made.numpy()
            row += len(some)
    (marks / str(people.start)).touch()


@functools.cache
def _world(device: str) -> FaceWorld:
    return FaceWorld(0, device=device)


def faces(folder: Path, name: str, each: int) -> FaceSet:
    """What `draw` made, memory-mapped: labels 0, 1, ... in order of the people."""
    pictures = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    people = len(pictures) // each
    return FaceSet({"arcface": pictures}, np.repeat(np.arange(people), each),
                   f"miniature {name} {people} x {each}")
