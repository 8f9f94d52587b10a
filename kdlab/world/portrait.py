"""One picture with factors of your choice: what the sliders of a notebook move."""

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
    Raises ValueError on an unknown factor.
    """
    drawn = world.image(identity, image)
    unknown = sorted(factors.keys() - drawn.keys())
    if unknown:
        raise ValueError(f"unknown factor {', '.join(unknown)}; there are {', '.join(drawn)}")
    factors = {name: value.float() if isinstance(value, Tensor) else
               float(value) if isinstance(value, Real) else value  # NumPy's would be float64
               for name, value in factors.items()}
    out = photograph(world.head, [world.person(identity)], [drawn | factors],
                     [(world.seed, identity, image)], (crop,))
    return out[crop][0].cpu()
