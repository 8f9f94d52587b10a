"""Each rule of the notebook lint, on notebooks made to break it; and the course itself."""

import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdlab.cli import main
from kdlab.lint import lint, words_per_line
from kdlab.lint.code import ABSOLUTE

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
PARAMETERS = 'PROFILE = "cpu"\nSEED = 0\nOUT = ""'
START = 'import kdlab\nctx = kdlab.start("{}", profile=PROFILE, seed=SEED, out=OUT)'
OPENING = "# A title\n**Goal.** Count. **Time.** 1 minute. After it you can\n\n- count."
CLOSING = "## 8. What would falsify this\n\nAnother number.\n\n## 9. Sources\n\n- A, *B*, C, 2020."
ENTRY = {"title": "t", "goal": "g", "minutes": {"smoke": 0.5, "cpu": 10}}
EXERCISE = "## Exercise: count (easy, 5 minutes)"
ANSWER = '@kdlab.check.cosine_similarity\ndef f(a, b):\n    raise NotImplementedError("a -> b")'


def _parameters(source=PARAMETERS, tags=("parameters",)):
    return new_code_cell(source, metadata={"tags": list(tags)})


def _notebook(*cells, name="bad", opening=OPENING, parameters=PARAMETERS, start=START,
              closing=CLOSING, claim="ctx.claim('x', 1.0, 'exact')", words=7):
    """A notebook without findings around `cells`, which begin at cell 4; a string that begins with
    # is text."""
    first = [new_markdown_cell(opening), _parameters(parameters),
             *([new_code_cell(start.replace("{}", name))] if start else [])]
    middle = [c if not isinstance(c, str) else new_markdown_cell(c) if c[0] == "#" else
              new_code_cell(c) for c in cells]
    last = [new_code_cell(claim)] if claim else []
    lines = sum(len(c.source.split("\n")) for c in [*first, *middle, *last]
                if c.cell_type == "code")
    filler = "word " * (words * lines - 25)  # 25: about what the other text holds
    return new_notebook(cells=[*first, *middle, *last, new_markdown_cell(f"{closing}\n\n{filler}")],
                        metadata={"kernelspec": KERNEL})


def _lint(folder, index=True, **notebooks):
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    if index:
        (folder / "index.yml").write_text(yaml.safe_dump({n: ENTRY for n in notebooks}))
    return [str(f) for f in lint(folder)]


def test_a_good_notebook_has_no_findings(tmp_path):
    good = _notebook("x = 1\ny = 7 % 3", EXERCISE, ANSWER, name="good")
    assert _lint(tmp_path, good=good) == []


