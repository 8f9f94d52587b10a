"""The study `refo` on a world of noise: what it plans, trains, keeps and compares."""

import numpy as np
import pytest
import torch

from kdlab import study
from kdlab.models.iresnet import IResNet
from kdlab.teachers import Teacher

MODULE, CONFIG = study.load("refo")
TINY = {"units": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}


def shipped(name):
    """A teacher of 16 dimensions that knows twelve people."""
    torch.manual_seed(0)
    network = IResNet((1, 1, 1, 1), (16, 16, 16, 24), 16, input_size=48, stem=16,
                      strides=(2, 1, 2, 2, 2))
    contract = {"crop": "arcface", "size": 48, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": 16}
    return Teacher(network, contract, "0" * 64, torch.zeros(16), torch.randn(12, 16))


@pytest.fixture
def small(tmp_path, monkeypatch, noise):
    """The study over noise: (config, folder of results)."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(MODULE, "rendered", noise)
    monkeypatch.setattr(MODULE, "load_orl", lambda crops: noise(None, range(5), 4, crops))
    monkeypatch.setattr(MODULE, "load_teacher", shipped)
    monkeypatch.setattr(MODULE, "results_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(MODULE, "SAMPLES", 10)
    search = {what: options | {"values": options["values"][:2]}
              for what, options in CONFIG["search"].items()}
    rows = {name: row | {"students": ["small"]} for name, row in CONFIG["rows"].items()}
    config = CONFIG | {
        "world": {"seed": 0, "identities": 12, "per_identity": 4}, "batch_size": 16,
        "validation": {"first": 100, "identities": 6, "per_identity": 4},
        "test": {"first": 200, "identities": 7, "per_identity": 4},
        "strangers": {"first": 300, "identities": 30, "per_identity": 1}, "seeds": [0, 1],
        "networks": dict.fromkeys(CONFIG["networks"], TINY) | {"shipped": "shipped"},
        "epochs": {"labels": 1, "tuned": 1, "features": 1}, "by_labels": ["half", "small"],
        "search": search, "rows": rows}
    config["rows"]["scratch_plus"]["beta2s"] = {"small": [2]}
    return config, tmp_path / "refo"


def test_it_runs_to_its_end(small, finished):
    records, summary = finished(MODULE, *small)
    kinds = [r["cell"]["kind"] for r in records]
    assert kinds[:8] == ["search"] * 8 and kinds.count("teacher") == 14
    assert set(summary["chosen"]) == {"labels", "tuned", "features", "beta1"}
    assert set(summary["difference"]) == {
        "vanilla-small - labels-small", "refo-small - vanilla-small",
        "scratch-small - labels-small", "scratch_refo-small - scratch-small",
        "scratch_plus-small - scratch-small", "scratch_plus-small - scratch_refo-small",
        "scratch_plus-small-beta2_2 - scratch_plus-small",
        "scratch_other-small - scratch-small", "scratch_beta1_2-small - scratch-small",
        "scratch_beta1_2-small - scratch_refo-small"}
    d = summary["difference"]["refo-small - vanilla-small"]["test tpr@0.001"]
    each = [b - a for a, b in zip(*(summary["rows"][row]["test"]["tpr@0.001"] for row in
                                    ("vanilla-small", "refo-small")), strict=True)]
    np.testing.assert_allclose(d["per_seed"], each, atol=1e-6)
    assert d["low"] <= d["estimate"] <= d["high"]
    gap = summary["dimension"]["teacher-refo - teacher-vanilla"]["strangers"]
    each = [summary["rows"]["teacher-refo"]["dimension"]["strangers"][k]
            - summary["rows"]["teacher-vanilla"]["dimension"]["strangers"][k] for k in (0, 1)]
    np.testing.assert_allclose(gap["per_seed"], each)
    by_name = {r["cell"]["name"]: r["cell"] for r in records}
    chosen = summary["chosen"]
    assert by_name["teacher-refo-seed0"]["row"]["beta1"] == chosen["beta1"]
    assert by_name["teacher-scratch_refo-seed0"]["row"]["beta1"] == 0.5
    rates = {what: value for what, value in chosen.items() if what != "beta1"}
    assert by_name["scratch_plus-small-seed0"]["lr"] == rates


def test_students_wait_for_their_teacher_and_searches_for_each_other(small):
    config, _ = small
    assert {c["name"] for c in MODULE.cells(config, {})} == {
        "search-labels-0.025", "search-labels-0.05"}
    done = {}
    for _ in range(4):
        done |= {c["name"]: {"validation": 0.5} for c in MODULE.cells(config, done)}
    plan = [c["name"] for c in MODULE.cells(config, done)]
    assert "teacher-refo-seed0" in plan and not any(n.startswith("refo-small") for n in plan)
    done["teacher-refo-seed1"] = {}
    plan = [c["name"] for c in MODULE.cells(config, done)]
    assert [n for n in plan if n.startswith("refo-small")] == ["refo-small-seed1"]


def test_no_search_looks_at_what_is_judged(small):
    config, _ = small
    done = {}
    for _ in range(5):
        done |= {c["name"]: {"validation": 0.5} for c in MODULE.cells(config, done)}
    for cell in MODULE.cells(config, done):
        searching = cell["kind"] == "search"
        assert ("validation" in cell) == searching and ("test" in cell) != searching


def test_interval_over_seeds_is_students():
    """1, 2, 3: mean 2, s.d. 1, t(0.975, 2) = 4.3027 (printed tables), divided by sqrt(3)."""
    found = MODULE.over_seeds([1.0, 2.0, 3.0])
    assert found["estimate"] == 2 and found["high"] - 2 == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
