"""One `kdlab lab` and one Chromium for all browser tests, and a record of what would leave here."""

import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as NotYet

import kdlab
from kdlab.cache import cache_dir
from kdlab.profiles import index

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
START_SECONDS = 120  # a loaded machine takes 10; beyond this the server is taken for dead
ACT_SECONDS = 30  # for a menu or a chart
RUN_SECONDS = 600  # twenty times a notebook's smoke budget

# Jupyter says idle also while there is no kernel yet; Run All would then ask for one.
READY = """() => document.querySelector("[data-status=idle]")
  && !document.querySelector(".jp-Toolbar-kernelName").textContent.includes("No Kernel")"""

# Nothing waits or runs any more, and every widget has its view.
FINISHED = """() => {
  const notebook = document.querySelector(".jp-Notebook");
  const prompts = [...notebook.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt")];
  return document.querySelector("[data-status=idle]") && /\\d/.test(prompts[0].textContent)
    && !prompts.some(prompt => prompt.textContent.includes("*"))
    && !notebook.textContent.includes("Loading widget");
}"""


class Opened(NamedTuple):
    """A notebook on a page, all its cells run."""

    name: str
    page: Page
    complaints: list[str]  # errors of the console and of scripts
    requests: list[str]  # addresses off this machine
    errors: list[str]  # of its cells


@pytest.fixture(scope="session")
def chromium() -> str:
    """The machine's own browser; without one a skip that is heard, in CI a failure."""
    found = os.environ.get("KDLAB_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), "")
    if not found:
        why = ("NOT TESTED IN A BROWSER: there is no Chromium here; `make browser` installs it "
               "where it may, KDLAB_CHROMIUM names one that is elsewhere")
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found


class _Refuse(socketserver.StreamRequestHandler):
    """A proxy that passes nothing on and remembers who asked for what."""

    def handle(self):
        self.server.asked.append(self.rfile.readline().decode(errors="replace").strip())
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="session")
def outside():
    """Stands in for the internet: server and kernels are told to reach it through here."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refuse) as server:
        server.daemon_threads, server.asked = True, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def lab(tmp_path_factory, chromium, outside):
    """`kdlab lab` over a copy of the course, in a home of its own: (address, token, home)."""
    home = tmp_path_factory.mktemp("home")
    (home / "notebooks").mkdir()
    for name in ("data", "studies", "configs"):
        (home / name).symlink_to(kdlab.home() / name)
    settings = home / ".jupyter/lab/user-settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    # JupyterLab takes cells out of the page that are out of view, and what was found is gone.
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    for name in index():
        source = load_notebook_node(str(kdlab.home() / "notebooks" / f"{name}.ipynb"))
        given = {"PROFILE": "smoke", "OUT": str(home / "out" / name)}
        nbformat.write(parameterize_notebook(source, given), home / "notebooks" / f"{name}.ipynb")
    proxy = "http://{}:{}".format(*outside.server_address)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "XDG_", "IPYTHON"))}
    own |= {"HOME": str(home), "KDLAB_HOME": str(home), "KDLAB_CACHE": str(cache_dir()),
            "KDLAB_HEADLESS": "0", "NO_PROXY": "127.0.0.1,localhost"}
    own |= {f"{scheme}_PROXY": proxy for scheme in ("HTTP", "HTTPS", "ALL")}
    with open(home / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "kdlab.cli", "lab", "--no-browser", "--port", "0"], text=True,
            stdout=subprocess.PIPE, stderr=log, cwd=home, env=own)
    alarm = threading.Timer(START_SECONDS, server.kill)
    alarm.start()
    try:
        said = re.search(r"(http://\S+:\d+/)\S*token=(\w+)", server.stdout.readline())
        alarm.cancel()
        assert said, (home / "server.log").read_text()
        yield said[1], said[2], home
    finally:
        kernels = psutil.Process(server.pid).children(recursive=True)
        for process in [server, *kernels]:
            process.kill()
        server.communicate()


@pytest.fixture(scope="session")
def browser(chromium):
    """Chromium, with all but loopback sent to a port where nobody listens.

    Not to `outside`: Chromium itself asks for updates, sign-in and autofill whatever its flags
    say. What a page asks for is seen, and judged, as the page's requests.
    """
    with sync_playwright() as playwright:
        nowhere = "--proxy-server=http://127.0.0.1:9"  # 9: the discard service
        running = playwright.chromium.launch(executable_path=chromium, args=[nowhere])
        yield running
        running.close()


@pytest.fixture(scope="session")
def run_all(lab, browser, products):
    """A function: open a notebook in JupyterLab, or in the view "notebooks" in Notebook 7; run."""
    address, token, home = lab

    def run(name: str, view: str = "") -> Opened:
        context = browser.new_context()
        context.set_default_timeout(1000 * START_SECONDS)
        page = context.new_page()
        opened = Opened(name, page, [], [], [])
        page.on("console", lambda m: m.type == "error" and opened.complaints.append(
            f"{m.text} ({m.location['url']})"))
        page.on("pageerror", lambda error: opened.complaints.append(error.stack or str(error)))
        here = (address, address.replace("http", "ws", 1), "data:", "blob:", "about:")
        context.on("request", lambda r: r.url.startswith(here) or opened.requests.append(r.url))
        page.on("websocket", lambda s: s.url.startswith(here) or opened.requests.append(s.url))
        view = view or f"lab/workspaces/{name}/tree"  # of its own: no other tabs
        page.goto(f"{address}{view}/notebooks/{name}.ipynb?token={token}")
        try:
            page.wait_for_function(READY)
            for item in ("Run", "Run All Cells"):
                page.get_by_role("menuitem", name=item, exact=True).click()
            page.wait_for_function(FINISHED, timeout=1000 * RUN_SECONDS)
        except NotYet:
            page.screenshot(path=products / f"{name}-unfinished.png")
            raise
        with page.expect_response(lambda answer: answer.request.method == "PUT"
                                  and "/api/contents/" in answer.url):
            page.keyboard.press("Control+s")
        for cell in nbformat.read(home / "notebooks" / f"{name}.ipynb", as_version=4).cells:
            opened.errors.extend(f"{output.ename}: {output.evalue}" for output
                                 in cell.get("outputs", []) if output.output_type == "error")
        context.set_default_timeout(1000 * ACT_SECONDS)
        return opened

    return run


@pytest.fixture(scope="session")
def close(lab):
    """A function: take the page away, and every kernel with its 700 MB."""
    address, token, _ = lab

    def act(page: Page) -> None:
        own = {"headers": {"Authorization": f"token {token}"}}
        for kernel in page.request.get(f"{address}api/kernels", **own).json():
            page.request.delete(f"{address}api/kernels/{kernel['id']}", **own)
        page.context.close()

    return act


@pytest.fixture(scope="session")
def products() -> Path:
    """Where pictures and times are left for people to look at."""
    folder = Path(__file__).resolve().parents[2] / "build" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