BROKEN = {  # what is in cell 4 (or the whole) -> where, what is wrong, how to mend it
    "shell line": (["!ls"], "cell 4 [3], line 1: `!ls` runs in Jupyter only", "say it in Python"),
    "magic": (["x = 1\n%matplotlib inline"], "cell 4 [3], line 2: `%matplotlib inline`",
              "no `!` or `%` lines"),
    "cell magic": (["%%bash\nls"], "cell 4 [3], line 1: `%%bash`", "say it in Python"),
    "shell value": (["x = 1\n\nfiles = !ls"], "line 3: `files = !ls`", "say it in Python"),
    "syntax": (["x = 1\ny = ("], "cell 4 [3], line 2: does not parse", "mend the line"),
    "pip": (["import subprocess\nsubprocess.run(['pip', 'install', 'x'])"], "installs a package",
            "add it to pyproject.toml"),
    "class": (["x = 1\nclass Student:\n    pass"], "line 2: defines class Student",
              "move it to the package"),
    "fetcher": (["import requests"], "imports requests", "read a file"),
    "fetcher by part": (["from urllib.request import urlopen"], "imports urllib.request",
                        "read a file"),
    "address": (["import numpy as np\nnp.loadtxt('https://example.org/x.csv')"], "web address",
                "read a file"),
    "address by name": (["load(path='http://example.org/x')"], "web address", "read a file"),
    "path": (["x = 1\ny = load('/tmp/x.npy')"], "line 2: '/tmp/x.npy' is a path of one machine",
             "ctx.save(name, ...)"),
    "formatted path": (["x = f'/home/me/{SEED}'"], "'/home/me/' is a path", "kdlab.home()"),
    "environment": (["import os\nos.environ['X'] = '1'"], "line 2: reads or sets the environment",
                    "make it a parameter"),
    "environment by name": (["from os import getenv"], "reads or sets the environment", "ask ctx"),
    "late import": (["x = 1\nimport math"], "line 2: imports math half way",
                    "move it up to the cell that calls kdlab.start"),
    "long cell": (["\n".join(f"x{k} = {k}" for k in range(26))], "cell 4 [3]: has 26 lines",
                  "split it, or move a function"),
    "long cells": (["\n".join(f"x{i}_{k} = {k}" for k in range(12)) for i in range(5)],
                   "half of the code cells have 10 lines", "split the longest"),
    "no words": (["plots.show(fig)"], "plots.show(...) has no alt text", "add alt="),
    "few words": (["plots.show(fig, 'Two curves.')"], "'Two curves.' has 2 words",
                  "what a reader should see"),
    "few words, formatted": (["show(fig, alt=f'Curves of {SEED}')"], "has 3 words", "say in 5"),
    "few words, panel": (["ui.panel(f, {}, alt='One face.')"], "has 2 words", "say in 5"),
    "panel without": (["ui.panel(f, {})"], "ui.panel(...) has no alt text", "add alt="),
    "bare figure": (["fig = 1\nfig"], "line 2: `fig` shows a figure without alt text",
                    "write plots.show(fig"),
    "bare plot": (["x = 1\nplots.roc(x)"], "line 2: `plots.roc(x)` shows a figure",
                  "write plots.show(fig"),
    "plotly's show": (["fig.show()"], "`fig.show()` shows a figure", "write plots.show(fig"),
    "exercise, no minutes": (["## Exercise: count (easy)", ANSWER], "cell 4: `Exercise: count",
                             "write `### Exercise: what to do (easy, 5 minutes)`"),
    "exercise, other level": (["## Exercise: count (nasty, 5 minutes)", ANSWER],
                              "gives no difficulty and minutes", "or medium, or hard"),
    "exercise, no code": ([EXERCISE, "x = 1"], "cell 4: `Exercise: count (easy, 5 minutes)` is not "
                          "followed by its code cell", "@kdlab.check.NAME"),
    "two exercises": ([EXERCISE, EXERCISE, ANSWER], "cell 4: `Exercise: count (easy, 5 minutes)`",
                      "let the next code cell hold"),
    "exercise at the end": ([ANSWER, EXERCISE, "# X"], "is not followed", "@kdlab.check.NAME"),
    "check alone": ([ANSWER], "cell 4 [3]: has a check and no exercise above it",
                    "in the text before"),
    "exercise solved": ([EXERCISE, ANSWER.replace("raise NotImplementedError", "return str")],
                        "the exercise f is committed solved", "leave `raise NotImplementedError("),
    "heading": (["#### Deep"], "cell 4: a heading jumps from level 1 to 4", "write `##`"),
    "title": (["# Another title"], "cell 4: a second `#` title", "sections are `##`"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_and_how_to_mend_it(tmp_path, case):
    cells, wrong, mend = BROKEN[case]
    found = _lint(tmp_path, bad=_notebook(*cells))
    assert any(f.startswith("error: bad") and wrong in f and mend in f for f in found), found


WHOLE = {  # what is given to _notebook -> what is wrong, how to mend it
    "no OUT": ({"parameters": "PROFILE = 'cpu'\nSEED = 0"}, "cell 2 [1]: the parameters cell sets "
               "no OUT", 'add `OUT = ""`'),
    "computed": ({"parameters": PARAMETERS + "\nX = SEED + 1"}, "cell 2 [1], line 4: the parameters"
                 " cell holds `NAME = literal` lines only", "move this to a later cell"),
    "called": ({"parameters": PARAMETERS + "\nprint(SEED)"}, "line 4: the parameters cell holds",
               "move this to a later cell"),
    "no start": ({"start": ""}, "calls kdlab.start 0 times", 'kdlab.start("bad", profile=PROFILE'),
    "two starts": ({"start": START + "\n" + START}, "calls kdlab.start 2 times", "call it once"),
    "other name": ({"name": "other"}, "cell 3 [2], line 2: kdlab.start is told 'other'",
                   'write kdlab.start("bad", ...)'),
    "own profile": ({"start": START.replace("profile=PROFILE", "profile='cpu'")},
                    "kdlab.start does not get the parameters", "pass profile=PROFILE"),
    "no out": ({"start": START.replace(", out=OUT", "")}, "does not get the parameters",
               "pass out=OUT"),
    "no goal": ({"opening": OPENING.replace("**Goal.**", "")}, "cell 1: the first cell does not say"
                " `**Goal.**`", "add it and one sentence"),
    "no abilities": ({"opening": OPENING.replace("After it you can", "")}, "does not say `After it",
                     "abilities as a list"),
    "no title": ({"opening": OPENING.replace("# A title", "A title"), "closing":
                  CLOSING.replace("## ", "")}, "has no title", "begin with `# Title"),
    "late title": ({"opening": OPENING.replace("# A", "## A")}, "the first heading is no title",
                   "begin with `# Title"),
    "no doubt": ({"closing": "## Sources"}, "has no section `## What would falsify this`",
                 "add it: the result that would have made you say the opposite"),
    "no sources": ({"closing": "## What would falsify this"}, "has no section `## Sources`",
                   "add it: authors, title"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_every_notebook_has(tmp_path, case):
    changed, wrong, mend = WHOLE[case]
    found = _lint(tmp_path, bad=_notebook(**changed))
    assert any(f.startswith("error: bad") and wrong in f and mend in f for f in found), found


@pytest.mark.parametrize("count", [0, 2])
def test_a_tag_that_is_missing_or_there_twice(tmp_path, count):
    notebook = _notebook(*[_parameters()] * (count == 2))
    if count == 0:
        notebook.cells[1].metadata = {}
    found = _lint(tmp_path, bad=notebook)
    assert any(f.startswith(f"error: bad: {count} cells carry the tag `parameters`; give it to "
                            "exactly one") for f in found)


def test_a_notebook_that_claims_nothing_is_asked_why(tmp_path):
    found, = _lint(tmp_path, bad=_notebook("x = 1", claim=None))
    assert found.startswith("warn: bad: makes no claim; call ctx.claim(text, estimate, interval)")


@pytest.mark.parametrize("source", [
    "x = (7\n% 3)", "plots.show(fig, words)", "plots.show(fig, f'{SEED} curves that all rise.')",
    "ui.panel(f, {}, alt=words)", "f'{SEED}/cells/x.json'", "'and/or: 3 km/h'", "kdlab.show_source",
    "print(plots)\nfig = plots.roc(x)", "kdlab.home() / 'data' / 'results'", "print('nothing')",
    "plots.rules_words(x)", "def f():\n    return plots.roc(x)",
])
def test_what_is_allowed(tmp_path, source):
    assert _lint(tmp_path, bad=_notebook(source)) == []


@pytest.mark.parametrize("text, one_machine", [
    ("/home", True), ("/a/b", True), ("~/faces", True), ("C:\\faces", True), ("D:/x", True),
    ("/", False), ("/s", False), ("a/b/c", False), ("", False), ("http://a.b/c", False),
    ("~ 3", False), ("x: /", False),
])
def test_paths_of_one_machine(text, one_machine):
    assert bool(ABSOLUTE.match(text)) == one_machine


def test_outputs_and_widget_state(tmp_path):
    cell = new_code_cell("1", execution_count=3, outputs=[new_output("stream", text="1")])
    notebook = _notebook(cell)
    notebook.metadata["widgets"] = {"state": {}}
    found = _lint(tmp_path, bad=notebook)
    for wrong in ("cell 4 [3]: has outputs", "bad: widget state is stored"):
        assert any(wrong in f and "run `kdlab notebooks strip`" in f for f in found)


@pytest.mark.parametrize("kernel", [None, {"name": "python3", "display_name": "Python 3"},
                                    {**KERNEL, "name": "conda-env"}])
def test_a_kernelspec_that_papermill_cannot_use(tmp_path, kernel):
    notebook = _notebook("x = 1")
    notebook.metadata = {"kernelspec": kernel} if kernel else {}
    assert any("kernelspec" in f and "run `kdlab notebooks strip`" in f
               for f in _lint(tmp_path, bad=notebook))
    main(["notebooks", "strip", str(tmp_path / "bad.ipynb")])
    assert lint(tmp_path) == []


@pytest.mark.parametrize("words, level, mend", [
    (2, "error", "say more"), (4, "warn", "say more"), (7, None, ""), (11, "warn", "cut words"),
    (16, "error", "cut words"),
])
def test_prose_and_code_in_proportion(tmp_path, words, level, mend):
    code = "\n".join(f"x{k} = {k}" for k in range(20))
    found = _lint(tmp_path, some=_notebook(code, name="some", words=words))
    assert [f.split(":")[0] for f in found] == ([level] if level else [])
    assert all("words of prose" in f and mend in f for f in found)


def test_equations_fences_and_links_are_no_prose():
    text = "two words $x_{abc}$ $$\\frac{a b}{c d}$$ [link](https://a.b/c) \n```\ncode here\n```"
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("x = 1")])
    assert words_per_line(notebook) == 3


def test_a_hash_in_a_fence_is_no_heading(tmp_path):
    cell = new_markdown_cell("```\n# comment\n### Exercise: none\n```")
    assert _lint(tmp_path, bad=_notebook(cell)) == []


def test_a_cell_copied_between_notebooks(tmp_path):
    source = "a = 1\nb = 2\nc = 3\nd = a + b + c"
    one = _notebook(source, name="a")
    other = _notebook(new_code_cell("# the same, with a comment\n" + source), name="b")
    found = _lint(tmp_path, a=one, b=other)
    assert "error: b, cell 4 [3]: is a copy of a, cell 4; move what they share to the package" \
        in found


def test_index_and_folder_agree(tmp_path):
    (tmp_path / "index.yml").write_text(yaml.safe_dump({"gone": {"title": "t"}}))
    found = _lint(tmp_path, index=False, new=_notebook("x = 1", name="new"))
    assert found == [
        "error: new: is not in index.yml; add title, minutes and goal",
        "error: gone: is in index.yml and there is no such notebook; take the entry out, or give "
        "it the file's name",
        "error: gone: index.yml gives no goal, minutes.smoke, minutes.cpu; write it as the entries "
        "above do"]


@pytest.mark.parametrize("content", ["[", "- a", "a: 1"])
def test_a_broken_index_is_one_finding(tmp_path, content):
    (tmp_path / "index.yml").write_text(content)
    found, = _lint(tmp_path, index=False)
    assert "; mend or restore notebooks/index.yml" in found


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("{}")
    assert any("x.ipynb is not a notebook" in f and "restore it with git" in f
               for f in _lint(tmp_path))


def test_a_notebook_that_carries_data(tmp_path):
    found = _lint(tmp_path, bad=_notebook("x = 1", f"# Data\n{'7' * 300_000}"))
    assert any("is over 300 kB; run `kdlab notebooks strip`, or move data" in f for f in found)


def test_every_message_says_what_and_how(tmp_path):
    cells = [c for case in BROKEN.values() for c in case[0]]
    parts = [_notebook(*cells), *(_notebook(**changed) for changed, *_ in WHOLE.values())]
    for k, part in enumerate(parts):
        nbformat.write(part, tmp_path / f"n{k}.ipynb")
    found = lint(tmp_path)
    assert len({f.message for f in found}) > len(BROKEN)
    for f in found:
        assert re.fullmatch(r"[^;]+; \S+ \S+.*", f.message, re.S), f
        assert not f.message.endswith("."), f


def test_one_notebook_is_linted_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDLAB_HOME", str(tmp_path))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    _lint(folder, bad=_notebook("import requests"), good=_notebook("x = 1", name="good"))
    assert main(["notebooks", "lint", "good"]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings\n"
    assert main(["notebooks", "lint", "notebooks/bad.ipynb"]) == 1
    assert "error: bad, cell 4 [3], line 1: imports requests" in capsys.readouterr().out
    assert main(["notebooks", "lint", "gone"]) == 2
    assert "no notebook gone" in (said := capsys.readouterr().err) and "bad, good" in said


def test_the_course_keeps_to_its_rules():
    assert [str(f) for f in lint() if f.level == "error"] == []


def test_the_template_keeps_to_all_of_them():
    assert [str(f) for f in lint() if f.notebook == "_template"] == []
