"""Which way of keeping pictures on disk loads faster in training: JPEG files or a memory map?

    python benchmarks/loading.py            # a quarter of a minute

Random batches of 112 x 112 pictures as uint8 tensors, one thread, the file in the page cache (its
state in every epoch but the first); and how much disk each form takes.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdlab.world import FaceWorld, rendered

BATCH, QUALITY = 128, 95  # 95: the quality face data sets are commonly stored at


def rate(load, count: int, batches: int) -> float:
    """Pictures a second over random batches."""
    rng = np.random.default_rng(0)
    load(np.sort(rng.integers(count, size=BATCH)))
    start = time.perf_counter()
    for _ in range(batches):
        load(np.sort(rng.integers(count, size=BATCH)))
    return BATCH * batches / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faces = rendered(FaceWorld(0), range(60), 16, ("arcface",))
    pictures = faces.crops["arcface"]
    with tempfile.TemporaryDirectory() as folder:
        for k, picture in enumerate(pictures):
            Image.fromarray(picture.transpose(1, 2, 0)).save(
                f"{folder}/{k}.jpg", quality=QUALITY)

        def jpeg(rows: np.ndarray) -> torch.Tensor:
            found = []
            for k in rows:
                image = Image.open(io.BytesIO(Path(folder, f"{k}.jpg").read_bytes()))
                found.append(np.asarray(image).transpose(2, 0, 1))
            return torch.from_numpy(np.stack(found))

        def mapped(rows: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(pictures[rows])

        result = {
            "pictures": len(pictures), "jpeg_quality": QUALITY,
            "bytes_a_picture": {"jpeg": sum(p.stat().st_size for p in Path(folder).iterdir())
                                / len(pictures), "memory map": pictures[0].nbytes},
            "pictures_per_second": {"jpeg": rate(jpeg, len(pictures), args.batches),
                                    "memory map": rate(mapped, len(pictures), args.batches)}}
    for name, value in result["pictures_per_second"].items():
        print(f"{name:<12}{value:10.0f} pictures/s{result['bytes_a_picture'][name]:10.0f} bytes")
    ratio = result["pictures_per_second"]
    print(f"the memory map loads {ratio['memory map'] / ratio['jpeg']:.0f} times as fast")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
