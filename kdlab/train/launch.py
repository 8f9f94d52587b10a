"""Start a run as a process of its own, and look at it from anywhere: launch() and Run.

A run is its folder. status.json says what the run last said of itself, .run.lock is held by process
0 while it lives, log.jsonl is its log; so a notebook whose kernel was restarted, a second notebook
and a terminal see the same as the one that started it. The process is started anew (never forked
from a kernel with threads in it), in a session of its own, so that it outlives the kernel; its
config travels in a file and reaches no shell.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from kdlab.cache import write_atomic
from kdlab.train.checkpoint import found
from kdlab.train.follow import last_rows, tail
from kdlab.train.log import History
from kdlab.train.report import Report, report
from kdlab.train.run import load_run
from kdlab.train.state import (
    ENDED,
    STATUS,
    alive,
    held,
    read_status,
    refusal,
    spent,
    tell,
    writing,
)

LAUNCHED = ".launch.yaml"
ROWS = 20  # rows of the log whose median speed tells when a run will end; ours
OWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(cfg, processes: int = 1, probe: bool | dict = True) -> "Run":
    """Start a run as `processes` processes of its own and return at once.

    cfg: a run file, a dict or a RunConfig. Results go to its train.out; where a file names none, to
    runs/NAME.   probe: predict minutes, memory and disk from 20 steps before it begins (in the
    background too, Run.predicted has it then); or what `kdlab.train.predict.probe` returned.
    ValueError or OSError in one line for a config that cannot be right, and where a run is at work
    in that folder; what shows later (a missing teacher) is in Run.status.
    """
    run = load_run(cfg)
    if run.train.out is None:
        raise ValueError("train.out: a run that is launched needs a folder of its own; give the "
                         "config train: {out: runs/NAME}")
    if processes < 1:
        raise ValueError(f"processes must be 1 or more, not {processes}")
    return _start(run.train.out.absolute(), run, processes, probe)


def command(path: Path, processes: int, *more: str) -> list[str]:
    """The command that trains: Python itself, or torchrun for several processes."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start = [sys.executable, *(several if processes > 1 else [])]
    return [*start, "-m", "kdlab.train", str(path), *more]


def environment(processes: int) -> dict[str, str]:
    """That of this process, without bars, and with no more threads than there are cores."""
    own = {key: value for key, value in os.environ.items() if key not in OWN}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, cores // processes)
    if own.get("OMP_NUM_THREADS", "").isdecimal():  # somebody wants fewer
        threads = max(1, min(threads, int(own["OMP_NUM_THREADS"])))
    return own | {"OMP_NUM_THREADS": str(threads), "KDLAB_HEADLESS": "1"}


def _start(out: Path, run, processes: int, probe: bool | dict = False) -> "Run":
    with writing(out):
        before = read_status(out)
        if before.get("state") == "starting" and alive(before):
            raise ValueError(refusal(out, before))
        (out / "stop").unlink(missing_ok=True)
        run = run.model_copy(update={"train": run.train.model_copy(update={"out": out})})
        write_atomic(out / LAUNCHED, yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
        if isinstance(probe, dict):
            write_atomic(out / "predicted.json", json.dumps(probe, indent=1))
        args = command(out / LAUNCHED, processes)
        if probe is True:
            args = [sys.executable, "-m", "kdlab.train.predict", str(out / LAUNCHED),
                    str(processes)]
        with open(out / "console.txt", "ab") as console:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            console.write(f"--- {now} {' '.join(args[1:])}\n".encode())
            console.flush()
            process = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                start_new_session=True, env=environment(processes))
        message = "its first steps are measured" if probe is True else ""
        tell(out, {"state": "starting", "message": message, "pid": process.pid,
                   "host": os.uname().nodename, "processes": processes, "started": time.time(),
                   "seconds": spent(out)})
    threading.Thread(target=process.wait, daemon=True).start()  # or it would stay as a zombie
    return Run(out)


