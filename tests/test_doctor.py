"""The doctor names what is wrong and the command that mends it."""

from collections import namedtuple
from importlib import metadata

import psutil
import torch
from packaging.requirements import Requirement

from kdlab import doctor
from kdlab.doctor import OK, WARN, WRONG


def test_every_requirement_of_the_package_has_a_row():
    names = [row.what for row in doctor._packages()]
    wanted = [text for text in metadata.requires("kdlab") if "extra ==" not in text]
    assert len(names) == len(wanted) and "torch" in names and "pytest" not in names
    assert all(row.state == OK for row in doctor._packages())


def test_a_missing_or_old_package_and_its_mend():
    missing = doctor._package(Requirement("no-such-package-kdlab>=1.2"))
    assert missing.state == WRONG and missing.mend.endswith("install 'no-such-package-kdlab>=1.2'")
    old = doctor._package(Requirement("numpy>=999"))
    assert old.state == WRONG and "outside >=999" in old.found and "numpy>=999" in old.mend


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    assert doctor._python().state == WRONG and "conda create" in doctor._python().mend


def test_the_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor._device().found.startswith("CPU, ")


def test_little_memory_and_one_core_warn(monkeypatch):
    memory = namedtuple("Memory", "available total")(1e9, 8e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 1)
    cores, free = doctor._machine()
    assert (cores.state, free.state, free.found) == (WARN, WARN, "1.0 of 8.0 GB free")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: namedtuple("Use", "free")(9e9))
    assert doctor._cache() == (("cache folder", f"{tmp_path / 'cache'}, 9.0 GB free", OK, ""))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: namedtuple("Use", "free")(1e9))
    assert doctor._cache().state == WARN
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "file"))
    assert doctor._cache().state == WRONG and "KDLAB_CACHE" in doctor._cache().mend


def test_widget_extensions(monkeypatch, tmp_path):
    import jupyter_core.paths

    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *_: [str(tmp_path)])
    (tmp_path / "anywidget").mkdir()
    states = {row.what: row.state for row in doctor._widgets()}
    assert states["lab extension anywidget"] == OK
    assert states["lab extension jupyterlab-plotly"] == WRONG


def test_what_does_not_open_says_how_to_mend_it():
    def missing():
        raise FileNotFoundError("it is not here;\n put it there")

    assert doctor._opens("thing", missing) == ("thing", "does not open", WRONG,
                                                "it is not here; put it there")


def test_the_photographs_are_there():
    assert doctor._opens("ORL", doctor._orl) == ("ORL", "400 pictures", OK, "")


def test_the_whole_is_printed_with_a_mend_for_everything_wrong(capsys):
    rows = doctor.doctor()
    said = capsys.readouterr().out.splitlines()
    assert all(row.mend for row in rows if row.state != OK)
    assert len(said) == len(rows) + sum(bool(row.mend) for row in rows) + 1
