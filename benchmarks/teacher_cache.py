"""What does a batch of 512 cost: looked up in the teacher cache, or asked of the teacher?

    python benchmarks/teacher_cache.py                     # a minute on 2 cores, 0.4 GB of disk
    python benchmarks/teacher_cache.py --rows 5822653      # MS1MV2's size: 24 GB, then 12 GB
    python benchmarks/teacher_cache.py --teacher iresnet50 --rows 2000000      # on a GPU box

Lookups of rows drawn at random, as an epoch does, or the same rows sorted; from a file in memory,
and from one whose pages were just dropped, where the disk answers; there also by plain indexing of
the memory map. Then filling: pictures a second (each with its mirror) by one process and by two,
one thread each. The network is untrained, the pictures are noise: no time depends on either.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from kdlab.data import FaceSet, embeddings
from kdlab.data.blocks import Blocks
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.models import MODELS
from kdlab.teachers import Teacher

BATCH, D, LOOKUPS = 512, 512, 40
BLOCK = 128  # pictures a block while filling is timed: enough blocks for two processes to share


def make_teacher(name: str, device: str) -> Teacher:
    """An untrained network as a teacher."""
    torch.manual_seed(0)
    network = MODELS[name](embedding_size=D)
    contract = {"crop": "arcface", "size": network.input_size, "mean": [127.5] * 3,
                "divide": 127.5, "embedding_size": D}
    return Teacher(network, contract, "0" * 64, torch.zeros(D)).to(device)


def noise(count: int, size: int) -> FaceSet:
    """Pictures nobody has to render."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
    return FaceSet({"arcface": images}, np.arange(count), "noise")


def write(folder: Path, dtype: str, rows: int) -> None:
    """A cache of so many rows, real bytes on the disk: the same random block over and over."""
    identity = {"format": embeddings.FORMAT, "teacher": "0" * 64, "faces": "noise", "contract": {},
                "dtype": dtype, "block": 8192, "shape": [rows, 2, D]}
    block = np.random.default_rng(0).standard_normal((8192, 2, D), np.float32).astype(dtype)
    blocks = Blocks(folder, identity, embeddings.NAME)
    folder.mkdir()
    blocks.prepare()
    for _ in blocks.fill(lambda start, stop: block[:stop - start]):
        pass


def lookup(folder: Path, place: str, order: str) -> dict[str, float]:
    """Milliseconds a batch: the first, the median, the longest.

    place: "in memory", "from disk" or "plain, from disk", without asking for all rows at once.
    """
    with open(folder / "embeddings.npy", "rb") as file:
        if place == "in memory":
            while file.read(1 << 24):
                pass
        else:  # only pages that nobody has mapped are dropped: nothing else has the file open
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cache, rng, times = EmbeddingCache(folder), np.random.default_rng(1), []
    for _ in range(LOOKUPS):
        rows, mirror = rng.integers(len(cache), size=BATCH), rng.integers(2, size=BATCH)
        rows = np.sort(rows) if order == "sorted" else rows
        index, flipped = torch.from_numpy(rows), torch.from_numpy(mirror == 1)
        start = time.perf_counter()
        if place.startswith("plain"):
            torch.from_numpy(cache.array[rows, mirror].astype(np.float32))
        else:
            cache(index, flipped)
        times.append(1e3 * (time.perf_counter() - start))
    return {"first_ms": times[0], "median_ms": float(np.median(times)), "longest_ms": max(times)}


def asked(teacher: Teacher) -> float:
    """Milliseconds in which the teacher answers a batch: the median of three, after one."""
    images = noise(BATCH, teacher.contract["size"]).pixels("arcface")
    images, times = images.to(teacher.mean.device), []
    for _ in range(4):
        start = time.perf_counter()
        teacher(images).embedding.cpu()  # the copy waits for a GPU
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[1:]))


def share(folder: str, name: str, device: str, count: int, ready) -> None:
    """One process of those that fill a cache; `ready` lets all begin at once."""
    os.environ |= {"KDLAB_CACHE": folder, "KDLAB_HEADLESS": "1"}
    torch.set_num_threads(1)
    embeddings.BLOCK = BLOCK
    teacher = make_teacher(name, device)
    faces = noise(count, teacher.contract["size"])
    teacher(faces.read("arcface", teacher.contract["size"], range(2)).to(device))
    ready.wait()
    embed_set(teacher, faces)
    ready.wait()


def filling(name: str, device: str, count: int, processes: int) -> float:
    """Pictures a second, both mirrors of each, by so many processes together."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(processes + 1)
    with tempfile.TemporaryDirectory() as folder:
        running = [spawn.Process(target=share, args=(folder, name, device, count, ready))
                   for _ in range(processes)]
        for process in running:
            process.start()
        ready.wait(300)
        start = time.perf_counter()
        ready.wait(3600)
        seconds = time.perf_counter() - start
        for process in running:
            process.join()
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="ir_teacher", choices=sorted(MODELS))
    parser.add_argument("--rows", type=int, default=100_000, help="of the caches looked up")
    parser.add_argument("--pictures", type=int, default=768, help="while filling is timed")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {"teacher": args.teacher, "device": device, "rows": args.rows, "batch": BATCH,
              "dimensions": D, "teacher_ms": asked(make_teacher(args.teacher, device)),
              "lookup": {}}
    print(f"{args.teacher} on {device}: {result['teacher_ms']:.1f} ms for a batch of {BATCH}")
    places = ("in memory", "from disk", "plain, from disk") if hasattr(
        os, "posix_fadvise") else ("in memory",)  # nothing else drops one file's pages
    for dtype in ("float32", "float16"):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / dtype
            write(folder, dtype, args.rows)
            size = (folder / "embeddings.npy").stat().st_size
            print(f"{dtype}, {size / 1e9:.2f} GB         first    median   longest (ms)")
            for place, order in itertools.product(places, ("random", "sorted")):
                found = lookup(folder, place, order)
                found["teacher_over_lookup"] = result["teacher_ms"] / found["median_ms"]
                result["lookup"][f"{dtype}, {place}, {order}"] = found
                times = "".join(f"{found[key]:10.2f}" for key in
                                ("first_ms", "median_ms", "longest_ms"))
                print(f"  {place + ', ' + order:<24}{times}   the teacher takes "
                      f"{found['teacher_over_lookup']:.0f} times as long")
    rates = {n: filling(args.teacher, device, args.pictures, n) for n in (1, 2)}
    result["filling_pictures_per_second"] = rates
    print(f"filling: {rates[1]:.0f} pictures/s by one process, {rates[2]:.0f} by two: "
          f"{rates[2] / rates[1]:.2f} times as fast on {os.cpu_count()} cores")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
