"""The ways to make a picture a network's input, and which of them a network wants.

What is compared is the separation d' of kdlab.evaluate.separation, which moves before the equal
error rate does (of 160 pictures that has steps of half a percent). Its intervals come from draws of
people, the same for all ways, so that what makes a person hard cancels in differences. Two ways are
told apart where the interval of their difference lies beyond MARGIN.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.align import SIZES
from kdlab.data.faces import FaceSet
from kdlab.evaluate.intervals import people_counts
from kdlab.evaluate.pairs import pair_scores
from kdlab.evaluate.separation import separation_of_draws
from kdlab.evaluate.verification import eer
from kdlab.progress import progress

SCALINGS = {  # what embedders in circulation ask for: the mean of R, G and B, and what divides
    "(x - 127.5) / 127.5": ([127.5] * 3, 127.5),  # insightface
    "(x - 127.5) / 128": ([127.5] * 3, 128.0),  # MobileFaceNet, facenet
    "x / 255": ([0.0] * 3, 255.0),
    "x": ([0.0] * 3, 1.0),  # scaled within the network, or not at all
    "ImageNet's": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),  # torchvision's, times 255
}
OWN = "the file's own"
WAY = ("channels", "scaling", "crop", "mean", "divide")  # what a way is: scaling names the last two
MARGIN = 0.05  # of d', ours: a hundredth of a good network's, which shows in no rate
_BATCH = 32  # pictures given to a network at once


def ways(claimed: dict | None) -> list[dict]:
    """All that is tried: channels, scaling (a name), crop, mean, divide."""
    scalings = dict(SCALINGS)
    own = claimed and (claimed["mean"], claimed["divide"])
    if own and own not in scalings.values():
        scalings[OWN] = own
    return [{"channels": channels, "scaling": name, "crop": crop, "mean": mean, "divide": divide}
            for channels in ("RGB", "BGR") for name, (mean, divide) in scalings.items()
            for crop in SIZES]


def same(way: dict, claimed: dict) -> bool:
    return all(way[key] == claimed[key] for key in WAY if key != "scaling")


def judge(network, side: int, faces: FaceSet, ways: list[dict], draws: int) -> list[dict]:
    """Every way with what it gives, the best first.

    "eer"; "separation": d', and its 95 % interval "low" to "high"; "behind": the interval of how
    far it lies behind the best; "level": it cannot be told from the best.
    ValueError where the embeddings are not finite in any way.
    """
    counts = draws_of(faces.labels, draws)
    pixels = {crop: pixels_of(faces, crop, side) for crop in {way["crop"] for way in ways}}
    rows, drawn = [], []
    for way in progress(ways, "ways to prepare a picture"):
        x = embedded(network, pixels[way["crop"]], way)
        fine = bool(np.isfinite(x).all())  # in float16 an input of 0 to 255 may go beyond it
        rows.append({**way, "finite": fine, "eer": centred_eer(x, faces.labels) if fine else 0.5})
        drawn.append(separation_of_draws(x, faces.labels, counts) if fine else
                     np.zeros(len(counts)))
    if not any(row["finite"] for row in rows):
        raise ValueError("its embeddings are not finite (NaN or inf), however the pictures are "
                         "prepared; the file is damaged")
    first = max(range(len(rows)), key=lambda k: (rows[k]["finite"], drawn[k][0]))
    for row, own in zip(rows, drawn, strict=True):
        low, high = interval(own)
        behind = interval(drawn[first] - own)
        row |= {"separation": float(own[0]), "low": low, "high": high, "behind": behind,
                "level": row["finite"] and behind[0] <= MARGIN}
    return sorted(rows, key=lambda row: (not row["finite"], -row["separation"]))


def centred_eer(x: np.ndarray, labels: np.ndarray) -> float:
    """Equal error rate of embeddings centred on their own mean, as d' is measured."""
    return eer(*pair_scores(x - x.mean(0), labels))


@torch.inference_mode()
def embedded(network, pixels: Tensor, way: dict) -> np.ndarray:
    """(N, D) float32 of pictures (N, 3, side, side) uint8 RGB, prepared in that way."""
    mean = torch.tensor(way["mean"], dtype=torch.float32).view(3, 1, 1)
    divide = torch.tensor(way["divide"], dtype=torch.float32).view(-1, 1, 1)
    found = []
    for part in pixels.split(_BATCH):
        x = (part.float() - mean) / divide
        found.append(network(x.flip(1) if way["channels"] == "BGR" else x).embedding.float())
    return torch.cat(found).numpy()


def pixels_of(faces: FaceSet, crop: str, side: int) -> Tensor:
    """(N, 3, side, side) uint8; enlarged where the crop is smaller."""
    own = faces.sizes[crop]
    x = faces.pixels(crop, min(side, own))
    if side > own:
        x = F.interpolate(x.float(), size=(side, side), mode="bilinear").round_().to(torch.uint8)
    return x


def draws_of(labels: np.ndarray, draws: int) -> np.ndarray:
    """(1 + draws, P): everybody once, then the draws, the same for all ways of one set."""
    counts = people_counts(labels, draws, np.random.default_rng(0))
    return np.concatenate([np.ones_like(counts[:1]), counts])


def interval(drawn: np.ndarray) -> list[float]:
    """95 %, of draws as `draws_of` orders them."""
    return np.quantile(drawn[1:], [0.025, 0.975]).tolist()
