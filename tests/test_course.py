"""The notebook runner: two real executions, the rest with a stand-in for the worker."""

import json
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import kdlab
from kdlab import course

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
PARAMETERS = 'PROFILE = "cpu"\nSEED = 0\nOUT = ""'


def _write(folder: Path, name: str, *sources: str, **metadata):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
             *(new_code_cell(source) for source in sources)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL, **metadata})
    nbformat.write(notebook, folder / f"{name}.ipynb")


def _index(folder: Path, *names: str):
    entry = {"title": "t", "goal": "g", "minutes": {"smoke": 0.5, "cpu": 10}}
    (folder / "index.yml").write_text(yaml.safe_dump({n: entry for n in names}, sort_keys=False))


@pytest.mark.notebooks
def test_run_one_that_passes_and_one_that_fails(tmp_path, capsys):
    source = ("import os, pathlib\nassert os.environ['KDLAB_HEADLESS'] == '1'\n"
              "(pathlib.Path(OUT) / 'said').write_text(f'{PROFILE} {SEED}')")
    _write(tmp_path, "good", source)
    _write(tmp_path, "bad", "raise ValueError('no\\nway')")
    _index(tmp_path, "good", "bad")
    out = tmp_path / "out"
    good, bad = course.run(profile="smoke", out=out, seed=7, folder=tmp_path)
    assert good.ok and good.size == (out / "good.ipynb").stat().st_size
    assert (out / "good" / "said").read_text() == "smoke 7"
    assert (bad.state, bad.error) == ("failed", "cell 2: ValueError: no way")
    assert not (out / "bad" / "said").exists()
    said = capsys.readouterr().out
    assert "1 of 2 ok" in said and "cell 2: ValueError: no way" in said


def _worker(monkeypatch, code: str):
    """Put a few lines of Python in the place of the worker; argv is that of the worker."""
    real = course.subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, "-c", code, *command[3:]], **options)

    monkeypatch.setattr(course.subprocess, "Popen", popen)


def _run(tmp_path, monkeypatch, code, **options):
    _write(tmp_path, "one")
    _index(tmp_path, "one")
    _worker(monkeypatch, code)
    return course.run(["one"], out=tmp_path / "out", folder=tmp_path, **options)[0]


