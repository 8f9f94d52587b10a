"""The study `teacher` on a world of noise: what it trains, stores, judges and writes down."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import kdlab
from kdlab import study
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.evaluate import judge
from kdlab.models import MODELS
from kdlab.teachers import load_teacher, save_teacher

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
world: {seed: 0, identities: 8, per_identity: 8}
validation: {first: 10000, identities: 20, per_identity: 8}
teacher: ir_teacher
student: ir_student
embedding_size: 16
epochs: 3
search_epochs: 1
batch_size: 16
lr: [0.05, 0.1]
search_seed: 100
teacher_seed: 0
student_seeds: [0, 1]
threads: 1
beside: %s
protocols: [frontal, profile, pose, orl]
people: 3
compared_people: 5
"""


def noise(world, identities, per_identity, crops=("arcface", "dlib")):
    """Random blocks instead of faces: one pattern a person, a little of it new in each picture."""
    pictures = []
    for i in identities:
        rng = np.random.default_rng(int(i))
        own = rng.integers(0, 256, (3, 8, 8))
        for _ in range(per_identity):
            mixed = (0.8 * own + 0.2 * rng.integers(0, 256, own.shape)).astype(np.uint8)
            pictures.append(mixed.repeat(14, 1).repeat(14, 2))
    labels = np.repeat(np.arange(len(identities)), per_identity)
    pixels = {"arcface": np.stack(pictures), "dlib": np.zeros((len(labels), 3, 150, 150), np.uint8)}
    key = f"noise {list(identities)} {per_identity}"
    return FaceSet({crop: pixels[crop] for crop in crops}, labels, key)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home in which the study has been run, to its end, once."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDLAB_HOME", str(home))
        patch.setenv("KDLAB_CACHE", str(home / "cache"))
        patch.setenv("KDLAB_HEADLESS", "1")
        patch.setattr("kdlab.world.rendered", noise)
        patch.setattr("kdlab.world.protocols.rendered", noise)
        few = load_orl()
        few = FaceSet({c: p[:40] for c, p in few.crops.items()}, few.labels[:40], "few")
        patch.setattr("kdlab.data.orl.load_orl", lambda crops: few)
        (home / "studies").mkdir()
        torch.manual_seed(0)
        contract = {"network": "ir_student", "arguments": {"embedding_size": 16},
                    "crop": "arcface", "size": 48, "channels": "RGB", "mean": [127.5] * 3,
                    "divide": 127.5, "embedding_size": 16}
        save_teacher(home / "dlib_resnet29.safetensors", MODELS["ir_student"](embedding_size=16),
                     contract)
        shutil.copy(ROOT / "studies" / "teacher.py", home / "studies")
        (home / "studies" / "teacher.yaml").write_text(
            CONFIG % (home / "dlib_resnet29.safetensors"))
        threads = torch.get_num_threads()
        assert study.run_study("teacher") == 0
        torch.set_num_threads(threads)
        yield home


@pytest.fixture
def module():
    return study.load("teacher")[0]


@pytest.fixture
def summary(home):
    return json.loads((home / "data/results/teacher/summary.json").read_text())


def test_cells_in_their_order(home):
    assert list(kdlab.stored("teacher")) == [
        "search-lr0.05", "search-lr0.1", "ir_teacher-seed0", "ir_student-seed0",
        "ir_student-seed1", "judge-ir_teacher-seed0", "judge-ir_student-seed0",
        "judge-ir_student-seed1", "lead", "judge-dlib_resnet29", "order"]


def test_one_recipe_for_teacher_and_students(home):
    cells = [r["cell"] for r in kdlab.stored("teacher").records.values()
             if r["cell"]["kind"] == "train"]
    recipes = [{k: v for k, v in c.items() if k not in ("name", "network", "seed", "ship")}
               for c in cells]
    assert recipes[0] == recipes[1] == recipes[2]
    search = [r["result"]["validation"]["tpr"]["0.001"] for n, r in
              kdlab.stored("teacher").records.items() if n.startswith("search")]
    assert cells[0]["lr"] == (0.05, 0.1)[int(np.argmax(search))]


def test_the_shipped_teacher_and_its_rows(home, summary):
    teacher = load_teacher(home / "data/teachers/ir_teacher.safetensors")
    assert teacher.hash == summary["teacher"]["hash"]
    assert teacher.centres.shape == (8, 16) and not teacher.contract["centred"]
    assert teacher.contract["trained_on"]["identities"] == 8
    assert teacher.contract["licence"] == "MIT" and teacher.contract["recipe"]["seed"] == 0
    listed = (home / "data/teachers/SHA256SUMS").read_text().split()
    assert listed == [teacher.hash, "ir_teacher.safetensors"]


