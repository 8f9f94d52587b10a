"""Rules on the parts every notebook has: goal and time, exercises, claims, the closing sections."""

import ast
import re

from kdlab.lint.form import cells, tree, unfenced

OPENING = {"**Goal.**": "one sentence on what the reader does here",
           "**Time.**": "minutes in the profile `cpu` on two cores",
           "After it you can": "three or four abilities as a list"}
SECTIONS = {"What would falsify this": "the result that would have made you say the opposite, and "
                                       "the weakest step",
            "Sources": "authors, title, venue, year, equations used"}
EXERCISE = re.compile(r"^#{2,6}[ \t]+(Exercise\b.*)$", re.M)
EXERCISE_FORM = re.compile(r"Exercise: \S.* \((easy|medium|hard), \d+ minutes?\)\s*")


def opening(notebook, _):
    text = next((cell.source for _, cell in cells(notebook, "markdown")), "")
    for words, what in OPENING.items():
        if words not in text:
            yield 1, f"the first cell does not say `{words}`; add it and {what}"


def sections(notebook, _):
    text = "\n".join(unfenced(cell.source) for _, cell in cells(notebook, "markdown"))
    for title, what in SECTIONS.items():
        if not re.search(rf"^##[ \t]+(\d+\.[ \t]+)?{title}[ \t]*$", text, re.M):
            yield 0, f"has no section `## {title}`; add it: {what}"


def exercises(notebook, _):
    above = None  # (cell, title) of an exercise that waits for its code
    for n, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            for title in EXERCISE.findall(unfenced(cell.source)):
                if not EXERCISE_FORM.fullmatch(title):
                    yield n, f"`{title.strip()}` gives no difficulty and minutes; write " \
                             "`### Exercise: what to do (easy, 5 minutes)`, or medium, or hard"
                if above:
                    yield _unchecked(*above)
                above = n, title
        elif cell.cell_type == "code":
            answers = [node for node in tree(cell.source).body
                       if isinstance(node, ast.FunctionDef) and any(map(_check, _decorators(node)))]
            if above and not answers:
                yield _unchecked(*above)
            elif answers and not above:
                yield n, "has a check and no exercise above it; write `### Exercise: what to do " \
                         "(easy, 5 minutes)` in the text before"
            for node in answers:
                if "raise NotImplementedError" not in ast.unparse(node):
                    yield n, f"the exercise {node.name} is committed solved; leave `raise " \
                             "NotImplementedError(\"what it gets -> what it returns\")`", \
                             node.lineno
            above = None
    if above:
        yield _unchecked(*above)


def _decorators(node: ast.FunctionDef) -> list[str]:
    return [ast.unparse(decorator) for decorator in node.decorator_list]


def _check(decorator: str) -> bool:
    return decorator.startswith(("kdlab.check.", "check."))


def _unchecked(n: int, title: str) -> tuple[int, str]:
    return n, f"`{title.strip()}` is not followed by its code cell; let the next code cell hold " \
              "a function under `@kdlab.check.NAME`"


def claims(notebook, _):
    calls = (node for _, cell in cells(notebook, "code") for node in ast.walk(tree(cell.source))
             if isinstance(node, ast.Call))
    if not any(ast.unparse(call.func).endswith(".claim") for call in calls):
        yield 0, "makes no claim; call ctx.claim(text, estimate, interval) once, or leave it " \
                 "where there is nothing to claim", 0, "warn"
