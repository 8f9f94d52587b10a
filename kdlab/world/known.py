"""Known truth for intrinsic dimension: people who differ in nothing but d shape coefficients.

Every picture of one occasion is then a function of d numbers, so that a set of them, one a person,
is a d-dimensional surface in the space of pixels, whatever the number of pixels. A rough one: a
sharp edge moves by whole pixels, so that the distance of near pictures grows like the root of the
step (Wakin et al., "The multiscale structure of non-differentiable image manifolds", SPIE 2005),
and an estimate at a small scale, with few coefficients, finds up to twice d.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdlab.align import TEMPLATES
from kdlab.cache import digest
from kdlab.world.dress import Person, dress, moved
from kdlab.world.faces import FaceWorld, _meaning
from kdlab.world.head import load_head
from kdlab.world.identity import build_shape, draw_identity, generator
from kdlab.world.nuisance import NUISANCE, draw_image
from kdlab.world.render import photograph

STILL = dict.fromkeys(NUISANCE, 0.0)  # upright, frontal, neutral, evenly lit, sharp, no noise


class ShapeWorld(FaceWorld):
    """People who are `like` one person of `FaceWorld(seed)` in all but their shape.

    dimension: of the shape vector, 1 to 110: the truth.   like: the person whose skin, hair, age
    and ancestry everybody shares.   nuisance: overrides of `STILL`; whatever it draws it draws once
    for picture j of everybody (pose, light, backdrop, even the grain of the noise), so that the
    pictures (i, j) of one j differ by the shape alone (glasses, if asked for, are fitted to that
    person).   Coefficients are independent normals cut at 2.5; the head's directions differ in
    strength (the first moves the face most).   Raises ValueError as `FaceWorld` does.
    """

    def __init__(self, seed: int = 0, dimension: int = 8, like: int = 0, device: str = "cpu",
                 **nuisance: float):
        super().__init__(seed, dimension, device, **(STILL | nuisance))
        if like < 0:
            raise ValueError(f"like must be a person's number, from 0 on, not {like!r}")
        self.like = int(like)
        self._twin = None

    @property
    def key(self) -> str:
        """Changes whenever a pixel could, see `FaceWorld.key`."""
        return digest([super().key, "shape only", self.like, _meaning(Path(__file__))])

    def _identity(self, i: int) -> dict:
        who = draw_identity(self.seed, self.like, self.dimension, self.ages)
        return who | {"shape": draw_identity(self.seed, i, self.dimension, self.ages)["shape"]}

    def image(self, i: int, j: int) -> dict:
        """All factors of picture j, the same of everybody."""
        return draw_image(self.seed, self.like, j, self.nuisance, self.identity(self.like))

    def _person(self, i: int) -> Person:
        if self._twin is None:  # skin and hair are the dear part, and one for all
            self._twin = dress(load_head(), self.identity(self.like),
                               generator(self.seed, self.like, 4))
        person = self._twin._replace(who=self.identity(i),
                                     shape=build_shape(load_head(), self.identity(i)))
        return moved(person, self.head.mean.device)

    # The parent's, but for the random stream: it starts from the model's number, not from i's.
    @torch.no_grad()
    def render(self, pairs: Iterable[tuple[int, int]], crops: Sequence[str] = ("arcface",)
               ) -> dict[str, Tensor]:
        """Pictures of (identity, image) pairs: see `FaceWorld.render`."""
        pairs, crops = list(pairs), (crops,) if isinstance(crops, str) else tuple(crops)
        if not pairs or min(min(pair) for pair in pairs) < 0:
            raise ValueError("render wants (identity, image) pairs of numbers from 0 on, "
                             f"not {pairs[:3]}")
        if unknown := sorted(set(crops) - set(TEMPLATES)):
            raise ValueError(f"crop must be one of {', '.join(TEMPLATES)}, not {unknown[0]!r}")
        out = photograph(self.head, [self.person(i) for i, _ in pairs],
                         [self.image(i, j) for i, j in pairs],
                         [(self.seed, self.like, j) for _, j in pairs], crops)
        return {name: value.cpu() for name, value in out.items()}
