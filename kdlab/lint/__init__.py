"""What a notebook of the course keeps to, checked without running it.

Every message has two halves: what is wrong; how to mend it.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import kdlab
from kdlab.course import COMMITTED_LIMIT, read
from kdlab.lint import code, form, parts
from kdlab.lint.form import PROSE_WARN, cells, lines, tree, words_per_line
from kdlab.profiles import index

__all__ = ["Finding", "lint", "words_per_line"]

COPY_LINES = 4  # shorter cells (an import, a call) may well be alike
RULES = (form.metadata, form.outputs, form.parameters, form.lengths, form.headings,
         parts.opening, parts.sections, parts.exercises, parts.claims,
         code.allowed, code.start, code.imports, code.figures)


@dataclass(frozen=True)
class Finding:
    """One thing to mend.   level: "error" or "warn".

    cell: from 1 over all cells; 0: the whole notebook.   count: what JupyterLab puts before a code
    cell after Restart and Run All; 0 for text.   line: in the cell, as JupyterLab numbers; 0: none.
    """

    notebook: str
    cell: int
    message: str
    level: str = "error"
    line: int = 0
    count: int = 0

    def __str__(self) -> str:
        where = f"{self.notebook}, cell {self.cell}" if self.cell else self.notebook
        where += f" [{self.count}]" if self.count else ""
        where += f", line {self.line}" if self.line else ""
        return f"{self.level}: {where}: {self.message}"


def lint(folder: Path | None = None, prose: tuple[float, float] = PROSE_WARN) -> list[Finding]:
    """All findings on the notebooks of a folder and its index.yml.

    prose: the band of words a line of code outside which a warning is given.
    """
    folder = folder or kdlab.home() / "notebooks"
    paths = sorted(folder.glob("*.ipynb"))
    found, notebooks = [], {}
    for path in paths:
        name = path.stem
        try:
            notebook = read(path)
        except ValueError as error:
            found.append(Finding(name, 0, f"{error}; restore it with git, or save it again from "
                                          "JupyterLab"))
            continue
        notebooks[name] = notebook
        if path.stat().st_size > COMMITTED_LIMIT:
            found.append(Finding(name, 0, f"is over {COMMITTED_LIMIT // 1000} kB; run `kdlab "
                                          "notebooks strip`, or move data to data/"))
        shown = {n: k for k, (n, _) in enumerate(cells(notebook, "code"), 1)}
        for rule in RULES:
            for cell, message, *rest in rule(notebook, name):
                line, level = [*rest, *(0, "error")[len(rest):]]
                found.append(Finding(name, cell, message, level, line, shown.get(cell, 0)))
        found += [Finding(name, *f) for f in form.prose(notebook, prose)]
    return found + _copies(notebooks) + _index(folder, {path.stem for path in paths})


def _copies(notebooks: dict) -> list[Finding]:
    seen, found = {}, []
    for name, notebook in notebooks.items():
        for k, (n, cell) in enumerate(cells(notebook, "code"), 1):
            parsed = tree(cell.source)
            imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in parsed.body)
            if ("parameters" in cell.metadata.get("tags", []) or imports
                    or len(lines(cell.source)) < COPY_LINES or name.startswith("_")):
                continue
            other = seen.setdefault(ast.dump(parsed), (name, n))
            if other != (name, n):
                found.append(Finding(name, n, f"is a copy of {other[0]}, cell {other[1]}; "
                                              "move what they share to the package", count=k))
    return found


def _index(folder: Path, present: set[str]) -> list[Finding]:
    try:
        entries = index(folder)
    except (OSError, ValueError) as error:
        return [Finding("index.yml", 0, f"{error}; mend or restore notebooks/index.yml")]
    found = []
    for name in sorted(n for n in present - entries.keys() if not n.startswith("_")):
        found.append(Finding(name, 0, "is not in index.yml; add title, minutes and goal"))
    for name, entry in entries.items():
        if name not in present:
            found.append(Finding(name, 0, "is in index.yml and there is no such notebook; take the "
                                          "entry out, or give it the file's name"))
        minutes = entry.get("minutes") if isinstance(entry.get("minutes"), dict) else {}
        lacks = [k for k in ("title", "goal") if not str(entry.get(k) or "").strip()]
        lacks += [f"minutes.{p}" for p in ("smoke", "cpu")
                  if not isinstance(minutes.get(p), int | float)]
        if lacks:
            found.append(Finding(name, 0, f"index.yml gives no {', '.join(lacks)}; write it as the "
                                          "entries above do"))
    return found
