"""Copy the README's pictures out of an executed notebook.

    kdlab notebooks run 00_start --profile cpu --out build && python scripts/readme_images.py build

Only pictures of rendered faces and of numbers: the photographs may not be shipped.
"""

import base64
import sys
from pathlib import Path

import nbformat

WANTED = {"00_start": ("faces", "roc_orl", "differences")}
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def main(folder: str) -> None:
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
    main(sys.argv[1])
