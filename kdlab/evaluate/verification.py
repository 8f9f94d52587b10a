"""One-to-one verification: all pairs, ROC, TPR at FPR, ten folds.

A pair is accepted when its similarity is at or above the threshold. Genuine: the same person;
impostor: two persons. Every pair is unordered and counted once, for both kinds (the MFR server
counts impostors as ordered pairs less the genuine ones; the rates here are the plain ones).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from kdlab.evaluate.intervals import clopper_pearson
from kdlab.evaluate.pairs import most_allowed, pair_scores, unit_rows
from kdlab.progress import progress

__all__ = ["Accuracy", "OperatingPoint", "eer", "embed", "pair_scores", "rates_at", "roc",
           "tpr_at_fpr", "verification_accuracy"]
GRID = np.arange(0, 4, 0.01)  # squared distances tried as thresholds: insightface's verification


class OperatingPoint(NamedTuple):
    """A point of the ROC. Rates are fractions.

    low, high: exact binomial 95 % interval of tpr, as if genuine pairs were independent (pairs of
    one person are not) and the threshold exact (at a small FPR it rests on few impostor pairs):
    see kdlab.evaluate.intervals.paired_difference for claims.
    supported: the target allows at least one impostor pair; where it does not, tpr is only the
    share of genuine pairs above the highest impostor.
    """

    tpr: float
    fpr: float
    threshold: float
    low: float
    high: float
    supported: bool


class Accuracy(NamedTuple):
    """Mean and population standard deviation of the folds' accuracies, as fractions."""

    mean: float
    std: float


def embed(model: nn.Module, pixels: torch.Tensor | np.ndarray, batch: int = 256,
          flip: bool = True) -> np.ndarray:
    """Embeddings of a student: image plus mirror, added raw (the norm acts as a weight).

    pixels: (N, 3, S, S) uint8, RGB.   Returns (N, D) float32, not normalised.
    The model is run in eval mode and left in the mode it was in.
    """
    pixels = torch.as_tensor(pixels)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not len(pixels):
        raise ValueError(f"embed wants (N, 3, S, S) uint8 pictures and at least one, "
                         f"not {tuple(pixels.shape)} {pixels.dtype}")
    first = next(model.parameters(), torch.zeros(()))
    was_training = model.training
    model.eval()
    try:
        rows = []
        with torch.inference_mode():
            for part in progress(pixels.split(batch), "embedding"):
                x = (part.to(first.device).to(first.dtype) - 127.5) / 127.5
                embedding = model(x).embedding
                if flip:
                    embedding = embedding + model(x.flip(3)).embedding
                rows.append(embedding.float().cpu())
    finally:
        model.train(was_training)
    return torch.cat(rows).numpy()


def roc(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fpr, tpr, thresholds): every step of the curve, from (0, 0) at infinity to (1, 1).

    One point for each distinct score, ties taken together; nothing is dropped or interpolated.
    """
    genuine, impostor = _checked(genuine, impostor)
    scores = np.unique(np.concatenate([genuine, impostor]))[::-1]
    thresholds = np.concatenate([[np.inf], scores])
    return _share_at(impostor, thresholds), _share_at(genuine, thresholds), thresholds


def eer(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Equal error rate: FPR where it equals 1 - TPR, on straight lines between the ROC's points."""
    fpr, tpr, _ = roc(genuine, impostor)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    k = int(np.argmax(gap >= 0))
    share = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(fpr[k - 1] + share * (fpr[k] - fpr[k - 1]))


def rates_at(genuine: np.ndarray, impostor: np.ndarray, threshold: float) -> tuple[float, float]:
    """(tpr, fpr) when a pair is accepted at or above the threshold."""
    genuine, impostor = _checked(genuine, impostor)
    return float((genuine >= threshold).mean()), float((impostor >= threshold).mean())


def tpr_at_fpr(genuine: np.ndarray, impostor: np.ndarray, fpr: float,
               rule: str = "below") -> OperatingPoint:
    """True positive rate at a false positive rate (= TAR at FAR).

    fpr: the target, between 0 and 1.
    rule "below": the largest TPR whose FPR does not exceed the target (the MFR rule);
    "nearest": the ROC point whose FPR is nearest the target, the larger TPR on a tie (the IJB
    scripts; the FPR may exceed the target). Tied scores are accepted or refused together.
    """
    genuine, impostor = _checked(genuine, impostor)
    allowed = most_allowed(fpr, len(impostor))
    if rule == "below":
        k = len(impostor) - 1 - allowed
        refused = np.partition(impostor, k)[k]
        threshold = np.nextafter(refused, np.inf)  # the lowest number above the first refused
    elif rule == "nearest":
        rates, _, thresholds = roc(genuine, impostor)
        gap = np.abs(rates - fpr)
        threshold = thresholds[len(gap) - 1 - np.argmin(gap[::-1])]
    else:
        raise ValueError(f'rule must be "below" or "nearest", not {rule!r}')
    hits = int((genuine >= threshold).sum())
    low, high = clopper_pearson(hits, len(genuine))
    return OperatingPoint(hits / len(genuine), float((impostor >= threshold).mean()),
                          float(threshold), low, high, allowed >= 1)


def verification_accuracy(embeddings: np.ndarray, is_same: np.ndarray,
                          folds: int = 10) -> Accuracy:
    """Accuracy of the LFW protocol, as insightface's verification computes it.

    embeddings: (2P, D), rows 2k and 2k + 1 a pair; is_same: (P,) bool. Contiguous folds; the first
    best threshold of the others, squared distance strictly below it, scores each.
    """
    x, is_same = unit_rows(embeddings).astype(np.float64), np.asarray(is_same, dtype=bool)
    P = len(is_same)
    if len(x) != 2 * P:
        raise ValueError(f"{P} pairs need {2 * P} embeddings, not {len(x)}")
    if not 2 <= folds <= P:
        raise ValueError(f"folds must be 2 to {P} (the number of pairs), not {folds}")
    distance = np.square(x[::2] - x[1::2]).sum(1)  # (P,)
    right = (distance < GRID[:, None]) == is_same  # (T, P)
    parts = np.array_split(np.arange(P), folds)
    hits = np.stack([right[:, part].sum(1) for part in parts], 1)  # (T, folds)
    sizes = np.array([len(part) for part in parts])
    best = (hits.sum(1, keepdims=True) - hits).argmax(0)  # argmax gives the first best
    accuracy = hits[best, np.arange(folds)] / sizes
    return Accuracy(float(accuracy.mean()), float(accuracy.std()))


def _share_at(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of scores at or above each threshold."""
    below = np.searchsorted(np.sort(scores), thresholds, "left")
    return (len(scores) - below) / len(scores)


def _checked(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as 1-D float arrays of one dtype, all finite; ValueError in words otherwise."""
    pairs = {"genuine": np.asarray(genuine), "impostor": np.asarray(impostor)}
    for kind, scores in pairs.items():
        if scores.ndim != 1 or not len(scores):
            raise ValueError(f"there are no {kind} pairs: the set needs at least two pictures of "
                             "one person and two persons")
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise ValueError(f"{bad} of {len(scores)} {kind} scores are not finite (NaN or inf)")
    dtype = np.result_type(*pairs.values(), np.float32)
    return pairs["genuine"].astype(dtype, copy=False), pairs["impostor"].astype(dtype, copy=False)
