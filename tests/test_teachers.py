"""Teachers: the shipped one is right on real faces; files that are not right are refused."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import kdlab
from kdlab import teachers
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl
from kdlab.evaluate.verification import eer
from kdlab.models import MODELS
from kdlab.outputs import Output
from kdlab.teachers import TEACHERS, load_teacher, save_teacher
from kdlab.world import FaceWorld

CONTRACT = {"network": "ir_student", "arguments": {"embedding_size": 16}, "crop": "arcface",
            "size": 48, "channels": "RGB", "mean": [127.5] * 3, "divide": 127.5,
            "embedding_size": 16, "origin": "a test"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MODELS["ir_student"](embedding_size=16).eval()


@pytest.fixture
def path(tmp_path, network):
    save_teacher(tmp_path / "t.safetensors", network, CONTRACT, torch.arange(16.0))
    return tmp_path / "t.safetensors"


def rewrite(path, about=None, **tensors):
    """The file with other tensors or metadata, and without its line in SHA256SUMS."""
    stored = safetensors.torch.load_file(path) | tensors
    stored = {name: t for name, t in stored.items() if t is not None}
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    if about is not None:
        metadata = {"kdlab": json.dumps(json.loads(metadata["kdlab"]) | about)}
    safetensors.torch.save_file(stored, path, metadata)
    (path.parent / "SHA256SUMS").unlink(missing_ok=True)


# The shipped teacher


@pytest.fixture(scope="module")
def dlib():
    return load_teacher("dlib_resnet29", raw=True)


def test_dlib_is_as_good_on_orl_as_measured(dlib):
    """All 79,800 pairs, Euclidean distance of raw embeddings: EER 0.44 %."""
    faces = load_orl(("dlib",))
    x = torch.cat([dlib(part).embedding for part in faces.pixels("dlib").split(50)]).double()
    distance = torch.cdist(x, x).numpy()
    i, j = np.triu_indices(len(x), 1)
    same = faces.labels[i] == faces.labels[j]
    score = -distance[i, j]
    assert same.sum() == 1800 and (~same).sum() == 78000
    assert abs(eer(score[same], score[~same]) - 0.0044) < 0.002


def test_dlib_contract_and_hash(dlib):
    assert dlib.contract["crop"] == "dlib" and dlib.contract["size"] == 150
    assert dlib.contract["licence"] == "CC0-1.0" and dlib.embedding_size == 128
    content = (TEACHERS / "dlib_resnet29.safetensors").read_bytes()
    assert dlib.hash == hashlib.sha256(content).hexdigest()
    assert sum(p.numel() for p in dlib.parameters()) == 5_614_592
    assert len(content) < 12e6 and (TEACHERS / "LICENSE-dlib.txt").is_file()


def test_dlib_output(dlib):
    images = torch.randint(0, 256, (2, 3, 150, 150), dtype=torch.uint8)
    out = dlib(images)
    assert isinstance(out, Output) and out.embedding.shape == (2, 128)
    assert not out.embedding.requires_grad


@pytest.mark.parametrize("images, says", [
    (torch.zeros(1, 3, 112, 112, dtype=torch.uint8), r"\(B, 3, 150, 150\).*'dlib' crop"),
    (torch.zeros(3, 150, 150, dtype=torch.uint8), "pictures"),
    (torch.zeros(1, 3, 150, 150), "uint8"),
    (torch.zeros(1, 3, 150, 150, dtype=torch.int64), "uint8")])
def test_wrong_pictures_are_refused(dlib, images, says):
    with pytest.raises(ValueError, match=says):
        dlib(images)


@pytest.mark.skipif(not (TEACHERS / "ir_teacher.safetensors").exists(),
                    reason="the rendered-face teacher is not built: kdlab study teacher")
def test_the_rendered_teacher_knows_its_people():
    """Row k is identity k of its world; the card and the study are about this file."""
    teacher = load_teacher("ir_teacher")
    known = teacher.contract["trained_on"]
    assert teacher.contract["network"] == "ir_teacher" and teacher.contract["licence"] == "MIT"
    assert teacher.centres.shape == (known["identities"], teacher.embedding_size)
    assert known["identities"] >= 1000 and not teacher.contract["centred"]
    assert (TEACHERS / "ir_teacher.safetensors").stat().st_size < 10e6
    assert kdlab.stored("teacher").summary["teacher"]["hash"] == teacher.hash
    assert teacher.hash in (TEACHERS / "ir_teacher.md").read_text()
    who = [0, 1, 500, 999]
    pictures = FaceWorld(seed=known["seed"]).render([(i, j) for i in who for j in range(4)])
    faces = FaceSet({"arcface": pictures["arcface"].numpy()}, np.repeat(who, 4), "sixteen")
    x = teacher(faces.pixels("arcface", 48)).embedding
    nearest = (F.normalize(x) @ F.normalize(teacher.centres).T).argmax(1).numpy()
    assert (nearest == faces.labels).mean() > 0.7  # of a thousand; all were trained on


# Any teacher


def test_round_trip(path, network):
    teacher = load_teacher(path)
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    expected = network((images.float() - 127.5) / 127.5).embedding
    raw = load_teacher(path, raw=True)(images).embedding
    scale = expected.abs().max()
    assert (raw - expected).abs().max() < 5e-3 * scale  # weights went through float16
    torch.testing.assert_close(teacher(images).embedding, raw - torch.arange(16.0))
    torch.testing.assert_close(teacher((images.float() - 127.5) / 127.5), teacher(images))


def test_saving_again_gives_the_same_file(path):
    before = path.read_bytes()
    teacher = load_teacher(path)
    save_teacher(path, teacher.network, CONTRACT, teacher.embedding_mean)
    assert path.read_bytes() == before
    assert (path.parent / "SHA256SUMS").read_text() == f"{teacher.hash}  t.safetensors\n"


def test_frozen_and_always_in_eval_mode(path):
    teacher = load_teacher(path)
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.train()
    torch.nn.ModuleList([teacher]).train()
    assert not any(m.training for m in teacher.modules())


def test_tail_passes_gradients_to_the_map_only(path):
    teacher = load_teacher(path)
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    out = teacher(images)
    features = out.features[0].clone().requires_grad_()
    rest = teacher.tail(features, 1).embedding
    torch.testing.assert_close(rest, out.embedding)
    rest.sum().backward()
    assert features.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_centres_travel_with_the_teacher(tmp_path, network):
    centres = torch.randn(5, 16).half().float()
    save_teacher(tmp_path / "c.safetensors", network, CONTRACT, centres=centres)
    teacher = load_teacher(tmp_path / "c.safetensors")
    assert torch.equal(teacher.centres, centres) and not teacher.embedding_mean.any()


def test_unset_mean_refuses_centring(tmp_path, network):
    save_teacher(tmp_path / "u.safetensors", network, CONTRACT, "unset")
    with pytest.raises(ValueError, match="mean embedding was never computed"):
        load_teacher(tmp_path / "u.safetensors")
    assert not load_teacher(tmp_path / "u.safetensors", raw=True).contract["centred"]


# Files that are not right


def test_missing_file_names_what_there_is():
    with pytest.raises(FileNotFoundError, match="dlib_resnet29"):
        load_teacher("dlib_resnet30")


def test_wrong_hash_is_refused(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not the file that SHA256SUMS lists"):
        load_teacher(path)


def test_a_name_must_be_listed(path, monkeypatch):
    (path.parent / "SHA256SUMS").unlink()
    monkeypatch.setattr(teachers, "TEACHERS", path.parent)
    with pytest.raises(ValueError, match="listed is nothing"):
        load_teacher("t")
    assert load_teacher(path).embedding_size == 16  # one's own file by its path needs no list


@pytest.mark.parametrize("keep", [0, 4, 8, 500, -1])
def test_truncated_file_is_one_line(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    (path.parent / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="t.safetensors: truncated") as error:
        load_teacher(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [
    b"\xff" * 64, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
    (200_000).to_bytes(8, "little") + b"[" * 200_000])
def test_no_safetensors_file(path, content):
    path.write_bytes(content)
    (path.parent / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="truncated or not a safetensors"):
        load_teacher(path)


def test_too_large_is_refused_before_reading(path, monkeypatch):
    monkeypatch.setattr(teachers, "MAX_FILE", 1000)
    with pytest.raises(ValueError, match="larger than"):
        load_teacher(path)


def test_wrong_keys_are_named(path):
    name = next(iter(safetensors.torch.load_file(path)))
    rewrite(path, **{name: None, "stranger": torch.zeros(1)})
    with pytest.raises(ValueError, match=rf"missing {name}; unexpected stranger"):
        load_teacher(path)


def test_wrong_shape_and_nan_are_named(path):
    rewrite(path, embedding_mean=torch.zeros(17))
    with pytest.raises(ValueError, match="wrong shape: embedding_mean"):
        load_teacher(path)
    rewrite(path, embedding_mean=torch.full((16,), torch.nan))
    with pytest.raises(ValueError, match="embedding_mean holds numbers that are not finite"):
        load_teacher(path)


@pytest.mark.parametrize("change", [
    {"network": "no_such"}, {"network": ["ir_student"]}, {"crop": "other"}, {"size": 10**9},
    {"size": True}, {"channels": "BGR"}, {"mean": [1, 2]}, {"mean": [1, 2, float("nan")]},
    {"divide": 0}, {"embedding_size": 0}, {"arguments": None}])
def test_impossible_contract_is_named(path, change):
    rewrite(path, about={"contract": CONTRACT | change})
    with pytest.raises(ValueError, match=f"contract's '{next(iter(change))}'"):
        load_teacher(path)


@pytest.mark.parametrize("arguments", [{"nonsense": 1}, {"embedding_size": 10**12},
                                       {"embedding_size": "x"}])
def test_hostile_arguments_allocate_nothing(path, arguments):
    rewrite(path, about={"contract": CONTRACT | {"arguments": arguments}})
    with pytest.raises(ValueError, match="t.safetensors: "):
        load_teacher(path)


def test_plain_weights_are_no_teacher(path, network, tmp_path):
    safetensors.torch.save_file(dict(network.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds tensors but is no"):
        load_teacher(tmp_path / "w.safetensors")


def test_a_pickle_is_not_opened(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_teacher(tmp_path / "p.safetensors")


def test_infinite_weights_are_not_written(tmp_path, network):
    broken = MODELS["ir_student"](embedding_size=16)
    with torch.no_grad():
        next(p for p in broken.parameters() if p.ndim > 1).fill_(1e6)  # beyond float16
    with pytest.raises(ValueError, match="not finite in torch.float16"):
        save_teacher(tmp_path / "b.safetensors", broken, CONTRACT)
    assert not (tmp_path / "b.safetensors").exists()


def test_shipped_hashes_are_listed():
    for line in (TEACHERS / "SHA256SUMS").read_text().splitlines():
        hash, name = line.split()
        assert hashlib.sha256((TEACHERS / name).read_bytes()).hexdigest() == hash


@pytest.mark.parametrize("key, value", [("embedding_size", 8), ("size", 112)])
def test_a_contract_that_contradicts_its_network_is_refused(tmp_path, network, key, value):
    save_teacher(tmp_path / "t.safetensors", network, CONTRACT | {key: value})
    with pytest.raises(ValueError, match=f"contract's '{key}' is {value}, but ir_student has"):
        load_teacher(tmp_path / "t.safetensors")
