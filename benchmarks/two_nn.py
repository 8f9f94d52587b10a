"""The TwoNN protocol, 20 draws of 90 % of the points: kdlab against scikit-dimension run 20 times.

    python benchmarks/two_nn.py                          # 58,000 x 512: some minutes on two cores
    python benchmarks/two_nn.py --small                  # a quick try
    python benchmarks/two_nn.py --device cuda --json two_nn.json

Every case is a process of its own on all cores, timed by the clock without imports, compiling and
making the points; memory is the process's peak, all included. scikit-dimension (method "linear",
its default) is run once at each of --peer sizes: at the protocol's size 20 runs would take an hour
or more, so its time there is extrapolated, by the power law fitted to the measured ones and from
the largest of them, and printed as such. That both find the same is seen draw by draw at --equal
points.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

COLUMNS = 512  # of an embedding: iresnet's and MobileFaceNet's
REPEATS, FRACTION = 20, 0.9  # the protocol of ReFO's supplement
FACTORS = 16  # dimension of what the points are made of: ours, about that of face embeddings


def points(n: int) -> np.ndarray:
    """(n, 512) float32 on a curved surface of 16 dimensions, as a network makes them."""
    random = np.random.default_rng(0)
    turn = random.standard_normal((FACTORS, COLUMNS), np.float32) / np.float32(FACTORS**0.5)
    return np.tanh(random.standard_normal((n, FACTORS), np.float32) @ turn)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1, in float64: what scikit-dimension is given."""
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def on(device: str, x: np.ndarray):
    """The array, or a tensor on a GPU."""
    if device == "cpu":
        return x
    import torch

    return torch.from_numpy(x).to(device)


def peer(x: np.ndarray) -> float:
    """scikit-dimension's estimate of normalized points."""
    from skdim.id import TwoNN

    with np.errstate(divide="ignore"):  # the ratio that it leaves out of the line has F = 1
        return float(TwoNN().fit(x).dimension_)


def case(kind: str, n: int, device: str) -> dict[str, float]:
    """One kind of run, "protocol", "once" or "peer", in this process: seconds, peak bytes, mean."""
    import resource

    def run(x) -> float:
        if kind == "peer":
            return peer(x)
        # Not above: Linux begins a child's peak at its parent's size, and that is to stay small.
        from kdlab.dimension import two_nn, two_nn_repeated

        if kind == "once":
            return two_nn(x, normalize=True).dimension
        return two_nn_repeated(x, REPEATS, FRACTION).mean

    def given(n: int):
        return unit(points(n)) if kind == "peer" else on(device, points(n))

    run(given(300))  # loops compiled, libraries loaded, threads started
    x = given(n)
    start, cpu = time.perf_counter(), time.process_time()
    mean = run(x)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"n": n, "seconds": seconds, "processor_seconds": cpu, "dimension": mean,
             "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024)}
    if device != "cpu" and kind != "peer":
        import torch

        found["gpu_peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def equal(n: int, device: str) -> dict[str, float]:
    """The largest relative difference of a draw's two estimates, at n points."""
    from kdlab.dimension import draws, two_nn_repeated

    x = points(n)
    ours = two_nn_repeated(on(device, x), REPEATS, FRACTION)
    theirs = np.array([peer(unit(x)[rows]) for rows in draws(n, REPEATS, FRACTION)])
    return {"n": n, "largest_difference": float(abs(ours.values / theirs - 1).max())}


def growth(sizes: list[int], seconds: list[float]) -> float:
    """p of seconds ~ n^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def apart(*arguments) -> dict:
    """A case in a process of its own."""
    child = subprocess.run([sys.executable, __file__, "--case", json.dumps(arguments)],
                           check=True, stdout=subprocess.PIPE, text=True,
                           env={**os.environ, "KDLAB_HEADLESS": "1"})
    return json.loads(child.stdout)


def compare(n: int, sizes: list[int], same: int, device: str) -> dict:
    """All cases and their ratios; says each as it is done."""
    def line(name: str, found: dict, note: str = "") -> None:
        gpu = found.get("gpu_peak_bytes")
        print(f"{name:<28}{found['n']:>8}{found['seconds']:>11.2f} s"
              f"{found['peak_bytes'] / 1e6:>8.0f} MB"
              + (f" + {gpu / 1e6:.0f} MB on the GPU" if gpu else "") + note, flush=True)

    drawn = round(FRACTION * n)
    protocol, once = apart("protocol", n, device), apart("once", drawn, device)
    line(f"kdlab, {REPEATS} draws", protocol)
    line("kdlab, one fit of a draw", once)
    peers = []
    for size in sizes:
        peers.append(apart("peer", size, "cpu"))
        line("scikit-dimension, one fit", peers[-1])
    power = growth(sizes, [found["seconds"] for found in peers])
    single = peers[-1]["seconds"] * (drawn / sizes[-1]) ** power
    print(f"{'':<28}{drawn:>8}{single:>11.0f} s  EXTRAPOLATED as n^{power:.2f} from "
          f"{sizes[-1]} points")
    found = {"protocol": protocol, "once": once, "peer": peers, "peer_power": power,
             "peer_seconds_extrapolated": single,
             "ratio_to_peer": REPEATS * single / protocol["seconds"],
             "ratio_to_one_fit": protocol["seconds"] / once["seconds"],
             "equal": apart("equal", same, device)}
    print(f"\n{REPEATS} runs of scikit-dimension (extrapolated) / kdlab: "
          f"{found['ratio_to_peer']:.0f}\nkdlab, {REPEATS} draws / one fit: "
          f"{found['ratio_to_one_fit']:.2f}\nlargest relative difference of a draw, {same} points: "
          f"{found['equal']['largest_difference']:.0e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=58_000, help="1 %% of MS1MV2, as in ReFO")
    parser.add_argument("--peer", type=int, nargs="+", default=[2500, 5000, 10_000, 20_000],
                        help="points of scikit-dimension's runs, two sizes at least")
    parser.add_argument("--equal", type=int, default=4000, help="points to compare draws at")
    parser.add_argument("--device", default="cpu", help="of kdlab; the other knows only the CPU")
    parser.add_argument("--small", action="store_true", help="4000 points; ratios mean little")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        kind, *rest = json.loads(args.case)
        print(json.dumps(equal(*rest) if kind == "equal" else case(kind, *rest)))
        return
    if args.small:
        args.points, args.peer, args.equal = 4000, [500, 1000, 2000], 500
    if len(set(args.peer)) < 2:
        parser.error("--peer needs two sizes, or no growth can be seen")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{args.points} x {COLUMNS}, {REPEATS} draws of {FRACTION:.0%}, on {machine} "
          f"({args.device}); the machine's load before: {load or '?'}\n")
    result = {"machine": machine, "device": args.device, "load_before": load,
              "columns": COLUMNS, "repeats": REPEATS, "fraction": FRACTION,
              **compare(args.points, sorted(set(args.peer)), args.equal, args.device)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
