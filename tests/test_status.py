"""Records of runs and the page made of them: complete, the same each time, never silently old."""

import json
import re
import shlex

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdlab import course, home, status
from kdlab.cli import main, parser
from kdlab.course import COMMITTED_LIMIT, Status, read, text_key
from kdlab.profiles import index

PATH = home() / "notebooks"


def _claim(text="x is more", verdict="HELD", **changed):
    return {"notebook": "10_x", "text": text, "verdict": verdict, "estimate": 0.12345,
            "why": "the interval lies above 0", "interval": [0.1, 0.2], "direction": "greater",
            "threshold": 0.0, "unit": " degrees", "seeds": [0, 1, 2], "source": "live",
            "profile": "cpu", **changed}


@pytest.fixture
def folder(tmp_path):
    """A course of two notebooks; the first takes 0.5 and 2 minutes."""
    for name in ("10_x", "20_y"):
        nbformat.write(new_notebook(cells=[new_code_cell("x = 1"), new_markdown_cell("# T")]),
                       tmp_path / f"{name}.ipynb")
    entry = {"title": "t", "goal": "g", "minutes": {"smoke": 0.5, "cpu": 2}}
    (tmp_path / "index.yml").write_text(
        yaml.safe_dump({"20_y": entry, "10_x": entry}, sort_keys=False))
    return tmp_path


def _done(folder, name="10_x", state="ok", seconds=90.04, claims=()):
    text = text_key(read(folder / f"{name}.ipynb"))
    return Status(name, state, seconds, 123_456, "at /a/b", text, tuple(claims))


