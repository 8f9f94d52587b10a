"""Bring the README's results up to date: tables from stored studies, pictures from a notebook.

    python scripts/readme_results.py               # the table of data/results/first_light
    kdlab notebooks run 00_start --profile cpu --out build
    python scripts/readme_results.py build         # the table, and docs/images/ as well

Only pictures of rendered faces and of numbers: the photographs may not be shipped.
"""

import base64
import json
import re
import sys
from pathlib import Path

import nbformat

from kdlab.claims import verdict
from kdlab.plots import METHODS

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WANTED = {"00_start": ("faces", "roc_orl", "differences")}
BLOCK = re.compile(r"(<!-- results:first_light -->\n).*?(<!-- /results -->)", re.S)
COLUMNS = (("orl", "tpr@0.01"), ("orl", "tpr@0.001"), ("test", "tpr@0.01"), ("test", "tpr@0.001"))


def first_light() -> str:
    """The README's block on the study first_light, Markdown."""
    summary = json.loads((ROOT / "data/results/first_light/summary.json").read_text())
    lines = ["| student | photographs, TPR at FPR 1e-2 | at 1e-3 | rendered strangers, at 1e-2 | "
             "at 1e-3 |", "| --- | --- | --- | --- | --- |"]
    for method in sorted(summary["methods"], key=lambda m: m != "untrained"):
        row = [summary["methods"][method][part][name]["mean"] for part, name in COLUMNS]
        label = METHODS[method].label if method in METHODS else method
        lines.append(f"| {label} | " + " | ".join(f"{value:.1%}" for value in row) + " |")
    seeds = len(summary["seeds"])
    lines += ["", f"Means over {seeds} seeds. The gain over ArcFace alone in percentage points, "
              "with a 95 % interval over people and seeds:", "",
              "| taught by | measured on | gain | claim \"the teacher helps\" |",
              "| --- | --- | --- | --- |"]
    for method, tests in summary["difference_to_arcface"].items():
        for part, name in COLUMNS:
            d = tests[f"{part} {name}"]
            word = verdict(d["estimate"], (d["low"], d["high"]), "greater", 0.0)[0]
            where = {"orl": "photographs", "test": "rendered strangers"}[part]
            lines.append(
                f"| {METHODS[method].label} | {where}, FPR {float(name[4:]):.0e} | "
                f"{100 * d['estimate']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] | "
                f"{word} |")
    return "\n".join(lines).replace("e-0", "e-") + "\n"


def main(folder: str | None = None) -> None:
    readme = ROOT / "README.md"
    readme.write_text(BLOCK.sub(lambda m: m[1] + first_light() + m[2], readme.read_text()))
    if folder:
        pictures(folder)


def pictures(folder: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for notebook, names in WANTED.items():
        path = next(Path(folder).rglob(f"{notebook}.ipynb"))
        found = {}
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                name = output.get("metadata", {}).get("kdlab", {}).get("name")
                if name in names:
                    found[name] = base64.b64decode(output["data"]["image/png"])
        missing = set(names) - set(found)
        if missing:
            raise SystemExit(f"{path} shows no figure named {', '.join(sorted(missing))}")
        for name, png in found.items():
            (IMAGES / f"{name}.png").write_bytes(png)
            print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
