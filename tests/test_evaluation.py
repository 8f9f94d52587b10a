"""kdlab evaluate: every kind of set, numbers that agree with the functions below, and refusals."""

import io
import json
import pickle

import numpy as np
import pytest
import rec_files
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kdlab import evaluation
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.evaluate import clopper_pearson, pair_scores
from kdlab.evaluate.pairs import FPRS
from kdlab.evaluate.tenfold import ten_fold
from kdlab.evaluate.verification import eer, tpr_at_fpr
from kdlab.models import MODELS
from kdlab.outputs import Output
from kdlab.teachers import Teacher, save_teacher
from kdlab.world.protocols import Protocol

S = 24


class Small(nn.Module):
    """Means of 3 x 3 squares: right for blocks of colour."""

    input_size, embedding_size = S, 192

    def forward(self, x):
        return Output(nn.functional.avg_pool2d(x, 3).flatten(1))


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    contract = {"crop": "arcface", "size": S, "channels": "RGB", "mean": [127.5] * 3,
                "divide": 127.5, "embedding_size": 192, "network": "small"}
    return Teacher(Small(), contract, "of a test", torch.zeros(192))


def blocks(people, each, seed=0, noise=70):
    """(N, 3, S, S) uint8 with a pattern a person, and labels."""
    random = np.random.default_rng(seed)
    own = random.integers(90, 165, (people, 1, 3, 8, 8))
    drawn = own + random.integers(-noise, noise + 1, (people, each, 3, 8, 8))
    drawn = drawn.clip(0, 255).reshape(-1, 3, 8, 8).repeat(3, 2).repeat(3, 3)
    return drawn.astype(np.uint8), np.repeat(np.arange(people), each)