def _table(folder) -> dict:
    """(notebook, profile) -> the other cells."""
    lines = [line for line in (folder / "STATUS.md").read_text().splitlines()
             if line.startswith("| [")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {(name.split("]")[0][1:], profile): rest for name, profile, *rest in rows}


def test_every_notebook_has_a_row_measured_or_not(folder):
    status.write(folder)
    table = _table(folder)
    assert list(table) == [(n, p) for n in ("20_y", "10_x") for p in ("smoke", "cpu")]
    assert all(row[0] == "not measured" and row[1] == "-" for row in table.values())
    assert table["10_x", "cpu"][2] == "2"


def test_what_was_measured_is_in_the_row(folder):
    claims = [_claim(), _claim("b", "NOT HELD"), _claim("c", "NOT TESTED"), _claim("d")]
    assert status.record([_done(folder, claims=claims)], "cpu", 7, folder) == folder / "status.json"
    row = _table(folder)["10_x", "cpu"]
    assert row[:7] == ["ok", "1.5", "2", "123", "2", "1", "1"]
    assert "kdlab " in row[7] and "torch " in row[7] and "core" in row[7] and "seed 7" in row[7]
    assert _table(folder)["10_x", "smoke"][0] == "not measured"
    assert (folder / "STATUS.md").read_text() == status.render(folder)


def test_claims_are_listed_with_interval_seeds_and_source(folder):
    claims = [_claim(), _claim("b | c", "NOT HELD", interval=[0.12345, 0.12345], unit=" %"),
              _claim("d", "NOT TESTED", estimate=None, interval=None, seeds=None, source="ekd"),
              _claim("e", "NOT TESTED", interval=None, unit="")]
    status.record([_done(folder, claims=claims)], "cpu", folder=folder)
    page = (folder / "STATUS.md").read_text()
    assert ("| x is more | **HELD**: the interval lies above 0 | 0.1235 degrees [0.1, 0.2] | "
            "0, 1, 2 | this run |") in page
    assert "| b \\| c | **NOT HELD**: " in page and "| 0.1235 %, exact |" in page
    assert "| d | **NOT TESTED**: the interval lies above 0 | - | - | study ekd |" in page
    assert "| 0.1235, no interval |" in page
    assert page.count("Not measured.") == 1  # 20_y


def test_a_smoke_run_lists_no_claims(folder):
    status.record([_done(folder, claims=[_claim(verdict="NOT TESTED")])], "smoke", folder=folder)
    assert _table(folder)["10_x", "smoke"][4:7] == ["0", "0", "1"]
    assert (folder / "STATUS.md").read_text().count("Not measured.") == 2


def test_a_record_of_other_code_says_so(folder):
    status.record([_done(folder, claims=[_claim()])], "cpu", folder=folder)
    notebook = read(folder / "10_x.ipynb")
    notebook.cells[1].source = "# A better title"
    nbformat.write(notebook, folder / "10_x.ipynb")
    assert status.render(folder) == (folder / "STATUS.md").read_text()
    notebook.cells[0].source = "x = 2"
    nbformat.write(notebook, folder / "10_x.ipynb")
    status.write(folder)
    assert _table(folder)["10_x", "cpu"][0] == "ok, older text"
    page = (folder / "STATUS.md").read_text()
    assert "Older text: the code has changed since.\n\n| claim |" in page
    (folder / "10_x.ipynb").unlink()
    assert "ok, older text" in status.render(folder)


def test_failures_and_dear_runs_are_shown(folder):
    status.record([_done(folder, state="failed"), _done(folder, "20_y", seconds=121)], "cpu",
                  folder=folder)
    assert _table(folder)["10_x", "cpu"][0] == "failed"
    assert _table(folder)["20_y", "cpu"][:2] == ["ok, over budget", "2.0"]
    assert "/a/b" not in (folder / "status.json").read_text()  # a path of one machine


def test_another_profile_gets_a_row_once_it_ran(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A Big GPU")
    status.record([_done(folder, seconds=7200)], "gpu", folder=folder)
    row = _table(folder)["10_x", "gpu"]
    assert row[:3] == ["ok", "120.0", "-"] and row[7].startswith("A Big GPU, ")


def test_records_replace_their_own_and_leave_the_others(folder):
    status.record([_done(folder), _done(folder, "20_y")], "cpu", folder=folder)
    status.record([_done(folder)], "smoke", folder=folder)
    status.record([_done(folder, seconds=30)], "cpu", folder=folder)
    table = _table(folder)
    assert [table["10_x", "cpu"][1], table["20_y", "cpu"][1], table["10_x", "smoke"][1]] == [
        "0.50", "1.5", "1.5"]


def test_a_notebook_that_never_began_leaves_the_record(folder):
    status.record([_done(folder)], "cpu", folder=folder)
    before = (folder / "status.json").read_bytes()
    status.record([Status("10_x", "failed", 0.0, 0, "is missing")], "cpu", folder=folder)
    assert (folder / "status.json").read_bytes() == before


def test_a_notebook_that_left_the_course_leaves_the_records(folder):
    status.record([_done(folder), _done(folder, "20_y")], "cpu", folder=folder)
    entries = index(folder)
    del entries["20_y"]
    (folder / "index.yml").write_text(yaml.safe_dump(entries))
    status.record([_done(folder)], "cpu", folder=folder)
    assert list(status.records(folder)["cpu"]) == ["10_x"]


def test_the_same_run_gives_the_same_bytes(folder):
    rows = [_done(folder), _done(folder, "20_y", claims=[_claim()])]
    status.record(rows, "cpu", folder=folder)
    before = [(folder / name).read_bytes() for name in ("status.json", "STATUS.md")]
    status.record(rows[::-1], "cpu", folder=folder)
    assert [(folder / name).read_bytes() for name in ("status.json", "STATUS.md")] == before
    assert not re.search(r"\d{4}-\d\d-\d\d", before[0].decode() + before[1].decode())


@pytest.mark.parametrize("content", ["", "[", "[]", '{"cpu": 1}', '{"fast": {}}',
                                     '{"cpu": {"10_x": {"state": "ok"}}}'])
def test_what_holds_no_records_is_named(folder, content):
    (folder / "status.json").write_text(content)
    with pytest.raises(ValueError, match="status.json holds no records of runs; restore it"):
        status.render(folder)


def test_only_a_run_that_is_asked_to_records(folder, monkeypatch, capsys):
    monkeypatch.setenv("KDLAB_HOME", str(folder))
    (folder / "notebooks").mkdir()
    for path in [*folder.glob("*.ipynb"), folder / "index.yml"]:
        path.rename(folder / "notebooks" / path.name)
    folder = folder / "notebooks"
    monkeypatch.setattr(course, "run", lambda *_: [_done(folder)])
    before = sorted(path.name for path in folder.iterdir())
    assert main(["notebooks", "run"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == before
    assert main(["notebooks", "run", "--record", "--profile", "cpu", "--seed", "3"]) == 0
    assert _table(folder)["10_x", "cpu"][7].endswith("seed 3")
    (folder / "STATUS.md").unlink()
    assert main(["notebooks", "status"]) == 0
    assert _table(folder)["10_x", "cpu"][0] == "ok"
    assert f"rendered {folder / 'STATUS.md'}" in capsys.readouterr().out


def test_the_page_is_what_the_records_render_to():
    assert (PATH / "STATUS.md").read_text() == status.render(), (
        "notebooks/STATUS.md is not what its records give; run `kdlab notebooks status`")


def test_every_notebook_of_the_course_has_its_rows():
    assert {(n, p) for n in index() for p in ("smoke", "cpu")} <= _table(PATH).keys()


def test_the_records_are_small():
    path = PATH / "status.json"
    assert not path.exists() or path.stat().st_size < COMMITTED_LIMIT
    assert json.dumps(status.records(), allow_nan=False)


def test_the_page_for_authors_names_what_there_is():
    page = (PATH / "WRITING.md").read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", page):
        assert (PATH / link).exists(), link
    for path in re.findall(r"`((?:kdlab|tests)/[\w/.]*)`", page):
        assert (home() / path).exists(), path
    commands = re.findall(r"^kdlab ([^#\n]+)", page, re.M)
    assert len(commands) >= 5
    for command in commands:
        assert callable(parser().parse_args(shlex.split(command)).run)
    assert len(page.splitlines()) <= 150
