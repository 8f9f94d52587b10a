"""Step time and peak memory of every loss at batch 512 x 512-d, beside its plainest form.

    python benchmarks/losses.py                       # three minutes or so on two cores
    python benchmarks/losses.py --only EKD RKD --json losses.json

A step is one call and its way back to the embeddings, logits and maps (benchmarks/plain.py has the
plainest forms, formulas written down with no thought of cost). Both forms see the same batch and
state, and the benchmark stops where their values differ by more than 1e-4 of their size. Time is
the median; memory is what the step adds at its peak, read from the operating system (Linux) or
from CUDA. "ArcFace step" is the network's own step beside which a loss runs: ir_student and
ArcFace on as many images.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from plain import PLAIN

from kdlab.losses import LOSSES
from kdlab.models import MODELS
from kdlab.outputs import Output, Targets

B, D, C, G = 512, 512, 1000, 2  # rows, dimensions, class rows, groups
PEOPLE = B // 4  # classes of the logits
SECONDS = 3.0  # for each form: as many steps as fit, 3 at least


def batch(device: str) -> tuple[Output, Output, Targets, torch.nn.Module]:
    """What untrained ir_student and ir_teacher make of noise, as leaves; targets; the teacher.

    128 identities, four rows each, as EKD's balanced half.
    """
    torch.manual_seed(0)
    images = torch.randn(B, 3, 48, 48, device=device)
    student, teacher = (MODELS[name](embedding_size=D).to(device)
                        for name in ("ir_student", "ir_teacher"))
    with torch.no_grad():
        outs = [net(images) for net in (student, teacher.eval())]

    def leaves(out):
        return Output(out.embedding.requires_grad_(),
                      torch.randn(B, PEOPLE, device=device).requires_grad_(),
                      tuple(m.detach().clone().requires_grad_() for m in out.features))

    targets = Targets(torch.arange(B, device=device) // 4, torch.arange(B, device=device) % G)
    return *map(leaves, outs), targets, teacher.requires_grad_(False)


def make(teacher: torch.nn.Module, device: str) -> dict[str, torch.nn.Module]:
    """Every loss for that batch, at its defaults."""
    centres = torch.randn(C, D, device=device)
    channels = MODELS["ir_student"]().channels, teacher.channels
    arguments = {
        "ArcFace": (D, C), "CosFace": (D, C), "AdaDistill": (D, C), "ArcDistill": (centres,),
        "CosDistill": (centres,), "MarginDistillation": (centres,), "FeatureL2": channels,
        "ShrinkTeaNet": (*channels, teacher.tail), "AdversarialDebiasing": (PEOPLE, G, 1.0)}
    keywords = {"FitNet": {"channels": (channels[0][-1], channels[1][-1])},
                "MFD": {"layer": "embedding"}}  # its last maps want equal channels
    return {name: loss(*arguments.get(name, ()), **keywords.get(name, {})).to(device)
            for name, loss in LOSSES.items()}


def peak(device: str, step) -> float | None:
    """Mebibytes the step adds at its peak; None where the system does not tell."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
        before = _resident("VmRSS")
        step()
        return (_resident("VmHWM") - before) / 2**10
    except OSError:
        step()
        return None


def _resident(field: str) -> int:
    """Kibibytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(device: str, forward, leaves: list) -> dict[str, float | None]:
    """Median seconds of a step, MiB at its peak, and its value."""
    value = None

    def step() -> None:
        nonlocal value
        for leaf in leaves:
            leaf.grad = None
        total = forward()
        total.backward()
        value = total.item()  # waits for a GPU

    step()  # warm
    mebibytes, times, start = peak(device, step), [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < SECONDS and len(times) < 50:
        mark = time.perf_counter()
        step()
        times.append(time.perf_counter() - mark)
    return {"seconds": statistics.median(times), "mebibytes": mebibytes, "value": value}


def compare(name: str, loss, student, teacher, targets, device: str) -> dict:
    """The loss and its plainest form, from equal state."""
    leaves = [student.embedding, student.logits, *student.features, *loss.parameters()]
    twin = copy.deepcopy(loss)
    forms = {"kdlab": lambda: sum(loss(student, teacher, targets).values()),
             "plain": lambda: PLAIN[name](student, teacher, targets, twin)}
    loss(student, teacher, targets)  # state moves once in both: running averages have begun
    twin.load_state_dict(loss.eval().state_dict())
    twin.eval()
    found = {form: measure(device, forward, leaves) for form, forward in forms.items()}
    mine, theirs = (found[form]["value"] for form in ("kdlab", "plain"))
    if abs(mine - theirs) > 1e-4 * max(abs(mine), abs(theirs), 1e-3):
        raise SystemExit(f"{name}: {mine} here, {theirs} in its plainest form; the two must agree "
                         "before they are timed")
    if name in ("AdaDistill", "EKD"):  # timed as they train: thresholds and centres move
        loss.train()
        twin.train()
        found = {form: measure(device, forward, leaves) for form, forward in forms.items()}
    return found


def network_step(device: str) -> float:
    """Seconds of an ArcFace step of ir_student on B images: the peer of every loss."""
    torch.manual_seed(0)
    student, loss = MODELS["ir_student"](embedding_size=D).to(device), LOSSES["ArcFace"](D, C)
    loss = loss.to(device)
    images = torch.randn(B, 3, 48, 48, device=device)
    targets = Targets(torch.arange(B, device=device) // 4)
    return measure(device, lambda: sum(loss(student(images), None, targets).values()),
                   [*student.parameters(), *loss.parameters()])["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=[*LOSSES], metavar="LOSS")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    student, teacher, targets, network = batch(args.device)
    losses = make(network, args.device)
    whole = network_step(args.device)
    print(f"batch {B} x {D}, {C} classes; {platform.machine()}, {torch.get_num_threads()} threads, "
          f"{args.device}, torch {torch.__version__}; load before: {os.getloadavg()[0]:.1f}")
    print(f"an ArcFace step of ir_student on {B} images: {1000 * whole:.0f} ms\n")
    print(f"{'':<21}{'ms':>9}{'plain':>9}{'ratio':>7}{'MiB':>8}{'plain':>8}{'of a step':>11}")
    rows = {}
    for name in args.only:
        rows[name] = found = compare(name, losses[name], student, teacher, targets, args.device)
        mine, plain = found["kdlab"], found["plain"]
        mib = ["-" if form["mebibytes"] is None else f"{form['mebibytes']:.0f}"
               for form in (mine, plain)]
        print(f"{name:<21}{1000 * mine['seconds']:>9.1f}{1000 * plain['seconds']:>9.1f}"
              f"{mine['seconds'] / plain['seconds']:>7.2f}{mib[0]:>8}{mib[1]:>8}"
              f"{mine['seconds'] / whole:>11.1%}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({
            "batch": B, "dimensions": D, "classes": C, "device": args.device,
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "arcface_step_seconds": whole, "losses": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
