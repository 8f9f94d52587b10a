"""Who a rendered face is: factors drawn once per identity, and the shape they make.

Everything here depends on (seed, identity) and the population's ages alone. Colours are sRGB.
"""

import numpy as np
import torch
from torch import Tensor

from kdlab.world.head import Head

GROUPS = ("african", "asian", "caucasian")
STYLES = ("buzz", "short", "swept", "fringe", "bob", "long", "bun", "curly", "afro", "bald_sides")
# How often each style is worn, in the order of STYLES; our choice.
_STYLE_CHANCES = {
    "male": {"african": (0.45, 0.20, 0.0, 0.0, 0.0, 0.02, 0.0, 0.13, 0.20, 0.0),
             "asian": (0.10, 0.37, 0.28, 0.18, 0.02, 0.05, 0.0, 0.0, 0.0, 0.0),
             "caucasian": (0.14, 0.32, 0.28, 0.10, 0.02, 0.04, 0.0, 0.10, 0.0, 0.0)},
    "female": {"african": (0.06, 0.04, 0.0, 0.02, 0.10, 0.18, 0.25, 0.15, 0.20, 0.0),
               "asian": (0.0, 0.05, 0.02, 0.20, 0.25, 0.33, 0.15, 0.0, 0.0, 0.0),
               "caucasian": (0.0, 0.06, 0.04, 0.14, 0.20, 0.32, 0.12, 0.12, 0.0, 0.0)}}
_FRAME = torch.tensor([[0.03, 0.03, 0.03], [0.22, 0.12, 0.07], [0.35, 0.33, 0.30],
                       [0.55, 0.42, 0.22], [0.15, 0.05, 0.06]])
# Typical skin of each ancestry, sRGB; our choice by eye, varied per identity.
_SKIN = torch.tensor([[0.42, 0.305, 0.25], [0.83, 0.66, 0.53], [0.86, 0.68, 0.58]])
_HAIR = torch.tensor([[0.06, 0.05, 0.045], [0.13, 0.085, 0.06], [0.28, 0.18, 0.11],
                      [0.50, 0.36, 0.20], [0.33, 0.14, 0.07]])
_IRIS = torch.tensor([[0.16, 0.09, 0.05], [0.30, 0.19, 0.09], [0.33, 0.36, 0.20],
                      [0.30, 0.42, 0.52]])