def test_row_k_is_identity_k(home):
    """Classes come in the order of the identities, whoever they are."""
    teacher = load_teacher(home / "data/teachers/ir_teacher.safetensors")
    seen = noise(None, range(8), 8)
    x = torch.nn.functional.normalize(teacher(seen.pixels("arcface", 48)).embedding)
    nearest = (x @ torch.nn.functional.normalize(teacher.centres).T).argmax(1)
    assert (nearest.numpy() == seen.labels).mean() > 0.9  # by chance: 1 in 8


def test_judged_as_stored(home, summary):
    folder = home / "data/results/teacher/embeddings"
    names = {path.stem for path in folder.glob("*.npz")}
    assert {"ir_teacher-seed0-profile", "ir_student-seed1-orl", "dlib_resnet29-frontal"} <= names
    with np.load(folder / "ir_teacher-seed0-profile.npz", allow_pickle=False) as kept:
        assert kept["embedding"].dtype == np.float16 and kept["embedding"].shape == (24, 16)
        found = judge(kept["embedding"].astype(np.float32), kept["labels"], kept["a"], kept["b"])
    assert found["eer"] == summary["networks"]["ir_teacher"]["profile"]["eer"]["mean"]
    assert summary["protocols"]["profile"]["impostor"] == found["impostor"] == 12 * 12 - 3 * 16


def test_summary(summary):
    assert set(summary["networks"]) == {"ir_teacher", "ir_student", "dlib_resnet29"}
    student = summary["networks"]["ir_student"]["orl"]
    assert len(student["eer"]["values"]) == 2
    assert student["eer"]["mean"] == pytest.approx(np.mean(student["eer"]["values"]))
    worth = summary["worth_learning_from"]
    assert worth["low"] <= worth["estimate"] <= worth["high"]
    assert worth["estimate"] == pytest.approx(np.mean(worth["per_seed"]))
    assert worth["verdict"] in ("HELD", "NOT HELD") and worth["threshold"] == 0.1
    assert [(row["easier"], row["harder"]) for row in summary["order"]] == [
        ("frontal", "pose"), ("pose", "profile")]
    eers = {name: f["eer"]["mean"] for name, f in summary["networks"]["dlib_resnet29"].items()}
    for row in summary["order"]:
        assert row["estimate"] == pytest.approx(eers[row["harder"]] - eers[row["easier"]], abs=0.03)


def test_a_second_run_does_nothing(home, capsys):
    before = (home / "data/teachers/ir_teacher.safetensors").stat().st_mtime_ns
    assert study.run_study("teacher") == 0
    assert (home / "data/teachers/ir_teacher.safetensors").stat().st_mtime_ns == before
    assert " s (" not in capsys.readouterr().out


def test_weights_that_are_gone_are_named(home, module):
    cell = kdlab.stored("teacher").records["judge-ir_student-seed0"]["cell"] | {"trained": "0" * 64}
    with pytest.raises(ValueError, match="delete .*ir_student-seed0.json and run"):
        module.judged(cell, home, None)


def test_the_card_and_the_table(home, summary):
    spec = importlib.util.spec_from_file_location("card", ROOT / "scripts" / "teacher_card.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    readme = home / "data" / "README.md"
    readme.write_text("before\n<!-- protocols -->\n| what was |\n<!-- /protocols -->\nafter\n")
    script.main()
    card, table = (home / "data/teachers/ir_teacher.md").read_text(), readme.read_text()
    assert summary["teacher"]["hash"] in card and summary["worth_learning_from"]["verdict"] in card
    assert table.startswith("before\n<!-- protocols -->\n| protocol |") and "what was" not in table
    assert table.endswith("<!-- /protocols -->\nafter\n")
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len({row.count("|") for row in rows}) == 1 and len(rows) == 2 + 4
    score = 100 * summary["networks"]["ir_teacher"]["orl"]["eer"]["mean"]
    assert f"| {score:.1f} /" in next(row for row in rows if row.startswith("| orl"))
    script.main()
    assert readme.read_text() == table
    readme.write_text("no block")
    with pytest.raises(SystemExit, match="no block"):
        script.main()
