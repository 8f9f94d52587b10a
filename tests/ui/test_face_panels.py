"""The panels with faces and operating points: what they ask for, draw and say."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from kdlab.plots import bundle
from kdlab.ui import face_panel, factor_panel, operating_panel, rules_panel
from kdlab.ui.faces import FACTORS, PRESETS

RNG = np.random.default_rng(0)
GENUINE, IMPOSTOR = RNG.normal(0.5, 0.15, 300), RNG.normal(0, 0.1, 5000)


@pytest.fixture
def outputs(monkeypatch):
    """What panels display: widgets, and (figure, alt) for static pictures."""
    monkeypatch.delenv("KDLAB_HEADLESS", raising=False)
    seen = SimpleNamespace(boxes=[], pictures=[])
    for name in ("kdlab.ui.panel", "kdlab.ui.faces"):
        module = importlib.import_module(name)  # kdlab.ui.panel is a function
        monkeypatch.setattr(module, "show", lambda fig, alt, name=None: (
            bundle(fig, alt, name), seen.pictures.append((fig, alt))))  # fmt: skip
    monkeypatch.setattr(importlib.import_module("kdlab.ui.panel"), "display", seen.boxes.append)
    return seen


def knob(outputs, label):
    return next(child for child in outputs.boxes[0].children
                if getattr(getattr(child, "entry", child), "description", "").startswith(label))


def picture(outputs) -> str:
    return outputs.boxes[0].children[-1].value


def test_face_panel_draws_presets_and_follows_every_slider(outputs):
    asked = []

    def draw(**values):
        asked.append(values)
        return np.full((3, 24, 24), 40 + len(asked), np.uint8)

    face_panel(draw, people=9, person=4)
    still = {"identity": 4} | {name: control.value for name, control in FACTORS.items()}
    assert asked[:len(PRESETS)] == [still | preset for preset in PRESETS.values()]
    assert asked[-1] == still
    assert len(outputs.pictures) == 2
    knob(outputs, "turn").value = 35
    knob(outputs, "glasses").value = True
    assert asked[-1] == still | {"yaw": 35, "glasses": True}
    assert "person 4: turn 35, glasses True." in picture(outputs)


def test_presets_set_factors_that_exist_within_their_range():
    for preset in PRESETS.values():
        for name, value in preset.items():
            control = FACTORS[name]
            assert control.kind == "toggle" or control.options[0] <= value <= control.options[1]


GRID = np.array([0.0, 10.0, 20.0])
FACES = {name: RNG.integers(0, 255, (3, 3, 24, 24), dtype=np.uint8) for name in ("bare", "mask")}
OWN = {"bare": np.array([0.9, 0.8, 0.7]), "mask": np.array([0.5, 0.4, 0.3])}


def test_factor_panel_moves_over_its_grid(outputs):
    factor_panel(GRID, OWN, np.zeros((2, 3)), FACES, FACES["bare"][0], factor="turn",
                 unit="degrees")
    assert "bare, turn 20 degrees: similarity 0.70" in outputs.pictures[0][1]
    assert "mask, turn 20 degrees: similarity 0.30" in outputs.pictures[1][1]
    knob(outputs, "turn").value = 10
    knob(outputs, "variant").value = "mask"
    assert "mask, turn 10 degrees: similarity 0.40" in picture(outputs)


def test_factor_panel_of_one_variant_has_one_knob(outputs):
    factor_panel(GRID, {"bare": OWN["bare"]}, np.zeros((2, 3)), FACES, FACES["bare"][0],
                 factor="turn", unit="degrees", value=10)
    assert len(outputs.pictures) == 1 and "turn 10 degrees" in outputs.pictures[0][1]
    assert len(outputs.boxes[0].children) == 3  # the knob, the row with the button, the picture


def test_operating_panel_says_where_the_data_ends(outputs):
    asked = []

    def needed(fpr, count):
        asked.append(count)
        return round(count / fpr), 77

    def point_at(genuine, impostor, fpr):
        t = np.quantile(impostor, 1 - fpr)
        return SimpleNamespace(tpr=np.mean(genuine > t), threshold=t, low=0.0, high=1.0)

    operating_panel(GENUINE, IMPOSTOR, point_at, needed)
    ((fig, alt),) = outputs.pictures
    assert "50 impostors pass" in alt and "FEW" in alt and "NOT MEASURABLE" in alt
    knob(outputs, "target FPR").value = 1e-5
    assert "NOT MEASURABLE" in picture(outputs) and "1,000,000 pairs" in picture(outputs)
    assert set(asked) == {10}


def test_rules_panel_shows_the_scores_it_is_told_to(outputs):
    targets = np.geomspace(1e-3, 0.1, 5)
    cases = {"plain": {rule: (targets, np.full(5, 0.5)) for rule in ("below", "nearest")},
             "tied": {rule: (targets / 2, np.full(5, 0.25)) for rule in ("below", "nearest")}}
    rules_panel(targets, cases, 1000, at=1e-9)  # beyond the grid: its end
    assert "target 1.0e-03" in outputs.pictures[0][1]
    knob(outputs, "scores").value = "tied"
    assert "TPR 25.0 %" in picture(outputs)
    knob(outputs, "target FPR").value = 0.1
    assert "target 1.0e-01" in picture(outputs) and "0.50 x the target" in picture(outputs)
