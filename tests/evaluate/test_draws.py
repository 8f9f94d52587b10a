"""Draws kept on disk compare two networks as paired_difference does with their embeddings."""

import numpy as np
import pytest

from kdlab.evaluate import pair_scores, paired_difference, tpr_at_fpr
from kdlab.evaluate.draws import compare_draws, keep_draws, tpr_draws

LABELS = np.repeat(np.arange(12), 4)


def answers(seed: int, noise: float) -> np.ndarray:
    own = np.random.default_rng(0).normal(size=(12, 8))
    return own[LABELS] + noise * np.random.default_rng(seed).normal(size=(48, 8))


def test_the_first_draw_is_everybody():
    x = answers(1, 1.0)
    found = tpr_draws(x, LABELS, 0.01, 20)
    assert found.shape == (21,) and found.dtype == np.float32
    assert found[0] == pytest.approx(tpr_at_fpr(*pair_scores(x, LABELS), 0.01).tpr, abs=1e-6)


def test_every_network_is_given_the_same_draws():
    x = answers(1, 1.0)
    assert np.array_equal(tpr_draws(x, LABELS, 0.01, 20), tpr_draws(7 * x, LABELS, 0.01, 20))


def test_kept_draws_compare_as_the_embeddings_do(tmp_path):
    """Seeds are drawn from another stream than there, so intervals agree, not bits."""
    sides = {name: [answers(10 * k + seed, noise) for seed in (0, 1)]
             for k, (name, noise) in enumerate((("good", 0.5), ("bad", 1.6)))}
    for name, runs in sides.items():
        for seed, x in enumerate(runs):
            keep_draws(tmp_path, f"{name}{seed}", {"t": tpr_draws(x, LABELS, 0.01, 400)})
    found = compare_draws(tmp_path, ["good0", "good1"], ["bad0", "bad1"])["t"]
    wanted = paired_difference(sides["good"], sides["bad"], LABELS, 0.01, 400)
    assert found["estimate"] == pytest.approx(wanted.estimate, abs=1e-6)
    np.testing.assert_allclose(found["per_seed"], wanted.per_seed, atol=1e-6)
    assert found["low"] == pytest.approx(wanted.low, abs=0.05)
    assert found["high"] == pytest.approx(wanted.high, abs=0.05)
    assert found["low"] > 0
