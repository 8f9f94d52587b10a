"""Long experiments in cells: every finished cell is kept, a second run does only what is missing.

A study is studies/NAME.py beside studies/NAME.yaml:

    MINUTES = 60                                # on 2 cores, all cells
    def cells(config, done): ...                # -> list of dicts of JSON values, unique "name"
    def run(cell, folder, done): ...            # -> dict of JSON values; folder: scratch, kept
    def summarise(results, folder): ...         # optional; results: the records, in plan order
    def order(cell): ...                        # optional sort key of cells

`done` (cell name -> result) may be left out of both signatures. `cells` is asked again after every
cell, so a later cell can depend on an earlier result (a chosen temperature, say). A cell's dict
is all that `run` is given, so its digest tells whether a stored result still belongs to it; a
module-level VERSION is part of the digest, to be raised when the code changes what a cell means.
"""

import difflib
import importlib.util
import inspect
import json
import platform
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import yaml
from filelock import Timeout

import kdlab
from kdlab.cache import cache_dir, digest, locked, write_atomic
from kdlab.results import NAME, Stored, read_object, results_folder, stored

__all__ = ["Stored", "load", "names", "run_study", "stored"]


def names() -> list[str]:
    """The studies there are."""
    return sorted(p.stem for p in (kdlab.home() / "studies").glob("*.py") if p.stem[0] != "_")


