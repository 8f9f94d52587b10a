"""The study `shrinkteanet` on a world of noise: what it plans, trains, keeps and compares."""

import numpy as np
import pytest
import torch

from kdlab import study
from kdlab.losses import FeatureL2, ShrinkTeaNet
from kdlab.models.iresnet import IResNet
from kdlab.teachers import Teacher
from kdlab.world.protocols import Protocol

MODULE, CONFIG = study.load("shrinkteanet")
TINY = {"units": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
MOBILE = {"channels": [16, 16, 16, 16], "down": [16, 16, 16], "expand": [16, 16, 16]}


def shipped(name):
    torch.manual_seed(0)
    network = IResNet((1, 1, 1, 1), (16, 16, 16, 24), 16, input_size=48, stem=16,
                      strides=(2, 1, 2, 2, 2))
    contract = {"crop": "arcface", "size": 48, "mean": [127.5] * 3, "divide": 127.5,
                "embedding_size": 16}
    return Teacher(network, contract, "0" * 64, torch.zeros(16))


@pytest.fixture
def small(tmp_path, monkeypatch, noise):
    """The study over noise: (config, folder of results)."""
    def protocol(name):
        faces = noise(None, range(6), 4)
        rows = np.arange(len(faces))
        return Protocol(name, faces, rows[::2], rows[1::2])

    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(MODULE, "rendered", noise)
    monkeypatch.setattr(MODULE, "protocol", protocol)
    monkeypatch.setattr(MODULE, "load_orl", lambda crops: noise(None, range(5), 4, crops))
    monkeypatch.setattr(MODULE, "load_teacher", shipped)
    monkeypatch.setattr(MODULE, "results_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(MODULE, "SAMPLES", 10)
    config = CONFIG | {
        "world": {"seed": 0, "identities": 8, "per_identity": 4}, "batch_size": 16, "epochs": 1,
        "validation": {"first": 100, "identities": 6, "per_identity": 4}, "seeds": [0, 1],
        "networks": {"small": TINY, "mobile": MOBILE}, "lr": CONFIG["lr"][:2],
        "factor": {loss: values[:2] for loss, values in CONFIG["factor"].items()},
        "own": {loss: at | {"factor": at["factor"][:1]} for loss, at in CONFIG["own"].items()}}
    return config, tmp_path / "shrinkteanet"


def searched(config, steps=5):
    done = {}
    for _ in range(steps):
        done |= {c["name"]: {"validation": 0.5} for c in MODULE.cells(config, done)
                 if c["kind"] == "search"}
    return done


def test_it_runs_to_its_end(small, finished):
    records, summary = finished(MODULE, *small)
    rows = 2 * len(CONFIG["rows"]) + 2 + len(CONFIG["variants"])
    kinds = [r["cell"]["kind"] for r in records]
    assert kinds[:8] == ["search"] * 8 and kinds.count("final") == 2 * rows
    assert set(summary["chosen"]) == {"small", "mobile", "angular", "l2", "angular, rate 0.1",
                                      "l2, rate 0.1"}
    assert summary["seeds"] == [0, 1] and len(summary["rows"]) == rows
    assert {"small-angular - small-alone", "small-l2 - small-alone", "small-angular - small-l2",
            "mobile-angular - mobile-l2", "small-own_angular - small-own_l2",
            "small-own_l2 - small-l2", "small-last - small-angular"} <= summary["difference"].keys()
    mean = summary["difference"]["small-angular - small-l2"]["mean tpr@0.001"]
    each = [a - b for a, b in zip(*(summary["rows"][f"small-{way}"]["mean"]["tpr@0.001"]
                                    for way in ("angular", "l2")), strict=True)]
    np.testing.assert_allclose(mean["per_seed"], each, atol=1e-6)
    assert mean["low"] <= mean["estimate"] <= mean["high"]
    three = [summary["rows"]["small-l2"][name]["tpr@0.001"][0] for name in CONFIG["protocols"]]
    assert summary["rows"]["small-l2"]["mean"]["tpr@0.001"][0] == pytest.approx(np.mean(three))
    by_name = {r["cell"]["name"]: r["cell"] for r in records}
    chosen = summary["chosen"]
    assert by_name["small-l2-seed1"]["options"]["factor"] == chosen["l2"]
    assert by_name["mobile-angular-seed0"]["lr"] == chosen["mobile"]


def test_searches_wait_for_each_other_and_look_at_nothing_that_is_judged(small):
    config, _ = small
    assert {c["kind"] for c in MODULE.cells(config, {})} == {"search"}
    assert not any("factor" in c["name"] for c in MODULE.cells(config, {}))
    for cell in MODULE.cells(config, searched(config)):
        searching = cell["kind"] == "search"
        assert ("validation" in cell) == searching and ("protocols" in cell) != searching


def test_whole_seeds_come_before_the_next_and_variants_last(small):
    config, _ = small
    final = [c for c in MODULE.cells(config, searched(config)) if c["kind"] == "final"]
    core = [c["seed"] for c in final if c["row"] in config["rows"]]
    assert core == sorted(core) and [c["row"] in config["rows"] for c in final] == \
        [True] * len(core) + [False] * (len(final) - len(core))
    assert [c["row"] in config["variants"] for c in final][-6:] == [True] * 6


def test_a_loss_with_its_own_rate_takes_the_best_of_all_that_was_tried(small):
    config, _ = small
    done = searched(config)
    plan = {c["name"]: c for c in MODULE.cells(config, done)}
    assert plan["small-own_l2-seed0"]["lr"] == plan["small-l2-seed0"]["lr"]  # the first of equals
    done["search-l2-lr0.1-factor10"] = {"validation": 0.9}
    own = {c["name"]: c for c in MODULE.cells(config, done)}["small-own_l2-seed0"]
    assert own["lr"] == 0.1 and own["options"] == {"loss": "l2", "factor": 10}


@pytest.mark.parametrize("kind", [TINY, MOBILE])
def test_the_students_leave_maps_of_the_teachers_sides(kind):
    made = MODULE.network(kind, 16).eval()
    out = made(torch.zeros(2, 3, 48, 48))
    assert out.embedding.shape == (2, 16)
    assert [part.shape[-1] for part in out.features] == [24, 12, 6, 3]
    with pytest.raises(ValueError, match="takes"):
        made(torch.zeros(2, 3, 112, 112))


def test_a_row_is_its_loss():
    teacher, student = shipped(""), MODULE.network(TINY, 16)
    make = lambda **options: MODULE.distillation(options, student, teacher)  # noqa: E731
    assert make() is None
    l2 = make(loss="l2", factor=10)
    assert isinstance(l2, FeatureL2) and l2.weight == pytest.approx(0.01) and l2.last == "embedding"
    assert make(loss="l2", factor=1, last="map").last == "map"
    whole = make(loss="angular", factor=4, squared=True)
    assert isinstance(whole, ShrinkTeaNet) and whole.weight == 4 and whole.squared
    assert len(whole.lifts) == 3
    assert len(make(loss="angular", factor=4, intermediate=False).lifts) == 0


def test_alike_takes_the_halving_back():
    terms = {"stage1": 0.125, "stage2": 0.25, "stage3": 0.5, "embedding": 1.0}
    assert set(MODULE.alike(None, (), terms).values()) == {1.0}
