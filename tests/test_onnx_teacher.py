"""ONNX teachers: what they compute, and what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch

import kdlab.world
from kdlab import onnx_teacher
from kdlab.cache import file_digest
from kdlab.contract import check_input, contract_path, read_contract, write_contract
from kdlab.data.embeddings import embed_set
from kdlab.data.faces import FaceSet
from kdlab.onnx_teacher import OnnxNetwork
from kdlab.teachers import load_teacher
from kdlab.train import train
from kdlab.train.run import load_run, prepare

files = pytest.importorskip("onnx_files")
onnx, helper = files.onnx, files.helper

CONTRACT = {"crop": "arcface", "size": 24, "channels": "RGB", "mean": [127.5] * 3, "divide": 128.0,
            "embedding_size": 6}


def write(folder, content, name="net.onnx", **contract):
    path = folder / name
    path.write_bytes(content)
    if contract:
        write_contract(path, file_digest(path), contract)
    return path


def pictures(n=5, S=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, S, S), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["N", 1, 2, 4])
def test_network_equals_the_sum_by_hand(tmp_path, layout, batch):
    content, w = files.embedder(batch=batch, layout=layout)
    network = OnnxNetwork(write(tmp_path, content))
    x = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)
    found = network(torch.from_numpy(x)).embedding
    assert found.dtype == torch.float32 and not found.requires_grad
    np.testing.assert_allclose(found.numpy(), files.by_hand(w, x), rtol=1e-4, atol=1e-5)
    assert (network.layout, network.input_size, network.embedding_size) == (layout, 8, 6)
    assert network.batch == (None if batch == "N" else batch)
    assert network(torch.empty(0, 3, 8, 8)).embedding.shape == (0, 6)


def test_open_sizes_are_the_callers(tmp_path):
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]),
             helper.make_node("Flatten", ["p"], ["y"])]
    path = write(tmp_path, files.model(nodes, {}, [("x", ["N", 3, "h", "w"])], [("y", ["N", 3])]))
    assert OnnxNetwork(path, size=20).input_size == 20
    with pytest.raises(ValueError, match="leaves the size of its pictures open"):
        OnnxNetwork(path)
    with pytest.raises(ValueError, match="takes .B, 3, 20, 20., not"):
        OnnxNetwork(path, size=20)(torch.zeros(1, 3, 21, 21))


def test_a_file_that_means_one_picture_and_says_any(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    content = files.model(nodes, {"s": np.array([1, 192])}, [("x", ["N", 3, 8, 8])],
                          [("y", ["N", 192])])
    network = OnnxNetwork(write(tmp_path, content))
    x = torch.rand(3, 3, 8, 8)
    assert network.batch == 1 and torch.equal(network(x).embedding, x.flatten(1))


def test_the_norm_beside_the_embedding_is_passed_over(tmp_path):
    content, _ = files.embedder(more=[("norm", ["N", 1])])
    assert OnnxNetwork(write(tmp_path, content)).embedding_size == 6
    content, _ = files.embedder(more=[("other", ["N", 6])])
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match="2 of its outputs .'y', 'other'.*--output NAME"):
        OnnxNetwork(path)
    assert OnnxNetwork(path, output="y").embedding_size == 6
    with pytest.raises(ValueError, match="0 of its outputs"):
        OnnxNetwork(path, output="z")


def test_copies_and_shapes_alone(tmp_path):
    content, _ = files.embedder()
    network = OnnxNetwork(write(tmp_path, content))
    x = torch.rand(2, 3, 8, 8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x).embedding, network(x).embedding)
    assert network(torch.empty(7, 3, 8, 8, device="meta")).embedding.shape == (7, 6)
    with pytest.raises(ValueError, match="no feature maps"):
        network.tail(x, 1)


# As a teacher


@pytest.mark.parametrize("change, scaled", [
    ({}, lambda x: (x - 127.5) / 128),
    ({"channels": "BGR"}, lambda x: ((x - 127.5) / 128)[:, ::-1]),
    ({"mean": [1.0, 2.0, 3.0], "divide": [4.0, 5.0, 6.0], "channels": "BGR"},
     lambda x: ((x - np.c_[1, 2, 3].T[None, :, :, None]) / np.c_[4, 5, 6].T[None, :, :, None])
     [:, ::-1]),
])
def test_teacher_keeps_its_contract(tmp_path, change, scaled):
    content, w = files.embedder(S=24)
    teacher = load_teacher(write(tmp_path, content, **CONTRACT | change))
    x = pictures()
    found = teacher(torch.from_numpy(x)).embedding.numpy()
    wanted = files.by_hand(w, scaled(x.astype(np.float64)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    assert teacher.embedding_size == 6 and not teacher.training and teacher.centres is None
    assert teacher.hash == file_digest(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="24, 24.* pictures of the 'arcface' crop"):
        teacher(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))


def test_its_embeddings_are_cached_like_any_teachers(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    content, _ = files.embedder(S=24, batch=4)
    teacher = load_teacher(write(tmp_path, content, **CONTRACT))
    faces = FaceSet({"arcface": pictures(6)}, np.arange(6) // 2, "six")
    found = embed_set(teacher, faces)
    direct = teacher(torch.from_numpy(faces.crops["arcface"])).embedding
    np.testing.assert_array_equal(found.array[:, 0], direct.numpy())
    found.check(teacher, faces)
    other = load_teacher(write(tmp_path, content, **CONTRACT | {"channels": "BGR"}))
    with pytest.raises(ValueError, match="another contract .*channels RGB, not BGR"):
        found.check(other)


@pytest.fixture
def run(tmp_path, monkeypatch, noise):
    """A small run on noise, taught by an ONNX file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kdlab.world, "rendered", noise)
    path = write(tmp_path, files.embedder(S=48, D=16)[0], **CONTRACT | {
        "size": 48, "embedding_size": 16, "divide": 127.5})
    return {"student": "ir_student", "embedding_size": 16, "teacher": str(path),
            "world": {"seed": 0, "identities": 4, "per_identity": 4},
            "train": {"epochs": 1, "batch_size": 8, "device": "cpu", "warmup": 0}}


