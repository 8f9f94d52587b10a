"""Training speed on a GPU, in bf16 at batch 512: IR-50 as teacher, MobileFaceNet as student.

    PYTHONPATH=. python benchmarks/gpu.py           # some ten minutes; called again it goes on
    PYTHONPATH=. python benchmarks/gpu.py --toy     # through the motions on a CPU, small networks

Asks for torch, numpy, pydantic, safetensors, pillow and pyyaml beside this checkout. What is
measured, each a section of the JSON file (data/results/gpu/speed.json, --json), in this order:

ceiling    the device's matrix product in bf16, the most its arithmetic gives
train      images a second of train(), channels_last and compile off and on, and the share of the
           ceiling: a step does three times the work of going forward, two operations a MAC
tax        a KD step over an ArcFace step on as many images (benchmarks/training.py)
loop       insightface's loop over ours, same memory format (benchmarks/insightface_loop.py); the
           target is 1.3
render     pictures of the face world a second, one process
neighbours TwoNN's two nearest neighbours of 58,000 x 512 points, GPU and CPU

A finished section is written at once; one that fails says so and the next begins. After --minutes
no section begins; the same call does what is left. Exit: 0 all done, 1 something failed or is left,
2 no GPU.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from alternate import Steps, machine
from setting import METHODS, D, Setting
from torch import nn
from training import loop, show_loop, show_tax, tax

from kdlab import home
from kdlab.cache import write_atomic

SIZES = {  # what a GPU is given, and what --toy gives a CPU
    "gpu": {"device": "cuda", "networks": {"teacher": "iresnet50", "student": "mobilefacenet"},
            "batch": 512, "product": 8192, "warm": 10, "steps": 40, "points": 58_000,
            "pictures": (16, 50), "compile": (False, True),
            "turns": {"pairs": 8, "steps": 12, "warm": 3}},
    "toy": {"device": "cpu", "networks": {"student": "ir_student"},
            "batch": 16, "product": 128, "warm": 1, "steps": 1, "points": 300,
            "pictures": (2,), "compile": (False,),
            "turns": {"pairs": 1, "steps": 1, "warm": 1}}}
FORMATS = {"NCHW": False, "channels_last": True}


def macs(network: nn.Module, size: int) -> int:
    """Multiply-adds of convolutions and linear layers for one picture of size x size."""
    total = 0

    def count(layer, given, made):
        nonlocal total
        each = layer.weight[0].numel()  # for one output number: inputs of its group x kernel
        total += each * made[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules()
             if isinstance(layer, nn.Conv2d | nn.Linear)]
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size, device=device))
    for hook in hooks:
        hook.remove()
    return total


def ceiling(sizes: dict) -> dict:
    """Operations a second of a square bf16 matrix product on random numbers: median of ten."""
    n, device = sizes["product"], sizes["device"]
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        wait(device)
        mark = time.perf_counter()
        a @ b
        wait(device)
        times.append(time.perf_counter() - mark)
    return {"side": n, "operations_per_second": 2 * n**3 / statistics.median(times[3:])}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def speed(sizes: dict, role: str, layout: str, compiled: bool, most: float) -> dict:
    """One run of train(): images a second, share of the ceiling `most`, memory."""
    with tempfile.TemporaryDirectory() as folder:
        setting = chosen(sizes, role, folder, channels_last=FORMATS[layout], compile=compiled)
        student = setting.student().to(sizes["device"])
        work = 6 * macs(student, setting.size)  # operations of a training step on one picture
        if sizes["device"] == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps = Steps(setting.batches(), sizes["warm"] + sizes["steps"])
        mark = time.perf_counter()
        history = setting.trained(student, steps)
        rate = setting.batch / steps.seconds(sizes["warm"])[0]
        return {"images_per_second": rate, "share_of_ceiling": rate * work / most,
                "macs": work // 6, "memory_mb": float(history.columns["memory_mb"][-1]),
                "first_steps_seconds": steps.wall[sizes["warm"]] - mark}


def chosen(sizes: dict, role: str, folder: str, **config) -> Setting:
    return Setting(folder, sizes["networks"][role], sizes["batch"], 8 * sizes["batch"],
                   device=sizes["device"], precision="bf16", **config)


def taxes(sizes: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        setting = chosen(sizes, "student", folder, channels_last=True)
        found = tax(setting, [*METHODS], sizes["turns"])
    show_tax(found)
    return found


def loops(sizes: dict, role: str, layout: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        found = loop(chosen(sizes, role, folder, channels_last=FORMATS[layout]), sizes["turns"])
    show_loop(found)
    return found


def render(sizes: dict) -> dict:
    """Pictures a second for each number of them rendered at once, one person's."""
    from kdlab.world.faces import FaceWorld

    world, found = FaceWorld(0, device=sizes["device"]), {}
    for count in sizes["pictures"]:
        world.render([(0, j) for j in range(count)])  # warm
        mark, people = time.perf_counter(), range(1, 5 if sizes["device"] == "cuda" else 2)
        for i in people:
            world.render([(i, j) for j in range(count)])
        found[f"pictures_per_second_{count}_at_once"] = (
            len(people) * count / (time.perf_counter() - mark))
    return found


