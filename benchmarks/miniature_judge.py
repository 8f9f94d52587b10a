"""How the networks of the GPU miniature did on people they never saw, with intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from kdlab.data import FaceSet
from kdlab.evaluate.draws import rate_draws
from kdlab.evaluate.intervals import difference_of_draws
from kdlab.evaluate.verification import embed


def judged(names: list[str], load: Callable[[str], nn.Module], faces: FaceSet, size: int,
           fprs: Sequence[float]) -> dict[str, dict]:
    """Name -> {"rates", "draws"}: EER and TPR of everybody, and the TPR of each draw of people."""
    pixels = faces.pixels("arcface", size)
    found = {}
    for name in names:
        embeddings = embed(load(name), pixels)
        rates, draws = rate_draws(embeddings, faces.labels, fprs)
        found[name] = {"rates": rates, "draws": draws}
    return found


def summary(found: dict[str, dict], runs: dict[str, list[str]], control: str) -> dict[str, dict]:
    """Method -> its rates, and how much higher its TPR is than the control's.

    runs: method -> names in `found`, one a seed, those of all methods in the same order of seeds.
    Each TPR: mean over seeds and the 95 % interval over people; each difference: 95 % over people
    and seeds (with one seed: over people alone). A method whose runs failed in part is compared
    with the control's first as many.
    """
    told = {}
    for method, names in runs.items():
        told[method] = {"seeds": len(names)}
        for key in found[names[0]]["draws"]:
            own = np.stack([found[name]["draws"][key] for name in names])  # (S, 1 + samples)
            low, high = np.quantile(own[:, 1:].mean(0), (0.025, 0.975))
            told[method][key] = {"mean": float(own[:, 0].mean()), "low": float(low),
                                 "high": float(high), "per_seed": own[:, 0].tolist()}
            if method != control and runs.get(control):
                seeds = min(len(names), len(runs[control]))
                other = np.stack([found[name]["draws"][key] for name in runs[control][:seeds]])
                gain = difference_of_draws(own[:seeds], other, np.random.default_rng(0))
                told[method][f"{key} minus {control}"] = gain._asdict()
        told[method]["eer"] = [found[name]["rates"]["eer"] for name in names]
    return told


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices and kernels in float16, vectors (scales, statistics) as they are."""
    return {name: value.half() if value.ndim > 1 and value.is_floating_point() else value
            for name, value in state.items()}
