"""How fast faces are rendered: pictures a second, and where the time of one picture goes.

    python benchmarks/world.py                 # about half a minute on two cores
    python benchmarks/world.py --json world.json

Pictures a second are counted twice: by the clock on the wall, and (one core only) by the time the
processor gave this process, which other work on the machine does not lengthen.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from kdlab.align import align
from kdlab.world import FaceWorld, render
from kdlab.world.identity import generator

CROPS = ("arcface",)
BATCH = 16  # pictures of one identity at a time, as kdlab.world.rendered makes them


def picture(world: FaceWorld, identity: int) -> None:
    torch.set_num_threads(1)
    world.render([(identity, j) for j in range(BATCH)], CROPS)


def throughput(world: FaceWorld, identities: int) -> dict[str, float]:
    """Pictures a second on one core and on all, 16 of each identity."""
    picture(world, 0)  # warm: the first call also allocates
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(identities):
        picture(world, i)
    one = {"one core, by the wall clock": time.perf_counter() - wall,
           "one core, by processor time": time.process_time() - cpu}
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        wall = time.perf_counter()
        list(workers.map(lambda i: picture(world, i), range(identities)))
        one[f"{os.cpu_count()} cores, by the wall clock"] = time.perf_counter() - wall
    return {name: round(identities * BATCH / seconds, 2) for name, seconds in one.items()}


@torch.no_grad()
def stages(world: FaceWorld, identities: int) -> dict[str, float]:
    """Processor milliseconds a picture, by stage, on one core (the steps of `photograph`)."""
    torch.set_num_threads(1)
    total: dict[str, float] = {}

    def timed(name, function, *arguments):
        start = time.process_time()
        out = function(*arguments)
        total[name] = total.get(name, 0) + time.process_time() - start
        return out

    head = world.head
    for i in range(identities):
        shape, atlas = timed("person (once an identity)", world.person, i)
        images = [world.image(i, j) for j in range(BATCH)]
        rngs = [generator(world.seed, i, j, 3) for j in range(BATCH)]
        shapes, atlases = shape.expand(BATCH, -1, -1), atlas.expand(BATCH, -1, -1, -1)
        points, depth, turned, marks = timed("pose", render.pose, head, shapes, images)
        lights = timed("illuminate", render.illuminate, head, turned, images)
        timed("rasterise", render.rasterise, points, depth, head.faces, render.HEIGHT, render.WIDTH)
        colour, cover = timed("shade", render.shade, head, points, depth, lights, atlases, images)
        behind = timed("backdrop", render.backdrop, images, rngs, colour.device)
        colour = torch.where(cover > 0, colour, behind)
        photo = timed("develop", render.develop, colour, cover, images, rngs)
        for crop in CROPS:
            timed(f"align {crop}", align, photo, marks, crop)
    total["shade"] -= total["rasterise"]  # shade rasterises too
    return {name: round(1000 * s / (identities * BATCH), 3) for name, s in total.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=12, help=f"{BATCH} pictures of each")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    world = FaceWorld(0)
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores",
              "torch": torch.__version__, "load_before": load,
              "pictures": args.identities * BATCH, "crops": list(CROPS),
              "pictures_per_second": throughput(world, args.identities),
              "milliseconds_per_picture": stages(world, args.identities)}
    print(f"{result['pictures']} pictures of 112 x 112 on {result['machine']}, torch "
          f"{result['torch']}; the machine's load before: {load if load is not None else '?'}\n")
    for name, rate in result["pictures_per_second"].items():
        print(f"{name:<32}{rate:8.1f} pictures/s")
    print()
    for name, cost in result["milliseconds_per_picture"].items():
        print(f"{name:<32}{cost:8.2f} ms a picture")
    print(f"{'sum':<32}{sum(result['milliseconds_per_picture'].values()):8.2f} ms a picture")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
