"""Rendered sets on disk: made once, memory-mapped ever after, outside git.

A set's folder is named by a key of everything that defines its pixels, so a stale set is never
found. Rendering holds a lock and marks every finished identity, so an interrupted run goes on where
it stopped and a second process waits for the first instead of rendering too.
"""

import json
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout

from kdlab.align import SIZES
from kdlab.cache import cache_dir, digest, locked, write_atomic
from kdlab.data.faces import FaceSet
from kdlab.progress import progress
from kdlab.world.faces import FaceWorld

FORMAT = 2
_SHARD = 16  # pictures rendered at a time; more only costs memory


def rendered(world: FaceWorld, identities: Sequence[int], per_identity: int,
             crops: Sequence[str] = ("arcface", "dlib")) -> FaceSet:
    """Images 0 .. per_identity - 1 of each identity, from the cache or rendered now.

    A world with fewer images for one group gives that many of the first. Labels are
    0 .. len(identities) - 1 in the order given; factors hold the identity and image numbers, yaw
    and pitch (radians), age (years), glasses, mask, grey (0 or 1) and the ancestry group of every
    image.   Raises ValueError on an empty request and OSError, with the mend, when the cache cannot
    be used.
    """
    identities = [int(i) for i in identities]
    if not identities or per_identity < 1 or not crops:
        raise ValueError("a rendered set needs at least one identity, one image and one crop; got "
                         f"{len(identities)} identities, {per_identity} images, {list(crops)}")
    unknown = sorted(set(crops) - set(SIZES))
    if unknown:
        raise ValueError(f"crop must be one of {', '.join(SIZES)}, not {unknown[0]!r}")
    if min(identities) < 0:
        raise ValueError(f"identities are numbers from 0 on, not {min(identities)}")
    if len(set(identities)) < len(identities):
        raise ValueError("an identity is asked for twice; two labels would mean one person")
    key = digest([FORMAT, world.key, identities, per_identity, sorted(crops)])
    folder = cache_dir("world") / key
    counts = [world.images_of(i, per_identity) for i in identities]
    shapes = {name: (sum(counts), 3, SIZES[name], SIZES[name]) for name in crops}
    if not _complete(folder):
        lock = locked(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("another process is rendering this set; waiting for it")
            lock.acquire()
        try:
            if not _complete(folder):
                for name, found, size in _damage(folder):
                    print(f"the cached set {folder} is damaged ({name} has {found} bytes of "
                          f"{size}); rendering it again")
                if (folder / "finished.json").exists():
                    shutil.rmtree(folder)
                _render(world, identities, counts, folder, shapes)
        finally:
            lock.release()
    maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in crops}
    factors = np.load(folder / "factors.npz", allow_pickle=False)
    return FaceSet(maps, np.repeat(np.arange(len(identities)), counts), key,
                   {name: factors[name] for name in factors.files})


def _complete(folder: Path) -> bool:
    """Finished, and every file as long as it was then."""
    return (folder / "finished.json").exists() and not _damage(folder)


def _damage(folder: Path) -> list[tuple[str, int, int]]:
    """Files of a finished set that are missing or cut short: name, bytes found, bytes due."""
    if not (folder / "finished.json").exists():
        return []
    sizes = json.loads((folder / "finished.json").read_text())
    found = {name: path.stat().st_size if (path := folder / name).exists() else 0
             for name in sizes}
    return [(name, found[name], size) for name, size in sizes.items() if found[name] != size]


def _render(world, identities, counts, folder: Path, shapes: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    marks = folder / "done.txt"
    maps = _resume(folder, shapes)
    if maps is None:
        marks.unlink(missing_ok=True)
        maps = {name: _open(folder / f"{name}.npy", shape) for name, shape in shapes.items()}
    done = set(marks.read_text().split("\n")[:-1]) if marks.exists() else set()
    write_atomic(marks, "".join(f"{k}\n" for k in sorted(done, key=int)))  # no half-written mark
    todo = [k for k in range(len(identities)) if str(k) not in done]
    rows = np.concatenate([[0], np.cumsum(counts)])  # where each identity starts
    writing = threading.Lock()

    def one(k: int) -> None:
        if world.head.mean.device.type == "cpu":
            torch.set_num_threads(1)  # of this worker: the workers are the parallelism
        for start in range(0, counts[k], _SHARD):
            some = range(start, min(start + _SHARD, counts[k]))
            out = world.render([(identities[k], j) for j in some], tuple(shapes))
            for name, pixels in maps.items():
                first = rows[k] + start
                pixels[first:first + len(some)] = out[name].numpy()
        with writing, open(marks, "a") as file:
            for pixels in maps.values():
                pixels.flush()
            file.write(f"{k}\n")

    threads = torch.get_num_threads()
    workers = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        futures = [workers.submit(one, k) for k in todo]
        for future in progress(futures, f"rendering {len(todo)} x {max(counts)} faces"):
            future.result()
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting is also that of threads made later
    np.savez(folder / "factors.npz", **_factors(world, identities, counts))
    names = [f"{name}.npy" for name in shapes] + ["factors.npz"]
    sizes = {name: (folder / name).stat().st_size for name in names}
    write_atomic(folder / "finished.json", json.dumps(sizes))


def _resume(folder: Path, shapes: dict) -> dict[str, np.ndarray] | None:
    """The files of an interrupted run, or None where one is missing or cut short."""
    maps = {}
    for name, shape in shapes.items():
        try:
            maps[name] = np.load(folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False)
        except (OSError, ValueError):
            return None
        if maps[name].shape != shape:
            return None
    return maps


def _open(path: Path, shape: tuple) -> np.ndarray:
    """A memory map of uint8; the disk is asked for all of it first, so that it cannot fill later
    (a write to a full disk through a memory map kills the process)."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                path.unlink()
                raise OSError(f"{path}: {error.strerror}; free {np.prod(shape) / 1e6:.0f} MB or "
                              "point KDLAB_CACHE at another disk") from error
    return array


def _factors(world, identities, counts) -> dict[str, np.ndarray]:
    pairs = [(i, j) for i, count in zip(identities, counts, strict=True) for j in range(count)]
    names = ("yaw", "pitch", "age", "glasses", "mask", "grey")
    images = (world.image(i, j) for i, j in pairs)  # one at a time: a big set's fill gigabytes
    table = np.array([[image[name] for name in names] for image in images], np.float32)
    known = {"identity": np.array([i for i, _ in pairs]), "image": np.array([j for _, j in pairs]),
             "group": np.array([world.identity(i)["group"] for i, _ in pairs])}
    return known | dict(zip(names, table.T, strict=True))
