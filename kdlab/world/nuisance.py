"""What differs between two pictures of one person: factors drawn once per image."""

import math

import torch
from torch import Tensor

from kdlab.world.identity import generator

# The standard nuisance. Angles in degrees, the rest as said; every number may be overridden.
NUISANCE = {
    "yaw_sd": 20.0,  # head turned left or right
    "pitch_sd": 9.0,  # up or down
    "roll_sd": 5.0,  # tilted; alignment undoes most of it
    "expression": 1.0,  # strength, 0 keeps every face neutral
    "light": 1.0,  # strength of the light's variation, 0 is a soft frontal light
    "blur": 1.0,  # factor on the camera blur
    "noise": 1.0,  # factor on the sensor noise
    "grey": 0.15,  # share of black-and-white pictures
}
# Actions that move together, with the chance that an image shows them.
_EXPRESSIONS = (
    (0.30, ("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "cheekSquintRight")),
    (0.22, ("jawOpen",)),
    (0.10, ("mouthFrownLeft", "mouthFrownRight")),
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


def draw_image(seed: int, identity: int, image: int, nuisance: dict) -> dict:
    """The factors of one image, name -> number, vector or {action: strength}.

    yaw, pitch, roll: radians.   distance: metres.   light: unit vector in camera axes (x right,
    y into the image, z up).   Raises nothing; depends on its arguments alone.
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
    return {
        "yaw": math.radians(normal(nuisance["yaw_sd"])),
        "pitch": math.radians(normal(nuisance["pitch_sd"])),
        "roll": math.radians(normal(nuisance["roll_sd"])),
        "distance": uniform(0.6, 1.8), "expression": expression,
        "gaze": torch.tensor([normal(0.12), normal(0.06)]),
        "light": light, "key": 0.7 + (uniform(0.55, 1.0) - 0.7) * vary,
        "ambient": 0.5 + (uniform(0.25, 0.8) - 0.5) * vary, "fill": uniform(0, 0.35) * vary,
        "warmth": normal(0.05) * vary, "exposure": math.exp(normal(0.16) * vary),
        "gamma": 1 + normal(0.07) * vary,
        "background": torch.rand(2, 3, generator=rng), "backdrop": uniform(),
        "cloth": torch.rand(3, generator=rng),
        "blur": max(0.25, uniform(-2.4, 1.6)) * nuisance["blur"],  # four in ten out of focus
        "noise": uniform(0.002, 0.022) * nuisance["noise"],
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