def generator(*key: int) -> torch.Generator:
    """A random stream of its own for every key; the same on every machine."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def draw_identity(seed: int, identity: int, dimension: int,
                  ages: tuple[float, float] = (18, 75)) -> dict:
    """The factors of an identity: name -> number, vector or word; all that makes it who it is.

    ages: years, the population's youngest and oldest.
    """
    rng = generator(seed, identity, 1)

    def uniform(low=0.0, high=1.0):
        return low + (high - low) * float(torch.rand((), generator=rng))

    def normal(sd=1.0):
        return sd * float(torch.randn((), generator=rng).clamp(-2.5, 2.5))

    def choose(weights):
        return int(torch.multinomial(torch.tensor(weights), 1, generator=rng))

    # A stream of its own, longest first: a world of another dimension has the same people in
    # all else, and the same leading coefficients.
    shape = torch.randn(110, generator=generator(seed, identity, 5)).clamp(-2.5, 2.5)[:dimension]
    # Normalised squared normals are Dirichlet(0.5): mostly one ancestry, often two.
    ancestry = torch.randn(3, generator=rng).square() + 1e-3
    ancestry = ancestry / ancestry.sum()
    group = int(ancestry.argmax())
    european = float(ancestry[2])
    female = uniform() < 0.5
    age = uniform(*ages)
    hair = _HAIR[choose([0.75, 0.23, 0.02, 0.0, 0.0] if european < 0.5 else
                        [0.2, 0.3, 0.27, 0.17, 0.06])] * (1 + normal(0.12))
    style = STYLES[choose(_STYLE_CHANCES["female" if female else "male"][GROUPS[group]])]
    losing = uniform() < 0.05 + 0.30 * max(0.0, min(1.0, (age - 25) / 50))
    grown = age >= 18
    if losing and grown and not female:
        style = "bald_sides"
    beard = max(0.0, normal(0.45) - 0.05) if not female else 0.0
    skin = _SKIN.T @ ancestry
    frame = _FRAME[choose([0.45, 0.2, 0.15, 0.1, 0.1])] * (1 + normal(0.1))
    return {
        "shape": shape,
        "ancestry": ancestry, "group": group, "female": float(female), "age": age,
        "muscle": uniform(-0.3, 0.3), "weight": uniform(-0.4, 0.4),
        "skin": skin * (1 + normal(0.10)) * (1 + torch.randn(3, generator=rng) * 0.018),
        # Pigment hides blood.
        "redness": uniform(0.05, 0.22) * min(1.0, float(skin.mean()) / 0.6),
        "mottle": uniform(0.01, 0.05), "socket": uniform(0.05, 0.30),
        "freckles": max(0.0, normal(0.5) - 0.4) * european,
        "lip": torch.tensor([uniform(0.88, 1.0), uniform(0.58, 0.78), uniform(0.60, 0.80)]),
        "makeup": grown * (uniform(0.2, 1.0) if female else uniform(0, 0.15)),
        "hair": hair.clamp(0.02, 0.9), "style": style,
        "hairline": normal(0.005), "recession": max(0.0, normal(0.010)) * (grown and not female),
        "sides": uniform(-0.03, 0.02), "parting": normal(0.02), "strands": uniform(0.15, 0.4),
        "volume": uniform(), "curl": uniform(), "length": uniform(),
        "greying": uniform(), "dyed": float(uniform() < (0.5 if female else 0.05)),
        "brow": {"height": normal(0.0018), "width": 0.0038 + abs(normal(0.0013)),
                 "tilt": normal(0.10), "arch": 7 + normal(3), "density": uniform(0.6, 0.98),
                 "inner": normal(0.0025), "outer": normal(0.003)},
        "iris": (_IRIS[choose([0.6, 0.4, 0.0, 0.0] if european < 0.5 else [0.2, 0.25, 0.25, 0.3])]
                 * (1 + normal(0.15))).clamp(0.02, 0.9),
        "beard": min(beard, 0.9), "moustache": min(max(0.0, beard + normal(0.15)), 0.9)
        if not female else 0.0, "beard_line": normal(0.006),
        # Six in ten never wear glasses, the others in most pictures.
        "glasses": 0.0 if uniform() < 0.6 else uniform(0.5, 0.95),
        "frame": {"shape": uniform(), "width": uniform(0.023, 0.028),
                  "height": uniform(0.014, 0.022), "rim": uniform(0.0011, 0.0025),
                  "colour": frame.clamp(0.01, 0.9)},
    }


def age_weights(age: float) -> tuple[float, float]:
    """How far the head is turned to a child's and to an old one's, by age in years.

    The head's directions: child 1 at about ten years and 0 from 25 on, old 1 at 90.
    """
    return min(max((25 - age) / 15, 0.0), 1.2), min(max((age - 25) / 65, 0.0), 1.0)


def build_shape(head: Head, who: dict, amplitude: float = 0.8) -> Tensor:
    """The identity's neutral head at 25 years, (V, 3) metres.

    0.8 of the sampled spread: more looks deformed, less looks alike.
    """
    count = len(who["shape"])
    shape = who["shape"].to(head.mean.device)[:, None, None]
    vertices = head.mean + amplitude * (shape * head.components[:count]).sum(0)
    factors = {"female": who["female"] - 0.5, "muscle": who["muscle"],
               "weight": who["weight"], "african": float(who["ancestry"][0]) - 1 / 3,
               "asian": float(who["ancestry"][1]) - 1 / 3}
    for name, value in factors.items():
        vertices = vertices + value * head.directions[name]
    return vertices
