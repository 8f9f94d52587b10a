"""Rules on the file as a whole: metadata, outputs, parameters, lengths, prose, headings.

A rule takes a notebook and its name and yields (cell, what is wrong; how to mend it[, line[,
level]]), cell 0 for the whole notebook.
"""

import ast
import re
from collections.abc import Iterator
from statistics import median

from kdlab.course import KERNEL

CELL_LINES = 25  # a longer code cell is not read, it is skipped
MEDIAN_LINES = 10
PROSE_WARN = (5.0, 9.0)  # words of prose a line of code: what well-read tutorials have
PROSE_ERROR = (3.0, 14.0)
PARAMETERS = {"PROFILE": '"cpu"', "SEED": "0", "OUT": '""'}


def cells(notebook, kind: str) -> Iterator[tuple[int, object]]:
    """(number from 1 over all cells, cell) of one kind."""
    return ((n, c) for n, c in enumerate(notebook.cells, 1) if c.cell_type == kind)


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def tree(source: str) -> ast.Module:
    """The syntax tree; an empty one where it does not parse (`code.allowed` says so)."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse("")


def unfenced(markdown: str) -> str:
    """The text without its code blocks, in which `#` begins no heading."""
    return re.sub(r"```.*?```", "", markdown, flags=re.S)


def metadata(notebook, _):
    spec = notebook.metadata.get("kernelspec", {})
    if (spec.get("name"), spec.get("language")) != (KERNEL["name"], KERNEL["language"]):
        yield 0, "the kernelspec is not plain Python 3, which papermill looks for; run `kdlab " \
                 "notebooks strip`"
    if "widgets" in notebook.metadata:
        yield 0, "widget state is stored in the metadata; run `kdlab notebooks strip`"


def outputs(notebook, _):
    for n, cell in cells(notebook, "code"):
        if cell.outputs or cell.execution_count is not None:
            yield n, "has outputs or an execution count; run `kdlab notebooks strip`"


def parameters(notebook, _):
    tagged = [(n, c) for n, c in cells(notebook, "code")
              if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield 0, f"{len(tagged)} cells carry the tag `parameters`; give it to exactly one " \
                 "(Property Inspector, Cell Tags)"
        return
    n, cell = tagged[0]
    names = set()
    for node in tree(cell.source).body:
        try:
            ast.literal_eval(node.value)
            names.update(target.id for target in node.targets)
        except (AttributeError, ValueError):
            yield n, "the parameters cell holds `NAME = literal` lines only; move this to a " \
                     "later cell", node.lineno
    for name in sorted(PARAMETERS.keys() - names):
        yield n, f"the parameters cell sets no {name}; add `{name} = {PARAMETERS[name]}`"


def lengths(notebook, _):
    counted = [(n, len(lines(c.source))) for n, c in cells(notebook, "code")]
    for n, length in counted:
        if length > CELL_LINES:
            yield n, f"has {length} lines, at most {CELL_LINES} are read; split it, or move a " \
                     "function to the package"
    if counted and median(length for _, length in counted) >= MEDIAN_LINES:
        yield 0, f"half of the code cells have {MEDIAN_LINES} lines or more; split the longest " \
                 "where a sentence can stand between"


def words_per_line(notebook) -> float:
    """Words of prose a line of code; equations, fenced code and link targets are no prose."""
    text = "\n".join(c.source for _, c in cells(notebook, "markdown"))
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|<[^>\n]+>|\]\([^)\s]*\)", " ", text,
                  flags=re.S)
    code = sum(len(lines(c.source)) for _, c in cells(notebook, "code"))
    return len(re.findall(r"[^\W\d_][\w'’-]*", text)) / max(code, 1)


def prose(notebook, band: tuple[float, float]):
    """Too little or too much text: yields (0, message, level)."""
    ratio = words_per_line(notebook)
    for (low, high), level in ((PROSE_ERROR, "error"), (band, "warn")):
        if not low <= ratio <= high:
            advice = ("say more: what a cell is for, what its figure shows" if ratio < low else
                      "cut words, or let a figure say it")
            yield 0, f"{ratio:.1f} words of prose a line of code, outside {low:g} to {high:g}; " \
                     f"{advice}", level
            return


def headings(notebook, _):
    last = 0
    for n, cell in cells(notebook, "markdown"):
        for marks in re.findall(r"^(#{1,6})\s", unfenced(cell.source), re.M):
            level = len(marks)
            if last == 0 and level != 1:
                yield n, "the first heading is no title; begin with `# Title: the question`"
            elif last and level == 1:
                yield n, "a second `#` title; sections are `##`"
            elif last and level > last + 1:
                yield n, f"a heading jumps from level {last} to {level}; write " \
                         f"`{'#' * (last + 1)}`"
            last = level
    if last == 0:
        yield 0, "has no title; begin with `# Title: the question`"