def folder_of(path, pixels, labels):
    for row, (face, label) in enumerate(zip(pixels, labels, strict=True)):
        (path / f"p{label:03}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(face.transpose(1, 2, 0)).save(path / f"p{label:03}" / f"{row:04}.png")
    return path


def png(face):
    out = io.BytesIO()
    Image.fromarray(face.transpose(1, 2, 0)).save(out, "PNG")
    return out.getvalue()


def embedded(teacher, pixels):
    x = torch.from_numpy(pixels)
    return (teacher(x).embedding + teacher(x.flip(3)).embedding).numpy()


def test_a_folder_agrees_with_the_functions_themselves(teacher, tmp_path):
    pixels, labels = blocks(20, 6)
    path = folder_of(tmp_path / "mine", pixels, labels)
    report = evaluation.evaluate_model(teacher, [path])
    found = report["sets"][str(path)]
    genuine, impostor = pair_scores(embedded(teacher, pixels), labels)
    assert (found["people"], found["pictures"]) == (20, 120)
    assert (found["genuine"], found["impostor"]) == (len(genuine), len(impostor))
    assert found["eer"] == pytest.approx(eer(genuine, impostor)) and 0.01 < found["eer"] < 0.4
    assert [point["fpr"] for point in found["tpr"]] == list(FPRS)
    for point in found["tpr"]:
        if len(impostor) * point["fpr"] < 10:
            assert point["supported"] is False and point["tpr"] is None
            assert point["needs"] == round(10 / point["fpr"]) and point["has"] == len(impostor)
        else:
            wanted = tpr_at_fpr(genuine, impostor, point["fpr"])
            hits = round(wanted.tpr * len(genuine))
            assert point["tpr"] == pytest.approx(wanted.tpr)
            assert (point["low"], point["high"]) == clopper_pearson(hits, len(genuine))
    assert [point["supported"] for point in found["tpr"]] == [True] * 2 + [False] * 4
    said = evaluation.words(report)
    assert "too few pairs" in said and "mine" in said
    json.dumps(report, allow_nan=False)


def test_files_are_written(teacher, tmp_path):
    pixels, labels = blocks(8, 5)
    sets = [folder_of(tmp_path / "a" / "faces", pixels, labels),
            folder_of(tmp_path / "b" / "faces", *blocks(8, 5, seed=1))]
    out = tmp_path / "out"
    report = evaluation.evaluate_model(teacher, sets, out)
    assert json.loads((out / "evaluation.json").read_text()) == report
    names = {"roc", "det", "scores-faces", "scores-faces-2", "worst-faces", "worst-faces-2"}
    assert {path.stem for path in out.glob("*.png")} == names
    assert sorted(report["figures"]) == sorted(str(out / f"{name}.png") for name in names)
    for path in report["figures"]:
        with Image.open(path) as picture:
            assert picture.width <= 940 and np.asarray(picture.convert("L")).std() > 1


def test_a_set_without_a_mistake_has_no_det_curve(teacher, tmp_path):
    path = folder_of(tmp_path / "easy", *blocks(6, 4, noise=3))
    report = evaluation.evaluate_model(teacher, [path], tmp_path / "out")
    assert report["sets"][str(path)]["eer"] == 0
    assert not (tmp_path / "out" / "det.png").exists()
    assert (tmp_path / "out" / "roc.png").exists()


def test_large_sets_are_judged_block_by_block(teacher, tmp_path, monkeypatch):
    pixels, labels = blocks(40, 5)
    path = folder_of(tmp_path / "mine", pixels, labels)
    whole = evaluation.evaluate_model(teacher, [path])["sets"][str(path)]
    monkeypatch.setattr(evaluation, "LARGE", 60)
    report = evaluation.evaluate_model(teacher, [path], tmp_path / "out")
    parts = report["sets"][str(path)]
    assert parts["sample"] == 60 and "rank1" not in parts
    assert parts["eer"] == pytest.approx(whole["eer"], abs=0.005)
    for one, other in zip(parts["tpr"], whole["tpr"], strict=True):
        assert one["supported"] == other["supported"]
        if one["supported"]:
            assert one["tpr"] == pytest.approx(other["tpr"], abs=1 / whole["genuine"])
    assert len(report["figures"]) == 4
    assert evaluation.words(report)


def test_pairs_of_a_bin(teacher, tmp_path):
    pixels, labels = blocks(30, 2)
    random = np.random.default_rng(0)
    is_same = np.arange(60) % 2 == 0
    rows = [(2 * k, 2 * k + 1) if same else tuple(random.choice(60, 2, replace=False))
            for k, same in zip(random.integers(0, 30, 60), is_same, strict=True)]
    rows = np.array([(i, j) if same or labels[i] != labels[j] else (i, (j + 2) % 60)
                     for (i, j), same in zip(rows, is_same, strict=True)]).ravel()
    path = tmp_path / "pairs.bin"
    path.write_bytes(pickle.dumps(([png(pixels[i]) for i in rows], is_same.tolist())))
    report = evaluation.evaluate_model(teacher, [path], tmp_path / "out")
    found = report["sets"][str(path)]
    x = embedded(teacher, pixels[rows])
    wanted = ten_fold(x, is_same)
    assert found["accuracy"]["mean"] == pytest.approx(wanted.accuracy)
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == (wanted.low, wanted.high)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    score = (unit[::2] * unit[1::2]).sum(1)
    assert found["eer"] == pytest.approx(eer(score[is_same], score[~is_same]), abs=1e-6)
    assert (found["genuine"], found["impostor"]) == (30, 30) and "people" not in found
    assert "accuracy of 10 folds" in evaluation.words(report)


def test_a_recordio_file(teacher, tmp_path):
    pixels, labels = blocks(5, 4)
    records = {key: rec_files.packed(key, float(label), png(face))
               for key, (face, label) in enumerate(zip(pixels, labels, strict=True), 1)}
    path = rec_files.write(tmp_path / "rec", records)
    by_file = evaluation.evaluate_model(teacher, [path])["sets"][str(path)]
    assert (by_file["kind"], by_file["people"], by_file["pictures"]) == ("recordio", 5, 20)
    assert by_file["eer"] == pytest.approx(eer(*pair_scores(embedded(teacher, pixels), labels)))
    by_folder = evaluation.evaluate_model(teacher, [path.parent])["sets"][str(path.parent)]
    assert by_folder == by_file


@pytest.mark.parametrize("more", [{}, {"groups": True}, {"template": True}, {"distractor": True}])
def test_protocols_agree_with_judge(teacher, monkeypatch, more):
    pixels, labels = blocks(8, 6, noise=90)
    faces = FaceSet({"arcface": pixels}, labels, "eight")
    rows = np.arange(48)
    a = rows[labels < 6] if "distractor" in more else rows
    p = Protocol("frontal", faces, a, a,
                 np.repeat(np.arange(24), 2) if "template" in more else None,
                 rows[labels >= 6] if "distractor" in more else None,
                 labels % 2 if "groups" in more else None)
    monkeypatch.setattr(evaluation, "protocol", lambda name, identities: p)
    report = evaluation.evaluate_model(teacher, ["frontal"])
    found = report["sets"]["frontal"]
    wanted = evaluation.judge(embedded(teacher, pixels), **p.arrays())
    assert found["eer"] == pytest.approx(wanted["eer"], abs=1e-6) and found["eer"] > 0
    assert (found["genuine"], found["impostor"]) == (wanted["genuine"], wanted["impostor"])
    assert found["rank1"] == wanted["rank1"]
    assert {point["fpr"]: point["tpr"] for point in found["tpr"] if point["supported"]} == (
        pytest.approx(wanted["tpr"]))
    assert ("groups" in found) == ("groups" in more)
    if "groups" in more:
        assert found["groups"]["1"]["eer"] == pytest.approx(wanted["groups"][1]["eer"])
        assert "group 1: EER" in evaluation.words(report)


def test_a_teachers_file_on_orl_and_a_fresh_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = MODELS["ir_student"](embedding_size=16).eval()
    save_teacher(tmp_path / "t.safetensors", network, {
        "network": "ir_student", "arguments": {"embedding_size": 16}, "crop": "arcface", "size": 48,
        "channels": "RGB", "mean": [127.5] * 3, "divide": 127.5, "embedding_size": 16})
    whole = load_orl(("arcface",))
    rows = np.flatnonzero(whole.labels < 8)
    few = FaceSet({"arcface": whole.crops["arcface"][rows]}, whole.labels[rows], "few")
    monkeypatch.setattr("kdlab.data.orl.load_orl", lambda crops: few)
    found = evaluation.evaluate_model(str(tmp_path / "t.safetensors"), ["orl"])
    assert found["sets"]["orl"]["people"] == 8 and found["contract"]["size"] == 48
    files = pytest.importorskip("onnx_files")
    (tmp_path / "n.onnx").write_bytes(files.embedder(S=24)[0])
    with pytest.raises(ValueError) as error:
        evaluation.evaluate_model(tmp_path / "n.onnx", ["orl"])
    assert str(error.value).startswith(f"{tmp_path / 'n.onnx'} has no contract")


def test_a_runs_student(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = MODELS["ir_student"](embedding_size=16).eval()
    about = {"finished": True, "steps": 1, "preprocessing": {
        "crop": "arcface", "size": 48, "channels": "RGB", "mean": [127.5] * 3, "divide": 127.5}}
    run = {"student": "ir_student", "embedding_size": 16, "losses": {"arc": {"loss": "ArcFace"}},
           "world": {"identities": 4, "per_identity": 4}, "train": {"epochs": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    save_file(network.state_dict(), tmp_path / "student.safetensors",
              {"kdlab": json.dumps(about)})
    pixels, labels = blocks(6, 4)
    path = folder_of(tmp_path / "faces", pixels.repeat(2, 2).repeat(2, 3), labels)
    reports = [evaluation.evaluate_model(model, [path])["sets"][str(path)]
               for model in (tmp_path, tmp_path / "student.safetensors")]
    x = (torch.from_numpy(pixels.repeat(2, 2).repeat(2, 3)).float() - 127.5) / 127.5
    with torch.no_grad():
        x = (network(x).embedding + network(x.flip(3)).embedding).numpy()
    assert reports[0] == reports[1]
    assert reports[0]["eer"] == pytest.approx(eer(*pair_scores(x, labels)), abs=1e-6)


def test_refusals(teacher, tmp_path):
    refused = [
        ([], ValueError, "name a set to judge on: orl, frontal"),
        (["nowhere"], FileNotFoundError, "nowhere is no set: it is neither orl nor a protocol"),
    ]
    (tmp_path / "x.txt").write_text("no")
    refused.append(([tmp_path / "x.txt"], ValueError, "x.txt is no set of faces"))
    alone = folder_of(tmp_path / "alone", blocks(4, 1)[0], np.arange(4))
    refused.append(([alone], ValueError, f"{alone}: there are no genuine pairs|no probe"))
    for sets, kind, said in refused:
        with pytest.raises(kind, match=said) as error:
            evaluation.evaluate_model(teacher, sets)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="looks at the 'arcface' crop.*--crop arcface"):
        evaluation.evaluate_model(teacher, [alone], crop="dlib")
    with pytest.raises(FileNotFoundError, match="^no teacher at .*student.safetensors"):
        evaluation.evaluate_model(tmp_path, ["orl"])
