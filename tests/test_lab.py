"""JupyterLab as `kdlab lab` starts it: one real server on loopback, and what it is told."""

import os
import re
import subprocess
import sys
import threading
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from kdlab import cli, lab

START_SECONDS = 120  # a loaded machine takes 10; beyond this the server is taken for dead


@pytest.fixture
def address(tmp_path):
    """The address a new server prints, in a home of its own so that no user's settings count."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start.ipynb").write_text(
        '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    environment |= {"HOME": str(tmp_path), "KDLAB_HOME": str(tmp_path)}
    server = subprocess.Popen(
        [sys.executable, "-m", "kdlab.cli", "lab", "--no-browser", "--port", "0"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path, env=environment)
    alarm = threading.Timer(START_SECONDS, server.kill)
    alarm.start()
    try:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
    finally:
        alarm.cancel()
        server.kill()
        server.communicate()


def test_it_serves_with_the_token_and_not_without(address):
    def get(url: str):
        return build_opener(ProxyHandler({})).open(url, timeout=60)

    page, token = address.split("?token=")
    root = page.removesuffix("lab/tree/notebooks/00_start.ipynb")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", root) and len(token) == 48
    with get(address) as answer:
        text = answer.read().decode()
    assert answer.status == 200 and answer.url == address
    assert re.search(r'"news": {"disabled": true}', text)  # nothing is asked of the web
    assert '"can_install": false' in text
    assert re.search(r'"disabledExtensions": \[[^]]*extension:announcements"', text)  # nor offered
    with get(page) as answer:  # sent to where one logs in
        assert answer.url.startswith(f"{root}login")
    for wrong in ("", "?token=" + "0" * 48):
        with pytest.raises(HTTPError, match="403"):
            get(f"{root}api/contents{wrong}")
    with get(f"{root}api/contents/notebooks/00_start.ipynb?token={token}") as answer:
        assert answer.status == 200


def test_root_is_allowed_only_where_one_is_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert "--ServerApp.allow_root=True" in lab.arguments(8888, True, "t", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert not [a for a in lab.arguments(8888, True, "t", tmp_path) if "root=True" in a]


def test_without_the_first_notebook_lab_opens_all_the_same(tmp_path):
    assert "--LabApp.default_url=/lab" in lab.arguments(8888, True, "t", tmp_path)


def test_the_command_hands_port_and_browser_over(monkeypatch):
    seen = []
    monkeypatch.setattr(lab, "lab", lambda *arguments: seen.append(arguments) or 0)
    assert cli.main(["lab"]) == 0
    assert cli.main(["lab", "--port", "9000", "--no-browser"]) == 0
    assert seen == [(lab.PORT, True), (9000, False)]


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(SystemExit) as stop:
        cli.main(["lab", "--port", port])
    assert stop.value.code == 2
