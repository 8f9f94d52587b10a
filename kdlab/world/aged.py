"""Rendered people by age class and ancestry group: UTKFace in miniature, its skew a dial.

MFD (Jung et al., CVPR 2021) learns three age classes from UTKFace and wants them told alike for
every race. Here class and group are known to the renderer. A picture is one person's only one.
"""

import numpy as np

from kdlab.data.listed import AGES
from kdlab.data.skewed import Skewed
from kdlab.world.faces import FaceWorld
from kdlab.world.identity import GROUPS
from kdlab.world.rendered import rendered

CLASSES = ("young", "middle", "old")  # below 20, below 40, from 40 on: MFD's classes of UTKFace
SEARCH = 200  # people looked at for one that is wanted, at most; ours: one in 15 is young


def aged(world: FaceWorld, per_class: int, skew: float = 1 / 3, first: int = 0,
         size: int = 48) -> Skewed:
    """3 x per_class pictures: labels are rows of `CLASSES`, groups rows of `GROUPS`.

    skew: the share of a class's pictures that show its own group (young: the first of `GROUPS`,
    middle: the second, old: the third); the rest is shared by the other two. 1/3: equal cells, as
    a test set wants them.   first: people from this number on are looked at.
    world: its `ages` must hold all three classes, (10, 75) say; with `bias` one group's pictures
    are worse. Its share of pictures ("images") means nothing here, where each person has one.
    size: pixels a side.   Pictures are kept in the cache as those of `rendered` are.
    ValueError where the world has too few people of a cell.
    """
    wanted = cells(per_class, skew)
    found = {cell: [] for cell in np.ndindex(wanted.shape)}
    for i in range(first, first + SEARCH * per_class):
        cell = int(np.digitize(world.image(i, 0)["age"], AGES)), world.identity(i)["group"]
        if len(found[cell]) < wanted[cell]:
            found[cell].append(i)
            if sum(map(len, found.values())) == wanted.sum():
                break
    else:
        cell = min(found, key=lambda c: len(found[c]) - wanted[c])
        raise ValueError(f"of {SEARCH * per_class} people of ages {world.ages} only "
                         f"{len(found[cell])} are {CLASSES[cell[0]]} and {GROUPS[cell[1]]}, "
                         f"{wanted[cell]} are wanted; widen the world's ages")
    people = sorted((i, *cell) for cell, some in found.items() for i in some)
    numbers, labels, groups = np.array(people).T
    faces = rendered(world, numbers, 1, crops=("arcface",))
    return Skewed(faces.pixels("arcface", size).numpy(), labels, groups)


def cells(per_class: int, skew: float) -> np.ndarray:
    """How many pictures of each class (rows) and group: (3, 3) int64."""
    C = len(CLASSES)
    if not 0 <= skew <= 1:
        raise ValueError(f"skew is a share of a class, 0 to 1, not {skew}")
    if per_class < C:
        raise ValueError(f"per_class must be {C} or more, not {per_class}")
    own = round(skew * per_class)
    rest = [len(part) for part in np.array_split(np.arange(per_class - own), C - 1)]
    return np.array([[*rest[:c], own, *rest[c:]] for c in range(C)])
