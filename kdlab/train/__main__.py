"""python -m kdlab.train run.yaml: train a student from one file.

    python -m kdlab.train run.yaml
    torchrun --nproc-per-node 2 -m kdlab.train run.yaml     # gloo on a CPU, nccl on GPUs

Beside what train() writes, the run's folder gets run.yaml and, at every change of state,
status.json; process 0 holds the folder's lock for as long as it lives. SIGTERM, which torchrun
hands on, ends a run as Ctrl-C does: after the step it is at, everything saved. With --probe it only
says, as JSON, what some first steps took, and leaves nothing behind.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path

import torch
import yaml

from kdlab.cache import write_atomic
from kdlab.distributed import leave
from kdlab.train.checkpoint import found
from kdlab.train.group import Group, together
from kdlab.train.loop import train
from kdlab.train.predict import cached_bytes, measure, peak_mb
from kdlab.train.run import RunConfig, load_run, prepare
from kdlab.train.state import spent, tell, writing

FORESEEN = (ValueError, OSError, FloatingPointError)  # errors whose text is for people
LONGEST = 1000  # characters of an error's line; ours


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 0, 1 for what went wrong (one line says what), 130 when stopped."""
    parser = argparse.ArgumentParser("python -m kdlab.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run file, such as configs/first_light.yaml")
    parser.add_argument("--probe", type=int, metavar="STEPS",
                        help="only measure so many steps; prints what they took as JSON")
    args = parser.parse_args(argv)
    try:
        run = load_run(args.run)
        if args.probe is not None:
            return _probe(run, args.probe)
        with writing(run.train.out) if _first() else nullcontext():
            return carry_out(run)
    except KeyboardInterrupt:
        return 130  # what a shell reports for Ctrl-C
    except FORESEEN as error:  # the run file, or a folder where the status is not ours to write
        if _first():
            print(f"kdlab.train: {words(error)}", file=sys.stderr)
        return 1


def carry_out(run: RunConfig) -> int:
    """Prepare and train in a folder that is ours, saying in status.json how far; the exit code."""
    out, group = run.train.out, Group()
    status = {"state": "preparing", "message": "", "pid": os.getpid(), "host": os.uname().nodename,
              "processes": int(os.environ.get("WORLD_SIZE", 1)), "started": time.time(),
              "steps": None, "batch_size": run.train.batch_size, "seconds": spent(out),
              "peak_memory_mb": None, "disk_bytes": None}
    earlier, began, continued = status["seconds"], None, bool(found(out))
    cached = 0

    def say(**changes) -> None:
        status.update(changes)
        if _first():
            tell(out, status)

    with terminated(out) as phase:
        try:
            if _first():
                (out / "stop").unlink(missing_ok=True)
                if not continued:
                    _keep(run)
            say()
            with together(run.train) as group:
                made = prepare(run, group.rank, group.world)
                phase["now"], began = "training", time.monotonic()
                cached = cached_bytes(made["teacher"])
                say(state="training", steps=run.train.epochs * len(made["batches"]))
                history = train(run.train, **made)
            code, end = 0, {"state": "finished"}
        except KeyboardInterrupt:
            code, end = 130, {"state": "stopped"}
        except Exception as error:
            trace = "" if isinstance(error, FORESEEN) else traceback.format_exc()
            code, end = 1, {"state": "failed", "message": group.agree(words(error), trace)}
        phase["now"] = "ended"
        if began:
            status["seconds"] = earlier + time.monotonic() - began
        peak = peak_mb(group if code != 1 else Group())  # a lost one is silent
        if not _first():
            return code
        try:
            if continued and code != 1:  # not where the folder turned out to hold another run
                _keep(run)
            say(**end, peak_memory_mb=round(peak, 1), disk_bytes=_size(out) + cached)
        except OSError as error:  # a full disk, often the one that ended it
            print(f"kdlab.train: {out} cannot be told how it ended: {words(error)}",
                  file=sys.stderr)
    if code == 0:
        print(history.table(), out / "student.safetensors", sep="\n")
    else:
        print(f"kdlab.train: {end.get('message', f'stopped; start it again, and {out} goes on')}",
              file=sys.stderr)
    return code


def words(error: BaseException) -> str:
    """An error as one line for people."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = " ".join(error.strerror.split())  # without "[Errno 28]"
        text += f": {error.filename}" if error.filename else ""
    if isinstance(error, torch.OutOfMemoryError):
        text = (f"the GPU's memory is full ({text.partition('. ')[0]}); lower train.batch_size, or "
                "set train.precision: bf16")
    elif not isinstance(error, FORESEEN):
        text = f"{type(error).__name__}: {text}"
    return text[:LONGEST]


@contextmanager
def terminated(out: Path) -> Iterator[dict[str, str]]:
    """SIGTERM as Ctrl-C; the caller moves phase["now"]: "preparing", "training", then "ended".

    While it trains, process 0 leaves a file out/stop, which all processes heed after the same
    step; at the end nothing disturbs what is still to be written.
    """
    phase = {"now": "preparing"}

    def on_signal(number, frame):
        if phase["now"] == "preparing":
            raise KeyboardInterrupt
        if phase["now"] == "training" and _first():
            (out / "stop").touch()

    if threading.current_thread() is not threading.main_thread():  # only there signals arrive
        yield phase
        return
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield phase
    finally:
        signal.signal(signal.SIGTERM, before)


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _keep(run: RunConfig) -> None:
    write_atomic(run.train.out / "run.yaml",
                 yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))


def _size(folder: Path) -> int:
    """Bytes of all files; one may vanish while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _probe(run: RunConfig, steps: int) -> int:
    with redirect_stdout(sys.stderr), together(run.train) as group:
        found = measure(run, steps, group)
    if _first():
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    code = main()
    leave(code) if "WORLD_SIZE" in os.environ else sys.exit(code)
