"""The form over a config or a loss: values, presets, YAML, errors, and the table without it."""

import asyncio
import html

import pytest
import yaml

from kdlab.losses import EKD, ArcFace
from kdlab.train.__main__ import RunConfig
from kdlab.train.config import TrainConfig, load_config
from kdlab.ui.form import form

PAPER = {"epochs": 30, "weight_decay": 0.0, "schedule": "steps", "milestones": [10, 20]}


@pytest.fixture(autouse=True)
def front_end(monkeypatch):
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)


def words(status: str) -> str:
    return html.unescape(status.split("<details>")[0])


def test_the_value_is_the_config_and_follows_the_controls():
    made = form(TrainConfig)
    assert made.value == TrainConfig()
    made.knobs["epochs"].slider.value = 3
    made.knobs["optimizer"].value = "adamw"
    made.knobs["clip"].switch.value = False
    made.knobs["out"].entry.value = "runs/a"
    made.knobs["schedules"].entry.value = "{kd.weight: [4, 1]}"
    assert made.value == TrainConfig(epochs=3, optimizer="adamw", clip=None, out="runs/a",
                                     schedules={"kd.weight": [4, 1]})


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("values", [{}, PAPER, {"clip": None, "out": "null", "seed": 2**62},
                                    {"lr": 1e-5, "schedules": {"a.b": [1e-7, 2]}, "out": "1e5"}])
def test_the_yaml_read_back_is_the_same_config(tmp_path, values, full):
    made = form(TrainConfig, presets={"one": values})
    made.preset.value = "one"
    made.full.value = full
    path = tmp_path / "run.yaml"
    path.write_text(made.copy.area.value)
    assert load_config(path) == made.value == TrainConfig(**values)
    named = TrainConfig.model_fields if full else values
    assert set(yaml.safe_load(path.read_text())) == set(named)


def test_first_values_are_in_the_yaml_and_what_has_no_control_is_handed_on(tmp_path):
    made = form(TrainConfig, ["lr"], {"lr": 0.2, "batch_size": 64})
    assert list(made.knobs) == ["lr"]
    (tmp_path / "run.yaml").write_text(made.copy.area.value)
    assert load_config(tmp_path / "run.yaml") == TrainConfig(lr=0.2, batch_size=64) == made.value


def test_presets_reset_and_what_the_list_says():
    made = form(TrainConfig, presets={"paper": PAPER, "long": {"epochs": 40}})
    seen = []
    made.on_change(seen.append)
    made.preset.value = "paper"
    assert made.value == TrainConfig(**PAPER) and len(seen) == 1
    made.knobs["epochs"].entry.value = "31"
    assert made.preset.value == "own values"
    made.knobs["epochs"].entry.value = "30"
    assert made.preset.value == "paper"
    made.button.click()
    assert made.value == TrainConfig() and made.preset.value == "default"
    assert [config.epochs for config in seen] == [30, 31, 30, 10]


def test_an_error_is_one_line_at_the_button_and_at_the_field():
    made = form(TrainConfig)
    seen = []
    made.on_change(seen.append)
    made.knobs["lr"].entry.value = "-1"
    line = words(made.status.value)
    assert "lr: input should be greater than 0 (got '-1.0')" in line and "\n" not in line
    assert "Traceback" in made.status.value.split("<details>")[1]
    assert "greater than 0" in made.notes["lr"].value and made.notes["epochs"].value == ""
    assert made.copy.area.value == "" and seen == []
    with pytest.raises(ValueError, match="not valid: lr: input should be greater than 0"):
        _ = made.value
    made.knobs["lr"].slider.value = 0.01
    assert (made.status.value, made.notes["lr"].value) == ("", "") and seen == [made.value]


def test_what_cannot_be_read_is_said_and_reset_mends_it():
    made = form(TrainConfig)
    made.knobs["milestones"].entry.value = "[1,"
    assert "milestones: not YAML, column 4" in words(made.status.value)
    assert "not YAML" in made.notes["milestones"].value
    made.button.click()
    assert made.value == TrainConfig() and made.status.value == ""
    assert made.knobs["milestones"].entry.value == "[]"


def test_an_error_of_two_fields_together():
    made = form(TrainConfig, values={"schedule": "steps", "milestones": [3]})
    made.knobs["schedule"].value = "cosine"
    assert "milestones go with schedule 'steps'" in words(made.status.value)


def test_the_text_to_copy_cannot_be_changed():
    made = form(TrainConfig, values={"epochs": 3})
    made.copy.area.value = "epochs: 4"
    assert made.copy.area.value == "epochs: 3\n" and not made.copy.area.disabled


