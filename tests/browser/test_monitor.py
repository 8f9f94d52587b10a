"""A run started from one notebook, watched, stopped, and taken up again from another kernel."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

from kdlab.train.checkpoint import found
from kdlab.train.log import History

pytestmark = pytest.mark.browser

ACT = 120_000  # ms for two processes to start and take a step on a loaded machine
CONFIG = {
    "world": {"seed": 0, "identities": 8, "per_identity": 4}, "embedding_size": 16,
    "losses": {"arc": {"loss": "ArcFace"}},
    "train": {"epochs": 2000, "batch_size": 16, "warmup": 0, "lr": 0.02, "checkpoint_every": 100}}
LAUNCH = """
import kdlab
from kdlab.ui import run_monitor
run = kdlab.launch({config!r}, processes=2, probe=False)
run_monitor(run, every=0.5)
"""
ATTACH = """
import kdlab
from kdlab.ui import run_monitor
run_monitor(kdlab.Run({out!r}), every=0.5)
"""


def test_start_watch_stop_and_take_up_again(lab, run_all, close, outside, products):
    out = lab[2] / "watched"
    config = CONFIG | {"train": CONFIG["train"] | {"out": str(out)}}
    try:
        first = _open(lab, run_all, "watch", LAUNCH.format(config=config))
        _says(first.page, "training")
        _moves(first.page)
        first.page.locator(".jp-Notebook").screenshot(path=products / "monitor.png")
        _press(first.page, "Stop")
        _says(first.page, "stopped")
        stopped = int(found(out)[-1].stem)
        close(first.page)

        second = _open(lab, run_all, "attach", ATTACH.format(out=str(out)))
        _says(second.page, "stopped")
        expect(second.page.get_by_role("button", name="Stop")).to_be_disabled()
        _press(second.page, "Resume")
        _says(second.page, "training")
        _moves(second.page)
        _press(second.page, "Stop")
        _says(second.page, "stopped")
        steps = [row["step"] for row in History.read(out / "log.jsonl").rows]
        assert steps == [*range(1, steps[-1] + 1)] and steps[-1] > stopped
        for opened in (first, second):
            assert not opened.errors + opened.complaints + opened.requests + outside.asked
        close(second.page)
    finally:
        (out / "stop").touch()  # whatever failed above, nothing trains on


def _open(lab, run_all, name: str, source: str):
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    notebook = new_notebook(cells=[new_code_cell(source)], metadata=kernel)
    nbformat.write(notebook, lab[2] / "notebooks" / f"{name}.ipynb")
    return run_all(name)


def _says(page, state: str) -> None:
    expect(page.locator(".jp-Notebook [role=status]")).to_have_text(
        re.compile(f"^{state}"), timeout=ACT)


def _moves(page) -> None:
    """The picture of the curves changes by itself."""
    picture = page.locator(".jp-Notebook .jp-OutputArea-output img").first
    before = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", before, timeout=ACT)


def _press(page, name: str) -> None:
    button = page.get_by_role("button", name=name)
    expect(button).to_be_enabled(timeout=ACT)
    button.focus()
    page.keyboard.press("Enter")
