"""The profiles a notebook runs in, the course's index, and the minutes each may take."""

from pathlib import Path

import yaml

import kdlab

# Minutes on 2 cores where index.yml says nothing (the course's table of profiles).
BUDGETS = {"smoke": 0.5, "cpu": 10.0, "study": 90.0, "gpu": float("inf")}
PROFILES = tuple(BUDGETS)


def index(folder: Path | None = None) -> dict[str, dict]:
    """notebooks/index.yml: name -> title, minutes, goal, in reading order."""
    path = (folder or kdlab.home() / "notebooks") / "index.yml"
    try:
        entries = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError(f"{path}: write one block `name:` with title, minutes and goal a notebook")
    return entries


def budget(notebook: str, profile: str, folder: Path | None = None) -> float:
    """Minutes for a notebook in a profile; the profile's own where the index says nothing."""
    try:
        return float(index(folder)[notebook]["minutes"][profile])
    except (FileNotFoundError, KeyError, TypeError):  # no course here, or not listed: fine
        return BUDGETS[profile]
