"""Are all groups equally exposed? Mean and contrast of rendered faces by ancestry group.

    python scripts/exposure.py            # about a minute on two cores; fills data/README.md

Measured on the standard nuisance, inside the face (the middle of the ArcFace crop), in grey levels
of 0 to 255; intervals are 95 % bootstraps over people.
"""

import argparse
from pathlib import Path

import numpy as np

from kdlab.cache import write_atomic
from kdlab.world import FaceWorld, rendered
from kdlab.world.identity import GROUPS

README = Path(__file__).resolve().parents[1] / "data" / "README.md"
FACE = np.s_[:, :, 40:100, 36:76]  # forehead to chin, cheek to cheek
LUMINANCE = np.array([0.299, 0.587, 0.114])[:, None, None]  # Rec. 601
FIRST, DRAWS = 9000, 2000  # people of the training range that no study trains on; bootstrap draws


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean of one value a person, with its interval."""
    draws = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{values.mean():.1f} [{low:.1f}, {high:.1f}]"


def table(identities: int, per_identity: int) -> str:
    faces = rendered(FaceWorld(0), range(FIRST, FIRST + identities), per_identity, ("arcface",))
    grey = (faces.pixels("arcface").numpy()[FACE] * LUMINANCE).sum(1)  # (N, rows, columns)
    people = {"mean": grey.mean((1, 2)), "contrast": grey.std((1, 2)),
              "burnt": 100 * (grey > 250).mean((1, 2))}
    people = {name: v.reshape(identities, per_identity).mean(1) for name, v in people.items()}
    group = faces.factors["group"].reshape(identities, per_identity)[:, 0]
    rng = np.random.default_rng(0)
    lines = ["| group | people | mean grey level | contrast (s.d.) | % of pixels over 250 |",
             "| --- | --- | --- | --- | --- |"]
    for number, name in enumerate(GROUPS):
        mine = group == number
        cells = [interval(people[key][mine], rng) for key in people]
        lines.append(f"| {name} | {mine.sum()} x {per_identity} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=180)
    parser.add_argument("--per-identity", type=int, default=8)
    args = parser.parse_args()
    found = table(args.identities, args.per_identity)
    before, rest = README.read_text().split("<!-- exposure -->\n")
    after = rest.split("<!-- /exposure -->")[1]
    write_atomic(README, f"{before}<!-- exposure -->\n{found}\n<!-- /exposure -->{after}")
    print(found)


if __name__ == "__main__":
    main()