class Run:
    """A run, seen from outside through its folder `out`; any number of them may look at one.

    status     {"state": starting | preparing | training | finished | stopped | failed | died,
               "message": one line, "pid", "host", "processes", "started", "updated" (unix seconds),
               "steps" (of the whole run), "seconds" (of training), "peak_memory_mb", "disk_bytes"
               (folder and teacher's cache)}; once it trains also "step", "images_per_second" and,
               while it does, "eta_seconds"
    history    its log so far       predicted  what the probe said, or None
    """

    def __init__(self, out: str | Path):
        self.out = Path(out).absolute()
        if not (self.out / STATUS).exists():
            raise FileNotFoundError(f"{out} holds no run; launch(config) starts one")

    @property
    def status(self) -> dict[str, Any]:
        said = read_status(self.out) or {
            "state": "died", "message": f"{STATUS} is missing or damaged; resume() writes it anew"}
        while said["state"] not in ENDED and not self._lives(said):
            again = read_status(self.out)
            if again == said:  # it has not ended just now
                said = said | {"state": "died", "message": self._epitaph(said)}
            else:
                said = again
        rows = last_rows(self.out / "log.jsonl", ROWS)
        if rows and said["state"] not in ("starting", "preparing"):
            speed = sorted(row["images_per_second"] for row in rows)[len(rows) // 2]
            said |= {"step": rows[-1]["step"], "images_per_second": speed}
            if said["state"] == "training" and said.get("batch_size") and speed:
                left = said["steps"] - rows[-1]["step"]
                said["eta_seconds"] = left * said["batch_size"] / speed
        return said

    def _lives(self, said: dict) -> bool:
        return alive(said) if said["state"] == "starting" else held(self.out)

    def _epitaph(self, said: dict) -> str:
        if said["state"] == "starting":
            return next(iter(self.tail(1)), "it ended before it said anything")
        kept = found(self.out)
        where = f"goes on from step {int(kept[-1].stem)}" if kept else "begins anew"
        return f"killed; resume() {where}"

    @property
    def history(self) -> History:
        path = self.out / "log.jsonl"
        return History.read(path) if path.exists() else History()

    @property
    def predicted(self) -> dict[str, float] | None:
        path = self.out / "predicted.json"
        return json.loads(path.read_text()) if path.exists() else None

    def tail(self, n: int = 20) -> list[str]:
        """The last n lines of what its processes printed."""
        return tail(self.out / "console.txt", n)

    def report(self) -> Report:
        """Minutes, memory and disk: predicted against actual."""
        return report(self.status, self.predicted)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """The status once the run has ended, however it did.   TimeoutError in words."""
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (said := self.status)["state"] not in ENDED:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.out} is still {said['state']} after {timeout:g} s; "
                                   "it goes on, wait() again")
            time.sleep(0.1)
        return said

    def stop(self, timeout: float | None = 120, wait: bool = True) -> dict[str, Any]:
        """End the run after the step it is at, checkpoint and student saved; its status then.

        A run that does not train yet is broken off. wait: False only asks. TimeoutError in words.
        """
        if (said := self.status)["state"] in ENDED:
            return said
        (self.out / "stop").touch()
        here = said.get("host") == os.uname().nodename
        if said["state"] == "preparing" and here:
            _signal(os.kill, said["pid"])  # it looks for the file only while it trains
        if said["state"] == "starting" and here:
            _signal(os.killpg, said["pid"])
            if (said := read_status(self.out))["state"] == "starting":
                tell(self.out, said | {"state": "stopped", "message": "before it began"})
        if wait:
            self.wait(timeout)
            (self.out / "stop").unlink(missing_ok=True)
        return self.status

    def resume(self, processes: int | None = None) -> "Run":
        """Go on from the last checkpoint, in as many processes as before or in `processes`.

        ValueError where the run is at work or finished.
        """
        said = self.status
        if said["state"] == "finished":
            raise ValueError(f"{self.out} is finished; there is nothing to go on with")
        if said["state"] not in ENDED:
            raise ValueError(refusal(self.out, said))
        where = self.out / "run.yaml"
        run = load_run(where if where.exists() else self.out / LAUNCHED)
        return _start(self.out, run, processes or said.get("processes") or 1)

    def __repr__(self) -> str:
        said = self.status
        step = f" step {said['step']} of {said.get('steps')}" if "step" in said else ""
        more = f": {said['message']}" if said.get("message") else ""
        return f"Run {self.out}: {said['state']}{step}{more}"


def _signal(send, pid: int) -> None:
    try:
        send(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
