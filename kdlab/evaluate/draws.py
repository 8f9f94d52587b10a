"""What a study keeps of a judged network, so that any two of its rows can be compared later.

A network's TPR for each of many draws of people is 2 kB; its embeddings are megabytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdlab.evaluate.intervals import difference_of_draws, people_counts, tpr_of_draws
from kdlab.evaluate.pairs import pair_scores
from kdlab.evaluate.verification import eer


def tpr_draws(embeddings: np.ndarray, labels: np.ndarray, fpr: float,
              samples: int = 500) -> np.ndarray:
    """(1 + samples,) float32: TPR of everybody, then of each draw of people.

    embeddings: (N, D); labels: (N,). The draws are the same for every network of one set.
    """
    counts = people_counts(labels, samples, np.random.default_rng(0))
    counts = np.concatenate([np.ones_like(counts[:1]), counts])
    return tpr_of_draws(embeddings, labels, fpr, counts).astype(np.float32)


def rate_draws(embeddings: np.ndarray, labels: np.ndarray, fprs: Sequence[float],
               samples: int = 500) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Of one set: {"eer": ..., "tpr@0.001": ...}, and the draws of each TPR by the same names."""
    draws = {f"tpr@{fpr:g}": tpr_draws(embeddings, labels, fpr, samples) for fpr in fprs}
    rates = {name: float(found[0]) for name, found in draws.items()}
    return {"eer": eer(*pair_scores(embeddings, labels)), **rates}, draws


def keep_draws(folder: Path, name: str, draws: dict[str, np.ndarray]) -> None:
    """Write folder/draws/name.npz: what was drawn, such as "orl tpr@0.01" -> (1 + samples,)."""
    (folder / "draws").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "draws" / f"{name}.npz", **draws)


def compare_draws(folder: Path, row: list[str], control: list[str]) -> dict[str, dict]:
    """TPR of a row minus TPR of its control, for everything drawn: estimate, low, high, per_seed.

    row, control: the names kept, one a training seed, paired by position. 95 % intervals over
    people and seeds (`difference_of_draws`).
    """
    sides = []
    for names in (row, control):
        kept = [np.load(folder / "draws" / f"{name}.npz", allow_pickle=False) for name in names]
        sides.append({key: np.stack([one[key] for one in kept]) for key in kept[0].files})
    found = {key: difference_of_draws(sides[0][key], sides[1][key], np.random.default_rng(0))
             for key in sides[0]}
    return {key: {"estimate": d.estimate, "low": d.low, "high": d.high,
                  "per_seed": list(d.per_seed)} for key, d in found.items()}
