import json

import pytest
import torch
from pydantic import ValidationError

from kdlab.train import TrainConfig, load_config
from kdlab.train.run import RunConfig, build_losses, build_student


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
        if name == "version":  # nobody's choice
            continue
        low, high = field.get("typical", (0, 1))
        assert low < high
        assert field.get("minimum", low) <= low and high <= field.get("maximum", high)
        if field.get("type") in ("number", "integer"):
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