def load(name: str) -> tuple[ModuleType, dict]:
    """A study's module and config.   FileNotFoundError, ValueError in words."""
    path = kdlab.home() / "studies" / f"{name}.py"
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names()) or 'none'}"
        raise FileNotFoundError(f"no study {name!r} in {path.parent}; {hint}")
    config = path.with_suffix(".yaml")
    if not config.exists():
        raise FileNotFoundError(f"study {name} has no config; write {config}")
    try:
        values = yaml.safe_load(config.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{config}: write `name: value` lines, one a setting")
    spec = importlib.util.spec_from_file_location(f"kdlab_study_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what the module defines can be found again by name
    spec.loader.exec_module(module)
    for needed in ("MINUTES", "cells", "run"):
        if not hasattr(module, needed):
            raise ValueError(f"{path} defines no {needed}")
    return module, values


def plan(module: ModuleType, config: dict, done: dict[str, dict]) -> list[dict]:
    """The cells known so far, in order, names checked."""
    found = _call(module.cells, config, done)
    for cell in found:
        if not NAME.fullmatch(str(cell.get("name", ""))):
            raise ValueError(f"cell {cell}: give it a name of letters, digits, . _ = + -")
    labels = [cell["name"] for cell in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"two cells share the name {', '.join(twice)}")
    return sorted(found, key=module.order) if hasattr(module, "order") else found


def _call(fn, *arguments):
    """Call with as many of the arguments as `fn` takes: `done` may be left out."""
    return fn(*arguments[:len(inspect.signature(fn).parameters)])


def run_study(name: str, limit_minutes: float | None = None) -> int:
    """Run the missing cells of a study; return the exit code.

    Several processes may run one study: each takes the next cell that nobody holds.

    0: nothing failed.   1: a cell or the summary failed (the others were run).   130: Ctrl-C.
    limit_minutes: no cell is begun that, if as long as the longest so far, would end beyond it.
    Whatever happens, finished cells are whole on disk and the next run goes on from them.
    """
    module, config = load(name)
    folder = results_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _run(name, module, config, folder, limit_minutes)
    except KeyboardInterrupt:
        print(f"stopped; finished cells are in {folder}, run `kdlab study {name}` to go on")
        return 130


def _run(name: str, module: ModuleType, config: dict, folder: Path, limit: float | None) -> int:
    begun, longest, failed, told = time.monotonic(), 0.0, set(), set()
    print(f"study {name}: about {module.MINUTES} minutes on 2 cores when nothing is stored")
    while True:
        cells, keys, records = _state(module, config, folder, told)
        left = [c for c in cells if c["name"] not in records and c["name"] not in failed]
        if not left:
            break
        if limit is not None and time.monotonic() - begun + longest >= 60 * limit:
            print(f"limit of {limit:g} minutes: {len(left)} of {len(cells)} cells left; "
                  f"run `kdlab study {name}` to go on")
            return 1 if failed else 0
        cell, lock = _claim(left, keys, folder)
        if cell is None:  # others hold all that is left; what they finish may bring up more
            time.sleep(2)
            continue
        at = time.monotonic()
        done = {n: r["result"] for n, r in records.items()}
        try:
            finished = _cell(name, module, cell, keys[cell["name"]], folder, done)
        finally:
            lock.release()
        if finished:
            longest = max(longest, time.monotonic() - at)
            print(f"  {cell['name']}: {time.monotonic() - at:.1f} s "
                  f"({len(records) + 1} of {len(cells)})")
        else:
            failed.add(cell["name"])
    print(f"{len(records)} of {len(cells)} cells stored in {folder}")
    for path in sorted((folder / "cells").glob("*.json")):
        if path.stem not in keys:
            print(f"  {path.stem}: stale (no longer planned), left out; {path} can be deleted")
    if failed:
        print(f"failed: {', '.join(sorted(failed))}; no summary until they pass")
    elif hasattr(module, "summarise"):
        summary = module.summarise([records[c["name"]] for c in cells], folder)
        text = json.dumps({"plan": digest(keys), **summary}, indent=1, allow_nan=False)
        write_atomic(folder / "summary.json", text + "\n")
    return 1 if failed else 0


def _claim(left: list[dict], keys: dict, folder: Path):
    """The first cell that no other process holds or has just stored, and its lock, held."""
    (folder / "cells").mkdir(exist_ok=True)
    for cell in left:
        path = folder / "cells" / f"{cell['name']}.json"
        lock = locked(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        record = read_object(path)
        if record is None or record["digest"] != keys[cell["name"]]:
            return cell, lock
        lock.release()
    return None, None


def _state(module, config: dict, folder: Path, told: set[str]):
    """Cells, their digests, and the records that still match; stale ones are named once.

    A cell may exist only because of an earlier result, so the plan is asked again until the
    records on disk bring up no new cell.
    """
    records: dict[str, dict] = {}
    while True:
        cells = plan(module, config, {n: r["result"] for n, r in records.items()})
        keys = {c["name"]: digest([c, getattr(module, "VERSION", 1)]) for c in cells}
        found = {}
        for label in keys:
            record = read_object(folder / "cells" / f"{label}.json")
            if record is not None and record["digest"] == keys[label]:
                found[label] = record
            elif record is not None and label not in told:
                told.add(label)
                print(f"  {label}: stale (its settings changed), to be run again")
        if not found.keys() >= records.keys():
            lost = ", ".join(records.keys() - found.keys())
            raise ValueError(f"cells() changed or dropped {lost} once it was done; a cell must not "
                             "depend on its own result or a later one")
        if len(found) == len(records):
            break
        records = found
    write_atomic(folder / "plan.json", json.dumps(keys, indent=1) + "\n")
    return cells, keys, records


def _cell(name: str, module, cell: dict, key: str, folder: Path, done: dict) -> bool:
    """Run one cell and store it; False, with one line, when it fails."""
    scratch = cache_dir("studies", name, cell["name"])
    begun = time.monotonic()
    try:
        result = _call(module.run, cell, scratch, done)
        record = {"cell": cell, "digest": key, "result": result,
                  "seconds": round(time.monotonic() - begun, 2), "versions": _versions()}
        text = json.dumps(record, indent=1, allow_nan=False)
        if not isinstance(result, dict):
            raise ValueError(f"run() returned {type(result).__name__}, not a dict")
    except Exception as error:  # one bad cell must not cost the night's other cells
        write_atomic(scratch / "error.txt", traceback.format_exc())
        print(f"  {cell['name']}: FAILED, {type(error).__name__}: {' '.join(str(error).split())} "
              f"(traceback in {scratch / 'error.txt'})")
        return False
    write_atomic(folder / "cells" / f"{cell['name']}.json", text + "\n")
    return True


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(),
            **{package: version(package) for package in ("kdlab", "torch", "numpy")}}