def neighbours(sizes: dict) -> dict:
    """Seconds of the two nearest neighbours of all points on GPU and CPU; are they the same?"""
    from kdlab.cloud import Cloud
    from kdlab.neighbours import nearest

    torch.manual_seed(0)
    x = torch.tanh(torch.randn(sizes["points"], 16) @ torch.randn(16, D) / 4)  # as two_nn.py
    found, answers = {"points": len(x)}, {}
    for device in dict.fromkeys((sizes["device"], "cpu")):
        points = x.to(device)
        try:
            nearest(Cloud(points[:100], normalize=True), 2)  # warm
            mark = time.perf_counter()
            answers[device] = nearest(Cloud(points, normalize=True), 2)
        except ModuleNotFoundError as error:  # the CPU's loops are compiled by numba
            found[f"{device}_not_run"] = str(error)
            continue
        found[f"{device}_seconds"] = time.perf_counter() - mark
    if len(answers) == 2:
        one, other = answers.values()
        found["ratio"] = found["cpu_seconds"] / found[f"{sizes['device']}_seconds"]
        found["same_neighbours"] = float((one.indices == other.indices).mean())
    return found


def sections(sizes: dict, known: dict) -> dict[str, Callable[[], dict]]:
    """Name -> what measures it; the names of `train` and `loop` say network and switches."""
    def most() -> float:
        return known["ceiling"]["operations_per_second"]

    plan = {"ceiling": lambda: ceiling(sizes)}
    for compiled, role, layout in product(sizes["compile"], sizes["networks"], FORMATS):
        name = f"train {sizes['networks'][role]} {layout}" + (" compiled" if compiled else "")
        plan[name] = (lambda role=role, layout=layout, compiled=compiled:
                      speed(sizes, role, layout, compiled, most()))
    rest = {"tax": lambda: taxes(sizes)}
    for role, layout in product(sizes["networks"], FORMATS):
        rest[f"loop {sizes['networks'][role]} {layout}"] = (
            lambda role=role, layout=layout: loops(sizes, role, layout))
    rest |= {"render": lambda: render(sizes), "neighbours": lambda: neighbours(sizes)}
    slow = {name: plan.pop(name) for name in [*plan] if name.endswith("compiled")}
    return plan | rest | slow  # compiling takes the longest and may be what time ends in


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="small, on the CPU: does it run?")
    parser.add_argument("--minutes", type=float, default=8, help="after these nothing begins")
    parser.add_argument("--json", type=Path, help="the file of results, which is gone on with; "
                        "default: data/results/gpu/speed.json, with --toy none")
    args = parser.parse_args(argv)
    if not args.toy and not torch.cuda.is_available():
        print("gpu.py: torch finds no GPU here, so nothing was run; --toy goes through the motions "
              "on the CPU", file=sys.stderr)
        return 2
    sizes, start = SIZES["toy" if args.toy else "gpu"], time.perf_counter()
    path = args.json or (None if args.toy else home() / "data/results/gpu/speed.json")
    known = json.loads(path.read_text()) if path and path.exists() else {}
    known["where"] = machine(sizes["device"]) | {"networks": sizes["networks"],
                                                 "batch": sizes["batch"], "precision": "bf16"}
    plan = sections(sizes, known)
    for name, measure in plan.items():
        if name in known and "failed" not in known[name]:
            continue
        if time.perf_counter() - start > 60 * args.minutes:
            break
        mark = time.perf_counter()
        try:
            known[name] = measure()
        except Exception as error:  # a GPU's time is dear: the other sections still count
            known[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        known[name]["took_seconds"] = time.perf_counter() - mark
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else
                                      f"{key} {value}" for key, value in known[name].items()
                                      if not isinstance(value, list | dict)), flush=True)
        if path:
            write_atomic(path, json.dumps(known, indent=1) + "\n")
    left = [name for name in plan if name not in known or "failed" in known[name]]
    if left:
        print(f"not done: {', '.join(left)}; the same call does what is left", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
