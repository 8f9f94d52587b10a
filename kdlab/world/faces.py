"""The face world: people without limit, each picture a function of (seed, identity, image)."""

import ast
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kdlab.align import TEMPLATES
from kdlab.cache import digest, file_digest
from kdlab.world import identity as who
from kdlab.world.head import HEAD_FILE, load_head
from kdlab.world.nuisance import NUISANCE, draw_image
from kdlab.world.render import photograph

_HERE = Path(__file__).parent
_CODE = [_HERE.parent / "align.py", *(_HERE / f"{name}.py" for name in
         ("faces", "head", "identity", "nuisance", "raster", "render"))]


@functools.cache
def _meaning(path: Path) -> str:
    """A key of what a source file does: comments and docstrings may be mended freely."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
                and ast.get_docstring(node)):
            node.body = node.body[1:]
    return digest(ast.unparse(tree))


class FaceWorld:
    """A population of rendered people.

    seed: another seed is another population.   dimension: length of the identity's shape
    vector, 1 to 110.   nuisance: overrides of `NUISANCE`, for example yaw_sd=0.
    """

    def __init__(self, seed: int = 0, dimension: int = 80, device: str = "cpu", **nuisance: float):
        self.head = load_head(device)
        most = len(self.head.components)
        if not 1 <= dimension <= most:
            raise ValueError(f"dimension must be 1 to {most}, not {dimension}")
        unknown = set(nuisance) - set(NUISANCE)
        if unknown:
            raise ValueError(f"unknown nuisance {', '.join(sorted(unknown))}; "
                             f"there are {', '.join(NUISANCE)}")
        self.seed, self.dimension = seed, dimension
        self.nuisance = NUISANCE | nuisance

    @property
    def key(self) -> str:
        """Changes whenever a pixel could: parameters, head file, and the renderer's own code."""
        return digest([self.seed, self.dimension, self.nuisance, file_digest(HEAD_FILE),
                       [_meaning(path) for path in _CODE], torch.__version__])

    def identity(self, i: int) -> dict:
        """All factors of identity i (see `draw_identity`)."""
        return who.draw_identity(self.seed, i, self.dimension)

    def image(self, i: int, j: int) -> dict:
        """All factors of image j of identity i (see `draw_image`)."""
        return draw_image(self.seed, i, j, self.nuisance)

    def describe(self, i: int, j: int) -> dict:
        """All factors of image j of identity i: {"identity": ..., "image": ...}."""
        return {"identity": self.identity(i),
                "image": self.image(i, j)}

    def person(self, i: int) -> tuple[Tensor, Tensor]:
        """Shape (V, 3) metres and texture (4, rows, columns) of identity i."""
        factors = self.identity(i)
        rng = who.generator(self.seed, i, 4)
        return who.build_shape(self.head, factors), who.paint(self.head, factors, rng)

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
        unknown = set(crops) - set(TEMPLATES)
        if unknown:
            raise ValueError(f"crop must be one of {', '.join(TEMPLATES)}, not {unknown.pop()!r}")
        once = {i: self.person(i) for i in dict.fromkeys(i for i, _ in pairs)}
        people = [once[i] for i, _ in pairs]
        images = [self.image(i, j) for i, j in pairs]
        out = photograph(self.head, torch.stack([p[0] for p in people]),
                         torch.stack([p[1] for p in people]), images,
                         [(self.seed, i, j) for i, j in pairs], tuple(crops))
        return {name: value.cpu() for name, value in out.items()}
