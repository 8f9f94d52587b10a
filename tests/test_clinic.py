"""The clinic: it finds swapped channels and another scale, and does not claim what it cannot tell.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from kdlab import clinic, preprocessing
from kdlab.cache import file_digest
from kdlab.contract import contract_path, read_contract, write_contract
from kdlab.data.faces import FaceSet
from kdlab.models import MODELS
from kdlab.outputs import Output
from kdlab.preprocessing import SCALINGS, same, ways
from kdlab.teachers import load_teacher, save_teacher

PLAIN = {"channels": "RGB", "crop": "arcface", "mean": [127.5] * 3, "divide": 127.5}


@pytest.fixture(scope="module")
def known():
    return load_teacher("ir_teacher")


@pytest.fixture
def quick(monkeypatch):
    """Ten rendered people, ten of ORL, one crop: a tenth of the work."""
    monkeypatch.setattr(preprocessing, "SIZES", {"arcface": 112})
    whole = clinic._orl

    def few():
        faces = whole()
        rows = np.flatnonzero(faces.labels < 10)
        return FaceSet({crop: x[rows] for crop, x in faces.crops.items()}, faces.labels[rows], "f")

    monkeypatch.setattr(clinic, "_orl", few)
    return {"people": 10, "draws": 200}


def copy_of(known, folder, change=None, **contract):
    """The known teacher again, `change` made to its network, its contract's entries replaced."""
    network = MODELS["ir_teacher"](256)
    network.load_state_dict(known.network.state_dict())
    if change:
        change(network)
    kept = {key: known.contract[key] for key in ("network", "arguments", "size", "embedding_size")}
    path = folder / "copy.safetensors"
    save_teacher(path, network, {**kept, **PLAIN, **contract})
    return path


def test_a_copy_that_wants_bgr_is_found_out(known, tmp_path, quick):
    def swap(network):
        with torch.no_grad():
            network.stem[0].weight.copy_(network.stem[0].weight.flip(1))

    path = copy_of(known, tmp_path, swap)
    x = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8,
                      generator=torch.Generator().manual_seed(0))
    wanted = known(x).embedding
    assert not torch.allclose(load_teacher(path)(x).embedding, wanted, atol=0.5)
    found = clinic.check(path, **quick)
    assert found["agrees"] is False and found["works"]
    assert found["verdict"]["channels"] == ["BGR"] and found["verdict"]["crop"] == ["arcface"]
    assert found["chosen"] == {**PLAIN, "channels": "BGR", "scaling": "(x - 127.5) / 127.5"}
    assert "the file says RGB, (x - 127.5) / 127.5, crop arcface, the pictures say BGR" in (
        clinic.words(found))
    # What was written is enforced: the teacher is itself again.
    assert found["written"] == str(contract_path(path))
    mended = load_teacher(path)
    assert mended.contract["channels"] == "BGR"
    torch.testing.assert_close(mended(x).embedding, wanted, atol=0.05, rtol=0.01)  # float16 file
    json.dumps(found, allow_nan=False)


def test_an_onnx_copy_scaled_in_another_way_is_found_out(known, tmp_path, quick):
    pytest.importorskip("onnxruntime")

    class Scaled(nn.Module):  # takes x / 255 where the known one takes (x - 127.5) / 127.5
        def __init__(self):
            super().__init__()
            self.network = known.network

        def forward(self, x):
            return self.network(2 * x - 1).embedding

    path = tmp_path / "scaled.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without onnxscript speaks of its successor
        torch.onnx.export(Scaled().eval(), (torch.zeros(2, 3, 48, 48),), path, dynamo=False,
                          input_names=["x"], output_names=["y"],
                          dynamic_axes={"x": {0: "N"}, "y": {0: "N"}})
    write_contract(path, file_digest(path), {**PLAIN, "size": 48, "embedding_size": 256})  # a lie
    found = clinic.check(path, **quick)
    assert found["agrees"] is False
    assert found["verdict"] == {"channels": ["RGB"], "scaling": ["x / 255"], "crop": ["arcface"]}
    assert found["orl"]["rows"][0]["scaling"] == "x / 255" and found["orl"]["confirmed"]
    teacher = load_teacher(path)
    assert (teacher.contract["mean"], teacher.contract["divide"]) == ([0] * 3, 255)
    x = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8,
                      generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(teacher(x).embedding, known(x).embedding, atol=1e-3, rtol=1e-3)