def test_a_hung_notebook_is_killed_with_its_kernel(tmp_path, monkeypatch):
    code = ("import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],\n"
            "                         start_new_session=True)\n"  # as a kernel is started
            "print(child.pid, flush=True)\ntime.sleep(600)")
    row = _run(tmp_path, monkeypatch, code, timeout=2)
    assert row.state == "timed out" and "over 2 s" in row.error and row.seconds < 60
    child = int((tmp_path / "out" / "one.log").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    monkeypatch.undo()
    assert _run(tmp_path, monkeypatch, "").ok  # the folder is free again


def test_an_executed_copy_beyond_the_limit(tmp_path, monkeypatch):
    code = "import sys; open(sys.argv[2], 'w').write('x' * 3_000_001)"
    row = _run(tmp_path, monkeypatch, code)
    assert (row.state, row.size) == ("too large", 3_000_001)


def test_a_worker_that_dies_without_a_word(tmp_path, monkeypatch):
    row = _run(tmp_path, monkeypatch, "import os; os._exit(3)")
    assert (row.state, row.error) == ("failed", "it wrote nothing")


def test_parameters_and_a_folder_of_its_own(tmp_path, monkeypatch):
    code = "import sys; open(sys.argv[2], 'w').write(sys.argv[3])"
    row = _run(tmp_path, monkeypatch, code, profile="cpu", seed=5)
    given = json.loads((tmp_path / "out" / "one.ipynb").read_text())
    assert row.ok
    assert given == {"PROFILE": "cpu", "SEED": 5, "OUT": str(tmp_path / "out" / "one")}


LEDGER = "import json, pathlib; pathlib.Path('claims.json').write_text({!r}); "
CLAIM = {"notebook": "one", "text": "x is 1", "verdict": "HELD"}


def test_the_claims_of_this_run_and_no_older_ones(tmp_path, monkeypatch):
    row = _run(tmp_path, monkeypatch, LEDGER.format(json.dumps([CLAIM])))
    assert row.ok and row.claims == (CLAIM,)
    monkeypatch.undo()  # or the second worker stands in for the first one's stand-in
    row = _run(tmp_path, monkeypatch, "pass")
    assert row.ok and row.claims == ()


def test_claims_made_before_a_failure_are_kept(tmp_path, monkeypatch):
    row = _run(tmp_path, monkeypatch, LEDGER.format(json.dumps([CLAIM])) + "raise SystemExit(1)")
    assert row.state == "failed" and row.claims == (CLAIM,)


def test_a_ledger_that_is_none_fails_the_notebook(tmp_path, monkeypatch):
    row = _run(tmp_path, monkeypatch, LEDGER.format("{"))
    assert row.state == "failed" and "is not a ledger of claims" in row.error


def test_what_ran_has_a_key_that_code_changes_and_prose_does_not(tmp_path, monkeypatch):
    row = _run(tmp_path, monkeypatch, "pass")
    notebook = course.read(tmp_path / "one.ipynb")
    assert row.text == course.text_key(notebook)
    notebook.cells.insert(0, new_markdown_cell("A better sentence."))
    assert row.text == course.text_key(notebook)
    notebook.cells[1].source += "\nX = 1"
    assert row.text != course.text_key(notebook)


def test_what_is_no_notebook_is_not_run(tmp_path, monkeypatch):
    _write(tmp_path, "one")
    _index(tmp_path, "one")
    (tmp_path / "one.ipynb").write_text("{}")
    _worker(monkeypatch, "raise SystemExit('it was run')")
    row, = course.run(out=tmp_path / "out", folder=tmp_path)
    assert row.state == "failed" and "one.ipynb is not a notebook" in row.error and not row.text


@pytest.mark.notebooks
def test_the_template_runs_and_claims(tmp_path):
    template = course.read(kdlab.home() / "notebooks" / "_template.ipynb")
    nbformat.write(template, tmp_path / "_template.ipynb")
    _index(tmp_path, "_template")
    row, = course.run(profile="smoke", out=tmp_path / "out", folder=tmp_path)
    assert row.ok, row.error
    live, missing = row.claims
    assert (live["source"], missing["source"]) == ("live", "your_study")
    assert live["interval"] and {live["verdict"], missing["verdict"]} == {"NOT TESTED"}
    said = (tmp_path / "out" / "_template.ipynb").read_text()
    assert "NOT TESTED: study your_study has no stored results; run `kdlab study your_study`" \
        in said


def test_a_committed_notebook_beyond_the_limit_is_not_run(tmp_path, monkeypatch):
    _write(tmp_path, "one", "x = '" + "y" * course.COMMITTED_LIMIT + "'")
    _index(tmp_path, "one")
    _worker(monkeypatch, "raise SystemExit('it was run')")
    row, = course.run(out=tmp_path / "out", folder=tmp_path)
    assert row.state == "too large" and "strip it" in row.error


def test_a_missing_notebook_is_a_failure(tmp_path):
    _index(tmp_path, "gone")
    row, = course.run(out=tmp_path / "out", folder=tmp_path)
    assert row.state == "failed" and "gone.ipynb is missing" in row.error


def test_nothing_is_run_when_the_request_is_wrong(tmp_path):
    _index(tmp_path, "one")
    for names, profile, message in [(["two"], "smoke", "no notebook two.*there are: one"),
                                    (["one", "one"], "smoke", "named twice"),
                                    (["one"], "fast", "the profile is one of")]:
        with pytest.raises(ValueError, match=message):
            course.run(names, profile, tmp_path / "out", folder=tmp_path)


def test_two_runs_never_share_a_folder(tmp_path):
    from kdlab.cache import locked

    _index(tmp_path, "one")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / "course"), pytest.raises(ValueError, match="another run"):
        course.run(out=tmp_path / "out", folder=tmp_path)


def test_strip_removes_what_a_run_leaves_and_only_that(tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [new_markdown_cell("# Title"),
             new_code_cell("1", execution_count=2, outputs=[new_output("stream", text="1")],
                           metadata={"tags": ["parameters"], "papermill": {"duration": 1}})]
    notebook = new_notebook(cells=cells, metadata={
        "kernelspec": KERNEL, "widgets": {"state": {}}, "papermill": {"duration": 2}})
    nbformat.write(notebook, path)
    assert course.strip(path)
    clean = nbformat.read(path, as_version=4)
    assert clean.metadata == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    assert [c.source for c in clean.cells] == ["# Title", "1"]
    assert clean.cells[1].outputs == [] and clean.cells[1].execution_count is None
    assert clean.cells[1].metadata == {"tags": ["parameters"]}
    content = path.read_bytes()
    assert not course.strip(path) and path.read_bytes() == content


def test_strip_names_the_plain_kernel_again(tmp_path):
    path = tmp_path / "x.ipynb"
    mine = {"kernelspec": {"name": "conda-env-mine", "display_name": "mine"},
            "language_info": {"name": "python", "version": "3.13.1", "pygments_lexer": "ipython3"}}
    nbformat.write(new_notebook(cells=[new_code_cell("1")], metadata=mine), path)
    assert course.strip(path)
    clean = nbformat.read(path, as_version=4)
    assert clean.metadata == {"kernelspec": KERNEL, "language_info": {"name": "python"}}


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 1, "nbformat": 4}', "\x00"])
def test_strip_refuses_what_is_no_notebook(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match="x.ipynb is not a notebook"):
        course.strip(path)
    assert path.read_text() == content
