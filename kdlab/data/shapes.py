"""Ten shapes, drawn from a seed: a class to be learnt where the user has no CIFAR-10.

A picture is one shape of random place, size, turn and brightness on a ground of another brightness,
under noise and a tint that lies over all of it. So the tint says nothing of the shape, and a grey
picture is as hard as a coloured one; noise makes the shape hard to see, so that whatever else goes
with the class (kdlab.data.skewed) is welcome to a network. There are as many pictures as asked for,
all of them ours.
"""

import numpy as np

SHAPES = ("disk", "ring", "square", "frame", "triangle", "cross", "bar", "two bars", "half disk",
          "checks")
SIDE = 16  # pixels: small enough for a laptop to train on in seconds
NOISE = 60.0  # s.d. in grey levels: a small network then errs on about a third (our choice)
TINT = 40.0  # s.d. of each channel's own shift, in grey levels (our choice)


def shapes(count: int, seed: int, size: int = SIDE, noise: float = NOISE
           ) -> tuple[np.ndarray, np.ndarray]:
    """pixels (count, 3, size, size) uint8 in colour, labels (count,): rows of `SHAPES`.

    Classes take turns, so that counts differ by one at most. noise: s.d. in grey levels, the same
    in all three channels: it has no colour. A picture depends on seed, its row, size and noise.
    """
    if count < 1 or size < 8 or seed < 0 or noise < 0:
        raise ValueError("shapes wants one picture or more, 8 pixels or more, seed and noise of 0 "
                         f"or more, not {count}, {size}, {seed} and {noise}")
    labels = np.arange(count) % len(SHAPES)
    pixels = np.empty((count, 3, size, size), np.uint8)
    for row in range(count):
        pixels[row] = _picture(labels[row], size, noise, np.random.default_rng((seed, row)))
    return pixels, labels


def _picture(label: int, size: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """(3, size, size) uint8."""
    turn, radius = rng.uniform(-0.4, 0.4), rng.uniform(0.55, 0.8)  # of half the picture's side
    at = rng.uniform(-0.15, 0.15, 2)
    fine = (np.arange(3 * size) + 0.5) / (1.5 * size) - 1  # three points a pixel each way: no steps
    x, y = np.meshgrid(fine - at[0], fine - at[1])
    u = (x * np.cos(turn) + y * np.sin(turn)) / radius
    v = (y * np.cos(turn) - x * np.sin(turn)) / radius
    covered = _inside(SHAPES[label], u, v).reshape(size, 3, size, 3).mean((1, 3))
    ground, shape = rng.uniform(70, 110), rng.uniform(140, 180)
    tint = rng.normal(0, TINT, (3, 1, 1))
    picture = ground * (1 - covered) + shape * covered + rng.normal(0, noise, (size, size))
    picture = picture + tint - tint.mean()
    return np.clip(picture.round(), 0, 255).astype(np.uint8)


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Is a point in the shape? u, v: coordinates in which it spans about -1 to 1."""
    r, a, b = np.hypot(u, v), np.abs(u), np.abs(v)
    square = (a < 0.8) & (b < 0.8)
    return {
        "disk": r < 0.9,
        "ring": (r < 1) & (r > 0.55),
        "square": square,
        "frame": square & ~((a < 0.42) & (b < 0.42)),
        "triangle": (v < 0.6) & (1.8 * a - v < 1.1),
        "cross": ((a < 0.28) | (b < 0.28)) & (a < 1) & (b < 1),
        "bar": (a < 0.32) & (b < 1.05),
        "two bars": (a > 0.3) & (a < 0.75) & (b < 1),
        "half disk": (r < 1.05) & (v < 0.05),
        "checks": (u * v > 0) & (a < 0.9) & (b < 0.9),
    }[name]
