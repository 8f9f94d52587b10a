"""What age does to a painted face: lines, spots, paleness, grey hair.

Positions, widths and strengths are our choice by eye on the mean head, in metres.
"""

import torch
from torch import Tensor

from kdlab.world.head import ATLAS, FRONT, unroll

_LINE = (0.50, 0.62, 0.66)  # what a wrinkle of full age takes: a shadow, warmer than grey
_AGED = (-0.02, -0.03, -0.04)  # change of the skin of full age
_CHILD = (0.10, 0.03, 0.04)  # change of the skin of a child: lighter, rosier
_GREY = (0.60, 0.57, 0.53)  # hair without pigment, sRGB


def skin_at_age(surface: Tensor, age: Tensor, hair_tint: Tensor) -> Tensor:
    """Pixels of the atlas as they look at an age: (P, 7), (P,) years, (P, 3) -> (P, 4).

    hair_tint: linear light.   Returns linear red, green, blue and the gloss. Sums are written out,
    so a pixel is the same in any batch.
    """
    surface, tint = surface.T.contiguous(), hair_tint.T.contiguous()  # channels first is faster
    colour, gloss, hair, beard, wrinkle = surface[:3], *surface[3:]
    column = lambda values: surface.new_tensor(values)[:, None]  # noqa: E731
    old = ((age - 30) / 45).clamp(0, 1)
    child = ((18 - age) / 10).clamp(0, 1)
    cover = hair + (1 - hair) * beard * ((age - 15) / 5).clamp(0, 1)
    colour = colour * (1 - column(_LINE) * (old * wrinkle))
    colour = colour * (1 + column(_AGED) * old + column(_CHILD) * child)
    pale = 0.12 * old
    grey = (0.30 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]) * pale
    # Thin hair is darker than thick: one sees into its shadow.
    colour = (colour * (1 - pale) + grey) * (1 - cover) + tint * (cover * (0.4 + 0.6 * cover))
    gloss = gloss * ((1 - 0.6 * cover) * (1 - 0.25 * old - 0.2 * child))
    return torch.cat([colour, gloss[None]]).T


def grey_hair(hair: Tensor, age: float, who: dict) -> Tensor:
    """Hair at an age: natural young colour (3,) sRGB -> (3,) sRGB.

    Greying starts at 55 years (who["greying"] 0) to 35 (1) and takes 30; dyed hair stays.
    """
    share = min(max((age - 55 + 20 * who["greying"]) / 30, 0.0), 1.0) * (1 - who["dyed"])
    return hair * (1 - share) + hair.new_tensor(_GREY) * share


def wrinkles(out, at, chances) -> None:
    """Lines and spots of full age, 0..1."""
    j = iter(chances)
    blotch = 0.10 + 0.09 * at["coarse"].roll(5, 0) + 0.05 * at["fine"]
    spots = ((at["medium"] + 0.8 * at["coarse"]).roll(11, 1) - 1.7).clamp(0, 0.8)
    out[:] = blotch.clamp(min=0) + 0.45 * spots * ((at["side"] > 0.03) | (at["z"] > 0.055))

    def window(low, high):
        """The lines' canvas between two heights, x from the middle, x and z from the eye, width."""
        part = rows_between(low, high)
        view = {k: at[k][part] for k in ("side", "z", "dx", "dz", "warp_x", "warp_z", "medium")}
        return (out[part], view["side"] + view["warp_x"], view["z"] + view["warp_z"],
                view["dx"] + view["warp_x"], view["dz"] + view["warp_z"],
                (at["y"][part] < 0) * (0.8 + 0.2 * view["medium"]).clamp(0.3, 1.2))

    def add(canvas, line):
        torch.maximum(canvas, line, out=canvas)

    canvas, x, z, _, _, faint = window(0.050, 0.104)
    for k in range(4):  # forehead
        line = 0.056 + 0.0085 * k + 0.004 * next(j) + (0.006 - 0.003 * k) * torch.cos(x * 70)
        wide, deep = 0.032 + 0.012 * next(j), 0.4 + 0.5 * next(j)
        add(canvas, deep * bump((z - line) / 0.0013, x / wide) * faint)
    canvas, x, z, dx, dz, faint = window(-0.002, 0.058)
    frown = bump((x - 0.0065 - 0.12 * (z - 0.04)) / 0.0014, (z - 0.043) / 0.009)
    add(canvas, (0.4 + 0.5 * next(j)) * frown * faint)
    bag = ((dx / 0.0180) ** 2 + ((dz + 0.001) / (0.0125 + 0.003 * next(j))) ** 2).sqrt()
    low = ramp(-0.003 - dz, 0.0015) * faint
    add(canvas, (0.5 + 0.4 * next(j)) * bump((bag - 1) / 0.10, dx / 0.016) * low)
    add(canvas, (0.25 + 0.2 * next(j)) * bump((bag - 0.85) / 0.28, dx / 0.016) * low)
    dx, dz = dx - 0.0135, dz + 0.001  # crow's feet leave the outer corner of the eye
    length, angle = (dx * dx + dz * dz).sqrt(), torch.atan2(dz, dx)
    for k in range(4):
        turn = (angle + 0.75 - 0.42 * k - 0.2 * next(j)) * length
        foot = bump(turn / 0.0010, (length - 0.009) / 0.006) * (dx > 0)
        add(canvas, (0.75 - 0.06 * k) * foot * faint)
    canvas, x, z, _, _, faint = window(-0.086, 0.008)
    fold = 0.0205 + 0.003 * next(j) - 0.34 * (0.010 + z).clamp(-0.04, 0)  # nose to mouth corner
    deep = 0.75 + 0.25 * next(j)
    add(canvas, deep * bump((x - fold) / 0.0023, (z + 0.026) / 0.0165) * faint)
    add(canvas, 0.5 * deep * bump((x - fold - 0.003) / 0.0055, (z + 0.025) / 0.0175) * faint)
    marionette = bump((x - 0.0230 + 0.10 * z) / 0.0018, (z + 0.058) / 0.010)
    add(canvas, (0.4 + 0.4 * next(j)) * marionette * faint)
    lip = at["lip"][rows_between(-0.086, 0.008)]  # upright lines round the lips
    add(canvas, 1.8 * lip * (1 - lip) * (torch.sin(x * 2100 + 6 * next(j)) > 0.2) * faint)
    canvas, x, z, _, _, _ = window(-0.118, -0.088)
    for k in range(2):  # rings of the neck
        add(canvas, 0.5 * bump((z + 0.101 + 0.008 * k - 0.05 * x) / 0.0014, x / 0.06))
    out.clamp_(0, 1)


def rows_between(low: float, high: float) -> tuple[slice, slice]:
    """Rows of the atlas between two heights, metres, and the columns of the head's front half."""
    top, bottom = (int(unroll(torch.tensor([0.0, -1.0, z]))[1]) for z in (high, low))
    edge = round((1 - FRONT) / 2 * ATLAS[1])
    return slice(max(top, 0), bottom + 1), slice(edge, ATLAS[1] - edge)


def bump(u: Tensor, v: Tensor) -> Tensor:
    """A soft spot, 1 where u = v = 0, 0.37 on the unit circle."""
    return torch.exp(-(u * u + v * v))


def ramp(value: Tensor, width: float) -> Tensor:
    """From 0 below zero to 1 above it, over about four widths."""
    # torch.sigmoid rounds the last few of each thread's share otherwise; exp does not.
    return 1 / (1 + torch.exp(value * (-1 / width)))
