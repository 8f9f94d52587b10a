"""Panels with faces: one person under sliders, and two pictures whose similarity is watched."""

from collections.abc import Callable, Mapping

import numpy as np

from kdlab.plots import contact_sheet, factor_view, factor_words, show
from kdlab.ui.controls import choice, slider, toggle
from kdlab.ui.panel import panel

# Ranges: what the rendered world draws (turns beyond 60 degrees are rare) and photographs hold.
FACTORS = {
    "yaw": slider(-60, 60, 5, 0, "degrees", "turn"),
    "pitch": slider(-30, 30, 5, 0, "degrees", "nod"),
    "age": slider(18, 75, 1, 30, "years"),
    "azimuth": slider(-80, 80, 10, 20, "degrees", "light from the side"),
    "height": slider(-30, 70, 10, 30, "degrees", "light from above"),
    "smile": slider(0.0, 1.0, 0.1, 0.0, "strength"),
    "mask": toggle(False),
    "glasses": toggle(False),
}
PRESETS = {
    "turned": {"yaw": 40},
    "looking down": {"pitch": 20},
    "older": {"age": 70},
    "lit from the side": {"azimuth": -80},
    "smiling": {"smile": 1.0},
    "mask": {"mask": True},
    "glasses": {"glasses": True},
    "all at once": {"yaw": 30, "age": 65, "azimuth": 70, "smile": 0.8, "glasses": True},
}


def face_panel(draw: Callable[..., np.ndarray], people: int = 50, person: int = 0,
               name: str = "face") -> None:
    """One face and its factors under sliders.

    First a sheet of presets, then the person as the sliders say.
    draw(identity, **factors) -> (3, S, S) uint8, for the factors in FACTORS: angles in degrees,
    age in years, smile 0..1, mask and glasses true or false.   people: identities to choose from.
    """
    knobs = {"identity": slider(0, people, 1, person, "", "person")} | FACTORS
    still = {key: knob.value for key, knob in knobs.items()}
    sheet = np.stack([draw(**still | preset) for preset in PRESETS.values()])
    show(contact_sheet(sheet, 4, titles=list(PRESETS), title=f"Person {person}, one change each"),
         f"One rendered person in eight pictures: {', '.join(PRESETS)}.", f"{name}-presets")

    def show_face(**values):
        return contact_sheet(np.asarray(draw(**values))[None], 1, title=_title(**values))

    panel(show_face, knobs, alt=_words, name=name)


def _title(identity, yaw, age, **_) -> str:
    return f"person {identity}, {age:g} years, turned {yaw:g} degrees"


def _words(identity, **values) -> str:
    changed = [f"{FACTORS[key].label or key} {value}" for key, value in values.items()
               if value != FACTORS[key].value]
    return f"A rendered face, person {identity}: {', '.join(changed) or 'frontal, neutral'}."


def factor_panel(grid: np.ndarray, own: Mapping[str, np.ndarray], strangers: np.ndarray,
                 faces: Mapping[str, np.ndarray], reference: np.ndarray, *, factor: str,
                 unit: str, value: float | None = None) -> None:
    """Two pictures of one person and their similarity; a slider moves one of the pictures.

    Everything is computed beforehand; see `kdlab.plots.factor_view` for the arguments.
    value: where the slider stands at first; None: at the end of the grid.
    """
    low, high = float(np.min(grid)), float(np.max(grid))
    value = high if value is None else float(value)
    knobs = {"at": slider(low, high, float(np.min(np.diff(grid))), value, unit, factor)}
    names = list(own)
    if len(names) > 1:
        knobs["variant"] = choice(names, names[0])

    def view(at: float, variant: str = names[0]):
        return factor_view(grid, own, strangers, faces, reference, at, variant, factor=factor,
                           unit=unit)

    def words(at: float, variant: str = names[0]) -> str:
        told = factor_words(grid, own, at, variant, factor, unit)
        return f"Two pictures of one rendered person, a curve of similarity over {factor}: {told}."

    static = {other: {"variant": other} for other in names[1:2]}  # one more: each is 200 kB
    panel(view, knobs, alt=words, static=static, name=f"factor-{factor}")