# On coloured blocks: quick, and what is true is known


def blocks(people, each=4, seed=0):
    """A pattern a person, the same in every picture but for noise; the dlib crop is noise alone."""
    random = np.random.default_rng(seed)
    own = random.integers(40, 215, (people, 1, 3, 4, 4))
    noisy = own + random.integers(-40, 41, (people, each, 3, 4, 4))
    faces = noisy.reshape(-1, 3, 4, 4).repeat(6, 2).repeat(6, 3).astype(np.uint8)
    noise = random.integers(0, 256, faces.shape, dtype=np.uint8)
    return FaceSet({"arcface": faces, "dlib": noise}, np.repeat(np.arange(people), each), "blocks")


@pytest.fixture
def on_blocks(monkeypatch):
    monkeypatch.setattr(clinic, "_rendered", lambda people: blocks(people))
    monkeypatch.setattr(clinic, "_orl", lambda: blocks(10, seed=1))


@pytest.fixture
def embedder(tmp_path):
    files = pytest.importorskip("onnx_files")
    path = tmp_path / "linear.onnx"
    path.write_bytes(files.embedder(S=24, D=16)[0])
    return path


def test_what_makes_no_difference_cannot_be_told(embedder, on_blocks):
    """Centred, a linear network is deaf to scale and shift; only the crop can be told."""
    found = clinic.check(embedder, people=12)
    assert found["verdict"]["crop"] == ["arcface"]
    assert set(found["verdict"]["scaling"]) >= set(SCALINGS) - {"ImageNet's"}
    assert found["chosen"] == {**PLAIN, "scaling": "(x - 127.5) / 127.5"}  # the usual one
    assert found["agrees"] is None and found["claimed"] is None
    contract = read_contract(embedder, file_digest(embedder))
    assert found["written"] == str(contract_path(embedder))
    assert "scaling" in contract["found"]["cannot_tell"]
    assert {key: contract[key] for key in PLAIN} == PLAIN
    said = clinic.words(found)
    assert "cannot tell it from" in said and "contract written" in said
    assert load_teacher(embedder).embedding_size == 16


def test_what_agrees_is_left_alone(embedder, on_blocks):
    claim = {**PLAIN, "divide": 128.0, "size": 24, "embedding_size": 16}  # not the usual scaling
    written = write_contract(embedder, file_digest(embedder), claim).read_bytes()
    found = clinic.check(embedder, people=12)
    assert found["agrees"] is True and found["written"] is None
    assert contract_path(embedder).read_bytes() == written
    assert "the file says RGB, (x - 127.5) / 128, crop arcface: held" in clinic.words(found)


def test_a_crop_that_is_wrong_keeps_what_is_not(embedder, on_blocks):
    claim = {**PLAIN, "crop": "dlib", "mean": [120.0, 110.0, 100.0], "size": 24,
             "embedding_size": 16}
    write_contract(embedder, file_digest(embedder), claim)
    found = clinic.check(embedder, people=12)
    assert found["agrees"] is False and found["chosen"]["crop"] == "arcface"
    assert found["chosen"]["mean"] == claim["mean"]  # the file's own scaling cannot be refuted


def test_nothing_is_written_when_told_or_when_nothing_works(embedder, on_blocks, monkeypatch):
    assert clinic.check(embedder, people=12, write=False)["written"] is None
    monkeypatch.setattr(clinic, "_rendered", lambda people: FaceSet(
        {crop: blocks(people).crops["dlib"] for crop in ("arcface", "dlib")},
        np.repeat(np.arange(people), 4), "noise"))
    found = clinic.check(embedder, people=12)
    assert not found["works"] and found["contract"] is None and found["written"] is None
    assert "NOTHING WORKS" in clinic.words(found)
    assert not contract_path(embedder).exists()


