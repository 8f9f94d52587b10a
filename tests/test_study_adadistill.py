"""The study `adadistill` on a world of noise: what it plans, trains, keeps and compares."""

import numpy as np
import pytest
import torch

from kdlab import study
from kdlab.models.iresnet import IResNet
from kdlab.teachers import Teacher

MODULE, CONFIG = study.load("adadistill")
TINY = {"units": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}


def shipped(name):
    """A teacher of 16 dimensions that knows twelve people; dlib's has 8."""
    torch.manual_seed(0)
    size = 8 if "dlib" in name else 16
    network = IResNet((1, 1, 1, 1), (16, 16, 16, 24), size, input_size=48, stem=16,
                      strides=(2, 1, 2, 2, 2))
    contract = {"crop": "arcface", "size": 48, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": size}
    return Teacher(network, contract, f"{size:064d}", torch.zeros(size), torch.randn(12, size))


@pytest.fixture
def small(tmp_path, monkeypatch, noise):
    """The study over noise: (config, folder of results)."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(MODULE, "rendered", noise)
    monkeypatch.setattr(MODULE, "load_orl", lambda crops: noise(None, range(5), 4, crops))
    monkeypatch.setattr(MODULE, "load_teacher", shipped)
    monkeypatch.setattr(MODULE, "results_folder", lambda name: tmp_path / name)
    for name, value in (("SAMPLES", 10), ("LOG", 2), ("VALIDATE", 2), ("EVERY", 4)):
        monkeypatch.setattr(MODULE, name, value)
    rows = ("arcface", "arcdistill", "alpha", "alpha_prime", "means", "teacher_twin",
            "teacher_dlib")
    config = CONFIG | {
        "world": {"seed": 0, "identities": 12, "per_identity": 4}, "batch_size": 8,
        "validation": {"first": 100, "identities": 6, "per_identity": 4}, "epochs": 2,
        "test": {"first": 200, "identities": 7, "per_identity": 4}, "seeds": [0, 1],
        "student": TINY, "teachers": CONFIG["teachers"] | {"twin": {"network": TINY}},
        "search_epochs": 1, "lr": [0.01, 0.02], "watched_classes": 3,
        "rows": {row: CONFIG["rows"][row] for row in rows}}
    return config, tmp_path / "adadistill"


def test_it_runs_to_its_end(small, finished):
    config, folder = small
    records, summary = finished(MODULE, config, folder)
    kinds = [r["cell"]["kind"] for r in records]
    assert kinds[:8] == ["search"] * 8 and kinds[8:16] == ["final"] * 8
    assert [r["cell"]["row"] for r in records[8:12]] == config["core"]
    assert set(summary["teachers"]) == {"ir_teacher", "twin", "dlib_resnet29"}
    d = summary["difference"]["alpha_prime - alpha"]["test tpr@0.001"]
    each = [b - a for a, b in zip(*(summary["rows"][row]["test"]["tpr@0.001"] for row in
                                    ("alpha", "alpha_prime")), strict=True)]
    np.testing.assert_allclose(d["per_seed"], each, atol=1e-6)
    assert d["low"] <= d["estimate"] <= d["high"]
    result = {r["cell"]["name"]: r["result"] for r in records}
    alone, moved = result["arcface-seed0"], result["alpha_prime-seed0"]
    assert moved["watched"]["validated"] == [0, 2, 4, 6, 8, 10, 12]
    assert moved["log"]["step"][:2] == moved["watched"]["step"][:2] == [1, 3]
    assert "loss.momentum" not in alone["log"] and not alone["watched"]["agreement"]
    assert len(result["arcdistill-seed0"]["watched"]["agreement"]) == 6
    lr = {r["cell"]["name"]: r["cell"].get("lr") for r in records}
    assert lr["alpha_prime-seed0"] == lr["teacher_dlib-seed1"] == summary["chosen"]["alpha"]
    assert lr["means-seed0"] == summary["chosen"]["means"]
    kept = np.load(folder / "centres" / "alpha-seed0.npz")
    assert kept["step"].tolist() == [0, 1, 2, 3, 4, 8, 12]
    assert kept["centres"].shape == (7, 3, 16) and kept["to_mean"].shape == (7, 12)
    assert not np.array_equal(kept["centres"][0], kept["centres"][-1])
    assert not (folder / "centres" / "alpha-seed1.npz").exists()


def test_watching_changes_nothing(small):
    """A row trains to the same weights whether its centres are kept and validated or not."""
    config, _ = small
    done = {c["name"]: {"validation": 0.5} for c in MODULE.cells(config, {})}
    cell = next(c for c in MODULE.cells(config, done) if c["name"] == "alpha-seed0")
    known, seen = (MODULE.faces(None, config[k]) for k in ("world", "validation"))
    teacher = MODULE.teacher_of(cell, known)
    one, _ = MODULE.teach(cell, known, teacher, seen)
    other, _ = MODULE.teach(cell | {"kind": "search", "watched_classes": 0}, known, teacher, seen)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_search_looks_at_what_is_judged(small):
    config, _ = small
    searched = MODULE.cells(config, {})
    assert {c["kind"] for c in searched} == {"search"}
    assert not any("test" in c or "hard" in c for c in searched)


def test_class_means_are_directions():
    """Unit rows (1, 0) and (0, 1) of one class, mirrors the same: the mean points to 45 degrees."""
    answers = type("", (), {"array": np.repeat([[[2.0, 0]], [[0, 3.0]], [[0, 1.0]]], 2, 1)})
    means = MODULE.class_means(answers, np.array([0, 0, 1]))
    np.testing.assert_allclose(means, [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)
