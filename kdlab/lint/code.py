"""Rules on the code cells: what they may call, where they import, how they show a figure."""

import ast
import re

from kdlab.lint.form import cells, tree

FETCHERS = {"requests", "urllib", "urllib3", "httpx", "aiohttp", "socket", "ftplib", "http"}
FETCH = "nothing is fetched at run time; read a file, and let its error say what to put where"
ENVIRONMENT = {"os.environ", "os.getenv", "os.putenv", "os.unsetenv"}
# Two steps from the root, a folder of one machine, a home, a drive. "/" alone may be text.
ABSOLUTE = re.compile(r"/[\w.-]+/[\w./-]+|/(tmp|home|root|data|mnt|usr|var|content|Users)\b|"
                      r"~(/|$)|[A-Za-z]:[\\/](?!/)")
START = {"kdlab.start", "start"}
PASSED = {"profile": "PROFILE", "seed": "SEED", "out": "OUT"}
PLOTS = ("plots.", "kdlab.plots.")
SHOW = {"show", "plots.show", "kdlab.plots.show", "save_png", "plots.save_png"}
PANEL = {"panel", "ui.panel", "kdlab.ui.panel"}
ALT_WORDS = 5  # fewer name a kind of chart and say nothing of what it shows


def allowed(notebook, _):
    for n, cell in cells(notebook, "code"):
        try:
            parsed = ast.parse(cell.source)
        except SyntaxError as error:
            magic = re.search(r"^[ \t]*[!%].*|^.*=\s*[!%].*", cell.source, re.M)
            if magic:
                yield n, f"`{magic[0].strip()}` runs in Jupyter only; say it in Python, no `!` " \
                         "or `%` lines", 1 + cell.source[:magic.start()].count("\n")
            else:
                yield n, f"does not parse: {error.msg}; run the cell and mend the line it names", \
                    error.lineno or 0
            continue
        if re.search(r"\bpip3?\b.{0,8}\binstall\b", cell.source):
            yield n, "installs a package; add it to pyproject.toml and environment.yml"
        late = {id(part) for node in ast.walk(parsed) if isinstance(node, ast.JoinedStr)
                for part in node.values[1:]}  # f"{folder}/a/b" is no path from the root
        for node in ast.walk(parsed):
            if id(node) not in late:
                yield from ((n, message, node.lineno) for message in _banned(node))


def _banned(node: ast.AST):
    if isinstance(node, ast.ClassDef):
        yield f"defines class {node.name}; move it to the package, with a test"
    for module in _modules(node):
        if module.split(".")[0] in FETCHERS:
            yield f"imports {module}, and {FETCH}"
    if isinstance(node, ast.Call):
        values = [*node.args, *(k.value for k in node.keywords)]
        if any(isinstance(v, ast.Constant) and isinstance(v.value, str)
               and re.match(r"(https?|ftp)://\S+$", v.value) for v in values):
            yield f"calls something with a web address, and {FETCH}"
    if (isinstance(node, ast.Constant) and isinstance(node.value, str)
            and ABSOLUTE.match(node.value)):
        yield f"{node.value!r} is a path of one machine; read what the project ships under " \
              "kdlab.home(), write with ctx.save(name, ...)"
    if (isinstance(node, ast.Attribute) and ast.unparse(node) in ENVIRONMENT) or (
            isinstance(node, ast.ImportFrom) and node.module == "os"
            and {f"os.{a.name}" for a in node.names} & ENVIRONMENT):
        yield "reads or sets the environment; make it a parameter, or ask ctx (ctx.profile, " \
              "ctx.device, ctx.out)"


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _calls(notebook, names: set[str]):
    for n, cell in cells(notebook, "code"):
        for node in ast.walk(tree(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield n, node


def start(notebook, name):
    calls = list(_calls(notebook, START))
    if len(calls) != 1:
        yield 0, f"calls kdlab.start {len(calls)} times; call it once: `ctx = kdlab.start(" \
                 f"\"{name}\", profile=PROFILE, seed=SEED, out=OUT)`"
        return
    n, call = calls[0]
    said = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if said != name:
        yield n, f"kdlab.start is told {said!r}, so budget and claims go to another notebook; " \
                 f"write kdlab.start(\"{name}\", ...)", call.lineno
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    lacks = [f"{key}={value}" for key, value in PASSED.items() if given.get(key) != value]
    if lacks:
        yield n, f"kdlab.start does not get the parameters; pass {', '.join(lacks)}", call.lineno


def imports(notebook, _):
    begun = next((n for n, _ in _calls(notebook, START)), len(notebook.cells))
    for n, cell in cells(notebook, "code"):
        for node in ast.walk(tree(cell.source)):
            if n > begun and _modules(node):
                yield n, f"imports {', '.join(_modules(node))} half way; move it up to the cell " \
                         "that calls kdlab.start", node.lineno


def figures(notebook, _):
    for n, call in _calls(notebook, SHOW | PANEL):
        function = ast.unparse(call.func)
        place = {"show": 1, "save_png": 2}.get(function.split(".")[-1])
        given = [k.value for k in call.keywords if k.arg == "alt"]
        given += call.args[place:place + 1] if place else []
        if not given:
            yield n, f"{function}(...) has no alt text; add alt=\"what a reader should see\"", \
                call.lineno
        elif (count := _words(given[0])) is not None and count < ALT_WORDS:
            yield n, f"the alt text {ast.unparse(given[0])} has {count} words; say in " \
                     f"{ALT_WORDS} or more what a reader should see", call.lineno
    for n, cell in cells(notebook, "code"):
        body = tree(cell.source).body
        for node in ast.walk(ast.Module(body, [])):
            if isinstance(node, ast.Expr) and _bare(node.value, node is body[-1]):
                yield n, f"`{ast.unparse(node)[:40]}` shows a figure without alt text and PNG; " \
                         "write plots.show(fig, \"what a reader should see in it\")", node.lineno


def _words(alt: ast.expr) -> int | None:
    """Words of a literal; an inserted value counts as one; None for what only a run can tell."""
    if isinstance(alt, ast.Constant) and isinstance(alt.value, str):
        return len(alt.value.split())
    if isinstance(alt, ast.JoinedStr):
        return sum(_words(part) if isinstance(part, ast.Constant) else 1 for part in alt.values)
    return None


def _bare(value: ast.expr, last: bool) -> bool:
    """`fig` or `plots.roc(...)` at the end of a cell, `fig.show()` anywhere."""
    if isinstance(value, ast.Name):
        return last and re.fullmatch(r"fig(ure)?(_\w+|\d+)?", value.id) is not None
    if not isinstance(value, ast.Call):
        return False
    function = ast.unparse(value.func)
    if function in SHOW:
        return False
    drawn = function.startswith(PLOTS) and not function.endswith("_words")
    return function.endswith(".show") or (last and drawn)
