"""One picture with factors of your choice: what the sliders of a notebook move."""

import math
from numbers import Real

import torch
from torch import Tensor

from kdlab.world.faces import FaceWorld
from kdlab.world.render import photograph


@torch.no_grad()
def portrait(world: FaceWorld, identity: int, image: int = 0, crop: str = "arcface",
             **factors) -> Tensor:
    """Image `image` of an identity with some of its factors replaced, (3, S, S) uint8.

    factors: names from `world.image(identity, image)`, for example yaw=0.4 (radians).
    Raises ValueError on an unknown factor or expression, or a value that is none of its factor's.
    """
    if min(identity, image) < 0:
        raise ValueError(f"identity and image are numbers from 0 on, not {identity} and {image}")
    drawn = world.image(identity, image)
    unknown = sorted(factors.keys() - drawn.keys())
    if unknown:
        raise ValueError(f"unknown factor {', '.join(unknown)}; there are {', '.join(drawn)}")
    unknown = sorted(factors.get("expression", {}).keys() - world.head.expressions.keys())
    if unknown:
        raise ValueError(f"unknown expression {', '.join(unknown)}; there are "
                         f"{', '.join(world.head.expressions)}")
    factors = {name: _as_drawn(name, value, drawn[name]) for name, value in factors.items()}
    out = photograph(world.head, [world.person(identity)], [drawn | factors],
                     [(world.seed, identity, image)], (crop,))
    return out[crop][0].cpu()


def _as_drawn(name: str, value, drawn):
    """A factor's new value in the type the old one has."""
    if isinstance(drawn, Tensor):
        value = torch.as_tensor(value, dtype=torch.float32)
        if value.shape != drawn.shape or not value.isfinite().all():
            raise ValueError(f"{name} must be numbers of shape {tuple(drawn.shape)}, not {value}")
    elif isinstance(value, Real | Tensor):
        value = float(value)  # NumPy's would be float64
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a number, not {value}")
    return value
