"""What does a .rec of faces load at, in Python alone, beside plain JPEG files of the same pictures?

    python benchmarks/recordio.py            # half a minute

Rendered 112 x 112 pictures in random order, by one process and by two, one thread each: the packed
files a second (read, not decoded), and the pictures a second as uint8 tensors. The data lie in the
page cache, as in every epoch but the first. Rounds of the two forms alternate; the middle one of
each counts, and its ratio.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdlab.data.folder import ImageFolder
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.records import HEADER, MAGIC
from kdlab.world import FaceWorld, rendered

BATCH, QUALITY = 128, 95  # 95: the quality face data sets are commonly stored at
FORMS = ("recordio", "files")


def write(folder: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    """The same JPEG files in folder/files/IDENTITY/ and, without a directory, folder/train.rec."""
    with open(folder / "train.rec", "wb") as rec, open(folder / "train.idx", "w") as idx:
        for k, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
            out = io.BytesIO()
            Image.fromarray(picture.transpose(1, 2, 0)).save(out, "JPEG", quality=QUALITY)
            home = folder / "files" / f"{label:04d}"
            home.mkdir(parents=True, exist_ok=True)
            (home / f"{k:06d}.jpg").write_bytes(out.getvalue())
            record = HEADER.pack(0, label, k, 0) + out.getvalue()
            if MAGIC in record:  # it might have to be cut; one of some 700,000
                raise SystemExit("a picture holds the magic word; render others")
            idx.write(f"{k}\t{rec.tell()}\n")
            rec.write(MAGIC + struct.pack("<I", len(record)) + record + bytes(-len(record) % 4))


def timed(form: str, folder: str, decoded: bool, batches: int, start, seed: int) -> float:
    """Seconds one process takes for so many random batches, from when all are ready."""
    torch.set_num_threads(1)
    faces = (RecordIOFaces(folder, workers=1) if form == "recordio"
             else ImageFolder(Path(folder, "files"), workers=1))

    def raw(rows: np.ndarray) -> None:
        for row in rows.tolist():
            faces.picture(row) if form == "recordio" else faces.name(row).read_bytes()

    def pictures(rows: np.ndarray) -> None:
        faces.read("arcface", 112, rows)

    load, rng = pictures if decoded else raw, np.random.default_rng(seed)
    load(np.arange(len(faces)))  # into the page cache
    start.wait()
    begun = time.perf_counter()
    for _ in range(batches):
        load(rng.integers(len(faces), size=BATCH))
    return time.perf_counter() - begun


def rate(pool, barriers, workers: int, **what) -> float:
    """Pictures a second of all processes together."""
    start = barriers.Barrier(workers)
    jobs = [pool.apply_async(timed, kwds=what | {"start": start, "seed": k})
            for k in range(workers)]
    return BATCH * what["batches"] * sum(1 / job.get() for job in jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=60)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faces = rendered(FaceWorld(0), range(args.identities), 16, ("arcface",))
    spawn = multiprocessing.get_context("spawn")  # as a training's readers start
    result = {"pictures": len(faces), "jpeg_quality": QUALITY, "batch": BATCH,
              "cores": os.cpu_count(), "rounds": args.rounds, "workers": {}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KDLAB_CACHE"] = f"{folder}/cache"  # of the index; taken away with the rest
        write(Path(folder), faces.crops["arcface"], faces.labels)
        with spawn.Pool(2) as pool, spawn.Manager() as barriers:
            for workers in (1, 2):
                seen: dict[str, list[float]] = {}
                for _ in range(args.rounds):
                    for kind in ("records", "images"):
                        for form in FORMS:
                            batches = args.batches * (10 if kind == "records" else 1)
                            seen.setdefault(f"{form} {kind}", []).append(rate(
                                pool, barriers, workers, form=form, folder=folder,
                                decoded=kind == "images", batches=batches))
                middle = {name: statistics.median(values) for name, values in seen.items()}
                for kind in ("records", "images"):
                    middle[f"ratio {kind}"] = statistics.median(
                        a / b for a, b in zip(*(seen[f"{form} {kind}"] for form in FORMS),
                                              strict=True))
                result["workers"][workers] = middle
    for workers, found in result["workers"].items():
        for kind in ("records", "images"):
            own, plain = (found[f"{form} {kind}"] for form in FORMS)
            print(f"{workers} process{'es' * (workers > 1):<3}{kind:<9}{own:10.0f}/s from the .rec"
                  f"{plain:10.0f}/s from files{found[f'ratio {kind}']:8.2f} times as many")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