class Made(nn.Module):
    """Four means of a picture's colours, a constant and a copy."""

    def forward(self, x):
        x = x.mean((2, 3))
        return Output(torch.cat([x, x[:, :1], torch.full((len(x), 1), 3.0)], 1))


def test_what_the_embeddings_are_like():
    faces = blocks(30)
    way = {"channels": "RGB", "crop": "arcface", "mean": [0.0] * 3, "divide": 1.0}
    found = clinic._embedding(Made(), 24, faces, way)
    x = faces.crops["arcface"].mean((2, 3))
    x = np.concatenate([x, x[:, :1], np.full((len(x), 1), 3.0)], 1)
    norm = np.linalg.norm(x, axis=1)
    unit = x / norm[:, None]
    assert found["dead"] == [4]
    assert found["norm"] == pytest.approx(norm.mean(), rel=1e-5)
    assert found["norm_spread"] == pytest.approx(norm.std(), rel=1e-4)
    assert found["cone"] == pytest.approx(np.linalg.norm(unit.mean(0)), rel=1e-5)
    assert found["mirror"] == pytest.approx(1)  # means know no left and right
    scores = [unit[i] @ unit[j] for i in range(len(x)) for j in range(i)
              if faces.labels[i] != faces.labels[j]]
    assert found["strangers"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert found["points"] == 30 and 1 < found["dimension"] < 6


def test_embeddings_that_never_change():
    class Deaf(nn.Module):
        def forward(self, x):
            return Output(torch.ones(len(x), 8))

    faces = blocks(10)
    way = {**PLAIN, "scaling": "x"}
    found = clinic._embedding(Deaf(), 24, faces, way)
    assert found["dead"] == list(range(8)) and found["dimension"] is None
    assert found["cone"] == pytest.approx(1) and found["strangers_degrees"] == pytest.approx(
        0, abs=0.1)
    row = preprocessing.judge(Deaf(), 24, faces, [way], 100)[0]
    assert row["separation"] == 0 and row["eer"] >= 0.5


def test_embeddings_that_are_not_finite():
    class Overflows(nn.Module):  # where its input is not scaled
        def forward(self, x):
            big = x.abs().amax((1, 2, 3), keepdim=True) > 10
            return Output(torch.where(big, torch.inf, x).flatten(1))

    rows = preprocessing.judge(Overflows(), 24, blocks(10), ways(None), 100)
    assert {row["scaling"] for row in rows if not row["finite"]} == {"x"}
    assert all(not row["level"] for row in rows if not row["finite"])

    class Broken(nn.Module):
        def forward(self, x):
            return Output(torch.full((len(x), 4), torch.nan))

    with pytest.raises(ValueError, match="not finite"):
        preprocessing.judge(Broken(), 24, blocks(10), ways(None), 100)


def test_the_files_own_scaling_is_tried_once():
    assert len(ways(None)) == 2 * len(SCALINGS) * 2
    assert len(ways({**PLAIN, "size": 48})) == len(ways(None))
    own = {**PLAIN, "divide": [1.0, 2.0, 3.0]}
    found = [way for way in ways(own) if same(way, own)]
    assert len(ways(own)) == len(ways(None)) + 4 and len(found) == 1
    assert found[0]["scaling"] == preprocessing.OWN


def test_pictures_larger_than_a_crop_are_enlarged():
    faces = blocks(2)
    assert preprocessing.pixels_of(faces, "arcface", 24).shape == (8, 3, 24, 24)
    large = preprocessing.pixels_of(faces, "arcface", 48)
    assert large.shape == (8, 3, 48, 48) and large.dtype == torch.uint8
    assert abs(large.float().mean() - faces.crops["arcface"].mean()) < 1


@pytest.mark.parametrize("arguments, said", [
    ({"people": 7}, "8 people and 100 draws"), ({"draws": 99}, "8 people and 100 draws")])
def test_too_few(embedder, arguments, said):
    with pytest.raises(ValueError, match=said):
        clinic.check(embedder, **arguments)


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name in ("x.onnx", "x.safetensors"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            clinic.check(tmp_path / name)
    for name in ("y.onnx", "y.safetensors"):
        with pytest.raises(FileNotFoundError, match="y."):
            clinic.check(tmp_path / name)
