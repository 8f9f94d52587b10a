"""The study runner keeps what is finished, whatever happens."""

import json
import subprocess
import sys
import threading

import pytest
from filelock import FileLock

import kdlab
from kdlab import study

STUDY = '''
MINUTES = 1

def cells(config, done):
    found = [{"name": f"t{t}", "temperature": t} for t in config["temperatures"]]
    if all(cell["name"] in done for cell in found):
        best = max((cell["name"] for cell in found), key=lambda n: done[n]["tpr"])
        found.append({"name": "final", "from": best})
    return found

def run(cell, folder, done):
    with open(folder.parent / "log", "a") as log:
        log.write(cell["name"] + " ")
    if cell["name"] == "final":
        return {"tpr": done[cell["from"]]["tpr"] + 1, "from": cell["from"]}
    return {"tpr": cell["temperature"] / 10, "curve": [1, 2]}

def summarise(results, folder):
    return {"count": len(results), "last": results[-1]["result"]["from"]}
'''


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_HOME", str(tmp_path))
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "studies").mkdir()
    _write(tmp_path, STUDY)
    return tmp_path


def _write(home, code, config="temperatures: [1, 3, 2]\n", name="heat"):
    (home / "studies" / f"{name}.py").write_text(code)
    (home / "studies" / f"{name}.yaml").write_text(config)


def _ran(home) -> list[str]:
    log = home / "cache/studies/heat/log"
    return log.read_text().split() if log.exists() else []


def test_all_cells_then_the_one_that_depends_on_them(home):
    assert study.run_study("heat") == 0
    assert _ran(home) == ["t1", "t3", "t2", "final"]
    results = kdlab.stored("heat")
    assert results["final"] == {"tpr": 1.3, "from": "t3"}
    assert results.summary == {"count": 4, "last": "t3"}
    record = results.records["t1"]
    assert record["cell"] == {"name": "t1", "temperature": 1}
    assert record["seconds"] >= 0 and record["versions"]["kdlab"] == kdlab.__version__


def test_a_second_run_does_nothing_and_a_changed_cell_is_stale(home, capsys):
    study.run_study("heat")
    study.run_study("heat")
    assert len(_ran(home)) == 4
    _write(home, STUDY.replace('"temperature": t}', '"temperature": t + (t == 2)}'))
    capsys.readouterr()
    assert study.run_study("heat") == 0
    assert _ran(home)[4:] == ["t2"]
    assert "t2: stale" in capsys.readouterr().out


def test_a_raised_version_makes_every_cell_stale(home):
    study.run_study("heat")
    _write(home, STUDY + "\nVERSION = 2\n")
    study.run_study("heat")
    assert len(_ran(home)) == 8


def test_a_cell_no_longer_planned_is_named_and_left_out(home, capsys):
    study.run_study("heat")
    _write(home, STUDY, "temperatures: [1, 3]\n")
    study.run_study("heat")
    assert "t2: stale (no longer planned)" in capsys.readouterr().out
    assert list(kdlab.stored("heat")) == ["t1", "t3", "final"]


def test_a_failing_cell_costs_only_itself(home, capsys):
    bad = STUDY.replace('    if cell["name"] == "final"',
                        '    if cell["name"] == "t3": raise RuntimeError("too\\nhot")\n'
                        '    if cell["name"] == "final"')
    _write(home, bad)
    assert study.run_study("heat") == 1
    assert _ran(home) == ["t1", "t3", "t2"]
    said = capsys.readouterr().out
    assert "t3: FAILED, RuntimeError: too hot (traceback in " in said
    assert "raise RuntimeError" in (home / "cache/studies/heat/t3/error.txt").read_text()
    results = kdlab.stored("heat")
    assert list(results) == ["t1", "t2"] and results.missing == ["t3"] and results.summary is None
    assert "| t3 | NOT TESTED |" in results.table
    _write(home, STUDY)
    assert study.run_study("heat") == 0
    assert _ran(home)[3:] == ["t3", "final"]


@pytest.mark.parametrize("result", ['{"x": float("nan")}', '{"x": object()}', "[1]"])
def test_a_result_that_json_cannot_hold_is_a_failure(home, result, capsys):
    _write(home, f"MINUTES = 1\ndef cells(c): return [{{'name': 'a'}}]\n"
                 f"def run(cell, folder): return {result}\n", "{}")
    assert study.run_study("heat") == 1
    assert "a: FAILED" in capsys.readouterr().out
    assert not kdlab.stored("heat")


