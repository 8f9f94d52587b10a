"""The study `ekd` on a world of noise: what it plans, trains, keeps and compares."""

import ast
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import kdlab
from kdlab import study
from kdlab.models import MODELS
from kdlab.outputs import Output, Targets
from kdlab.teachers import save_teacher

pytestmark = pytest.mark.filterwarnings("ignore:EKD. a batch of")
ROOT = Path(__file__).resolve().parents[1]
MODULE, CONFIG = study.load("ekd")


@pytest.fixture
def small(tmp_path, monkeypatch, noise):
    """The study over noise, with a teacher of 16 dimensions: (config, folder of results)."""
    torch.manual_seed(0)
    size = {"embedding_size": 16}
    save_teacher(tmp_path / "t.safetensors", MODELS["ir_student"](**size), {
        "network": "ir_student", "arguments": size, "crop": "arcface", "size": 48,
        "channels": "RGB", "mean": [127.5] * 3, "divide": 127.5, **size})
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr(MODULE, "rendered", noise)
    monkeypatch.setattr(MODULE, "load_orl", lambda crops: noise(None, range(5), 4, crops))
    monkeypatch.setattr(MODULE, "results_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(MODULE, "SAMPLES", 10)
    monkeypatch.setattr(MODULE, "ROUNDS", 2)
    rows = ("alone", "alone_all_rows", "ekd", "ekd_all_rows", "slow", "smaller_alone",
            "smaller_ekd")
    config = CONFIG | {
        "world": {"seed": 0, "identities": 12, "per_identity": 4}, "lr": [0.01, 0.02],
        "validation": {"first": 100, "identities": 6, "per_identity": 4}, "epochs": 2,
        "test": {"first": 200, "identities": 7, "per_identity": 4}, "seeds": [0, 1],
        "random": 16, "identities": 4, "embedding_size": 16, "factor": [1, 2],
        "teacher": str(tmp_path / "t.safetensors"), "rows": {r: CONFIG["rows"][r] for r in rows}}
    return config, tmp_path / "ekd"


def test_it_runs_to_its_end(small, finished):
    records, summary = finished(MODULE, *small)
    assert [r["cell"]["kind"] for r in records[:5]] == ["cost"] + ["search"] * 4
    assert set(summary["rows"]) == set(small[0]["rows"]) and summary["seeds"] == [0, 1]
    assert set(summary["difference"]) == set(summary["rows"]) - {"alone", "smaller_alone"}
    d = summary["difference"]["smaller_ekd"]["test tpr@0.001"]
    each = [b - a for a, b in zip(*(summary["rows"][row]["test"]["tpr@0.001"] for row in
                                    ("smaller_alone", "smaller_ekd")), strict=True)]
    np.testing.assert_allclose(d["per_seed"], each, atol=1e-6)
    assert d["control"] == "smaller_alone" and d["low"] <= d["estimate"] <= d["high"]
    assert summary["difference"]["ekd_all_rows"]["orl tpr@0.01"]["control"] == "alone_all_rows"
    assert set(summary["difference_to_ekd"]) == {"alone_all_rows", "slow"}
    kept = {r["cell"]["name"] for r in records if "timeline" in r["result"]}
    assert kept == {"alone-seed0", "ekd-seed0", "slow-seed0"}
    assert summary["cost"]["baseline"]["ratio"] == [1, 1, 1]
    by_name = {r["cell"]["name"]: r["result"] for r in records}
    watched = by_name["alone-seed0"]
    assert watched["ekd/positive"] == 0 and len(watched["timeline"]["step"]) > 1
    assert len(watched["true_thresholds"]["student"][0]) == len(CONFIG["base"]["fprs"])


def test_the_student_alone_is_the_same_whatever_ekd_watches(small):
    """Weights of 0: the watcher leaves no trace, so `slow` with factor 0 is `alone`."""
    config, folder = small
    cells = {c["name"]: c for c in MODULE.cells(config, {
        name: {"validation": 0.5} for name in
        ("search-lr0.01", "search-lr0.02", "search-factor1", "search-factor2")})}
    known = MODULE.faces(None, config["world"])
    one, _ = MODULE.teach(cells["alone-seed0"], known)
    other, _ = MODULE.teach(cells["slow-seed0"] | {"factor": 0, "watched": False}, known)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_all_rows_forgets_who_was_drawn_as_a_pair():
    targets = Targets(torch.arange(3), balanced=torch.tensor([False, True, True]))
    student = Output(torch.zeros(3, 2))
    assert MODULE.all_rows(None, (student, None, targets))[2].balanced is None


def test_thresholds_are_the_elements_of_the_sorted_impostors():
    angles = np.radians([0, 10, 30, 70])  # cosines of the differences, 6 pairs
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    pairs = sorted(np.cos(np.radians([10, 30, 70, 20, 60, 40])), reverse=True)
    assert MODULE.thresholds(x, [0.5, 0.1]) == [round(pairs[3], 4), round(pairs[0], 4)]


def constants(notebook) -> dict:
    values = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    try:
                        values[node.targets[0].id] = ast.literal_eval(node.value)
                    except ValueError:
                        pass
    return values


def test_the_notebook_speaks_of_this_study():
    """Its knobs are the study's, its table has every compared row and no other."""
    known = constants(nbformat.read(ROOT / "notebooks" / "40_ekd.ipynb", 4))
    base = CONFIG["base"]
    assert (list(known["FPRS"]), known["MOMENTUM"], known["HARD"]) == (
        base["fprs"], base["momentum"], base["hard_negatives"])
    told = {row for rows in known["TABLE_1"].values() for row in rows} - {"ir18"}  # only printed
    assert told == set(CONFIG["rows"]) - {"alone", "smaller_alone"}
    summary = kdlab.stored("ekd").summary
    if summary:
        assert (known["RATE"], known["FACTOR"]) == (summary["lr"], summary["factor"])
    else:
        assert known["RATE"] in CONFIG["lr"] and known["FACTOR"] in CONFIG["factor"]