def test_a_run_learns_from_it(run, tmp_path):
    checked = load_run(run | {"losses": {"rkd": {"loss": "RKD"}}})
    parts = prepare(checked)
    teacher = load_teacher(run["teacher"])
    assert parts["teacher"].identity["teacher"] == teacher.hash
    assert parts["teacher"].identity["contract"] == teacher.contract
    train(checked.train, **parts)


@pytest.mark.parametrize("loss", ["AttentionTransfer", "HintonKD", "ShrinkTeaNet"])
def test_losses_that_want_more_than_embeddings_are_refused(run, loss):
    with pytest.raises(ValueError, match="losses.a: ") as error:
        prepare(load_run(run | {"losses": {"a": {"loss": loss}}}))
    assert "\n" not in str(error.value)


def test_without_a_contract_it_is_refused(tmp_path):
    path = write(tmp_path, files.embedder(S=24)[0])
    with pytest.raises(ValueError) as error:
        load_teacher(path)
    assert f"kdlab teacher check {path}" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such ONNX file"):
        load_teacher(tmp_path / "none.onnx")


@pytest.mark.parametrize("change, said", [
    ({"size": 25}, "24 pixels a side, not 25"),
    ({"embedding_size": 7}, "6 numbers a picture, its contract says 7"),
    ({"output": "z"}, "0 of its outputs"),
])
def test_a_contract_that_does_not_fit(tmp_path, change, said):
    path = write(tmp_path, files.embedder(S=24)[0], **CONTRACT | change)
    with pytest.raises(ValueError, match=said):
        load_teacher(path)


def test_a_contract_of_another_file(tmp_path):
    path = write(tmp_path, files.embedder(S=24)[0], **CONTRACT)
    path.write_bytes(files.embedder(S=24, seed=1)[0])
    with pytest.raises(ValueError, match="the contract of another file"):
        load_teacher(path)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20) + b"{}", b'{"format": "x"}',
    b'{"format": "kdlab contract 1"}',
])
def test_a_contract_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "net.onnx"
    contract_path(path).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_contract(path, "0" * 64)
    assert str(contract_path(path)) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [
    {"crop": "mine"}, {"crop": ["arcface"]}, {"size": 0}, {"size": True}, {"size": 2000},
    {"channels": "GBR"}, {"mean": [0, 0]}, {"mean": [0, 0, float("nan")]}, {"mean": [0, 0, "0"]},
    {"divide": 0}, {"divide": float("inf")}, {"divide": [1, 2]}, {"divide": [1, 2, 0]},
    {"embedding_size": 10**9},
])
def test_entries_that_cannot_be(change):
    check_input(CONTRACT)
    with pytest.raises(ValueError, match=f"the contract's '{next(iter(change))}' is"):
        check_input(CONTRACT | change)


