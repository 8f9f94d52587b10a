"""What differs between two pictures of one person: factors drawn once per image."""

import math
from numbers import Real

import torch
from torch import Tensor

from kdlab.world.identity import generator

# name -> (standard value, lowest, highest, what it is)
_NUISANCE = {
    "yaw_sd": (20.0, 0, 36, "degrees the head is turned left or right, s.d."),
    "pitch_sd": (9.0, 0, 30, "degrees up or down, s.d."),
    "roll_sd": (5.0, 0, 45, "degrees tilted, s.d.; alignment undoes most of it"),
    "profile": (0.0, 0, 1, "share of pictures turned to a profile, 55 to 80 degrees"),
    "expression": (1.0, 0, 1, "strength of expressions, 0 keeps every face neutral"),
    "age_sd": (0.0, 0, 20, "years between a picture's age and the person's, s.d."),
    "age_gap": (0.0, 0, 60, "years: even pictures are taken half of it before, odd ones after"),
    "glasses": (1.0, 0, 2, "factor on each person's chance of wearing glasses"),
    "mask": (0.0, 0, 1, "share of pictures with a medical mask"),
    "light": (1.0, 0, 1.2, "strength of the light's variation, 0 is a soft frontal light"),
    "blur": (1.0, 0, 10, "factor on the camera's blur"),
    "noise": (1.0, 0, 10, "factor on the sensor's noise"),
    "jpeg": (0.35, 0, 1, "share of JPEG-compressed pictures"),
    "grey": (0.15, 0, 1, "share of black-and-white pictures"),
}
NUISANCE = {name: entry[0] for name, entry in _NUISANCE.items()}  # the standard nuisance
RANGES = {name: entry[1:3] for name, entry in _NUISANCE.items()}
MEANING = {name: entry[3] for name, entry in _NUISANCE.items()}
SCENES = ("studio", "wall", "room", "outdoor", "night")
# Surgical masks are mostly pale blue or white, some black.
_MASKS = torch.tensor([[0.55, 0.75, 0.85], [0.88, 0.88, 0.86], [0.06, 0.06, 0.07],
                       [0.60, 0.78, 0.66]])