def test_a_loss_from_its_constructor():
    made = form(EKD, ranges={"norm": ["l2", "l1"]}, presets={"paper": {
        "norm": "l1", "positives": "balanced", "fprs": (1e-1, 1e-2)}})
    assert isinstance(made.value, EKD) and made.copy.area.value == "{}\n"
    made.preset.value = "paper"
    assert (made.value.norm, made.value.positives, made.value.fprs) == ("l1", "balanced", (.1, .01))
    assert yaml.safe_load(made.copy.area.value) == {
        "fprs": [0.1, 0.01], "norm": "l1", "positives": "balanced"}
    EKD(**yaml.safe_load(made.yaml(full=True)))
    made.knobs["positives"].entry.value = "some"
    assert "positives must be one of all, balanced, not 'some'" in words(made.status.value)


def test_a_loss_that_needs_sizes():
    made = form(ArcFace, ["margin"], {"embedding_size": 4, "num_classes": 3})
    made.knobs["margin"].entry.value = "0.3"
    assert made.value.margin == 0.3 and made.value.weight.shape == (3, 4)
    assert yaml.safe_load(made.copy.area.value) == {
        "embedding_size": 4, "num_classes": 3, "margin": 0.3}


def test_a_config_within_a_config(tmp_path):
    made = form(RunConfig, values={"losses": {"arcface": {"loss": "ArcFace"}}})
    made.knobs["world"].entry.value = "{seed: 3, identities: 20}"
    (tmp_path / "run.yaml").write_text(made.copy.area.value)
    assert load_config(tmp_path / "run.yaml", RunConfig) == made.value
    assert made.value.world.identities == 20


@pytest.mark.parametrize(("ask", "says"), [
    ({"presets": {"bad": {"lrr": 1}}}, "preset 'bad' sets lrr"),
    ({"presets": {"bad": {"lr": -1}}}, "preset 'bad': lr: input should be greater than 0"),
    ({"values": {"lr": -1.0}}, "the first values: lr: input"),
])
def test_a_bad_preset_or_start_is_named(ask, says):
    with pytest.raises(ValueError, match=says):
        form(TrainConfig, **ask)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_a_callback_is_shown(kind):
    made = form(TrainConfig)

    @made.on_change
    def fails(config):
        if config.epochs == 3:
            raise kind("no <such> thing")

    made.knobs["epochs"].slider.value = 3
    assert f"{kind.__name__}: no <such> thing" in words(made.status.value)
    made.knobs["epochs"].slider.value = 4
    assert made.status.value == ""


def test_callbacks_wait_for_the_hand_and_get_the_last():
    async def story():
        made = form(TrainConfig, delay=0)
        seen, done = [], asyncio.Event()
        made.on_change(lambda config: (seen.append(config.epochs), done.set()))
        for epochs in (3, 4, 5):
            made.knobs["epochs"].slider.value = epochs
        assert "computing" in made.status.value and seen == []
        await asyncio.wait_for(done.wait(), 10)
        assert made.status.value == ""
        made.knobs["epochs"].slider.value = 6
        made.knobs["epochs"].entry.value = "0"  # no longer valid: nobody hears of the 6
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(story()) == [5]


def test_the_widget_carries_the_table_for_a_copy_without_it():
    bundle = form(TrainConfig)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "<table>" in bundle["text/html"] and "batch_size" in bundle["text/plain"]


def test_without_a_front_end_it_is_a_table(monkeypatch):
    monkeypatch.setenv("KDLAB_HEADLESS", "1")
    monkeypatch.setattr("ipywidgets.Text", None)
    made = form(TrainConfig, values={"lr": 0.2}, title="Training <a student>")
    bundle = made._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    lines = bundle["text/plain"].splitlines()
    assert lines[0] == "Training <a student>" and lines[1].split()[:3] == ["field", "value", "unit"]
    (rate,) = [line for line in lines if line.startswith("lr ")]
    assert "0.2" in rate and "0.0001 to 0.5, logarithmic" in rate and "Peak learning" in rate
    assert len(lines) == 2 + len(TrainConfig.model_fields)
    assert "Training &lt;a student&gt;" in bundle["text/html"]
    assert bundle["text/html"].count("<tr>") == 1 + len(TrainConfig.model_fields)
    assert made.value == TrainConfig(lr=0.2) and made.yaml() == "lr: 0.2\n"
    made.on_change(print)  # heard of by nobody
