"""Which control a field gets, and what the knobs made of several widgets do."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from torch import Tensor

from kdlab.losses import EKD, LOSSES
from kdlab.train.config import TrainConfig
from kdlab.ui.controls import choice, maybe, number, reaching, slider, span, text, toggle, widget
from kdlab.ui.schema import controls


def test_the_train_config_gets_a_control_that_fits_each_field():
    made = controls(TrainConfig)
    assert list(made) == list(TrainConfig.model_fields)
    assert {name: control.kind for name, control in made.items()} == {
        "epochs": "number", "batch_size": "number", "lr": "number", "momentum": "number",
        "weight_decay": "number", "optimizer": "choice", "schedule": "choice",
        "milestones": "text", "gamma": "number", "warmup": "number", "clip": "maybe",
        "lr_batch": "maybe", "patience": "number", "precision": "choice",
        "channels_last": "toggle", "compile": "toggle", "validate_every": "number",
        "checkpoint_every": "maybe", "keep": "number", "share_every": "number",
        "seed": "number", "schedules": "text", "log_every": "number", "device": "choice",
        "out": "text", "version": "number"}
    assert made["lr"].options == (1e-4, 0.5, True, False)  # the schema's typical and scale
    assert made["epochs"].options == (1, 40, False, True)
    assert made["warmup"].unit == "fraction"
    for name, control in made.items():
        field = TrainConfig.model_fields[name]
        assert control.help == field.description
        assert control.value == field.get_default(call_default_factory=True)


def test_a_constructor_gets_controls_from_its_signature():
    made = controls(EKD)
    assert made["temperature"].options == pytest.approx((0.001, 0.1, True, False))
    assert made["hard_negatives"].options == (200, 20000, True, True)
    assert made["debias"] == toggle(False, "debias")
    assert made["fprs"].value == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    assert made["norm"].kind == "text"


def test_ranges_words_values_and_only_are_obeyed():
    made = controls(
        EKD, ["norm", "momentum", "temperature"], {"temperature": 0.2},
        ranges={"norm": ["l2", "l1"], "momentum": (0.0, 0.999), "temperature": (0.01, 1, "log")},
        words={"norm": "How a gap is measured."})
    assert list(made) == ["norm", "momentum", "temperature"]
    assert made["norm"].options == (("l2", "l2"), ("l1", "l1"))
    assert made["norm"].help == "How a gap is measured."
    assert made["momentum"].options == (0.0, 0.999, False, False)
    assert made["temperature"][2:4] == (0.2, (0.01, 1, True, False))
    own = controls(EKD, ["momentum"], ranges={"momentum": slider(0.5, 0.9, 0.1, 0.5)})["momentum"]
    assert own.kind == "slider" and own.options[:2] == (0.5, 0.99) and own.value == 0.99


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_gets_controls_without_tensors_and_functions(loss):
    for name, control in controls(LOSSES[loss]).items():
        widget(name, control)
        assert name not in {"centres", "tail", "student_logits", "teacher_logits", "self"}


class Odd(BaseModel):
    flag: bool | None = None
    kind: Literal["a", "b"] | None = None
    size: int | None = None
    share: float = Field(0.0, ge=0, le=0.5)
    depth: int = Field(-2)
    path: Path = Path("here")


def test_none_negative_and_bounded_defaults():
    made = controls(Odd)
    assert made["flag"].options == (("none", None), ("yes", True), ("no", False))
    assert made["kind"].options == (("a", "a"), ("b", "b"), ("none", None))
    assert (made["size"].kind, made["size"].options) == ("text", (False, True))
    assert made["share"].options == (0, 0.5, False, False)
    assert made["depth"].options == (-20, 20, False, True)
    assert (made["path"].value, made["path"].options) == ("here", (True, False))


def takes(centres: Tensor, classes: int, weight: float = 1.0): ...


@pytest.mark.parametrize(("ask", "says"), [
    ({"only": ["lrr"]}, "unknown field 'lrr'; did you mean 'lr'?"),
    ({"values": {"epoch": 3}}, "did you mean 'epochs'"),
    ({"ranges": {"lr": 0.5}}, "'lr' wants"),
    ({"ranges": {"lr": (0, 1, "log")}}, "low above 0"),
    ({"ranges": {"optimizer": ["adam"]}}, "'sgd' is not one of"),
])
def test_a_wrong_request_is_named(ask, says):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        controls(TrainConfig, **ask)


def test_what_cannot_be_typed_is_left_out_unless_asked_for():
    assert list(controls(takes)) == ["weight"]
    assert list(controls(takes, values={"classes": 10})) == ["classes", "weight"]
    with pytest.raises(ValueError, match="'classes' has no control: it needs a value"):
        controls(takes, ["classes"])
    with pytest.raises(ValueError, match="a list cannot be typed"):
        controls(takes, ["centres"], {"centres": []})


def test_a_number_takes_what_its_slider_does_not_reach():
    knob = widget("decay", number(1e-6, 0.1, 5e-4, log=True))
    assert knob.entry.value == "0.0005" and knob.slider.value == pytest.approx(5e-4)
    knob.entry.value = "0"
    assert knob.value == 0 and knob.slider.value == pytest.approx(1e-6)
    knob.value = 3.5
    assert knob.entry.value == "3.5" and knob.slider.value == pytest.approx(0.1)
    knob.slider.value = 10**-1.8999
    assert knob.value == 0.0126 and knob.entry.value == "0.0126"


@pytest.mark.parametrize(("control", "slid", "typed", "refused"), [
    (slider(0, 255, 5, 100), (105, 105), ("7", 7), "256"),
    (slider(0.0, 1.0, 0.05, 0.5), (0.15000000000000002, 0.15), ("0.123", 0.123), "nan"),
    (slider(1e-4, 1.0, 0.05, 1e-2, log=True), (10**-1.5, 0.0316227766), ("2e-3", 0.002), "0"),
])
def test_a_slider_has_a_labelled_field_that_keeps_to_its_range(control, slid, typed, refused):
    knob = widget("k", control)
    assert knob.entry.description == "k" and knob.value == control.value
    knob.slider.value = slid[0]
    assert knob.value == slid[1] and float(knob.entry.value) == pytest.approx(slid[1], rel=5e-3)
    knob.entry.value = typed[0]
    assert knob.value == typed[1] and knob.slider.value == pytest.approx(typed[1])
    knob.entry.value = refused
    assert knob.problem.startswith(f"k: {refused} is not in ") and knob.value == typed[1]


def test_a_whole_number_stays_whole_and_a_linear_one_short():
    whole = widget("epochs", number(1, 40, 10, whole=True))
    whole.slider.value = 12
    assert whole.value == 12 and type(whole.value) is int
    whole.entry.value = str(2**62)
    assert whole.value == 2**62
    share = widget("share", number(0, 0.3, 0.05))
    share.slider.value = 0.15000000000000002
    assert share.value == 0.15


def test_what_is_no_number_is_said_and_forgotten():
    knob = widget("epochs", number(1, 40, 10, whole=True))
    knob.entry.value = "1.5"
    assert knob.problem == "epochs: '1.5' is no whole number" and knob.value == 10
    knob.entry.value = "10"
    assert knob.problem == ""
    knob.entry.value = "ten"
    knob.put(10)
    assert (knob.problem, knob.entry.value) == ("", "10")


@pytest.mark.parametrize(("typed", "value"), [
    ("[1, 2.5]", [1, 2.5]), ("{kd.weight: [4, 1]}", {"kd.weight": [4, 1]}), (" 7 ", 7),
    ("", None), ("a: {", "column 5"), ("2001-99-99", "not YAML"), ("[" * 5000, "not YAML"),
    ("x" * 20000, "20,000 characters"), ("!!python/object:os.system {}", "not YAML"),
])
def test_a_line_is_yaml_and_says_where_it_is_not(typed, value):
    knob = widget("field", text([0]))
    knob.entry.value = typed
    if isinstance(value, str):
        assert value in knob.problem and knob.value == [0] and "\n" not in knob.problem
    else:
        assert knob.value == value and knob.problem == ""


def test_text_as_it_stands_and_none():
    path = widget("out", text(None, plain=True, none=True))
    assert path.entry.value == "" and path.value is None
    path.entry.value = "runs/a: b"
    assert path.value == "runs/a: b"
    path.entry.value = "None"
    assert path.value is None
    kind = widget("normalize", text("l2", plain=True))
    kind.entry.value = "none"
    assert kind.value == "none"


def test_a_switch_turns_a_control_off_and_on_again():
    knob = widget("clip", maybe(number(0.1, 20, 5.0, log=True, label="clip"), 5.0))
    seen = []
    knob.observe(lambda change: seen.append(change["new"]), names="value")
    knob.switch.value = False
    assert knob.inner.layout.display == "none"
    knob.switch.value = True
    knob.inner.entry.value = "2"
    knob.value = None
    assert not knob.switch.value
    knob.value = 7.0
    assert knob.switch.value and knob.inner.entry.value == "7.0"
    assert seen == [None, 5.0, 2.0, None, 7.0]


def test_ranges_reach_a_preset_and_no_value_is_cut():
    assert reaching(slider(1, 5, 1, 2), 9).options == (1, 9, 1)
    knob = widget("k", reaching(slider(1, 5, 1, 2), 2.5))
    knob.value = 2.5
    assert (knob.slider.value, knob.entry.value) == (2.5, "2.5")
    with pytest.raises(ValueError, match="starts above 0"):
        reaching(slider(0.1, 1, 0.1, 0.5, log=True), 0)
    with pytest.raises(ValueError, match="is not one of"):
        reaching(choice([1, 2], 1), 3)


@pytest.mark.parametrize(("control", "words"), [
    (slider(1e-3, 1, 0.1, 0.5, log=True), "0.001 to 1, logarithmic"),
    (number(0, 1, 0.5), "0 to 1"), (choice(["a", "b"], "a"), "a, b"), (toggle(True), "yes or no"),
    (text([]), "YAML"), (maybe(number(1, 2, 1), None), "1 to 2, or none"),
    (text(None, plain=True, none=True), "text, or none"),
])
def test_a_range_in_words(control, words):
    assert span(control) == words
