"""The command line: what is called, exit codes, one line for an error."""

import sys

import pytest

import kdlab
from kdlab import cli, course, doctor, lint, study


def _call(monkeypatch, module, name, result):
    """Replace a function by one that records its arguments."""
    seen = []

    def stand_in(*arguments):
        seen.append(arguments)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(module, name, stand_in)
    return seen


def test_help_and_version(capsys):
    for arguments in (["--help"], ["--version"], ["notebooks", "--help"], ["study", "--help"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
    assert f"kdlab {kdlab.__version__}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [
    [], ["notebooks"], ["fly"], ["notebooks", "run", "--profile", "fast"],
    ["study", "x", "--limit-minutes", "0"], ["study", "x", "--limit-minutes", "nan"], ["train"],
])
def test_a_command_that_does_not_exist(arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2


def test_doctor_fails_only_for_what_is_required(monkeypatch):
    row = doctor.Row
    _call(monkeypatch, doctor, "doctor", [row("a", "b"), row("a", "b", doctor.WARN, "c")])
    assert cli.main(["doctor"]) == 0
    _call(monkeypatch, doctor, "doctor", [row("a", "b", doctor.WRONG, "c")])
    assert cli.main(["doctor"]) == 1


def test_notebooks_run(monkeypatch, tmp_path):
    seen = _call(monkeypatch, course, "run", [course.Status("a", "ok", 1.0, 1)])
    out = tmp_path / "out"
    assert cli.main(["notebooks", "run", "a", "b", "--profile", "cpu", "--out", str(out),
                     "--timeout", "60", "--seed", "3"]) == 0
    assert seen == [(["a", "b"], "cpu", out, 60.0, 3)]
    _call(monkeypatch, course, "run", [course.Status("a", "timed out", 1.0, 1)])
    assert cli.main(["notebooks", "run"]) == 1


def test_notebooks_lint_fails_for_errors_not_for_warnings(monkeypatch, capsys):
    _call(monkeypatch, lint, "lint", [lint.Finding("a", 3, "mend it", "warn")])
    assert cli.main(["notebooks", "lint"]) == 0
    assert "warn: a, cell 3: mend it\n0 errors, 1 warnings" in capsys.readouterr().out
    _call(monkeypatch, lint, "lint", [lint.Finding("a", 0, "mend it")])
    assert cli.main(["notebooks", "lint"]) == 1


def test_notebooks_list_and_strip(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KDLAB_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "index.yml").write_text(
        "10_x: {title: Ten, goal: Count., minutes: {smoke: 0.5}}\n")
    (tmp_path / "notebooks" / "10_x.ipynb").write_text(
        '{"cells": [], "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 5}')
    assert cli.main(["notebooks", "list"]) == 0
    said = capsys.readouterr().out
    assert "Ten (smoke 0.5 min)" in said and "Count." in said
    assert cli.main(["notebooks", "strip"]) == 0
    assert "10_x.ipynb: stripped" in capsys.readouterr().out


def test_study(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KDLAB_HOME", str(tmp_path))
    seen = _call(monkeypatch, study, "run_study", 1)
    assert cli.main(["study", "x", "--limit-minutes", "5"]) == 1
    assert seen == [("x", 5.0)]
    assert cli.main(["study"]) == 0
    assert "no studies in" in capsys.readouterr().out


def test_train_hands_the_config_over(monkeypatch):
    import kdlab.train.__main__ as train

    seen = _call(monkeypatch, train, "main", 0)
    assert cli.main(["train", "run.yaml"]) == 0
    assert seen == [(["run.yaml"],)]


def _points(path, rows=60):
    import numpy as np

    np.save(path, np.random.default_rng(0).standard_normal((rows, 5)))
    return str(path)


def test_dimension_hands_its_options_over(monkeypatch, capsys):
    from kdlab import dimension

    said = {"file": "x.npy", "rows": 60, "columns": 5, "duplicates": 2, "dimension": 4.5678,
            "stderr": 0.1234, "n": 58, "method": "mle", "repeats": 4, "fraction": 0.8,
            "mean": 4.4321, "std": 0.0234, "normalize": False}
    seen = _call(monkeypatch, dimension, "report", said)
    assert cli.main(["dimension", "x.npy"]) == 0
    assert cli.main(["dimension", "x.npy", "--method", "mle", "--discard", "0.2", "--repeats", "4",
                     "--fraction", "0.8", "--no-normalize", "--seed", "3"]) == 0
    assert seen == [("x.npy", "fit", 0.1, 20, 0.9, True, 0),
                    ("x.npy", "mle", 0.2, 4, 0.8, False, 3)]
    assert capsys.readouterr().out.splitlines()[:3] == [
        "x.npy: 60 rows of 5, 2 equal to an earlier one; lengths as they are",
        "dimension 4.568 +- 0.12 (standard error), 58 points, mle",
        "mean of 4 draws of 0.8: 4.432 +- 0.023 (spread)"]


def test_dimension_of_a_file(tmp_path, capsys):
    import json

    import numpy as np

    from kdlab.dimension import two_nn

    path = _points(tmp_path / "x.npy")
    assert cli.main(["dimension", path]) == 0
    text = capsys.readouterr().out
    assert cli.main(["dimension", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = two_nn(np.load(path, allow_pickle=False), normalize=True).dimension
    assert found["dimension"] == pytest.approx(expected) and len(found["values"]) == 20
    assert f"dimension {expected:.4g} +- " in text and "scaled to length 1" in text


def test_dimension_tells_what_to_sample(capsys):
    with pytest.raises(SystemExit):
        cli.main(["dimension", "--help"])
    assert "one picture of each person" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("make, message", [
    (lambda path, np: None, "there is no file {}"),
    (lambda path, np: path.write_text("1,2\n3,4"), "{} is not a .npy file"),
    (lambda path, np: path.write_bytes(b""), "{} is not a .npy file"),
    (lambda path, np: path.mkdir(), "there is no file {}"),
    (lambda path, np: np.save(path, np.array([[{}]]), allow_pickle=True),
     "{} holds Python objects"),
    (lambda path, np: path.write_bytes(path.with_name("whole.npy").read_bytes()[:-8]),
     "{} is cut short or damaged"),
    (lambda path, np: path.write_bytes(path.with_name("whole.npy").read_bytes()[:30]),
     "{} is cut short or damaged"),
    (lambda path, np: path.write_bytes(path.with_name("whole.npy").read_bytes().replace(
        b"(60, 5), }" + b" " * 9, b"(9999999999, 5), }" + b" ")), "{} is cut short or damaged"),
    (lambda path, np: np.save(path, np.zeros(7)), "{}: points must be the rows of a table"),
    (lambda path, np: np.save(path, np.array([["a"]])), "{}: points must be real numbers, not <U1"),
    (lambda path, np: np.save(path, np.zeros((0, 5))), "{}: two neighbours need 3 different"),
    (lambda path, np: np.save(path, np.eye(2)), "{}: two neighbours need 3 different points"),
    (lambda path, np: np.save(path, np.diag([1, 2, np.nan])), "{}: row 2 is not finite"),
    (lambda path, np: np.save(path, np.diag([1.0, 0, 2, 3])), "{}: row 1 is zero"),
])
def test_dimension_of_what_it_cannot_be(make, message, tmp_path, capsys):
    import numpy as np

    _points(tmp_path / "whole.npy")
    path = tmp_path / "x.npy"
    make(path, np)
    assert cli.main(["dimension", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kdlab: {message.format(path)}") and said.count("\n") == 1


@pytest.mark.parametrize("option", [["--method", "line"], ["--discard", "1"], ["--repeats", "0"],
                                    ["--fraction", "2"], ["--discard", "nan"], ["--seed", "-1"]])
def test_dimension_with_settings_that_make_no_sense(option, tmp_path, capsys):
    assert cli.main(["dimension", _points(tmp_path / "x.npy"), *option]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("error", [OSError("disk\nfull"), ValueError("disk full"),
                                   FileNotFoundError("disk full")])
def test_an_error_is_one_line(monkeypatch, capsys, error):
    _call(monkeypatch, study, "run_study", error)
    assert cli.main(["study", "x"]) == 2
    assert capsys.readouterr().err == "kdlab: disk full\n"
    with pytest.raises(type(error)):
        cli.main(["--debug", "study", "x"])


def test_ctrl_c(monkeypatch, capsys):
    _call(monkeypatch, study, "run_study", KeyboardInterrupt())
    assert cli.main(["study", "x"]) == 130
    assert capsys.readouterr().err == "kdlab: stopped\n"


def test_a_bug_is_not_hidden(monkeypatch):
    _call(monkeypatch, study, "run_study", TypeError("ours"))
    with pytest.raises(TypeError):
        cli.main(["study", "x"])


def test_an_unknown_study_end_to_end(tmp_path):
    import os
    import subprocess

    environment = {**os.environ, "KDLAB_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "kdlab.cli", "study", "x"], text=True,
                          capture_output=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("kdlab: no study 'x' in ") and done.stderr.count("\n") == 1
