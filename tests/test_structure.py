"""The package's shape: who may import whom, and calls that no file of it makes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kdlab"
FILES = sorted(PACKAGE.rglob("*.py"))
ABOVE = {"train", "plots", "ui", "notebook"}  # what the library below never imports
BELOW = ["losses", "models", "world", "data", "evaluate", "functional", "margin_softmax", "inputs",
         "distributed", "outputs", "dimension", "neighbours", "cloud", "teachers", "align",
         "cache", "progress"]


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {_module(path): ast.parse(path.read_text()) for path in FILES}
NAMES = set(TREES)
PACKAGES = {_module(path) for path in FILES if path.stem == "__init__"}


def _imports(module: str) -> set[str]:
    """Absolute names of everything a module imports, wherever in it; submodules as such."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:  # a package's own modules stand one step below it
                parts = module.split(".") + ["__init__"] * (module in PACKAGES)
                origin = ".".join([*parts[:-node.level], *filter(None, [origin])])
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= (names & NAMES) | ({origin} if names - NAMES else set())
    return found


def _within(part: str) -> list[str]:
    return [m for m in NAMES if m == f"kdlab.{part}" or m.startswith(f"kdlab.{part}.")]


def _part(module: str) -> str:
    """"kdlab.losses.ekd" -> "losses"; "" for what is not ours."""
    return module.split(".")[1] if module.startswith("kdlab.") else ""


def _roots(modules) -> set[str]:
    return {module.split(".")[0] for module in modules}


def _closure(modules: list[str]) -> set[str]:
    """All that these modules import, and what those of ours among it import, and so on.

    A package's __init__ runs when a module in it is imported, so it counts.
    """
    seen, left = set(), list(modules)
    while left:
        module = left.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in NAMES:
            parents = [module.rsplit(".", k)[0] for k in range(1, module.count("."))]
            left += [*_imports(module), *parents]
    return seen


@pytest.mark.parametrize("part", BELOW)
def test_the_library_never_imports_what_stands_on_it(part):
    for module in _within(part):
        assert not {_part(m) for m in _imports(module)} & ABOVE, module


def test_losses_import_only_mathematics_and_the_two_tuples():
    below = {"", "losses", "functional", "margin_softmax", "inputs", "distributed", "outputs"}
    for module in _within("losses"):
        assert {_part(m) for m in _imports(module)} <= below, module


def test_only_ui_imports_widgets():
    for module in NAMES - set(_within("ui")):
        assert not _roots(_imports(module)) & {"ipywidgets", "anywidget"}, module


def test_plots_know_neither_widgets_nor_training():
    for module in _within("plots"):
        assert not {_part(m) for m in _imports(module)} & {"ui", "train", "notebook"}, module


def test_training_runs_without_plotly_and_widgets():
    assert _within("train")
    reached = _closure(_within("train"))
    assert not _roots(reached) & {"plotly", "ipywidgets", "anywidget", "matplotlib"}
    assert not {_part(m) for m in reached} & {"plots", "ui", "notebook"}


def test_no_utils():
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_importing_the_package_loads_nothing_heavy():
    code = ("import sys, kdlab; assert kdlab.__version__; "
            "print([m for m in ('torch', 'numpy', 'plotly', 'IPython') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_names_are_loaded_on_first_use():
    import kdlab
    import kdlab.notebook

    assert kdlab.start is kdlab.notebook.start
    assert kdlab.check.__name__ == "kdlab.check"
    with pytest.raises(AttributeError, match="kdlab has no 'strat'"):
        kdlab.strat  # noqa: B018


def _calls(module: str):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_no_call_trusts_a_file_from_outside():
    banned = {"eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load",
              "torch.load", "torch.hub.load", "joblib.load", "os.system"}
    for module in NAMES:
        for name, keywords in _calls(module):
            assert name not in banned, f"{module}: {name}"
            assert keywords.get("allow_pickle", "False") == "False", f"{module}: {name}"
            assert keywords.get("shell", "False") == "False", f"{module}: {name}"


def test_nothing_reaches_for_the_network():
    banned = {"requests", "urllib", "urllib3", "httpx", "aiohttp", "http", "ftplib"}
    for module in NAMES:
        assert not _roots(_imports(module)) & banned, module
