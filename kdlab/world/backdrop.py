"""What is behind and below a head, out of focus: five kinds of scene, and clothes.

Shapes, colours and how often things appear are our choice by eye at 112 pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.world.camera import enlarge
from kdlab.world.skin import noise


def backdrop(images: list[dict], rngs: list[torch.Generator], size: tuple[int, int],
             device="cpu") -> Tensor:
    """What is behind and below the head, out of focus: (B, 3, H, W) linear light 0..1.

    Of an image: scene ("studio", "wall", "room", "outdoor", "night"), background (2, 3) colours,
    backdrop 0..1 (dark to bright), cloth (3,), roll (radians: the upright head's world leans),
    light.   Raises ValueError for a scene that is none of these.
    Drawn in square roots of light; the scene at a quarter of the size, soft as it is, clothes at
    half of it, which is several times as fast.
    """
    H, W = size
    pictures = []
    for image, rng in zip(images, rngs, strict=True):
        if image["scene"] not in _SCENES:
            raise ValueError(f"scene must be one of {', '.join(_SCENES)}, not {image['scene']!r}")
        h, w = (H + 1) // 2, (W + 1) // 2
        x, y = _plane((h + 1) // 2, (w + 1) // 2, image["roll"])
        colours = image["background"]
        colours = colours.mean(1, keepdim=True) + 0.25 * (colours - colours.mean(1, keepdim=True))
        picture = _SCENES[image["scene"]](x, y, image, colours[..., None, None], rng)
        picture = enlarge(picture)[:, :h, :w]
        _dress(picture, *_plane(h, w, image["roll"]), image, rng)
        pictures.append(picture.clamp_(0, 1).square_())
    return enlarge(torch.stack(pictures).to(device))[..., :H, :W].contiguous()


def _plane(rows: int, columns: int, roll: float) -> tuple[Tensor, Tensor]:
    """Where a pixel is in the world behind, (rows, columns) each: x -1..1 across the picture, y in
    the same unit, down, from the middle. The head is upright, so the world leans by its roll."""
    x = torch.linspace(-1, 1, columns)
    y = torch.linspace(-rows / columns, rows / columns, rows)[:, None]
    return (x * math.cos(roll) + y * math.sin(roll), y * math.cos(roll) - x * math.sin(roll))


def _draws(rng: torch.Generator, n: int) -> list[float]:
    return torch.rand(n, generator=rng).tolist()


def _box(x, y, middle: tuple, half: tuple, soft: float) -> Tensor:
    """Cover 0..1 of a rectangle out of focus."""
    across = ((half[0] - (x - middle[0]).abs()) / soft + 0.5).clamp_(0, 1)
    down = ((half[1] - (y - middle[1]).abs()) / soft + 0.5).clamp_(0, 1)
    cover = across.mul_(down)
    return cover * cover * (3 - 2 * cover)


def _disc(x, y, middle: tuple, radius: float, soft: float) -> Tensor:
    distance = ((x - middle[0]).square() + (y - middle[1]).square()).sqrt_()
    return distance.sub_(radius).mul_(-1 / soft).add_(0.5).clamp_(0, 1)


def _put(picture: Tensor, colour, cover: Tensor) -> None:
    """Lays a colour (3,) or (3, H, W) over the picture, in place."""
    if not isinstance(colour, Tensor):
        colour = torch.tensor(colour)[:, None, None]
    picture += (colour - picture) * cover


def _studio(x, y, image, colours, rng) -> Tensor:
    """A paper or cloth roll, lit brightest behind the head."""
    u = _draws(rng, 4)
    base = 0.12 + 0.75 * image["backdrop"]
    fall = (x - 0.8 * (u[0] - 0.5)).square() + 0.8 * (y + 0.6 * u[1]).square()
    cloth = noise(rng, 6, 6, x.shape) * 0.03 * u[2]
    tint = 1 + (0.5 + u[3]) * (colours[0] - colours[0].mean())
    return tint * (base * (1.1 - (0.15 + 0.3 * u[2]) * fall + cloth)).clamp_(min=0.02)


def _wall(x, y, image, colours, rng) -> Tensor:
    """Paint or plaster: light from one side, the head's soft shadow on the other."""
    u = _draws(rng, 4)
    base = 0.35 + 0.55 * image["backdrop"]
    side = float(image["light"][0])
    value = 1 + (0.18 * side) * x - 0.06 * y + 0.015 * noise(rng, 5, 5, x.shape)
    value += (0.002 + 0.008 * u[0]) * noise(rng, 40, 40, x.shape)
    shade = (x + 0.9 * side).square() + (y - 0.1).square()
    value -= 0.3 * u[1] * (1 - 0.7 * shade).clamp_(min=0)
    return base * (1 + 0.5 * (colours[0] - colours[0].mean())) * value


def _room(x, y, image, colours, rng) -> Tensor:
    """Indoors: a wall with windows, doors, shelves, pictures and lamps."""
    u = _draws(rng, 6)
    base, soft = 0.2 + 0.5 * image["backdrop"], 0.06 + 0.2 * u[0]
    picture = base * (1 + colours[0] - colours[0].mean()) * (1 + 0.2 * (u[1] - 0.5) * x - 0.1 * y)
    if u[2] < 0.4:  # a darker lower wall or a sofa
        _put(picture, colours[1] * base, _box(x, y, (0, 1.3), (3, 0.4 + u[3]), soft))
    for _ in range(2 + int(3 * u[4])):
        kind, a, b, c, d = _draws(rng, 5)
        cx = (0.3 + 0.8 * a) * (1 if b < 0.5 else -1)
        if kind < 0.25:  # a window, its bars
            sky = (0.86, 0.92, 0.96)
            _put(picture, sky, _box(x, y, (cx, -0.5), (0.25 + 0.3 * c, 0.5 + 0.3 * d), soft))
            _put(picture, (0.5, 0.5, 0.5), _box(x, y, (cx, -0.5), (0.03, 0.8), soft))
        elif kind < 0.45:  # a door in its frame
            wood = torch.tensor([0.95, 0.85, 0.74])[:, None, None] * (0.25 + 0.55 * c)
            _put(picture, wood * 1.25, _box(x, y, (cx, 0.6), (0.36, 1.2 + 0.4 * d), soft))
            _put(picture, wood, _box(x, y, (cx, 0.6), (0.28, 1.12 + 0.4 * d), soft))
        elif kind < 0.70:  # shelves: rows of things of many colours
            things = torch.rand(1, 3, 7, 13, generator=rng) * 0.35 + torch.tensor(
                [0.22, 0.19, 0.16])[:, None, None]
            things = things.mean(1, keepdim=True) + 0.3 * (things - things.mean(1, keepdim=True))
            things[:, :, 1::3] = things[:, :, 1::3] * 0.3 + 0.08  # the boards and their shadows
            books = F.interpolate(things, x.shape, mode="bicubic")[0] * (0.7 + c)
            _put(picture, books, _box(x, y, (cx, -0.2 + d), (0.4 + 0.2 * c, 1.2), soft))
        elif kind < 0.85:  # a picture on the wall
            _put(picture, (0.15, 0.13, 0.12), _box(x, y, (cx, d - 0.9), (0.22, 0.3), soft))
            _put(picture, colours[1], _box(x, y, (cx, d - 0.9), (0.16, 0.24), soft))
        else:  # a lamp and its glow
            glow = (1 - ((x - cx).square() + (y + 0.6).square()) / 0.7).clamp_(min=0).square_()
            _put(picture, (1.0, 0.86, 0.62), 0.5 * glow)
            _put(picture, (1.0, 0.95, 0.84), _disc(x, y, (cx, -0.6), 0.12 + 0.1 * c, soft))
    return picture


def _outdoor(x, y, image, colours, rng) -> Tensor:
    """Sky over a line of trees or of houses."""
    u = _draws(rng, 6)
    clear = torch.tensor([0.45, 0.62, 0.86]) * u[0] + torch.tensor([0.78, 0.80, 0.83]) * (1 - u[0])
    down = ((y + 1) / 1.6).clamp_(0, 1)
    sky = clear[:, None, None] * (1 - down) + torch.tensor([0.86, 0.87, 0.88])[:, None, None] * down
    picture = sky * (0.75 + 0.3 * image["backdrop"])
    rough, fine = noise(rng, 6, 6, x.shape), noise(rng, 15, 15, x.shape)
    line = -1.1 + 1.5 * u[1]
    if u[2] < 0.4:
        # Rows of windows, not quite in focus: darker, evenly spaced.
        windows = 1 - 0.16 * ((11 * x).sin() * (9 * y).sin()).clamp_(min=0)
        for _ in range(4):
            a, b, c, d = _draws(rng, 4)
            wall = 0.4 * colours[int(2 * a)] + 0.15 + 0.3 * d
            _put(picture, wall * windows, _box(
                x, y, (2.4 * b - 1.2, line + 1.6 + 0.5 * c), (0.2 + 0.3 * d, 1.6), 0.08))
        line += 0.9
    leaves = torch.tensor([0.34, 0.40, 0.24]) + (u[3] - 0.5) * torch.tensor([0.16, 0.04, 0.04])
    value = 0.5 + 0.5 * image["backdrop"] + 0.13 * rough + 0.09 * fine
    cover = ((y - line + 0.09 * rough + 0.03 * fine) / 0.25 + 0.5).clamp_(0, 1)
    _put(picture, leaves[:, None, None] * value.clamp_(0.15, 1.6), cover)
    gaps = ((fine + 0.5 * rough - 1.4) * (0.2 + 0.4 * u[4])).clamp_(0, 0.6)  # sky through leaves
    _put(picture, (0.80, 0.84, 0.76), gaps * cover)
    return picture


def _night(x, y, image, colours, rng) -> Tensor:
    """Dark, with lamps far off: each a disc as wide as the lens is open."""
    u = _draws(rng, 3)
    picture = (0.04 + 0.14 * image["backdrop"] ** 2) * (0.8 + colours[0]) * (1 + 0.3 * u[0] * y)
    picture = picture + 0.012 * noise(rng, 6, 6, x.shape)
    lamps = ((1.0, 0.72, 0.40), (1.0, 0.88, 0.70), (0.95, 0.30, 0.22), (0.55, 0.75, 0.95),
             (0.45, 0.85, 0.55))
    radius = 0.06 + 0.16 * u[1]
    for _ in range(5 + int(9 * u[2])):
        a, b, c, d = _draws(rng, 4)
        lamp = torch.tensor(lamps[int(5 * c * c)])[:, None, None] * (0.2 + 0.7 * d * d)
        picture += lamp * _disc(x, y, (2.4 * a - 1.2, 1.5 * b - 1.1), radius, 0.05)
    return picture


_SCENES = {"studio": _studio, "wall": _wall, "room": _room, "outdoor": _outdoor, "night": _night}


def _dress(picture: Tensor, x: Tensor, y: Tensor, image: dict, rng: torch.Generator) -> None:
    """Shoulders and a crew neck, a shirt's collar or a bare neckline, in place."""
    u = _draws(rng, 5)
    first = int(0.6 * len(y))  # no shoulder is higher
    x, y = x[first:], y[first:]
    cloth = image["cloth"].mean() + 0.35 * (image["cloth"] - image["cloth"].mean())
    folds = noise(rng, 3, 7, x.shape)
    lit = 1 + 0.07 * folds + 0.2 * float(image["light"][0]) * x
    top = 0.86 + 0.12 * u[0]
    edge = y - top - (0.10 + 0.25 * u[1]) * x.abs() ** 1.5
    neck = x.square() / 0.20 + (y - top).square() / 0.04  # 1 on the neckline
    seam = 1 - 0.3 * (1 - (neck - 1.1).abs() * 4).clamp_(0, 1)
    if u[2] < 0.4:  # a shirt: flaps rise beside the neck
        edge = torch.maximum(edge, y - top + 0.10 - 0.6 * (x.abs() - 0.45).abs())
        seam = 1 - 0.35 * (1 - ((x.abs() - 0.45) * 1.6 + y - top - 0.1).abs() / 0.05).clamp_(0, 1)
    inside = 1 - 0.55 * ((1 - neck) * 3).clamp_(0, 1)
    value = (0.12 + 0.75 * cloth)[:, None, None] * (lit * seam * inside)
    _put(picture[:, first:], value, (edge / 0.03 + 0.5).clamp_(0, 1))
