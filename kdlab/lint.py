"""What a notebook of the course keeps to, checked without running it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import kdlab
from kdlab.course import COMMITTED_LIMIT, read
from kdlab.profiles import index

CELL_LINES = 25  # a longer code cell is not read, it is skipped
MEDIAN_LINES = 10
PROSE_WARN = (5.0, 9.0)  # words of prose a line of code: what well-read tutorials have
PROSE_ERROR = (3.0, 14.0)
PARAMETERS = {"PROFILE", "SEED", "OUT"}
FETCHERS = {"requests", "urllib", "urllib3", "httpx", "aiohttp", "socket", "ftplib", "http"}
COPY_LINES = 4  # shorter cells (an import, a call) may well be alike


@dataclass(frozen=True)
class Finding:
    """One thing to mend.   cell: from 1; 0: the whole notebook.   level: "error" or "warn"."""

    notebook: str
    cell: int
    message: str
    level: str = "error"

    def __str__(self) -> str:
        where = f"{self.notebook}, cell {self.cell}" if self.cell else self.notebook
        return f"{self.level}: {where}: {self.message}"


def lint(folder: Path | None = None, prose: tuple[float, float] = PROSE_WARN) -> list[Finding]:
    """All findings on the notebooks of a folder and its index.yml.

    prose: the band of words a line of code outside which a warning is given.
    """
    folder = folder or kdlab.home() / "notebooks"
    paths = sorted(folder.glob("*.ipynb"))
    found, notebooks = [], {}
    for path in paths:
        try:
            notebooks[path.stem] = read(path)
        except ValueError as error:
            found.append(Finding(path.stem, 0, str(error)))
            continue
        if path.stat().st_size > COMMITTED_LIMIT:
            found.append(Finding(path.stem, 0, f"over {COMMITTED_LIMIT // 1000} kB; move data out"))
        for rule in (_metadata, _outputs, _parameters, _code, _lengths, _headings):
            found += [Finding(path.stem, *f) for f in rule(notebooks[path.stem])]
        found += [Finding(path.stem, *f) for f in _prose(notebooks[path.stem], prose)]
    found += _copies(notebooks)
    found += _index(folder, {p.stem for p in paths})
    return found


def _cells(notebook, kind: str) -> Iterator[tuple[int, object]]:
    return ((n, c) for n, c in enumerate(notebook.cells, 1) if c.cell_type == kind)


def _lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def _metadata(notebook):
    spec = notebook.metadata.get("kernelspec", {})
    if spec.get("name") != "python3" or spec.get("language") != "python":
        yield 0, 'set metadata.kernelspec to {"name": "python3", "language": "python", ' \
                 '"display_name": "Python 3"}: papermill reads the language there'
    if "widgets" in notebook.metadata:
        yield 0, "widget state is stored in the metadata; run `kdlab notebooks strip`"


def _outputs(notebook):
    for n, cell in _cells(notebook, "code"):
        if cell.outputs or cell.execution_count is not None:
            yield n, "has outputs or an execution count; run `kdlab notebooks strip`"


def _parameters(notebook):
    tagged = [(n, c) for n, c in _cells(notebook, "code")
              if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield 0, f"{len(tagged)} cells carry the tag `parameters`; exactly one does"
        return
    n, cell = tagged[0]
    names = set()
    for node in _tree(cell.source).body:
        try:
            ast.literal_eval(node.value)
            names.update(target.id for target in node.targets)
        except (AttributeError, ValueError):
            yield n, f"line {node.lineno}: the parameters cell holds `NAME = literal` lines only"
    if PARAMETERS - names:
        yield n, f"the parameters cell sets no {', '.join(sorted(PARAMETERS - names))}"


def _tree(source: str) -> ast.Module:
    """The syntax tree; an empty one where it does not parse (`_code` says so)."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse("")


def _code(notebook):
    for n, cell in _cells(notebook, "code"):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            magic = re.search(r"^\s*[!%].*|^.*=\s*[!%].*", cell.source, re.M)
            yield n, (f"`{magic[0].strip()}`: no `!` or `%` lines; use Python" if magic
                      else f"does not parse: {error.msg}, line {error.lineno}")
            continue
        if re.search(r"\bpip3?\b.{0,8}\binstall\b", cell.source):
            yield n, "installs a package; the environment does that"
        for node in ast.walk(tree):
            yield from ((n, message) for message in _banned(node))


