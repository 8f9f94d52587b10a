"""What a run says of itself in its folder: status.json, and the lock that lives as long as it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from kdlab.cache import write_atomic
from kdlab.train.checkpoint import found

LOCK, STATUS = ".run.lock", "status.json"
ENDED = ("finished", "stopped", "failed", "died")
PATIENCE = 0.5  # seconds to wait for the lock: who only looks holds it for microseconds; ours


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Hold the folder, made if missing: only one run writes there.

    ValueError that says who does, OSError where nobody can.
    """
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(refusal(out, read_status(out))) from None
    except OSError as error:
        raise OSError(error.errno, f"the out folder {out} cannot be written "
                      f"({error.strerror or error}); choose another train.out") from error
    try:
        yield
    finally:
        lock.release()


def refusal(out: Path, said: dict) -> str:
    """One line for who finds a folder taken."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said.get("started", time.time())))
    return (f"{out} is being written by process {said.get('pid', '?')} on host "
            f"{said.get('host', '?')} since {since}; choose another out or stop that run")


def held(out: Path) -> bool:
    """Does a run hold the folder?"""
    if not (out / LOCK).exists():
        return False
    try:
        with FileLock(out / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that nobody here can write
        return False


def read_status(out: Path) -> dict[str, Any]:
    """status.json, or {} where there is none that can be read."""
    try:
        said = json.loads((out / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and "state" in said else {}


def tell(out: Path, said: dict[str, Any]) -> None:
    """Write status.json, whole."""
    write_atomic(out / STATUS, json.dumps(said | {"updated": time.time()}, indent=1))


def spent(out: Path) -> float:
    """Seconds that earlier processes trained this run; 0 where nothing of them is left."""
    if not found(out):
        return 0.0
    said = read_status(out)
    seconds = said.get("seconds") or 0.0
    if said.get("state") == "training" and (out / "log.jsonl").exists():  # killed
        seconds += max(0.0, (out / "log.jsonl").stat().st_mtime - said["updated"])
    return seconds


def alive(said: dict) -> bool:
    """Is the process that status.json names there, and not another one with its number?"""
    if said.get("host") != os.uname().nodename:
        return bool(said)  # nobody can see from here
    try:
        process = psutil.Process(said["pid"])
        return (process.status() != psutil.STATUS_ZOMBIE
                and process.create_time() <= said["updated"] + 1)  # 1: clocks tick in hundredths
    except (psutil.NoSuchProcess, KeyError):
        return False
