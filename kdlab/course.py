"""The course, run: every notebook through papermill, each in a process that can be killed.

`store_widget_state` stays on: papermill crashes without it where a notebook has an Output widget.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import psutil
from filelock import Timeout

import kdlab
from kdlab.cache import cache_dir, digest, locked, write_atomic
from kdlab.claims import ledger
from kdlab.profiles import PROFILES, budget, index

COMMITTED_LIMIT = 300_000  # bytes; beyond it GitHub's viewer and reviews suffer
EXECUTED_LIMIT = 3_000_000
LEDGER = "claims.json"  # what kdlab.claim() writes into a notebook's own folder
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


@dataclass(frozen=True)
class Status:
    """What became of a notebook.   state: ok | failed | timed out | too large.   size: bytes.

    text: key of the cells that ran (see `text_key`), "" where none could.   claims: rows of its
    ledger, those made before a failure included.
    """

    notebook: str
    state: str
    seconds: float
    size: int
    error: str = ""
    text: str = ""
    claims: tuple[dict, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state == "ok"


def run(names: list[str] | None = None, profile: str = "smoke", out: str | Path | None = None,
        timeout: float | None = None, seed: int = 0, folder: Path | None = None) -> list[Status]:
    """Run notebooks one after another; print a line for each and return what became of them.

    names: as in index.yml; None for all.   out: executed copies, logs and a folder for each
    notebook's own files; None for one in the cache.   timeout: seconds of wall time for each
    notebook, start to end; None for three times its budget, at least ten minutes (a safety net:
    the budget itself is held by the table).   ValueError for an unknown name or profile, or when
    another run is writing to `out`.
    """
    folder = folder or kdlab.home() / "notebooks"
    entries = index(folder)
    names = list(entries) if not names else names
    unknown = [n for n in names if n not in entries]
    if unknown:
        raise ValueError(f"no notebook {', '.join(unknown)} in {folder / 'index.yml'}; "
                         f"there are: {', '.join(entries)}")
    if len(set(names)) < len(names):
        raise ValueError("a notebook is named twice; each would overwrite the other's files")
    if profile not in PROFILES:
        raise ValueError(f"the profile is one of {', '.join(PROFILES)}, not {profile!r}")
    out = Path(out) if out else cache_dir("course", profile)
    out.mkdir(parents=True, exist_ok=True)
    try:
        held = locked(out / "course").acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run is writing to {out}; give this one another folder") from None
    with held:
        rows = []
        print(f"{'notebook':28} {'state':10} {'seconds':>8} {'budget':>7} {'kB':>6}")
        for name in names:
            seconds = 60 * budget(name, profile, folder)
            limit = timeout or max(600.0, 3 * seconds)
            row = _run_one(folder / f"{name}.ipynb", profile, seed, out / name, limit)
            rows.append(row)
            print(f"{name:28} {row.state:10} {row.seconds:8.1f} {seconds:7.0f} {row.size // 1000:6}"
                  f"  {row.error}", flush=True)
    print(f"{sum(r.ok for r in rows)} of {len(rows)} ok in {sum(r.seconds for r in rows):.0f} s; "
          f"executed copies in {out}")
    return rows


def _run_one(notebook: Path, profile: str, seed: int, out: Path, limit: float) -> Status:
    """One notebook in a process of its own, killed with its kernel at the limit."""
    name, executed, log = notebook.stem, out.with_suffix(".ipynb"), out.with_suffix(".log")
    if not notebook.exists():
        return Status(name, "failed", 0.0, 0, f"{notebook} is missing")
    if notebook.stat().st_size > COMMITTED_LIMIT:
        return Status(name, "too large", 0.0, notebook.stat().st_size,
                      f"committed notebooks stay under {COMMITTED_LIMIT // 1000} kB: strip it")
    try:
        begun_with = text_key(read(notebook))
    except ValueError as error:
        return Status(name, "failed", 0.0, 0, str(error))
    out.mkdir(exist_ok=True)
    executed.unlink(missing_ok=True)
    (out / LEDGER).unlink(missing_ok=True)  # a claim that is no longer made must not stay
    code, seconds = _execute(notebook, executed, log, profile, seed, out, limit)
    size = executed.stat().st_size if executed.exists() else 0
    row = Status(name, "ok", seconds, size, text=begun_with)
    try:
        row = replace(row, claims=tuple(ledger(out / LEDGER)))
    except ValueError as error:
        return replace(row, state="failed", error=str(error))
    if code is None:
        return replace(row, state="timed out", error=f"over {limit:.0f} s; see {log}")
    if code:
        return replace(row, state="failed", error=_last_line(log))
    if size > EXECUTED_LIMIT:
        return replace(row, state="too large",
                       error=f"executed copies stay under {EXECUTED_LIMIT // 1000} kB")
    return row


def _execute(notebook: Path, executed: Path, log: Path, profile: str, seed: int, out: Path,
             limit: float) -> tuple[int | None, float]:
    """(exit code, or None at the limit; seconds)."""
    parameters = {"PROFILE": profile, "SEED": seed, "OUT": str(out.resolve())}
    command = [sys.executable, "-m", "kdlab.course", str(notebook.resolve()),
               str(executed.resolve()), json.dumps(parameters)]
    begun = time.monotonic()
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=out,
                                   env={**os.environ, "KDLAB_HEADLESS": "1"})
        try:
            code = process.wait(limit)
        except BaseException as error:
            _kill(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    return code, time.monotonic() - begun


def _kill(process: subprocess.Popen) -> None:
    """The process and the kernel it started: a kernel has a session of its own, so by descent."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    process.wait()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            pass  # it went with its parent
    psutil.wait_procs(children, timeout=5)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "it wrote nothing")[:300]


def strip(path: str | Path) -> bool:
    """Remove outputs, execution counts, widget state and run records, and name the plain kernel
    again, whatever environment saved the file; True if anything changed.

    The file is replaced whole or not at all.   ValueError when it is not a notebook.
    """
    path = Path(path)
    before = path.read_text()
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    after = nbformat.writes(notebook) + "\n"
    if after != before:
        write_atomic(path, after)
    return after != before


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook of format 4.   ValueError in one line when it is not one."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # nbformat raises a dozen kinds for a broken file
        raise ValueError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from None
    return notebook


def text_key(notebook: nbformat.NotebookNode) -> str:
    """A key of the code cells, in order: what minutes, size and claims are made of.

    Prose is left out, so that a better sentence asks for no new run.
    """
    return digest([c.source for c in notebook.cells if c.cell_type == "code"])


def _worker(notebook: str, executed: str, parameters: str) -> int:
    """Execute in this process; the last line printed says what went wrong."""
    import papermill

    try:
        papermill.execute_notebook(notebook, executed, json.loads(parameters), progress_bar=False)
    except papermill.PapermillExecutionError as error:
        cell = error.cell_index  # from 0, and the injected parameters come before it: as committed
        print(f"cell {cell}: {error.ename}: {' '.join(error.evalue.split())}")
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_worker(*sys.argv[1:4]))