# Actions that move together, with the chance that an image shows them.
_EXPRESSIONS = (
    (0.45, ("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "cheekSquintRight")),
    (0.22, ("jawOpen",)),
    (0.06, ("mouthFrownLeft", "mouthFrownRight")),
    (0.18, ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")),
    (0.15, ("browDownLeft", "browDownRight")),
    (0.12, ("mouthPucker",)),
    (0.12, ("mouthPressLeft", "mouthPressRight")),
    (0.30, ("eyeBlinkLeft", "eyeBlinkRight")),
    (0.15, ("eyeSquintLeft", "eyeSquintRight")),
    (0.12, ("eyeWideLeft", "eyeWideRight")),
    (0.10, ("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight")),
    (0.10, ("mouthStretchLeft", "mouthStretchRight")),
    (0.08, ("cheekPuff",)), (0.08, ("jawLeft",)), (0.08, ("jawRight",)),
    (0.10, ("mouthDimpleLeft", "mouthDimpleRight")),
)
_STRONGEST = {"jawOpen": 0.45, "eyeBlinkLeft": 0.6, "eyeBlinkRight": 0.6, "mouthPucker": 0.6,
              "jawLeft": 0.5, "jawRight": 0.5, "cheekPuff": 0.6}
YOUNGEST, OLDEST = 4.0, 90.0  # years; beyond them the head's directions are guesses


def check_nuisance(nuisance: dict) -> dict[str, float]:
    """The standard nuisance with overrides. Raises ValueError on an unknown name or a value
    outside its range."""
    unknown = set(nuisance) - set(NUISANCE)
    if unknown:
        raise ValueError(f"unknown nuisance {', '.join(sorted(unknown))}; "
                         f"there are {', '.join(NUISANCE)}")
    for name, value in nuisance.items():
        low, high = RANGES[name]
        if not (isinstance(value, Real) and low <= value <= high):
            raise ValueError(f"nuisance {name} ({MEANING[name]}) must lie between {low} and "
                             f"{high}, not {value!r}")
    return NUISANCE | {name: float(value) for name, value in nuisance.items()}


def draw_image(seed: int, identity: int, image: int, nuisance: dict, who: dict) -> dict:
    """The factors of one image, name -> number, vector, word or {action: strength}.

    who: the identity's factors; its age and its chance of glasses count.
    yaw, pitch, roll: radians.   distance: metres.   age: years.   light: unit vector in camera
    axes (x right, y into the image, z up).   Raises nothing; depends on its arguments alone.
    """
    rng = generator(seed, identity, image, 2)

    def uniform(low=0.0, high=1.0):
        return low + (high - low) * float(torch.rand((), generator=rng))

    def normal(sd=1.0):
        return sd * float(torch.randn((), generator=rng).clamp(-2.5, 2.5))

    vary = nuisance["light"]
    azimuth = math.radians(uniform(-75, 75) * vary)
    height = math.radians(20 + uniform(-25, 40) * vary)
    light = torch.tensor([math.sin(azimuth) * math.cos(height),
                          -math.cos(azimuth) * math.cos(height), math.sin(height)])
    expression = {}
    for chance, actions in _EXPRESSIONS:
        shown, strength = uniform() < chance, uniform(0.15, 0.9) * nuisance["expression"]
        for action in actions:
            if shown and strength > 0:
                expression[action] = min(strength, _STRONGEST.get(action, 1.0))
    yaw, side, far = normal(nuisance["yaw_sd"]), uniform() < 0.5, uniform(55, 80)
    if uniform() < nuisance["profile"]:
        yaw = far if side else -far
    gap = nuisance["age_gap"] / 2 * (-1 if image % 2 == 0 else 1)
    age = who["age"] + gap + normal(nuisance["age_sd"])
    rim = uniform(0.3, 1.2) if uniform() < 0.25 else 0.0
    return {
        "yaw": math.radians(yaw),
        "pitch": math.radians(normal(nuisance["pitch_sd"])),
        "roll": math.radians(normal(nuisance["roll_sd"])),
        "distance": uniform(0.6, 1.8), "expression": expression,
        "gaze": torch.tensor([normal(0.12), normal(0.06)]),
        "age": min(max(age, YOUNGEST), OLDEST),
        "glasses": float(uniform() < who["glasses"] * nuisance["glasses"]),
        "mask": float(uniform() < nuisance["mask"]),
        "mask_colour": _MASKS[int(torch.randint(4, (), generator=rng))] * (1 + normal(0.05)),
        "mask_drop": max(0.0, uniform(-0.02, 0.008)),
        "light": light, "key": 0.7 + (uniform(0.55, 1.0) - 0.7) * vary,
        "ambient": 0.5 + (uniform(0.25, 0.8) - 0.5) * vary, "fill": uniform(0, 0.35) * vary,
        "rim": rim * vary,
        "warmth": normal(0.05) * vary, "exposure": math.exp(normal(0.16) * vary),
        "gamma": 1 + normal(0.07) * vary, "contrast": 1.0,
        "scene": SCENES[int(torch.randint(len(SCENES), (), generator=rng))],
        "background": torch.rand(2, 3, generator=rng), "backdrop": uniform(),
        "cloth": torch.rand(3, generator=rng),
        "blur": max(0.25, uniform(-2.4, 1.6)) * nuisance["blur"],  # four in ten out of focus
        "noise": uniform(0.002, 0.018) * nuisance["noise"],
        "jpeg": (uniform() < nuisance["jpeg"]) * uniform(30, 90),
        "grey": float(uniform() < nuisance["grey"]),
    }


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Head turn about z, then nod about x, then tilt about y: (B,) radians -> (B, 3, 3)."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*rows):
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    turn = matrix((cy, -sy, zero), (sy, cy, zero), (zero, zero, one))
    nod = matrix((one, zero, zero), (zero, cp, -sp), (zero, sp, cp))
    tilt = matrix((cr, zero, -sr), (zero, one, zero), (sr, zero, cr))
    return tilt @ nod @ turn
