import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from kdlab.data import FaceSet
from kdlab.outputs import Output
from kdlab.train import History, TrainConfig, load_config
from kdlab.train.__main__ import RunConfig, build_losses, build_student, main


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ValidationError, match="unknown field 'epoch'; did you mean 'epochs'"):
        TrainConfig(epoch=3)
    with pytest.raises(ValidationError, match="unknown field 'zzz'; known are epochs, batch_size"):
        TrainConfig(zzz=3)


@pytest.mark.parametrize("field, value", [
    ("epochs", 0), ("batch_size", 0), ("lr", 0), ("lr", float("nan")), ("momentum", 1),
    ("weight_decay", -1), ("optimizer", "adam"), ("schedule", "linear"), ("gamma", 2),
    ("warmup", 1.5), ("clip", 0), ("seed", -1), ("log_every", 0), ("device", "tpu"),
    ("schedules", {"weight": [4, 1]}), ("schedules", {"kd.weight": [4]}),
    ("milestones", [1]),  # with the cosine schedule they would be ignored
])
def test_a_value_out_of_range_is_refused_and_named(field, value):
    with pytest.raises(ValidationError, match=field):
        TrainConfig(**{field: value})


def test_milestones_ascend():
    assert TrainConfig(schedule="steps", milestones=[2, 3.5]).milestones == [2, 3.5]
    with pytest.raises(ValidationError, match="ascend"):
        TrainConfig(schedule="steps", milestones=[3, 2])


def test_a_config_cannot_change_after_it_was_checked():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().epochs = -1


def test_the_schema_describes_every_field_for_the_widgets():
    schema = TrainConfig.model_json_schema()
    assert schema["additionalProperties"] is False
    for name, field in schema["properties"].items():
        assert field["description"], name
        low, high = field.get("typical", (0, 1))
        assert low < high
        assert field.get("minimum", low) <= low and high <= field.get("maximum", high)
        if field.get("type") == "number" or field.get("type") == "integer":
            assert "typical" in field, name
    json.dumps(schema)


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_load_config_reads_yaml(tmp_path):
    path = write(tmp_path, "epochs: 3\nlr: 1e-3\nclip: null\nschedules: {kd.weight: [4, 1]}\n"
                           "out: results\n")
    config = load_config(path)
    assert (config.epochs, config.lr, config.clip) == (3, 1e-3, None)
    assert config.schedules == {"kd.weight": [4, 1]} and config.out.name == "results"
    assert config.momentum == 0.9


@pytest.mark.parametrize("text, said", [
    ("lr: -1", r"run\.yaml: lr: input should be greater than 0 \(got '-1'\)$"),
    ("lr: -1\nepochs: many", "lr: .*; *epochs: |epochs: .*; lr: "),
    ("epoch: 1", "run.yaml: unknown field 'epoch'; did you mean 'epochs'?"),
    ("lr: [1\nx", r"run\.yaml: line 2"),
    ("", "empty"),
    ("- 1", "list"),
    ("lr: !!python/object/apply:os.getcwd []", "line 1"),
    ("lr: 2001-99-99", "run.yaml"),
    ("[" * 5000, "run.yaml"),
    ("lr: " + "1" * 2_000_000, "no run file"),
])
def test_load_config_names_file_and_field(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as error:
        load_config(write(tmp_path, text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500 + len(str(tmp_path))


def test_load_config_wants_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run file"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "run.yaml").write_bytes(b"lr: \xff")
    with pytest.raises(ValueError, match="UTF-8"):
        load_config(tmp_path / "run.yaml")


def test_a_nested_field_is_named_by_its_path(tmp_path):
    path = write(tmp_path, "losses: {arc: {loss: ArcFace}}\ntrain: {lr: 0}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: train\.lr: "):
        load_config(path, RunConfig)
    with pytest.raises(ValueError, match="train: unknown field 'epoch'; did you mean 'epochs'"):
        load_config(write(tmp_path, "losses: {arc: {loss: A}}\ntrain: {epoch: 1}"), RunConfig)
    with pytest.raises(ValueError, match="arc does not say which loss"):
        load_config(write(tmp_path, "losses: {arc: {margin: 1}}"), RunConfig)


def test_the_example_run_file_is_valid(request):
    run = load_config(request.config.rootpath / "configs/first_light.yaml", RunConfig)
    assert build_losses(run).keys() == run.losses.keys()
    assert build_student(run)(torch.rand(2, 3, 48, 48)).embedding.shape == (2, run.embedding_size)
    assert run.train.out is not None


class Linear(nn.Module):
    def __init__(self, embedding_size):
        super().__init__()
        self.layer = nn.Linear(3 * 48 * 48, embedding_size)

    def forward(self, x):
        return Output(self.layer(x.flatten(1)))


class Classify(nn.Module):
    def __init__(self, embedding_size, num_classes, scale=1.0):
        super().__init__()
        self.layer, self.scale = nn.Linear(embedding_size, num_classes), scale

    def forward(self, student, teacher, targets):
        return {"ce": nn.functional.cross_entropy(self.layer(student.embedding), targets.labels)}


class Centres(Classify):
    def __init__(self, centres):
        super().__init__(*centres.shape)


@pytest.fixture
def parts(monkeypatch):
    """Stand-ins for the world, the networks and the losses."""
    def rendered(world, identities, per_identity, crops):
        assert crops == ("arcface",)  # no teacher, no crop for one
        rng = np.random.default_rng(world.seed)
        labels = np.repeat(np.array(identities), per_identity)
        images = rng.integers(0, 256, (len(labels), 3, 48, 48), dtype=np.uint8)
        return FaceSet({"arcface": images}, labels, key="a test")

    monkeypatch.setitem(sys.modules, "kdlab.world", SimpleNamespace(
        FaceWorld=lambda seed: SimpleNamespace(seed=seed), rendered=rendered))
    monkeypatch.setitem(sys.modules, "kdlab.models", SimpleNamespace(MODELS={"linear": Linear}))
    monkeypatch.setitem(sys.modules, "kdlab.losses", SimpleNamespace(
        LOSSES={"Classify": Classify, "Centres": Centres}))


RUN = ("student: linear\nembedding_size: 4\nlosses: {ce: {loss: Classify}}\n"
       "world: {identities: 4, per_identity: 4}\n"
       "train: {epochs: 2, batch_size: 8, lr: 0.01, device: cpu, out: OUT}\n")


def test_a_run_file_trains_and_prints_where_the_student_is(tmp_path, parts, capsys):
    out = tmp_path / "out"
    assert main([str(write(tmp_path, RUN.replace("OUT", str(out))))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "student.safetensors")
    assert len(History.read(out / "log.jsonl")) == 4
    assert load_config(out / "run.yaml", RunConfig).losses == {"ce": {"loss": "Classify"}}


@pytest.mark.parametrize("old, new, said", [
    ("student: linear", "student: liner", "unknown network 'liner'; did you mean 'linear'"),
    ("loss: Classify", "loss: Clasify", "losses.ce: unknown loss 'Clasify'; did you mean"),
    ("loss: Classify", "loss: Classify, scal: 2",
     "losses.ce: unknown Classify argument 'scal'; did you mean 'scale'"),
    ("loss: Classify", "loss: Centres", "losses.ce: Centres wants centres"),
    ("epochs: 2", "epochs: none", "train.epochs"),
])
def test_what_a_run_file_gets_wrong_is_one_line(tmp_path, parts, capsys, old, new, said):
    path = write(tmp_path, RUN.replace("OUT", str(tmp_path / "out")).replace(old, new))
    assert main([str(path)]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
