"""How fast faces are rendered: pictures a second, and where the time of one picture goes.

    python benchmarks/world.py                 # about half a minute on two cores
    python benchmarks/world.py --device cuda --json world.json

Pictures a second are counted twice: by the clock on the wall, and (one core only) by the time the
processor gave this process, which other work on the machine does not lengthen. The two forms of the
z-buffer, compiled loops and plain torch, are timed on the same heads.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from kdlab.world import FaceWorld, render
from kdlab.world.raster import rasterise, rasterise_torch

CROPS = ("arcface",)
BATCH = 16  # pictures of one identity at a time, as kdlab.world.rendered makes them
STAGES = ("pose", "illuminate", "aged", "backdrop", "shade", "overlay", "develop", "align")


def pictures(world: FaceWorld, identity: int) -> None:
    if world.head.mean.device.type == "cpu":
        torch.set_num_threads(1)
    world.render([(identity, j) for j in range(BATCH)], CROPS)


def throughput(world: FaceWorld, identities: int) -> dict[str, float]:
    """Pictures a second on one core and on all (or on a GPU), 16 of each identity."""
    pictures(world, 0)  # warm: the first call also compiles
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(1, identities + 1):
        pictures(world, i)
    seconds = {"by the wall clock": time.perf_counter() - wall}
    if world.head.mean.device.type == "cpu":
        seconds = {"one core, by the wall clock": seconds["by the wall clock"],
                   "one core, by processor time": time.process_time() - cpu}
        with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
            wall = time.perf_counter()
            list(workers.map(lambda i: pictures(world, i),
                             range(identities + 1, 2 * identities + 1)))
            seconds[f"{os.cpu_count()} cores, by the wall clock"] = time.perf_counter() - wall
    return {name: round(identities * BATCH / s, 2) for name, s in seconds.items()}


@torch.no_grad()
def stages(world: FaceWorld, identities: int) -> dict[str, float]:
    """Processor milliseconds a picture by stage, on one core: the steps of `photograph`."""
    torch.set_num_threads(1)
    total = dict.fromkeys((*STAGES, "person (once an identity)"), 0.0)

    def timed(name, function):
        def wrapped(*arguments):
            start = time.process_time()
            out = function(*arguments)
            total[name] += time.process_time() - start
            return out
        return wrapped

    with ExitStack() as stack:
        for name in STAGES:
            stack.enter_context(patch.object(render, name, timed(name, getattr(render, name))))
        world.person = timed("person (once an identity)", world.person)
        start = time.process_time()
        for i in range(100, 100 + identities):
            pictures(world, i)
        total["all else"] = time.process_time() - start - sum(total.values())
    return {name: round(1000 * s / (identities * BATCH), 3) for name, s in total.items()}


@torch.no_grad()
def z_buffers(world: FaceWorld) -> dict[str, float]:
    """Processor milliseconds a picture of both forms, on the same 16 heads."""
    torch.set_num_threads(1)
    head = world.head
    points, depth, *_ = render.pose(head, [world.person(0)] * BATCH,
                                    [world.image(0, j) for j in range(BATCH)])
    out = {}
    for name, form in (("compiled loops", rasterise), ("plain torch", rasterise_torch)):
        form(points, depth, head.faces, render.HEIGHT, render.WIDTH)
        start = time.process_time()
        for _ in range(3):
            form(points, depth, head.faces, render.HEIGHT, render.WIDTH)
        out[name] = round(1000 * (time.process_time() - start) / (3 * BATCH), 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=12, help=f"{BATCH} pictures of each")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    world = FaceWorld(0, device=args.device)
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "device": args.device,
              "torch": torch.__version__, "load_before": load,
              "pictures": args.identities * BATCH, "crops": list(CROPS),
              "pictures_per_second": throughput(world, args.identities)}
    if args.device == "cpu":
        result |= {"milliseconds_per_picture": stages(world, args.identities),
                   "z_buffer_milliseconds_per_picture": z_buffers(world)}
    print(f"{result['pictures']} pictures of 112 x 112 on {result['machine']} ({args.device}), "
          f"torch {result['torch']}; the machine's load before: {load or '?'}\n")
    for name, rate in result["pictures_per_second"].items():
        print(f"{name:<32}{rate:8.1f} pictures/s")
    for title in ("milliseconds_per_picture", "z_buffer_milliseconds_per_picture"):
        print()
        for name, cost in result.get(title, {}).items():
            print(f"{name:<32}{cost:8.2f} ms a picture")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