def test_what_is_written_is_read(tmp_path):
    path = write(tmp_path, b"x", **CONTRACT, found={"eer": 0.1})
    hash = file_digest(path)
    assert read_contract(path, hash) == CONTRACT | {
        "format": "kdlab contract 1", "sha256": hash, "found": {"eer": 0.1}}
    assert json.loads(contract_path(path).read_text())["crop"] == "arcface"
    assert read_contract(tmp_path / "other.onnx", hash) is None


# Hostile and broken files


def refused(path, said):
    with pytest.raises(ValueError, match=said) as error:
        OnnxNetwork(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [
    b"", b"\0" * 100, b"not a network", b"\x80\x04\x95", b"\xff" * 1000, b"\x08\x08"])
def test_no_onnx(tmp_path, content):
    refused(write(tmp_path, content), "truncated or not an ONNX file")


def test_truncated(tmp_path):
    content, _ = files.embedder()
    for length in (10, len(content) // 2, len(content) - 1):
        refused(write(tmp_path, content[:length]), "truncated|refuses it")


def outside(tensor, location="../../etc/passwd"):
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_in_another_file(tmp_path, location):
    model = onnx.load_model_from_string(files.embedder()[0])
    outside(model.graph.initializer[0], location)
    refused(write(tmp_path, model.SerializeToString()), "keeps 'w' in another file")


def test_weights_in_another_file_within_a_node_of_a_branch(tmp_path):
    model = onnx.load_model_from_string(files.embedder()[0])
    constant = helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(
        np.zeros(3, np.float32), "hidden"))
    outside(constant.attribute[0].t)
    branch = helper.make_graph([constant], "branch", [], [
        helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [3])])
    model.graph.node.append(helper.make_node("If", ["q"], ["z"], then_branch=branch,
                                             else_branch=branch))
    refused(write(tmp_path, model.SerializeToString()), "keeps 'hidden' in another file")


def test_loops(tmp_path):
    model = onnx.load_model_from_string(files.embedder()[0])
    model.graph.node.append(helper.make_node("Loop", ["m", "c"], ["z"], name="forever"))
    refused(write(tmp_path, model.SerializeToString()), "'forever' is a Loop")


def test_too_large_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_teacher, "MAX_FILE", 1 << 20)
    path = tmp_path / "net.onnx"
    with open(path, "wb") as file:
        file.truncate((1 << 20) + 1)
    refused(path, "larger than 1 MiB")


@pytest.mark.parametrize("inputs, said", [
    ([("x", ["N", 3, 8, 8]), ("z", ["N", 3, 8, 8])], "has 2 inputs .'x', 'z'."),
    ([("x", ["N", 192])], "not a batch of pictures"),
    ([("x", ["N", 1, 8, 8])], "not square pictures of three colours"),
    ([("x", ["N", 3, 8, 9])], "not square pictures"),
    ([("x", ["N", 3, 2048, 2048])], "2048 pixels a side are no faces"),
    ([("x", [10**9, 3, 8, 8])], "more than any machine"),
])
def test_inputs_that_are_no_pictures(tmp_path, inputs, said):
    nodes = [helper.make_node("Flatten", ["x"], ["y"])]
    nodes += [helper.make_node("Identity", ["z"], ["unused"])] * (len(inputs) > 1)
    content = files.model(nodes, {}, inputs, [("y", [None, None])])
    refused(write(tmp_path, content), said)


@pytest.mark.parametrize("nodes, shape, said", [
    ([("ReduceMean", {"axes": [1, 2, 3], "keepdims": 0})], ["N"], "0 of its outputs"),
    ([("ReduceMean", {"axes": [2, 3], "keepdims": 0}), ("ReduceMean", {"axes": [0]})], ["M", 3],
     "for [12] pictures, not an embedding|has 3"),
    ([("Relu", {})], ["N", 3, 8, 8], "0 of its outputs"),
])
def test_outputs_that_are_no_embeddings(tmp_path, nodes, shape, said):
    names = ["x", *(f"h{k}" for k in range(len(nodes) - 1)), "y"]
    nodes = [helper.make_node(kind, [names[k]], [names[k + 1]], **attributes)
             for k, (kind, attributes) in enumerate(nodes)]
    content = files.model(nodes, {}, [("x", [2, 3, 8, 8])], [("y", shape)])
    refused(write(tmp_path, content), said)


def test_unknown_operators(tmp_path):
    model = onnx.load_model_from_string(files.embedder()[0])
    model.graph.node[0].op_type = "SystemCall"
    refused(write(tmp_path, model.SerializeToString()), "onnxruntime .* refuses it")
