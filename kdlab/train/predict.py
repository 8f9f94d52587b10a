"""What a run will take, from its first steps: minutes, memory, disk.

`probe` runs the first steps of the very run in a process of its own and multiplies. What the same
steps would cost on more GPUs is modelled in kdlab.train.scale.

As a command, `python -m kdlab.train.predict run.yaml PROCESSES`, it probes, writes predicted.json
beside the file and becomes the run itself: how launch() predicts without keeping a kernel waiting.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import yaml

from kdlab.cache import write_atomic
from kdlab.train.checkpoint import found
from kdlab.train.group import Group
from kdlab.train.launch import command, environment
from kdlab.train.loop import train
from kdlab.train.run import load_run, prepare

STEPS = 20  # of a probe: a minute at most where a step takes seconds; ours
SETTLE = 3  # first steps, slower: memory is allocated, kernels are chosen; ours


def probe(cfg, processes: int = 1, steps: int = STEPS) -> dict[str, float]:
    """Run the first `steps` steps of a run in a process of its own, and predict the whole.

    Returns minutes (of training: what is rendered or cached before, the probe has done), memory_mb
    (all processes together; on GPUs the largest), disk_bytes (the run's folder and the cache of
    its teacher's embeddings), seconds_per_step, images_per_second, and what they were made
    of (see `measure`). Leaves nothing in the run's folder.
    ValueError in one line for what the run itself would refuse.
    """
    if steps < SETTLE + 4:
        raise ValueError(f"a probe of {steps} steps says nothing; {SETTLE + 4} or more do")
    with tempfile.TemporaryDirectory(prefix="kdlab-probe-") as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(load_run(cfg).model_dump(mode="json"), sort_keys=False))
        done = subprocess.run(command(path, processes, "--probe", str(steps)), text=True,
                              capture_output=True, stdin=subprocess.DEVNULL,
                              env=environment(processes))
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = [line for line in done.stderr.splitlines() if line.startswith("kdlab.train: ")]
        raise ValueError(said[-1].removeprefix("kdlab.train: ") if said else
                         f"the probe ended with code {done.returncode}: {done.stderr[-300:]}")
    return json.loads(lines[-1])


def measure(run, steps: int, group: Group) -> dict[str, float]:
    """Take the first steps here and now; what `probe` returns, in every process of the group.

    Beside that: steps (of the whole run), checkpoint_seconds, share_seconds (of one measurement of
    the gradient's shares), validation_seconds, prepare_seconds; checkpoint_bytes, student_bytes,
    row_bytes, cache_bytes.
    """
    began = perf_counter()
    made = prepare(run, group.rank, group.world)
    prepared, an_epoch, validate = perf_counter() - began, len(made["batches"]), made["validate"]
    told = run.train
    with tempfile.TemporaryDirectory(prefix="kdlab-probe-") as folder:
        out = Path(folder)
        # The last step measures shares, the one after the only checkpoint of them its pause.
        config = told.model_copy(update={
            "out": out, "epochs": 1, "log_every": 1, "keep": 1, "checkpoint_every": steps - 2,
            "share_every": steps if told.share_every else 0,
            "schedule": "cosine", "milestones": []})  # plateau waits for validations
        rows = train(config, **made | {"batches": First(made["batches"], steps),
                                       "validate": None}).rows
        seconds = [told.batch_size / row["images_per_second"] for row in rows]
        began = perf_counter()
        if validate is not None and group.rank == 0:
            with torch.no_grad():
                validate(made["student"])
        validated = perf_counter() - began
        size = {"checkpoint_bytes": _bytes(found(out)), "student_bytes": _bytes(
            out.glob("student.safetensors")), "row_bytes": _bytes(out.glob("log.jsonl")) / steps}
    step = median(seconds[SETTLE:-2])
    parts = {
        "steps": told.epochs * an_epoch, "seconds_per_step": step,
        "images_per_second": told.batch_size / step,
        "checkpoint_seconds": max(0.0, seconds[-2] - step) if told.keep else 0.0,
        "share_seconds": max(0.0, seconds[-1] - step) if told.share_every else 0.0,
        "validation_seconds": validated if validate is not None else 0.0,
        "prepare_seconds": prepared, **size, "cache_bytes": cached_bytes(made["teacher"]),
        "memory_mb": peak_mb(group), "processes": group.world}
    return parts | whole(parts, told, an_epoch)


def whole(parts: dict[str, float], config, an_epoch: int) -> dict[str, float]:
    """minutes and disk_bytes of a whole run.   parts: as from `measure`; an_epoch: its steps."""
    steps = config.epochs * an_epoch
    saved = -(-steps // (config.checkpoint_every or an_epoch)) if config.keep else 0
    validated = -(-config.epochs // config.validate_every) if parts["validation_seconds"] else 0
    shares = steps // config.share_every if config.share_every else 0
    seconds = (steps * parts["seconds_per_step"] + saved * parts["checkpoint_seconds"]
               + validated * parts["validation_seconds"] + shares * parts["share_seconds"])
    students = 2 if validated else 1  # student.safetensors, best.safetensors
    disk = (min(config.keep, saved) * parts["checkpoint_bytes"] + students * parts["student_bytes"]
            + -(-steps // config.log_every) * parts["row_bytes"] + parts["cache_bytes"])
    return {"minutes": seconds / 60, "disk_bytes": round(disk)}


class First:
    """The first `steps` batches of a run as one epoch, however long its own epochs are."""

    def __init__(self, batches, steps: int):
        self.batches, self.steps = batches, steps

    def __getattr__(self, name: str):
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int):
        every = itertools.chain.from_iterable(map(self.batches.epoch, itertools.count()))
        return itertools.islice(every, self.steps)


def cached_bytes(teacher) -> int:
    """Of a cache of embeddings on disk; 0 for another teacher or none."""
    return getattr(teacher, "nbytes", 0)


def peak_mb(group: Group) -> float:
    """The most memory held so far, in MB: of all processes together; on GPUs the largest of one,
    as CUDA's allocator counts."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return max(group.numbers(torch.cuda.max_memory_allocated() / 1e6))
    return sum(group.numbers(resident_mb()))


def resident_mb() -> float:
    """The largest resident set of this process so far, in MB.

    On Linux VmHWM, not getrusage's maximum: Linux hands that one on over exec, so that it begins at
    the peak of the process that started this one, such as a notebook's kernel.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # macOS: bytes

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _bytes(paths) -> int:
    return sum(path.stat().st_size for path in paths)


def main(path: str, processes: str) -> None:
    """Probe, keep what it says, and become the run."""
    try:
        said = probe(path, int(processes))
        write_atomic(Path(path).parent / "predicted.json", json.dumps(said, indent=1))
    except (ValueError, OSError) as error:  # the run itself will say so again, in status.json
        print(f"no prediction: {error}", file=sys.stderr, flush=True)
    args = command(Path(path), int(processes))
    os.execv(args[0], args)


if __name__ == "__main__":
    main(*sys.argv[1:])
