"""JupyterLab over the checkout: on loopback only, always with a token, fetching nothing."""

import os
import secrets
from pathlib import Path

import kdlab

PORT = 8888  # Jupyter's own; it takes the next free one when this is busy
NEWS = "@jupyterlab/apputils-extension:announcements"
FIRST = Path("notebooks") / "00_start.ipynb"


def arguments(port: int, browser: bool, token: str, root: Path) -> list[str]:
    """What JupyterLab is told. The command line wins over any configuration file of the user's."""
    page = f"/lab/tree/{FIRST.as_posix()}" if (root / FIRST).exists() else "/lab"
    told = ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
            f"--IdentityProvider.token={token}",
            f"--ServerApp.open_browser={browser}",
            f"--ServerApp.root_dir={root}", f"--LabApp.default_url={page}",
            # Lab would ask the web for news, newer releases and the extensions there are.
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
            "--Application.log_level=WARN"]
    if getattr(os, "geteuid", lambda: 1)() == 0:  # in a container one often is root
        told.append("--ServerApp.allow_root=True")
    return told


def _no_news(handler, page: dict) -> dict:
    """Lab would ask whether to fetch news, even with no address to fetch them from."""
    return page | {"disabledExtensions": [*page.get("disabledExtensions", ()), NEWS]}


def lab(port: int = PORT, browser: bool = True) -> int:
    """Serve until Ctrl-C; print the address, token included, once it answers.

    port: where to begin looking for a free one; 0 for any.   browser: open one there.
    ValueError when a configuration file of the user's replaces the token.
    """
    from jupyterlab.labapp import LabApp

    token = secrets.token_hex(24)  # as long as Jupyter's own
    # In this process, not a child's arguments: those anyone on the machine can list.
    server = LabApp.initialize_server(arguments(port, browser, token, kdlab.home().resolve()))
    server.web_app.settings["page_config_hook"] = _no_news
    if server.identity_provider.token != token:
        raise ValueError("your Jupyter configuration sets or disables the token; remove that "
                         "setting (`jupyter --paths` lists the folders)")
    page = server.default_url.lstrip("/")
    address = f"{server.connection_url}{page}?token={token}"
    server.io_loop.add_callback(print, f"JupyterLab: {address}\nCtrl-C stops it.", flush=True)
    server.start()
    return 0
