"""One person ready to be photographed: shape, painted skin, hair, glasses and mask.

Hair, glasses and mask are modelled on the mean head; each of their points is tied to vertices of
the head and moves with them, so they fit every shape, age and open mouth.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab.world.ageing import grey_hair
from kdlab.world.glasses import GLASSES_TINT, bound_glasses, glasses_grid
from kdlab.world.hair import hair_grid, hair_patch, hair_points
from kdlab.world.head import Head
from kdlab.world.identity import build_shape
from kdlab.world.mask import bound_mask, mask_grid
from kdlab.world.skin import GAMMA, paint
from kdlab.world.skull import scalp
from kdlab.world.worn import bind, follow, patches

_LENS = torch.tensor([0.9, 0.95, 1.0])  # linear: antireflective glass shines bluish


class Person(NamedTuple):
    who: dict  # the identity's factors
    shape: Tensor  # (V, 3) metres, the neutral head at 25 years
    atlas: Tensor  # (7, rows, columns), see kdlab.world.skin
    bound: tuple  # hair, glasses, mask: (points (W, 3) on the mean head, index (W, k), weight)
    near: Tensor  # (W,) the head vertex nearest each worn point
    patch: Tensor  # (2, rows, columns) brightness and opacity of the hair


class Wardrobe(NamedTuple):
    """What of worn things is the same for everybody. Their vertices follow the head's V."""

    hair: Tensor  # (F, 3) triangles
    hair_texture: Tensor  # (F, 3, 2) pixels of the hair's patch at each corner
    glasses: Tensor  # (F, 3)
    glasses_texture: Tensor  # (F, 3, 2)
    mask: Tensor  # (F, 3)
    mask_texture: Tensor  # (F, 3, 2)
    patch: Tensor  # (2, rows, columns) of glasses and mask
    once: Tensor  # (F, 3) every triangle from one side, head and worn: what normals are made of


@functools.cache
def wardrobe(vertices: int, faces: Tensor) -> Wardrobe:
    """vertices, faces: of the bare head."""
    grids = [grid() for grid in (hair_grid, glasses_grid, mask_grid)]
    parts, first = [], vertices
    for triangles, texture in grids:
        parts.append((triangles.to(faces.device) + first, texture[triangles].to(faces.device)))
        first += len(texture)
    everything = torch.cat([faces, *(triangles for triangles, _ in parts)])
    hair, glasses, mask = parts
    return Wardrobe(*hair, *glasses, *mask, patches().to(faces.device), _once(everything))


def _once(faces: Tensor) -> Tensor:
    """Of triangles listed from both sides, the first."""
    seen, keep = set(), []
    for row, corners in enumerate(faces.sort(1).values.tolist()):
        if tuple(corners) not in seen:
            seen.add(tuple(corners))
            keep.append(row)
    return faces[keep]


def dress(head: Head, who: dict, rng: torch.Generator) -> Person:
    """A person from the factors of `draw_identity` and a random stream of their own."""
    points = hair_points(head, who)
    hair = points, *bind(head, points)
    shape = build_shape(head, who)
    glasses, mask = bound_glasses(head, who, shape), bound_mask(head)
    near = torch.cat([bind(head, part[0], k=1)[0][:, 0] for part in (hair, glasses, mask)])
    atlas = paint(head, who, rng, scalp(head.atlas_points, who))
    return Person(who, shape, atlas, (hair, glasses, mask), near,
                  hair_patch(who, rng).to(head.mean.device))


def moved(person: Person, device) -> Person:
    """The person on another device: people are made on the CPU, the same for all."""
    def move(value):
        if isinstance(value, tuple):
            return tuple(map(move, value))
        return value.to(device) if isinstance(value, Tensor) else value
    return Person(*map(move, person))


def wear(head: Head, person: Person, image: dict, vertices: Tensor) -> Tensor:
    """The worn points (W, 3) on a head (V, 3) in the head's axes. What this picture does not show
    is drawn together to one point, where no triangle has an area."""
    hair, glasses, mask = person.bound
    if image["mask"] and image["mask_drop"]:
        mask = bound_mask(head, image["mask_drop"])
    out = []
    for (points, index, weight), shown in ((hair, True), (glasses, image["glasses"]),
                                           (mask, image["mask"])):
        out.append(follow(points, index, weight, vertices[None], head.mean)[0] if shown
                   else points[:1].expand(len(points), 3))
    return torch.cat(out)


def tints(person: Person, image: dict) -> Tensor:
    """The colour of each worn point, (W, 3) linear light."""
    # The patch's strands are 0.6 bright in the mean.
    hair = (grey_hair(person.who["hair"], image["age"], person.who) / 0.6) ** GAMMA
    frame = person.who["frame"]["colour"] ** GAMMA
    glasses = torch.where(GLASSES_TINT[:, None] == 0, frame, _LENS)
    count = len(person.bound[0][0])
    mask = (image["mask_colour"].clamp(0, 1) ** GAMMA).expand(len(person.bound[2][0]), 3)
    return torch.cat([hair.expand(count, 3), glasses, mask])
