"""The face world: people without limit, each picture a function of (seed, identity, image)."""

import ast
import copy
import functools
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from kdlab.align import TEMPLATES
from kdlab.cache import digest, file_digest
from kdlab.world import identity as who
from kdlab.world.dress import Person, dress, moved
from kdlab.world.head import HEAD_FILE, load_head
from kdlab.world.nuisance import OLDEST, YOUNGEST, check_nuisance, draw_image
from kdlab.world.render import photograph

_HERE = Path(__file__).parent
_CODE = [_HERE.parent / "align.py", *(_HERE / f"{name}.py" for name in
         ("ageing", "backdrop", "camera", "dress", "faces", "glasses", "hair", "head", "identity",
          "loops", "mask", "nuisance", "raster", "render", "skin", "skull", "worn"))]


@functools.cache
def _numba() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:  # a bare GPU machine
        return "without numba"


def _meaning(path: Path) -> str:
    """A key of what a source file does: comments and docstrings may be mended freely."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
                and ast.get_docstring(node)):
            node.body = node.body[1:]
    return digest(ast.unparse(tree))


BIAS = {"noise": (0.0, 0.0, 0.5), "contrast": (1.0, 0.1, 1.0), "images": (1.0, 0.05, 1.0)}


class FaceWorld:
    """A population of rendered people.

    seed: another seed is another population.   dimension: length of the identity's shape
    vector, 1 to 110.   ages: years, youngest and oldest of the population (4 to 90).
    bias: a known disadvantage of one group, for fairness experiments: {"group": one of `GROUPS`,
    "noise": s.d. added to its sensor noise (0 to 0.5 of full scale), "contrast": factor on its
    pictures' contrast (0.1 to 1), "images": share of its pictures that exist (0.05 to 1)}.
    nuisance: overrides of `NUISANCE` inside `RANGES`, for example yaw_sd=0.
    """

    def __init__(self, seed: int = 0, dimension: int = 80, device: str = "cpu",
                 ages: tuple[float, float] = (18, 75), bias: dict | None = None,
                 **nuisance: float):
        self.head = load_head(device)
        most = len(self.head.components)
        if not (isinstance(dimension, Integral) and 1 <= dimension <= most):
            raise ValueError(f"dimension must be 1 to {most}, not {dimension!r}")
        if not (isinstance(seed, Integral) and seed >= 0):
            raise ValueError(f"seed must be a whole number from 0 on, not {seed!r}")
        if not YOUNGEST <= ages[0] <= ages[1] <= OLDEST:
            raise ValueError(f"ages must rise from {YOUNGEST:g} or more to {OLDEST:g} or less, "
                             f"not {ages}")
        self.seed, self.dimension, self.ages = int(seed), int(dimension), tuple(map(float, ages))
        self.nuisance, self.bias = check_nuisance(nuisance), _check_bias(bias)
        self.identity = functools.lru_cache(maxsize=4096)(self._identity)
        self.person = functools.lru_cache(maxsize=max(4, os.cpu_count() or 1))(self._person)

    @property
    def key(self) -> str:
        """Changes whenever a pixel could: parameters, device, head file, the renderer's own code,
        torch, numba and the processor's vector width."""
        return digest([self.seed, self.dimension, self.ages, self.bias, self.nuisance,
                       str(self.head.mean.device.type), file_digest(HEAD_FILE),
                       [_meaning(path) for path in _CODE], torch.__version__,
                       _numba(), torch.backends.cpu.get_cpu_capability()])

    def _identity(self, i: int) -> dict:
        """All factors of identity i (see `draw_identity`); shared: do not write into it."""
        return who.draw_identity(self.seed, i, self.dimension, self.ages)

    def image(self, i: int, j: int) -> dict:
        """All factors of image j of identity i (see `draw_image`), the group's bias included."""
        factors = draw_image(self.seed, i, j, self.nuisance, self.identity(i))
        if self._is_biased(i):
            factors["noise"] += self.bias["noise"]
            factors["contrast"] *= self.bias["contrast"]
        return factors

    def describe(self, i: int, j: int) -> dict:
        """All factors of image j of identity i: {"identity": ..., "image": ...}."""
        return copy.deepcopy({"identity": self.identity(i), "image": self.image(i, j)})

    def images_of(self, i: int, most: int) -> int:
        """How many pictures there are of identity i where others have `most`; at least one."""
        share = self.bias["images"] if self._is_biased(i) else 1
        return max(1, round(most * share))

    def _is_biased(self, i: int) -> bool:
        return bool(self.bias) and who.GROUPS[self.identity(i)["group"]] == self.bias["group"]

    def _person(self, i: int) -> Person:
        """Identity i ready to be photographed."""
        person = dress(load_head(), self.identity(i), who.generator(self.seed, i, 4))
        return moved(person, self.head.mean.device)

    @torch.no_grad()
    def render(self, pairs: Iterable[tuple[int, int]], crops: Sequence[str] = ("arcface",)
               ) -> dict[str, Tensor]:
        """Pictures of (identity, image) pairs, at best 16 at a time.

        Returns crop name -> (B, 3, S, S) uint8 RGB on the CPU, and "landmarks" (B, 5, 2) in
        pixels of the uncropped picture.   Raises ValueError on an unknown crop.
        """
        pairs = list(pairs)
        if not pairs or min(min(pair) for pair in pairs) < 0:
            raise ValueError("render wants (identity, image) pairs of numbers from 0 on, "
                             f"not {pairs[:3]}")
        crops = (crops,) if isinstance(crops, str) else crops
        unknown = set(crops) - set(TEMPLATES)
        if unknown:
            raise ValueError(f"crop must be one of {', '.join(TEMPLATES)}, not {unknown.pop()!r}")
        people = {i: self.person(i) for i in dict.fromkeys(i for i, _ in pairs)}
        out = photograph(self.head, [people[i] for i, _ in pairs],
                         [self.image(i, j) for i, j in pairs],
                         [(self.seed, i, j) for i, j in pairs], tuple(crops))
        return {name: value.cpu() for name, value in out.items()}


def _check_bias(bias: dict | None) -> dict:
    """The bias with its defaults, {} for none. Raises ValueError in words."""
    if not bias:
        return {}
    if bias.get("group") not in who.GROUPS:
        raise ValueError(f"bias wants a group, one of {', '.join(who.GROUPS)}, "
                         f"not {bias.get('group')!r}")
    unknown = set(bias) - set(BIAS) - {"group"}
    if unknown:
        raise ValueError(f"unknown bias {', '.join(sorted(unknown))}; there are {', '.join(BIAS)}")
    for name, (_, low, high) in BIAS.items():
        if name in bias and not low <= bias[name] <= high:
            raise ValueError(f"bias {name} must lie between {low} and {high}, not {bias[name]!r}")
    return {name: entry[0] for name, entry in BIAS.items()} | bias