def _banned(node: ast.AST):
    if isinstance(node, ast.ClassDef):
        yield f"defines class {node.name}; classes live in the package"
    modules = ([a.name for a in node.names] if isinstance(node, ast.Import) else
               [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
    for module in modules:
        if module.split(".")[0] in FETCHERS:
            yield f"imports {module}; nothing is fetched at run time"
    if isinstance(node, ast.Call):
        values = [*node.args, *(k.value for k in node.keywords)]
        if any(isinstance(v, ast.Constant) and isinstance(v.value, str)
               and re.match(r"(https?|ftp)://\S+$", v.value) for v in values):
            yield "calls something with a web address; nothing is fetched at run time"


def _lengths(notebook):
    lengths = [(n, len(_lines(c.source))) for n, c in _cells(notebook, "code")]
    for n, length in lengths:
        if length > CELL_LINES:
            yield n, f"{length} lines; split it or move it to the package (at most {CELL_LINES})"
    if lengths and median(length for _, length in lengths) >= MEDIAN_LINES:
        yield 0, f"the median code cell has {MEDIAN_LINES} lines or more; shorten the cells"


def words_per_line(notebook) -> float:
    """Words of prose a line of code; equations, fenced code and link targets are no prose."""
    text = "\n".join(c.source for _, c in _cells(notebook, "markdown"))
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|<[^>\n]+>|\]\([^)\s]*\)", " ", text,
                  flags=re.S)
    code = sum(len(_lines(c.source)) for _, c in _cells(notebook, "code"))
    return len(re.findall(r"[^\W\d_][\w'’-]*", text)) / max(code, 1)


def _prose(notebook, band: tuple[float, float]):
    ratio = words_per_line(notebook)
    for (low, high), level in ((PROSE_ERROR, "error"), (band, "warn")):
        if not low <= ratio <= high:
            advice = "say more" if ratio < low else "say less, or show more"
            yield 0, f"{ratio:.1f} words of prose a line of code, outside {low:g} to {high:g}; " \
                     f"{advice}", level
            return


def _headings(notebook):
    last = 0
    for n, cell in _cells(notebook, "markdown"):
        plain = re.sub(r"```.*?```", "", cell.source, flags=re.S)
        for marks in re.findall(r"^(#{1,6})\s", plain, re.M):
            level = len(marks)
            if last == 0 and level != 1:
                yield n, "the first heading is the title, `# ...`"
            elif last and level == 1:
                yield n, "a second `#` title; sections are `##`"
            elif last and level > last + 1:
                yield n, f"a heading jumps from level {last} to {level}"
            last = level
    if last == 0:
        yield 0, "has no title; begin with `# ...`"


def _copies(notebooks: dict) -> list[Finding]:
    seen, found = {}, []
    for name, notebook in notebooks.items():
        for n, cell in _cells(notebook, "code"):
            tree = _tree(cell.source)
            imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
            if ("parameters" in cell.metadata.get("tags", []) or imports
                    or len(_lines(cell.source)) < COPY_LINES or name.startswith("_")):
                continue
            other = seen.setdefault(ast.dump(tree), (name, n))
            if other != (name, n):
                found.append(Finding(name, n, f"is a copy of {other[0]}, cell {other[1]}; "
                                              "move what they share to the package"))
    return found


def _index(folder: Path, present: set[str]) -> list[Finding]:
    try:
        entries = index(folder)
    except (OSError, ValueError) as error:
        return [Finding("index.yml", 0, str(error))]
    found = []
    for name in sorted(n for n in present - entries.keys() if not n.startswith("_")):
        found.append(Finding(name, 0, "is not in index.yml; add title, minutes and goal"))
    for name, entry in entries.items():
        if name not in present:
            found.append(Finding(name, 0, "is in index.yml and there is no such notebook"))
        minutes = entry.get("minutes") if isinstance(entry.get("minutes"), dict) else {}
        lacks = [k for k in ("title", "goal") if not str(entry.get(k) or "").strip()]
        lacks += [f"minutes.{p}" for p in ("smoke", "cpu")
                  if not isinstance(minutes.get(p), int | float)]
        if lacks:
            found.append(Finding(name, 0, f"index.yml gives no {', '.join(lacks)}"))
    return found
