"""What is installed and found here, and for everything wrong the command that mends it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import kdlab
from kdlab.cache import cache_dir

OK, WARN, WRONG = "ok", "warn", "wrong"
GB = 1e9
FREE_DISK = 5 * GB  # 1,900 rendered people in both crops take about 3.2 GB (our choice above it)
MEMORY = 4 * GB  # the dearest notebook stays under 2 GB; the browser wants the rest (our choice)
WIDGETS = {  # labextension folder -> the package that brings it
    "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets",
    "anywidget": "anywidget",
    "jupyterlab-plotly": "plotly",
}


class Row(NamedTuple):
    """One thing looked at.   state: "ok", "warn" (works, worse) or "wrong" (required)."""

    what: str
    found: str
    state: str = OK
    mend: str = ""


def doctor() -> list[Row]:
    """Look at everything, print it, return the rows. Nothing is changed, nothing is fetched."""
    rows = [_python(), *_packages(), _device(), *_machine(), _cache(), *_widgets(),
            _opens("ORL photographs", _orl), _opens("teacher dlib_resnet29", _teacher)]
    width = max(len(row.what) for row in rows)
    for row in rows:
        print(f"{row.state:5} {row.what:{width}}  {row.found}")
        if row.mend:
            print(f"{'':5} {'':{width}}  -> {row.mend}")
    wrong = sum(row.state == WRONG for row in rows)
    print("everything needed is here" if not wrong else f"{wrong} to mend")
    return rows


def _python() -> Row:
    wanted = metadata.metadata("kdlab")["Requires-Python"]
    found = platform.python_version()
    if SpecifierSet(wanted).contains(found):
        return Row("Python", f"{found} (wanted {wanted})")
    return Row("Python", found, WRONG, f"conda create -n kdlab 'python{wanted}'")


def _packages() -> list[Row]:
    """The ranges of pyproject.toml against what is installed; extras are nobody's duty."""
    wanted = [Requirement(text) for text in metadata.requires("kdlab") or []]
    return [_package(w) for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]


def _package(wanted: Requirement) -> Row:
    mend = f"{sys.executable} -m pip install '{wanted.name}{wanted.specifier}'"
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Row(wanted.name, f"missing (wanted {wanted.specifier})", WRONG, mend)
    if wanted.specifier.contains(found, prereleases=True):
        return Row(wanted.name, f"{found} (wanted {wanted.specifier})")
    return Row(wanted.name, f"{found}, outside {wanted.specifier}", WRONG, mend)


def _device() -> Row:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return Row("device", f"torch does not load: {error}", WRONG,
                   f"{sys.executable} -m pip install --force-reinstall torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        return Row("device", f"{', '.join(names)}; profiles smoke, cpu, gpu")
    return Row("device", f"CPU, {torch.get_num_threads()} threads; profiles smoke and cpu")


def _machine() -> list[Row]:
    cores, memory = os.cpu_count() or 1, psutil.virtual_memory()
    rows = [Row("cores", str(cores)) if cores > 1 else
            Row("cores", "1", WARN, "expect twice the minutes the notebooks state")]
    found = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
    rows.append(Row("memory", found) if memory.available >= MEMORY else
                Row("memory", found, WARN, "close other programs before notebook 60"))
    return rows


def _cache() -> Row:
    try:
        folder = cache_dir()
    except OSError as error:
        return Row("cache folder", str(error), WRONG, "export KDLAB_CACHE=/a/folder/you/can/write")
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {free / GB:.1f} GB free"
    if free >= FREE_DISK:
        return Row("cache folder", found)
    return Row("cache folder", found, WARN, "export KDLAB_CACHE=/a/folder/on/a/larger/disk")


def _widgets() -> list[Row]:
    from jupyter_core.paths import jupyter_path

    rows = []
    for name, package in WIDGETS.items():
        found = [p for p in jupyter_path("labextensions") if (Path(p) / name).is_dir()]
        rows.append(Row(f"lab extension {name}", found[0]) if found else
                    Row(f"lab extension {name}", "missing: figures or sliders stay blank", WRONG,
                        f"{sys.executable} -m pip install --force-reinstall {package}"))
    return rows


def _opens(what: str, look: Callable[[], str]) -> Row:
    """A row that says what opening the thing said; the error of whoever opens it names the mend."""
    try:
        return Row(what, look())
    except (ImportError, OSError, ValueError) as error:
        return Row(what, "does not open", WRONG, " ".join(str(error).split()))


def _orl() -> str:
    from kdlab.data.orl import load_orl

    return f"{len(load_orl(crops=()))} pictures"


def _teacher() -> str:
    from kdlab.teachers import load_teacher

    load_teacher("dlib_resnet29")
    return str(kdlab.home() / "data" / "teachers")
