"""The README's tables say what the code says, and its links lead somewhere."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

from kdlab.cli import parser
from kdlab.losses import LOSSES
from kdlab.models import MODELS
from kdlab.profiles import index

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
LINK = re.compile(r"(?<!\w)\[([^\]]*)\]\(([^)\s]+)\)")


def _table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, cells stripped, without its head."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_first_lines_are_the_two_commands():
    commands = [line.split("#")[0].strip() for line in TEXT.splitlines()[:6]]
    assert commands == ["", "", "```sh", "make lab", "make test", "```"]


def test_notebooks_are_those_of_the_index():
    said = [(*LINK.fullmatch(link).groups(), title, float(minutes), goal)
            for link, title, minutes, goal in _table("Notebooks")]
    assert said == [(name, f"notebooks/{name}.ipynb", e["title"], e["minutes"]["cpu"], e["goal"])
                    for name, e in index().items()]


def test_losses_are_those_there_are():
    said = {name.strip("`"): LINK.fullmatch(file)[2]
            for name, _, _, file, *_ in _table("Losses")}
    assert said == {name: f"{loss.__module__.replace('.', '/')}.py"
                    for name, loss in LOSSES.items()}


def test_equations_are_those_the_files_are_tagged_with():
    tagged, said = {}, {}
    for _, _, numbers, file, *_ in _table("Losses"):
        path = LINK.fullmatch(file)[2]
        tagged[path] = set(re.findall(r"# eq\. \((\d+)\)", (ROOT / path).read_text()))
        mine = set() if numbers == "-" else set(numbers.split(", "))
        assert mine <= tagged[path], path
        said[path] = said.get(path, set()) | mine
    assert said == tagged


def test_notebooks_of_a_loss_are_those_that_use_it():
    sources = {f"notebooks/{name}.ipynb": (ROOT / "notebooks" / f"{name}.ipynb").read_text()
               for name in index()}
    for name, _, _, _, notebooks, *_ in _table("Losses"):
        use = re.compile(rf"\b{name.strip('`')}\(")
        assert set(re.findall(r"\]\(([^)]+)\)", notebooks)) == {
            path for path, text in sources.items() if use.search(text)}, name


def test_departures_name_options_that_exist():
    for name, *_, departures in _table("Losses"):
        loss = LOSSES[name.strip("`")]
        for option, value in re.findall(r"`(\w+)=([^`]+)`", departures):
            default = inspect.signature(loss).parameters[option].default
            assert repr(default) != repr(ast.literal_eval(value)), (name, option)


def test_networks_and_their_counts_are_those_there_are():
    rows = {name.strip("`"): rest for name, *rest in _table("Networks")}
    assert rows.keys() == MODELS.keys()
    for name, (count, size, embedding, file) in rows.items():
        with torch.device("meta"):
            model = MODELS[name]()
        assert int(count.replace(",", "")) == sum(p.numel() for p in model.parameters()), name
        assert (size, embedding) == (f"{model.input_size} x {model.input_size}",
                                     str(model.embedding_size)), name
        source = MODELS[name].__module__.replace(".", "/")
        assert LINK.fullmatch(file)[2] == f"{source}.py"


def test_results_are_those_stored():
    path = ROOT / "scripts" / "readme_results.py"
    spec = importlib.util.spec_from_file_location("readme_results", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.BLOCK.search(TEXT)[0] == (
        f"<!-- results:first_light -->\n{script.first_light()}<!-- /results -->")


@pytest.mark.parametrize("target", sorted({target for _, target in LINK.findall(TEXT)}))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_commands_exist():
    said = re.findall(r"^kdlab ([^#\n]+?) *(?:#.*)?$", TEXT, re.M)
    assert len(said) >= 5
    for command in said:
        assert callable(parser().parse_args(command.split()).run)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"lab", "test"} <= set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.M)) <= targets


def test_the_files_it_names_exist():
    for name in re.findall(r"(?:configs|scripts|notebooks)/[\w./]+\w", TEXT):
        assert (ROOT / name).exists(), name
