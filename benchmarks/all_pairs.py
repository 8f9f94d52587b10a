"""All against all at MFR's rates: kdlab in tiles, counted twice, against the whole matrix at once.

    python benchmarks/all_pairs.py                       # some minutes on two cores, 4 GB
    python benchmarks/all_pairs.py --small               # a quick try
    python benchmarks/all_pairs.py --sizes 50000 100000 200000 --plain 20000 --json all_pairs.json

The plain way: one product of all rows with all, the two kinds of pairs picked by masks, and a
partition for every rate. Every case is a process of its own, timed by the clock (and by processor
time, which other work does not lengthen) without imports, compiling and making the embeddings;
memory is the process's peak, all included. Time and memory at --target pictures, where it is not
among --sizes, are extrapolated from the measured ones (time by a straight line in the number of
pairs, memory by one in that of pictures) and printed as such. At the plain way's size both must
find the same rates.
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
EACH = 7  # pictures of a person, about MR-All's 1,624,305 of 242,143
SPREAD = 2.0  # of a person's pictures about their middle, ours: TAR is then neither 0 nor 1
FPRS = (1e-4, 1e-6)  # MFR's


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 512) float32 embeddings and (n,) labels."""
    random = np.random.default_rng(0)
    labels = np.arange(n) // EACH
    x = random.standard_normal((labels[-1] + 1, COLUMNS), np.float32)[labels]
    for part in np.array_split(np.arange(n), max(n // 4096, 1)):  # peaks are to be the method's
        x[part] += np.float32(SPREAD) * random.standard_normal((len(part), COLUMNS), np.float32)
    return x, labels


def plain(x: np.ndarray, labels: np.ndarray) -> dict[float, tuple[float, float]]:
    """FPR -> (TPR, FPR), from the matrix of all scores."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    score = unit @ unit.T
    upper = ~np.tri(len(x), dtype=bool)
    same = labels[:, None] == labels
    genuine, impostor = score[upper & same], score[upper & ~same]
    found = {}
    for fpr in FPRS:
        allowed = int(fpr * len(impostor))
        refused = np.partition(impostor, -1 - allowed)[-1 - allowed]
        found[fpr] = (float((genuine > refused).mean()), float((impostor > refused).mean()))
    return found


def tiles(x: np.ndarray, labels: np.ndarray) -> dict[float, tuple[float, float]]:
    """The same from kdlab."""
    # Not above: Linux begins a child's peak at its parent's size, and that is to stay small.
    from kdlab.evaluate.all_pairs import all_versus_all

    return {fpr: point[:2] for fpr, point in all_versus_all(x, labels, FPRS).points.items()}


def case(kind: str, n: int) -> dict:
    """One run of "plain" or "tiles" in this process: seconds, peak bytes, rates."""
    import resource

    run = {"plain": plain, "tiles": tiles}[kind]
    run(*pictures(300))  # loops compiled, libraries loaded, threads started
    x, labels = pictures(n)
    start, cpu = time.perf_counter(), time.process_time()
    rates = run(x, labels)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"n": n, "pairs": n * (n - 1) // 2, "seconds": seconds, "processor_seconds": cpu,
            "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
            "rates": [[fpr, *rate] for fpr, rate in rates.items()]}


def apart(*arguments) -> dict:
    """A case in a process of its own."""
    child = subprocess.run([sys.executable, __file__, "--case", json.dumps(arguments)],
                           check=True, stdout=subprocess.PIPE, text=True,
                           env={**os.environ, "KDLAB_HEADLESS": "1"})
    return json.loads(child.stdout)


def growth(found: list[dict], target: int) -> dict:
    """At target: seconds by a straight line in the pairs, bytes by one in the pictures."""
    sizes, told = np.array([one["n"] for one in found]), {"n": target}
    for key, work in (("seconds", lambda n: n * (n - 1) / 2),
                      ("processor_seconds", lambda n: n * (n - 1) / 2),
                      ("peak_bytes", lambda n: n)):
        slope, start = np.polyfit(work(sizes), [one[key] for one in found], 1)
        told[key] = float(start + slope * work(target))
    return told


def compare(sizes: list[int], matrix: int, target: int) -> dict:
    """All cases and their ratios; says each as it is done."""
    def line(name: str, found: dict, note: str = "") -> None:
        print(f"{name:<20}{found['n']:>8}{found['seconds']:>10.1f} s"
              f"{found['processor_seconds']:>10.1f} s{found['peak_bytes'] / 1e6:>10.0f} MB{note}",
              flush=True)

    print(f"{'':<20}{'pictures':>8}{'by clock':>12}{'processor':>12}{'peak memory':>13}")
    found = {"plain": apart("plain", matrix)}
    line("whole matrix", found["plain"])
    found["tiles"] = [apart("tiles", n) for n in sorted({*sizes, matrix})]
    for one in found["tiles"]:
        line("kdlab", one)
    same = next(one for one in found["tiles"] if one["n"] == matrix)
    if not np.allclose(same["rates"], found["plain"]["rates"], rtol=0, atol=1e-12):
        sys.exit(f"the two disagree: {same['rates']} and {found['plain']['rates']}")
    found["ratio"] = {key: found["plain"][key] / same[key]
                      for key in ("seconds", "processor_seconds", "peak_bytes")}
    if target not in (one["n"] for one in found["tiles"]):
        found["extrapolated"] = told = growth(found["tiles"], target)
        line("kdlab", told, "   EXTRAPOLATED, lines in the pairs and in the pictures")
    clock, processor, memory = found["ratio"].values()
    print(f"\nwhole matrix / kdlab at {matrix} pictures: time {clock:.2f} ({processor:.2f} by "
          f"processor), memory {memory:.1f}; both find "
          + ", ".join(f"TAR {tpr:.4f} at {fpr:g}" for fpr, tpr, _ in same["rates"])
          + f"\nthe scores of {target} alone would take {4 * target**2 / 1e9:.0f} GB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 40_000],
                        help="pictures of kdlab's runs; --plain's number is added")
    parser.add_argument("--plain", type=int, default=20_000, help="pictures of the matrix's run")
    parser.add_argument("--target", type=int, default=200_000, help="pictures to extrapolate to")
    parser.add_argument("--small", action="store_true", help="2000 pictures; ratios mean little")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(case(*json.loads(args.case))))
        return
    if args.small:
        args.sizes, args.plain = [1000, 2000], 2000
    if len({*args.sizes, args.plain}) < 2:
        parser.error("two sizes are needed, or no growth can be seen")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{COLUMNS} numbers a picture, {EACH} pictures a person, FPR "
          f"{' and '.join(f'{fpr:g}' for fpr in FPRS)}, on {machine}, OMP_NUM_THREADS "
          f"{os.environ.get('OMP_NUM_THREADS', 'not set')}; the machine's load before: "
          f"{load or '?'}\n")
    result = {"machine": machine, "threads": os.environ.get("OMP_NUM_THREADS"),
              "load_before": load, "columns": COLUMNS, "each": EACH, "fprs": FPRS,
              **compare(args.sizes, args.plain, args.target)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