def test_done_and_summarise_may_be_left_out_and_order_sorts(home):
    _write(home, "MINUTES = 1\ndef cells(c): return [{'name': n} for n in 'bca']\n"
                 "def run(cell, folder): return {}\ndef order(cell): return cell['name']\n")
    assert study.run_study("heat") == 0
    assert list(kdlab.stored("heat")) == ["a", "b", "c"]


def test_ctrl_c_keeps_the_finished_cells(home, capsys):
    _write(home, STUDY.replace('    if cell["name"] == "final"',
                               '    if cell["name"] == "t3": raise KeyboardInterrupt\n'
                               '    if cell["name"] == "final"'))
    assert study.run_study("heat") == 130
    assert "to go on" in capsys.readouterr().out
    assert list(kdlab.stored("heat")) == ["t1"]
    _write(home, STUDY)
    assert study.run_study("heat") == 0  # the lock is free again


def test_the_limit_stops_before_a_cell_that_would_pass_it(home, monkeypatch, capsys):
    clock = iter(range(0, 10000, 20))  # every look at the clock is 20 s after the last
    monkeypatch.setattr(study.time, "monotonic", lambda: next(clock))
    assert study.run_study("heat", limit_minutes=2) == 0
    assert 1 <= len(_ran(home)) < 4
    assert "cells left" in capsys.readouterr().out


def test_two_processes_share_a_study(home):
    _write(home, STUDY.replace("    with open", "    __import__('time').sleep(0.2)\n    with open"))
    command = [sys.executable, "-m", "kdlab.cli", "study", "heat"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sorted(_ran(home)) == ["final", "t1", "t2", "t3"]  # nothing twice
    assert kdlab.stored("heat").summary == {"count": 4, "last": "t3"}


def test_a_cell_that_another_process_holds_is_left_to_it(home):
    folder = home / "data/results/heat/cells"
    folder.mkdir(parents=True)
    held = FileLock(folder / ".t1.json.lock", thread_local=False)  # released by the timer's thread
    held.acquire()
    threading.Timer(0.3, held.release).start()
    assert study.run_study("heat") == 0
    assert _ran(home) == ["t3", "t2", "t1", "final"]


@pytest.mark.parametrize("code, config, message", [
    ("cells = run = None", "{}", "defines no MINUTES"),
    (STUDY, "- a", "`name: value` lines"),
    (STUDY, "a: [", "is not YAML"),
    (STUDY, "temperatures: [1, 1]", "share the name t1"),
    ("MINUTES = 1\ndef run(c, f): ...\ndef cells(c): return [{'name': '../x'}]", "{}",
     "give it a name"),
    ("MINUTES = 1\ndef run(c, f): return {}\n"
     "def cells(c, done): return [{'name': 'b' if done else 'a'}]", "{}", "changed or dropped a"),
])
def test_a_broken_study_is_refused_in_words(home, code, config, message):
    _write(home, code, config)
    with pytest.raises(ValueError, match=message):
        study.run_study("heat")


def test_unknown_studies(home):
    with pytest.raises(FileNotFoundError, match="did you mean heat"):
        study.load("heet")
    (home / "studies" / "heat.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="has no config"):
        study.load("heat")
    with pytest.raises(ValueError, match="not the name of a study"):
        kdlab.stored("../heat")


def test_a_corrupt_cell_is_named(home):
    study.run_study("heat")
    path = home / "data/results/heat/cells/t1.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="t1.json is not JSON"):
        kdlab.stored("heat")


def test_the_table_shows_plain_values(home):
    study.run_study("heat")
    text = str(kdlab.stored("heat"))
    assert text.startswith("stored, not computed here")
    assert "| cell | tpr | from |" in text and "| final | 1.3 | t3 |" in text
    assert "curve" not in text
    assert json.loads((home / "data/results/heat/plan.json").read_text()).keys() == {
        "t1", "t3", "t2", "final"}


def test_a_summary_of_other_cells_is_not_shown(home):
    assert study.run_study("heat") == 0
    assert kdlab.stored("heat").summary
    plan = home / "data/results/heat/plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"t9": "x"}))
    assert kdlab.stored("heat").summary is None
