"""Every figure of the course, in the executed smoke copies: words, pictures, no network, rules."""

import importlib.util
import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

from kdlab.course import read
from kdlab.plots.show import PLOTLY
from kdlab.profiles import index

_SPEC = importlib.util.spec_from_file_location(
    "figure_rules", Path(__file__).parents[1] / "figure_rules.py")
rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rules)

WORDS = 5  # words a description has at least: what is drawn, and what is seen in it; ours
# What a browser would fetch by itself; a link in the text waits for the reader.
FETCHED = re.compile(r"""<(?:script|link|iframe|object|embed)\b
                         |\bsrc(?:set)?\s*=\s*["']?\s*(?:https?:)?//
                         |@import|url\(\s*["']?\s*(?:https?:)?//""", re.IGNORECASE | re.VERBOSE)


def outputs(path: Path) -> list[tuple[int, dict]]:
    """(cell number, output with data) of an executed notebook, in order."""
    return [(number, output) for number, cell in enumerate(read(path).cells)
            for output in cell.get("outputs", []) if "data" in output]


def faults(path: Path) -> list[str]:
    """What is wrong with the displays of an executed notebook, by cell."""
    found, told = [], {}
    for number, output in outputs(path):
        data = output["data"]
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
        wrong = [f"{kind} would fetch something" for kind, part in data.items()
                 if kind.startswith("text/") and FETCHED.search(str(part))]
        if PLOTLY in data:
            wrong += _chart(data, alt)
        if PLOTLY in data or "image/png" in data:
            wrong += _words(alt)
            if alt in told:
                wrong.append(f"the same words as in cell {told[alt]}")
            told.setdefault(alt, number)
        found += [f"cell {number}: {fault}" for fault in wrong]
    return found


def _words(alt: str) -> list[str]:
    count = len(alt.split())
    return [f"{count} words of alt text, under {WORDS}: '{alt}'"] if count < WORDS else []


def _chart(data: dict, alt: str) -> list[str]:
    chart = data[PLOTLY]
    fig = go.Figure({key: chart[key] for key in ("data", "layout")})
    config = chart.get("config", {})
    wrong = rules.faults(fig)
    if not data.get("image/png"):
        wrong.append("no PNG beside the chart")
    if data.get("text/plain") != alt:
        wrong.append("text/plain is not the alt text")
    if alt.strip(" .").lower() == (fig.layout.title.text or "").strip(" .").lower():
        wrong.append(f"the alt text only repeats the title: '{alt}'")
    if config.get("showSendToCloud") is not False or config.get("plotlyServerURL") != "":
        wrong.append("the chart may be uploaded")
    if re.search(r"https?://", json.dumps(chart)):
        wrong.append("an address of the network in the chart")
    return wrong


@pytest.mark.notebooks
@pytest.mark.parametrize("name", index())
def test_the_figures_are_readable(name, executed):
    row, path = executed(name)
    assert row.ok, f"{row.state}: {row.error}"  # half a notebook holds half its figures
    assert any(PLOTLY in output["data"] for _, output in outputs(path)), "a notebook without figure"
    assert faults(path) == []


CHART = {"data": [], "layout": {}, "config": {"showSendToCloud": False, "plotlyServerURL": ""}}
GOOD = "A line that rises from left to right."


def spoilt(data: dict, alt: str = GOOD) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": {"image/png": {"alt": alt}}}


@pytest.mark.parametrize("words, output", [
    ("no PNG", spoilt({PLOTLY: CHART, "text/plain": GOOD})),
    ("no opaque paper", spoilt({PLOTLY: CHART | {"layout": {"paper_bgcolor": "rgba(0,0,0,0)"}}})),
    ("text/plain is not", spoilt({PLOTLY: CHART, "text/plain": "<Figure>"})),
    ("may be uploaded", spoilt({PLOTLY: CHART | {"config": {}}})),
    ("only repeats the title", spoilt({PLOTLY: CHART | {"layout": {"title": {"text": GOOD}}}})),
    ("network in the chart", spoilt({PLOTLY: CHART | {"layout": {"title": {"text": "http://a"}}}})),
    ("0 words", spoilt({"image/png": ""}, "")),
    ("2 words", spoilt({"image/png": ""}, "a line")),
    ("text/html would fetch", spoilt({"text/html": "<img src='https://a.b/c.png'>"})),
    ("text/html would fetch", spoilt({"text/html": "<script>x</script>"})),
])
def test_a_spoilt_display_is_caught(words, output, tmp_path):
    cell = {"cell_type": "code", "id": "a", "source": "", "metadata": {}, "execution_count": 1,
            "outputs": [output]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4,
                                "nbformat_minor": 5}))
    assert any(words in fault for fault in faults(path))


def test_words_may_not_come_twice_and_a_link_to_read_is_fine(tmp_path):
    two = [spoilt({"image/png": ""}), spoilt({"image/png": ""}),
           spoilt({"text/html": "<a href='https://a.b'>paper</a>"})]
    cells = [{"cell_type": "code", "id": f"c{i}", "source": "", "metadata": {},
              "execution_count": 1, "outputs": [output]} for i, output in enumerate(two)]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4,
                                "nbformat_minor": 5}))
    assert faults(path) == ["cell 1: the same words as in cell 0"]
