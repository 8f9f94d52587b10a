"""What margin softmax costs with and without the logits: memory and time, plain against in blocks.

    python benchmarks/margin_head.py                             # under a minute on one core
    python benchmarks/margin_head.py --classes 400000 1000000    # minutes, and 6 GB
    python benchmarks/margin_head.py --device cuda --classes 10000 100000 1000000 --json head.json

ArcFace forward and backward, float32; both are also held against a run in float64, because the
plain form loses digits of its own when it sums over very many classes. Each case is a process of
its own. Memory is the process's peak (on a GPU the allocator's) less what it held before the class
centres were made; its measure is the centres and their gradient, which every form needs. Time is
processor time on one core, which other work on the machine does not lengthen, or a GPU's by the
clock. A form that would need more than --memory is not run; the time of the other is then compared,
a class, with the largest plain case that was.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE = 512  # of an embedding: iresnet's and MobileFaceNet's


def case(classes: int, batch: int, chunk: int | None, repeats: int, device: str, exact: bool,
         out: str) -> dict[str, float]:
    """One form at one size, in this process: peak bytes, seconds a step, loss; gradients to out."""
    import resource  # these here: the process that starts the cases stays small, since Linux

    import torch  # begins a child's peak at its parent's size

    from kdlab.losses import ArcFace
    from kdlab.outputs import Output, Targets

    on_gpu = torch.device(device).type == "cuda"
    torch.set_num_threads(1)

    def peak() -> int:
        if on_gpu:
            return torch.cuda.max_memory_allocated(device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time()

    def step(head: ArcFace, x: torch.Tensor, targets: Targets) -> float:
        x.grad = head.weight.grad = None
        loss = head(Output(x), None, targets)["softmax"]
        loss.backward()
        return loss.item()

    def make(rows: int) -> tuple:
        with torch.device(device):
            head = ArcFace(SIZE, rows, chunk=chunk)  # float32 first, so that all draw alike
            labels = torch.randint(rows, (batch,))
            with torch.no_grad():  # faces between strangers and well learnt
                x = head.weight[labels] * 100 + torch.rand(batch, 1) * 3 * torch.randn(batch, SIZE)
        if exact:
            head, x = head.double(), x.double()
        return head, x.requires_grad_(), Targets(labels)

    torch.manual_seed(0)
    step(*make(100))  # libraries loaded, threads started
    before = torch.cuda.memory_allocated(device) if on_gpu else peak()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(0)
    head, x, targets = make(classes)
    if on_gpu:
        step(head, x, targets)
    seconds = []
    for _ in range(repeats):
        start = clock()
        loss = step(head, x, targets)
        seconds.append(clock() - start)
    bytes_ = peak() - before
    rows = torch.cat([targets.labels, torch.arange(0, classes, max(classes // 1000, 1),
                                                   device=device)])
    np.savez(out, x=x.grad.cpu(), weight=head.weight.grad[rows].cpu())
    return {"peak_bytes": bytes_, "seconds": min(seconds), "loss": loss}


def need(name: str, classes: int, batch: int) -> float:
    """About how many bytes a form takes: tensors of C x D and of B x C numbers, counted."""
    centres, logits = 4 * classes * SIZE, 4 * batch * classes
    return {"plain": 4 * centres + 3 * logits, "blocks": 2.2 * centres, "exact": 5 * centres}[name]


def differ(a: dict, b: dict, files: tuple[str, str]) -> dict[str, float]:
    """How far case a is from case b: the loss, and the worse of the gradients (in the norm)."""
    with (np.load(files[0], allow_pickle=False) as one,
          np.load(files[1], allow_pickle=False) as other):
        gradient = max(float(np.linalg.norm(one[k] - other[k]) / np.linalg.norm(other[k]))
                       for k in one)
    return {"loss": abs(a["loss"] / b["loss"] - 1), "gradient": gradient}


def compare(classes: int, args: argparse.Namespace, plain_before: dict | None) -> dict:
    """Both forms at one size, and float64; their ratios and differences."""
    result, files = {"classes": classes}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "blocks", "exact"):
            wanted = need(name, classes, args.batch)
            if wanted > args.memory * 1e9:
                result[name] = f"not run: about {wanted / 1e9:.0f} GB, over --memory {args.memory}"
                continue
            exact, file = name == "exact", str(Path(folder, f"{name}.npz"))
            arguments = [classes, args.batch, None if name == "plain" else args.chunk,
                         1 if exact else args.repeats, args.device, exact, file]
            child = subprocess.run([sys.executable, __file__, "--case", json.dumps(arguments)],
                                   check=True, stdout=subprocess.PIPE, text=True)
            result[name], files[name] = json.loads(child.stdout), file
            result[name]["of_centres_and_gradient"] = round(
                result[name]["peak_bytes"] / (8 * classes * SIZE), 3)
        for one, other in (("blocks", "plain"), ("blocks", "exact"), ("plain", "exact")):
            if one in files and other in files:
                result[f"{one}_from_{other}"] = differ(result[one], result[other],
                                                       (files[one], files[other]))
    if "blocks" in files and ("plain" in files or plain_before):
        against = ({"classes": classes, "seconds": result["plain"]["seconds"]}
                   if "plain" in files else plain_before)
        result["time_ratio"] = round(result["blocks"]["seconds"] / classes
                                     / (against["seconds"] / against["classes"]), 3)
        result["time_of_plain_at"] = against["classes"]
    return result


def show(result: dict) -> None:
    for name in ("plain", "blocks"):
        found = result[name]
        if isinstance(found, str):
            print(f"{result['classes']:>9}  {name:<7} {found}")
        else:
            print(f"{result['classes']:>9}  {name:<7}{found['peak_bytes'] / 1e6:9.0f} MB ="
                  f"{found['of_centres_and_gradient']:6.2f} x (centres + gradient)"
                  f"{found['seconds']:9.3f} s a step")
    if "time_ratio" in result:
        at = result["time_of_plain_at"]
        print(f"{'':>11}time, blocks / plain: {result['time_ratio']:.2f}"
              + (f", a class, with plain at {at}" if at != result["classes"] else ""))
    for pair, title in (("blocks_from_plain", "blocks from plain"),
                        ("blocks_from_exact", "blocks from float64"),
                        ("plain_from_exact", "plain from float64")):
        if pair in result:
            print(f"{'':>11}{title}: loss {result[pair]['loss']:.0e}, "
                  f"gradient {result[pair]['gradient']:.0e}, relative")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=4096, help="classes a block")
    parser.add_argument("--repeats", type=int, default=1, help="steps; the fastest counts")
    parser.add_argument("--memory", type=float, default=8, help="GB that a case may take")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(case(*json.loads(args.case))))
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "device": args.device,
              "load_before": load, "batch": args.batch, "embedding_size": SIZE,
              "chunk": args.chunk, "cases": []}
    print(f"batch {args.batch}, embeddings of {SIZE}, blocks of {args.chunk} classes, on "
          f"{result['machine']} ({args.device}); the machine's load before: {load or '?'}\n")
    before = None
    for classes in sorted(args.classes):
        found = compare(classes, args, before)
        show(found)
        result["cases"].append(found)
        if isinstance(found["plain"], dict):
            before = {"classes": classes, "seconds": found["plain"]["seconds"]}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
