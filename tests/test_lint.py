"""Each rule of the notebook lint, on notebooks made to break it; and the course itself."""

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdlab.lint import lint, words_per_line

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
PARAMETERS = 'PROFILE = "cpu"\nSEED = 0\nOUT = ""'
PROSE = "One two three four five six seven. " * 5  # 7 words a line for 5 lines of code
ENTRY = {"title": "t", "goal": "g", "minutes": {"smoke": 0.5, "cpu": 10}}


def _parameters(source=PARAMETERS, tags=("parameters",)):
    return new_code_cell(source, metadata={"tags": list(tags)})


def _notebook(*cells, parameters=True):
    first = [new_markdown_cell("# A title\n" + PROSE)] + [_parameters()] * parameters
    return new_notebook(cells=[*first, *cells], metadata={"kernelspec": KERNEL})


def _lint(folder, index=True, **notebooks):
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")
    if index:
        (folder / "index.yml").write_text(yaml.safe_dump({n: ENTRY for n in notebooks}))
    return [str(f) for f in lint(folder)]


def test_a_good_notebook_has_no_findings(tmp_path):
    assert _lint(tmp_path, good=_notebook(new_code_cell("x = 1\ny = 7 % 3"))) == []


@pytest.mark.parametrize("source, message", [
    ("!ls", "`!ls`: no `!` or `%` lines"),
    ("x = 1\n%matplotlib inline", "`%matplotlib inline`: no `!`"),
    ("%%bash\nls", "`%%bash`: no"),
    ("files = !ls", "`files = !ls`: no"),
    ("x = (", "does not parse"),
    ("import subprocess\nsubprocess.run(['pip', 'install', 'x'])", "installs a package"),
    ("class Student:\n    pass", "defines class Student"),
    ("import requests", "imports requests"),
    ("from urllib.request import urlopen", "imports urllib.request"),
    ("import numpy as np\nnp.loadtxt('https://example.org/x.csv')", "web address"),
    ("load(path='http://example.org/x')", "web address"),
    ("\n".join(f"x{k} = {k}" for k in range(26)), "26 lines; split it"),
])
def test_code_that_is_not_allowed(tmp_path, source, message):
    found = _lint(tmp_path, bad=_notebook(new_code_cell(source)))
    assert any(f.startswith("error: bad, cell 3: ") and message in f for f in found)


def test_a_modulo_at_the_start_of_a_line_is_python(tmp_path):
    assert _lint(tmp_path, good=_notebook(new_code_cell("x = (7\n% 3)"))) == []


def test_outputs_and_widget_state(tmp_path):
    cell = new_code_cell("1", execution_count=3, outputs=[new_output("stream", text="1")])
    notebook = _notebook(cell)
    notebook.metadata["widgets"] = {"state": {}}
    found = _lint(tmp_path, bad=notebook)
    assert any("cell 3: has outputs" in f for f in found)
    assert any("widget state is stored" in f for f in found)


@pytest.mark.parametrize("kernel", [None, {"name": "python3", "display_name": "Python 3"},
                                    {**KERNEL, "name": "conda-env"}])
def test_a_kernelspec_that_papermill_cannot_use(tmp_path, kernel):
    notebook = _notebook()
    notebook.metadata = {"kernelspec": kernel} if kernel else {}
    assert any("kernelspec" in f for f in _lint(tmp_path, bad=notebook))


@pytest.mark.parametrize("cells, message", [
    ([], "0 cells carry the tag"),
    ([_parameters(), _parameters()], "2 cells carry the tag"),
    ([_parameters("PROFILE = 'cpu'\nSEED = 0")], "sets no OUT"),
    ([_parameters(PARAMETERS + "\nX = SEED + 1")], "line 4: the parameters cell holds"),
    ([_parameters(PARAMETERS + "\nprint(SEED)")], "line 4: the parameters cell holds"),
])
def test_the_parameters_cell(tmp_path, cells, message):
    found = _lint(tmp_path, bad=_notebook(*cells, parameters=False))
    assert any(message in f for f in found)


def test_long_cells_on_the_whole(tmp_path):
    cells = [new_code_cell("\n".join(f"x{i}_{k} = {k}" for k in range(12))) for i in range(4)]
    assert any("median code cell" in f for f in _lint(tmp_path, bad=_notebook(*cells)))


@pytest.mark.parametrize("lines, level", [(1, "warn"), (2, None), (20, "error")])
def test_prose_and_code_in_proportion(tmp_path, lines, level):
    code = new_code_cell("\n".join(f"x{k} = {k}" for k in range(lines)))
    found = [f for f in _lint(tmp_path, some=_notebook(code)) if "words of prose" in f]
    assert [f.split(":")[0] for f in found] == ([level] if level else [])


def test_equations_fences_and_links_are_no_prose():
    text = "two words $x_{abc}$ $$\\frac{a b}{c d}$$ [link](https://a.b/c) \n```\ncode here\n```"
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("x = 1")])
    assert words_per_line(notebook) == 3


@pytest.mark.parametrize("text, message", [
    ("#### Deep", "jumps from level 1 to 4"),
    ("# Another title", "a second `#` title"),
])
def test_headings_in_order(tmp_path, text, message):
    found = _lint(tmp_path, bad=_notebook(new_markdown_cell(text)))
    assert any(message in f for f in found)


def test_a_hash_in_a_fence_is_no_heading(tmp_path):
    cell = new_markdown_cell("```\n# comment\n```")
    assert _lint(tmp_path, good=_notebook(cell, new_code_cell("x = 1\ny = 2"))) == []


def test_a_cell_copied_between_notebooks(tmp_path):
    source = "a = 1\nb = 2\nc = 3\nd = a + b + c"
    one = _notebook(new_code_cell(source))
    other = _notebook(new_code_cell("# the same, with a comment\n" + source))
    found = _lint(tmp_path, a=one, b=other)
    assert "error: b, cell 3: is a copy of a, cell 3; move what they share to the package" in found


def test_index_and_folder_agree(tmp_path):
    (tmp_path / "index.yml").write_text(yaml.safe_dump({"gone": {"title": "t"}}))
    found = _lint(tmp_path, index=False, new=_notebook(new_code_cell("x = 1\ny = 2")))
    assert "error: new: is not in index.yml; add title, minutes and goal" in found
    assert "error: gone: is in index.yml and there is no such notebook" in found
    assert "error: gone: index.yml gives no goal, minutes.smoke, minutes.cpu" in found


@pytest.mark.parametrize("content", ["[", "- a", "a: 1"])
def test_a_broken_index_is_one_finding(tmp_path, content):
    (tmp_path / "index.yml").write_text(content)
    assert len(_lint(tmp_path, index=False)) == 1


def test_what_is_no_notebook_is_named(tmp_path):
    (tmp_path / "x.ipynb").write_text("{}")
    assert any("x.ipynb is not a notebook" in f for f in _lint(tmp_path))


def test_the_course_keeps_to_its_rules():
    assert [str(f) for f in lint() if f.level == "error"] == []
